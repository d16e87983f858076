package config

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/fault"
)

func TestResolve(t *testing.T) {
	t.Parallel()
	ref := func(name, key string) *SecretRef { return &SecretRef{Name: name, Key: key} }
	var asked []string
	get := func(store, name string) (map[string]string, error) {
		asked = append(asked, store+"/"+name)
		switch name {
		case "kafka":
			return map[string]string{"user": "u", "password": "hush"}, nil
		case "slow":
			return nil, fault.New(fault.Unavailable, "reach store: timed out")
		}
		return nil, fault.New(fault.NotFound, "find secret %q: it does not exist", name)
	}
	c := Component{Name: "bus", SecretStore: "local", Metadata: []Item{
		{Name: "plain", Value: "x"},
		{Name: "user", SecretRef: ref("kafka", "user")},
		{Name: "password", SecretRef: ref("kafka", "password")},
		{Name: "typo", SecretRef: ref("kafka", "pasword"), Place: Place{File: "a.yaml", Line: 3}},
		{Name: "gone", SecretRef: ref("missing", "missing")},
	}}
	got, problems := Resolve(c, get)
	want := []Item{
		{Name: "plain", Value: "x"},
		{Name: "user", Value: "u", Secret: true, SecretRef: ref("kafka", "user")},
		{Name: "password", Value: "hush", Secret: true, SecretRef: ref("kafka", "password")},
		c.Metadata[3], c.Metadata[4],
	}
	if diff := cmp.Diff(want, got.Metadata); diff != "" {
		t.Error(diff)
	}
	if c.Metadata[1].Secret {
		t.Error("the component given was changed")
	}
	texts := []string{
		`a.yaml:3: component bus: option "typo": secret "kafka" of store "local" has no key "pasword"; did you mean "password"?`,
		`component bus: option "gone": read secret "missing" of store "local": find secret "missing": it does not exist`,
	}
	if diff := cmp.Diff(strings.Join(texts, "\n"), problems.Error()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"local/kafka", "local/missing"}, asked); diff != "" {
		t.Error(diff)
	}
	if fault.KindOf(problems) != fault.Invalid {
		t.Error(fault.KindOf(problems))
	}

	c.Metadata = []Item{{Name: "user", SecretRef: ref("slow", "user")}}
	if _, problems = Resolve(c, get); fault.KindOf(problems) != fault.Unavailable {
		t.Errorf("a store that cannot be reached: %v, %s", problems, fault.KindOf(problems))
	}
	c.SecretStore = ""
	if _, problems = Resolve(c, get); len(problems) != 1 || !strings.Contains(problems[0].Text, "names no secret store") {
		t.Error(problems)
	}
}

func TestOpenOrder(t *testing.T) {
	t.Parallel()
	comp := func(name, typ, store string) Component {
		c := Component{Name: name, Type: typ, SecretStore: store}
		if store != "" {
			c.Metadata = []Item{{Name: "token", SecretRef: &SecretRef{Name: "a", Key: "a"}}}
		}
		return c
	}
	for name, tc := range map[string]struct {
		in       []Component
		order    string
		problems string
	}{
		"stores first": {
			[]Component{comp("bus", "pubsub.redis", "vault"), comp("vault", "secretstores.vault", "env"), comp("cron", "bindings.cron", ""), comp("env", "secretstores.local.env", "")},
			"env vault bus cron", "",
		},
		"own secrets": {
			[]Component{comp("vault", "secretstores.vault", "vault")},
			"vault", "secret store vault needs itself to open; give one of them its secrets by value or envRef",
		},
		"circle": {
			[]Component{comp("x", "secretstores.x", "a"), comp("a", "secretstores.x", "b"), comp("b", "secretstores.x", "a")},
			"b a x", "secret stores need each other to open: a -> b -> a; give one of them its secrets by value or envRef",
		},
		"no such store": {
			[]Component{comp("bus", "pubsub.redis", "valt"), comp("vault", "secretstores.vault", "")},
			"vault bus", `component bus: secret store "valt" is not configured; did you mean "vault"?`,
		},
		"not a store": {
			[]Component{comp("bus", "pubsub.redis", "bus")},
			"bus", `component bus: "bus" is a pubsub.redis, not a secret store`,
		},
		"store not used": {
			[]Component{{Name: "bus", Type: "pubsub.redis", SecretStore: "gone"}}, "bus", "",
		},
		"no store named": {
			[]Component{{Name: "bus", Type: "pubsub.redis", Metadata: []Item{{Name: "p", SecretRef: &SecretRef{Name: "a"}}}}},
			"bus", `component bus: option "p" is a secret, but the component names no secret store; add auth: {secretStore: NAME}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ordered, problems := OpenOrder(tc.in)
			var names []string
			for _, c := range ordered {
				names = append(names, c.Name)
			}
			if got := strings.Join(names, " "); got != tc.order {
				t.Errorf("order is %q, want %q", got, tc.order)
			}
			if diff := cmp.Diff(tc.problems, problems.Error()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestDiff(t *testing.T) {
	t.Parallel()
	at := Place{File: "a.yaml", Line: 5}
	old := &Set{
		Components: []Component{
			{Name: "same", Metadata: []Item{{Name: "a", Value: "1"}}},
			{Name: "gone"},
			{Name: "changed", Metadata: []Item{{Name: "a", Value: "1"}}},
		},
		Subscriptions: []Subscription{{Name: "s", Metadata: map[string]string{"a": "1"}}},
		Pipelines:     []Pipeline{{Name: "p", DeadLetter: &Endpoint{PubSub: "bus"}}, {Name: "q"}},
	}
	fresh := &Set{
		Components: []Component{
			{Name: "fresh"},
			{Name: "changed", Metadata: []Item{{Name: "a", Value: "2"}}},
			{Name: "same", Place: at, Scopes: []string{}, Metadata: []Item{{Name: "a", Value: "1", Place: at}}},
		},
		Subscriptions: []Subscription{{Name: "s", Metadata: map[string]string{"a": "2"}}},
		Pipelines:     []Pipeline{{Name: "q", DeadLetter: &Endpoint{PubSub: "bus"}}, {Name: "p", Place: at, DeadLetter: &Endpoint{PubSub: "bus", Place: at}}},
		Configuration: Configuration{Place: at},
	}
	d := Diff(old, fresh)
	names := func(cs []Component) (out string) {
		for _, c := range cs {
			out += c.Name + " "
		}
		return out
	}
	if names(d.Components.Added) != "fresh " || names(d.Components.Removed) != "gone " || names(d.Components.Changed) != "changed " {
		t.Errorf("%+v", d.Components)
	}
	if len(d.Subscriptions.Changed) != 1 || d.Subscriptions.Changed[0].Metadata["a"] != "2" {
		t.Errorf("%+v", d.Subscriptions)
	}
	if len(d.Pipelines.Changed) != 1 || d.Pipelines.Changed[0].Name != "q" || d.Configuration || d.Empty() {
		t.Errorf("%+v", d)
	}
	if d := Diff(old, old); !d.Empty() {
		t.Errorf("%+v", d)
	}
	if d := Diff(nil, old); len(d.Components.Added) != 3 || len(Diff(old, nil).Components.Removed) != 3 {
		t.Errorf("%+v", d)
	}
	if d := Diff(nil, &Set{Configuration: Configuration{Denied: []string{"x"}}}); !d.Configuration {
		t.Error("the configuration differs")
	}
}

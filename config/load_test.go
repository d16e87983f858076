package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/penstock-io/penstock/fault"
)

// env is an environment of the given pairs.
func env(pairs ...string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1], true
			}
		}
		return "", false
	}
}

// wanted compares a text with a file of testdata; PENSTOCK_UPDATE=1 writes it.
func wanted(t *testing.T, file, got string) {
	t.Helper()
	if os.Getenv("PENSTOCK_UPDATE") == "1" {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s: %s", file, diff)
	}
}

func TestBadFiles(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(files) < 35 {
		t.Fatal(len(files), err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".yaml")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			_, problems := Parse(filepath.Base(file), data, Options{AppID: "app1"})
			if len(problems) == 0 {
				t.Fatal("no problem found")
			}
			var b strings.Builder
			for _, p := range problems {
				word := "error: "
				if p.Lenient {
					word = "warning: "
				}
				b.WriteString(word + p.String() + "\n")
			}
			wanted(t, strings.TrimSuffix(file, ".yaml")+".want", b.String())
			if got := fault.KindOf(problems.Err()); got != fault.Invalid {
				t.Errorf("kind is %s", got)
			}
		})
	}
}

// anywhere leaves places out of a comparison.
var anywhere = cmp.Options{cmpopts.IgnoreTypes(Place{}, map[string]Place{}), cmpopts.EquateEmpty()}

// good reads a file of testdata that has nothing wrong.
func good(t *testing.T, name string, o Options) *Set {
	t.Helper()
	o.Resources = []string{"testdata/good/" + name}
	set, problems := Load(o)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	return set
}

func TestComponent(t *testing.T) {
	t.Parallel()
	set := good(t, "component.yaml", Options{
		AppID: "shop", Namespace: "shop", UUID: "0-1", Env: env("POD_NAME", "pod7", "BROKER", "b:9092"),
	})
	want := []Component{{
		Name: "orders", Type: "bindings.kafka", Version: "v1", IgnoreErrors: true, InitTimeout: 30 * time.Second,
		SecretStore: "local", Scopes: []string{"shop", "other"},
		Metadata: []Item{
			{Name: "plain", Value: "text"},
			{Name: "quoted", Value: "yes"},
			{Name: "truth", Value: "true"},
			{Name: "number", Value: "1000"},
			{Name: "octal", Value: "420"},
			{Name: "float", Value: "1.5"},
			{Name: "date", Value: "2026-01-02"},
			{Name: "version", Value: "2.0.0.0"},
			{Name: "list", Value: `["b",1,false]`},
			{Name: "mapping", Value: `{"a":"\u003c","z":1}`},
			{Name: "block", Value: "two\nlines\n"},
			{Name: "empty"},
			{Name: "nothing"},
			{Name: "templates", Value: "shop-shop-pod7-0-1-{other}", Namespaced: true},
			{Name: "env", Value: "b:9092", Secret: true},
			{Name: "secret", SecretRef: &SecretRef{Name: "kafka", Key: "password"}},
			{Name: "secretOneName", SecretRef: &SecretRef{Name: "kafka", Key: "kafka"}},
		},
	}}
	if diff := cmp.Diff(want, set.Components, anywhere); diff != "" {
		t.Error(diff)
	}
	c := set.Components[0]
	if got := c.TypePlace.String(); got != "testdata/good/component.yaml:8:9" {
		t.Error(got)
	}
	if got := c.Metadata[2].Place; got.Line != 18 || got.Column != 12 || got.Text != "    value: yes" {
		t.Errorf("%+v", got)
	}
}

func TestSubscriptions(t *testing.T) {
	t.Parallel()
	set := good(t, "subscriptions.yaml", Options{AppID: "shop"})
	want := []Subscription{
		{
			Name: "one", PubSub: "bus", Topic: "orders", Rules: []Rule{{Path: "/orders"}}, DeadLetterTopic: "dead",
			Bulk: Bulk{MaxMessages: 100, MaxAwait: time.Second}, Metadata: map[string]string{"rawPayload": "true"},
		},
		{
			Name: "two", PubSub: "bus", Topic: "orders",
			Rules: []Rule{{Match: `event.type == "a"`, Path: "/a"}, {Path: "/other"}},
			Bulk:  Bulk{Enabled: true, MaxMessages: 10, MaxAwait: time.Second},
		},
	}
	if diff := cmp.Diff(want, set.Subscriptions, anywhere); diff != "" {
		t.Error(diff)
	}
}

func TestPipelines(t *testing.T) {
	t.Parallel()
	set := good(t, "pipelines.yaml", Options{AppID: "shop"})
	want := []Pipeline{
		{
			Name: "github-to-warehouse", From: Endpoint{Binding: "github"}, OrderingKey: Expr{Text: "event.subject"}, Concurrency: 8,
			Steps: []Step{
				{Filter: Expr{Text: `event.type == "push" && event.data.ref == "refs/heads/main"`}},
				{JQ: Expr{Text: "{repo: .data.repository.full_name, head: .data.after}"}},
				{Set: map[string]Expr{"type": {Text: `"build.requested"`}, "subject": {Text: "event.data.repository.full_name"}}},
			},
			To: []Endpoint{
				{PubSub: "bus", Topic: "builds"},
				{Binding: "archive", Operation: "create", Metadata: map[string]string{"fileName": "{{ event.id }}.json"}},
				{Route: "/builds"},
			},
			Retry:   Retry{Policy: "exponential", Duration: 200 * time.Millisecond, MaxInterval: 10 * time.Second, MaxRetries: 8, Set: true},
			Timeout: 30 * time.Second, DeadLetter: &Endpoint{PubSub: "bus", Topic: "builds-failed"},
		},
		{
			Name: "short", From: Endpoint{PubSub: "bus", Topic: "orders", Metadata: map[string]string{"consumerID": "x"}},
			Concurrency: 1, To: []Endpoint{{Route: "/orders"}}, Retry: Retry{MaxRetries: 8, Set: true}, Timeout: time.Minute,
		},
		{
			Name: "keyed", From: Endpoint{PubSub: "bus", Topic: "orders"}, OrderingKey: Expr{Text: "event.subject"},
			Concurrency: 16, To: []Endpoint{{Binding: "archive"}}, Timeout: time.Minute,
		},
	}
	if diff := cmp.Diff(want, set.Pipelines, anywhere); diff != "" {
		t.Error(diff)
	}
	if got := set.Pipelines[0].Steps[0].Filter.Place.String(); got != "testdata/good/pipelines.yaml:9:15" {
		t.Error(got)
	}
}

// TestOddFile reads a byte order mark, carriage returns, directives, anchors,
// empty and foreign documents.
func TestOddFile(t *testing.T) {
	t.Parallel()
	set := good(t, "odd.yaml", Options{AppID: "shop"})
	want := []Component{
		{Name: "merged", Type: "state.redis", Version: "v1", Metadata: []Item{{Name: "a", Value: "1"}, {Name: "b", Value: "1"}}},
		{Name: "flow", Type: "state.redis", Version: "v1"},
	}
	if diff := cmp.Diff(want, set.Components, anywhere); diff != "" {
		t.Error(diff)
	}
	skipped := []Skipped{
		{Kind: "Deployment", Name: "foreign", Why: "apiVersion apps/v1 is not read here"},
		{Why: "the document has no kind"},
		{Kind: "MCPServer", Name: "later", Why: "this kind is not used by this version"},
		{Kind: "Configuration", Name: "here", Why: "a Configuration is only read from a configuration file"},
		{Kind: "Gadget", Why: "this kind is not known"},
	}
	if diff := cmp.Diff(skipped, set.Skipped, anywhere); diff != "" {
		t.Error(diff)
	}
}

// write makes files in a new folder.
func write(t *testing.T, files map[string]string) (folder string) {
	t.Helper()
	folder = t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return folder
}

func TestConfigurationFiles(t *testing.T) {
	t.Parallel()
	head := "apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: c}\nspec:\n"
	folder := write(t, map[string]string{
		"a.yaml": head + "  tracing: {samplingRate: \"1\"}\n  components: {deny: [bindings.exec, $MORE]}\n  secrets:\n    scopes: [{storeName: local, allowedSecrets: [a]}]\n",
		"b.yaml": head + "  metrics: {enabled: true}\n  features: []\n  secrets:\n    scopes: [{storeName: \"${STORE}\", defaultAccess: Deny}]\n---\napiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: c}\nspec: {}\n",
		"c.yaml": head + "  components: {deny: [x$NOT_THERE]}\n",
	})
	o := Options{Env: env("MORE", "a: b # no structure", "STORE", "vault")}
	o.Configs = []string{filepath.Join(folder, "a.yaml"), filepath.Join(folder, "b.yaml")}
	set, problems := Load(o)
	errs, warnings := problems.Split(false)
	if len(errs) != 0 || len(warnings) != 1 || warnings[0].Text != "spec.type is missing" {
		t.Error(problems)
	}
	want := Configuration{
		Tracing:      Tracing{Rate: new(1.0)},
		Metric:       Metric{Enabled: new(true)},
		Denied:       []string{"bindings.exec", "a: b # no structure"},
		SecretScopes: []SecretScope{{Store: "vault", DefaultAccess: "deny"}},
	}
	if diff := cmp.Diff(want, set.Configuration, anywhere); diff != "" {
		t.Error(diff)
	}
	skipped := []Skipped{
		{Kind: "Configuration", Name: "c", Why: "not used by this version: spec.features"},
		{Kind: "Component", Name: "c", Why: "only Configuration documents are read from a configuration file"},
	}
	if diff := cmp.Diff(skipped, set.Skipped, anywhere); diff != "" {
		t.Error(diff)
	}
	o.Configs = []string{filepath.Join(folder, "c.yaml")}
	set, problems = Load(o)
	if len(problems) != 1 || !problems[0].Lenient || problems[0].Text != "environment variable NOT_THERE is not set" {
		t.Error(problems)
	}
	if diff := cmp.Diff([]string{"x"}, set.Configuration.Denied); diff != "" {
		t.Error(diff)
	}
}

func TestScopesAndNamespaces(t *testing.T) {
	t.Parallel()
	one := func(name, meta, tail string) string {
		return "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: " + name + meta + "}\nspec: {type: state.redis}\n" + tail + "---\n"
	}
	text := one("everyone", "", "") + one("ours", "", "scopes: [me]\n") + one("ours", "", "scopes: [you]\n") +
		one("theirs", "", "scopes: [you]\n") + one("here", ", namespace: prod", "") + one("there", ", namespace: test", "")
	for name, tc := range map[string]struct {
		o    Options
		want string
	}{
		"ours":         {Options{AppID: "me", Namespace: "prod"}, "everyone ours here"},
		"no namespace": {Options{AppID: "me"}, "everyone ours here there"},
		"somebody":     {Options{AppID: "x"}, "everyone here there"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			set, problems := Parse("x.yaml", []byte(text), tc.o)
			var names []string
			for _, c := range set.Components {
				names = append(names, c.Name)
			}
			if got := strings.Join(names, " "); got != tc.want || len(problems) > 0 {
				t.Error(got, problems)
			}
		})
	}
}

func TestDaprFilesAreReadLeniently(t *testing.T) {
	t.Parallel()
	text := "kind: Component\nmetadata: {name: 5, colour: red}\nSpec:\n  Type: state.redis\n  metadata:\n  - {Name: a, Value: 1, SecretKeyRef: }\n  - {name: b, value: \"\", secretKeyRef: {name: s}}\n"
	set, problems := Parse("x.yaml", []byte(text), Options{})
	if errs, _ := problems.Split(false); len(errs) > 0 {
		t.Fatal(errs)
	}
	want := []Component{{
		Name: "5", Type: "state.redis", Version: "v1",
		Metadata: []Item{{Name: "a", Value: "1"}, {Name: "b", SecretRef: &SecretRef{Name: "s", Key: "s"}}},
	}}
	if diff := cmp.Diff(want, set.Components, anywhere); diff != "" {
		t.Error(diff)
	}
}

func TestEnvKeys(t *testing.T) {
	t.Parallel()
	text := "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: a}\nspec: {type: state.redis, metadata: [{name: a, envRef: A}, {name: b, envRef: B}]}\n"
	_, problems := Parse("x.yaml", []byte(text), Options{Env: env("DAPR_ENV_KEYS", "X B", "A", "1", "B", "2")})
	if len(problems) != 1 || problems[0].Text != "environment variable A is not in DAPR_ENV_KEYS" || problems[0].Lenient {
		t.Error(problems)
	}
}

func TestUUIDIsOnePerReading(t *testing.T) {
	t.Parallel()
	text := []byte("apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: a}\nspec: {type: x.y, metadata: [{name: a, value: \"{uuid}\"}, {name: b, value: \"{uuid}\"}]}\n")
	one, _ := Parse("x.yaml", text, Options{})
	two, _ := Parse("x.yaml", text, Options{})
	a, b, c := one.Components[0].Metadata[0].Value, one.Components[0].Metadata[1].Value, two.Components[0].Metadata[0].Value
	if a != b || a == c || len(a) != 36 || a[14] != '4' {
		t.Error(a, b, c)
	}
}

func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/good/*.yaml", "testdata/bad/*.yaml", "../test/check/testdata/*/resiliency*.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 1<<16 {
			return
		}
		set, problems := Parse("x.yaml", data, Options{AppID: "a", UUID: "u"})
		for _, p := range problems {
			if p.Text == "" || p.Place.Line < 1 || !strings.HasPrefix(p.String(), "x.yaml:") {
				t.Errorf("problem without text or place: %+v", p)
			}
		}
		for _, c := range set.Components {
			if !goodName(c.Name) || c.Type == "" {
				t.Errorf("component %+v", c)
			}
		}
		for _, p := range set.Pipelines {
			if len(p.To) == 0 || p.Concurrency < 1 || p.Timeout <= 0 {
				t.Errorf("pipeline %+v", p)
			}
		}
	})
}

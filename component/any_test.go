package component

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
)

type remote struct {
	got map[string]string
}

func (remote) Close(context.Context) error { return nil }

func (remote) Capabilities() []string { return []string{"ASKED"} }

type everyRemote struct {
	Route string `meta:"route" doc:"Where to."`
	Size  int    `meta:"size"  doc:"How many."`
}

func defineAny() Definition {
	about := About{Capabilities: []string{"ASSUMED"}}
	return DefineAny("kind.remote", about, OptionsOf(everyRemote{}), func(_ context.Context, _ Env, all map[string]string) (remote, error) {
		return remote{all}, nil
	})
}

func TestDefineAnyHandsEverythingOn(t *testing.T) {
	t.Parallel()
	d, err := defineAny().Open(t.Context(), Env{}, []config.Item{
		{Name: "Free", Value: "1"}, {Name: "Route", Value: "/x"}, {Name: "empty"}, {Name: "key", Value: "k", Secret: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"Free": "1", "Route": "/x", "empty": "", "key": "k"}, d.(remote).got); diff != "" {
		t.Error(diff)
	}
}

func TestDefineAnyChecks(t *testing.T) {
	t.Parallel()
	secret := &config.SecretRef{Name: "s", Key: "k"}
	for name, row := range map[string]struct {
		items       []config.Item
		check, open string
	}{
		"free":        {[]config.Item{{Name: "whatever", Value: "x"}}, "", ""},
		"twice":       {[]config.Item{{Name: "a", Value: "x"}, {Name: "a", Value: "y"}}, `option "a" is given twice`, `given twice`},
		"a common":    {[]config.Item{{Name: "size", Value: "x"}}, `option "size" is "x"`, `option "size"`},
		"not fetched": {[]config.Item{{Name: "key", SecretRef: secret}}, "", `option "key" has no value yet`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := defineAny()
			text := ""
			if ps := d.Check(row.items); len(ps) > 0 {
				text = ps.Error()
			}
			if (row.check == "") != (text == "") || !strings.Contains(text, row.check) {
				t.Errorf("check says %q, want %q", text, row.check)
			}
			_, err := d.Open(t.Context(), Env{}, row.items)
			if row.open == "" && err != nil || row.open != "" && (err == nil || fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), row.open)) {
				t.Errorf("open: %v, want %q", err, row.open)
			}
		})
	}
}

func TestCapabilitiesAreAsked(t *testing.T) {
	t.Parallel()
	i := NewInstance[remote](defineAny(), Env{Name: "r"}, nil, 0)
	if diff := cmp.Diff([]string{"ASSUMED"}, i.Capabilities()); diff != "" {
		t.Errorf("before it is open: %s", diff)
	}
	if err := i.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"ASKED"}, i.Capabilities()); diff != "" {
		t.Errorf("open: %s", diff)
	}
}

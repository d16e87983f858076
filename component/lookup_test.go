package component

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/fault"
)

func TestFind(t *testing.T) {
	t.Parallel()
	l := List{
		{Type: "bindings.cron", Versions: []string{"v1"}},
		{Type: "bindings.kafka", Versions: []string{"v2", "v1"}},
		{Type: "pubsub.kafka", Versions: []string{"v1"}, About: About{Also: []string{"pubsub.log"}}},
		{Type: "secretstores.local.env", Versions: []string{"v1"}},
	}
	for name, tc := range map[string]struct{ typ, version, want, err string }{
		"exact":           {"bindings.cron", "v1", "bindings.cron", ""},
		"case":            {"Bindings.Cron", "V1", "bindings.cron", ""},
		"other name":      {"pubsub.Log", "v1", "pubsub.kafka", ""},
		"no version":      {"bindings.kafka", "", "bindings.kafka", ""},
		"second version":  {"bindings.kafka", "v1", "bindings.kafka", ""},
		"unknown version": {"bindings.kafka", "v3", "", `component type "bindings.kafka" has no version "v3"; known: v2, v1`},
		"typo":            {"bindings.crom", "v1", "", `unknown component type "bindings.crom"; did you mean "bindings.cron"?`},
		"typo of kind":    {"binding.cron", "v1", "", `unknown component type "binding.cron"; did you mean "bindings.cron"?`},
		"two dots":        {"secretstores.local.evn", "v1", "", `unknown component type "secretstores.local.evn"; did you mean "secretstores.local.env"?`},
		"not the same":    {"bindings.mysql", "v1", "", `unknown component type "bindings.mysql"; see penstock describe for those that are known`},
		"empty":           {"", "", "", `unknown component type ""; see penstock describe for those that are known`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, err := l.Find(tc.typ, tc.version)
			got := ""
			if err != nil {
				got = err.Error()
			}
			if d.Type != tc.want || got != tc.err {
				t.Errorf("%q, %s", d.Type, got)
			}
			kind := fault.NotFound
			if name == "unknown version" {
				kind = fault.Invalid
			}
			if err != nil && fault.KindOf(err) != kind {
				t.Error(fault.KindOf(err))
			}
		})
	}
	want := []string{"bindings.cron/v1", "bindings.kafka/v1", "bindings.kafka/v2", "pubsub.kafka/v1", "secretstores.local.env/v1"}
	if diff := cmp.Diff(want, l.Names()); diff != "" {
		t.Error(diff)
	}
}

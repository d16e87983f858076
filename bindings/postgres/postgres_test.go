package postgres

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
)

func TestParams(t *testing.T) {
	t.Parallel()
	got, err := params(`[1, 9007199254740993, 1.5, "x", null, true]`)
	want := []any{int64(1), int64(9007199254740993), 1.5, "x", nil, true}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Errorf("%v %s", err, d)
	}
	for _, wrong := range []string{`{"a":1}`, `[1`, `[1] [2]`, `x`} {
		if _, err := params(wrong); fault.KindOf(err) != fault.Invalid || err == nil {
			t.Errorf("%s: %v", wrong, err)
		}
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	rows := []struct {
		name  string
		items []config.Item
		ok    bool
	}{
		{"nothing", nil, false},
		{"url", []config.Item{{Name: "url", Value: "postgres://u:p@h/d"}}, true},
		{"words", []config.Item{{Name: "connectionString", Value: "host=h user=u"}}, true},
		{"broken", []config.Item{{Name: "connectionString", Value: "postgres://h:x/"}}, false},
		{"port", []config.Item{{Name: "host", Value: "h"}, {Name: "port", Value: "99999"}}, false},
		{"mode", []config.Item{{Name: "host", Value: "h"}, {Name: "queryExecMode", Value: "fast"}}, false},
	}
	for _, r := range rows {
		if errs, _ := Component.Check(r.items).Split(false); (len(errs) == 0) != r.ok {
			t.Errorf("%s: %v", r.name, errs)
		}
	}
}

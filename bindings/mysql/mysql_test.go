package mysql

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
)

func TestParams(t *testing.T) {
	t.Parallel()
	got, err := params(`[1, 9007199254740993, 18446744073709551615, 1.5, "x", null, true]`)
	want := []any{int64(1), int64(9007199254740993), uint64(18446744073709551615), 1.5, "x", nil, true}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Errorf("%v %s", err, d)
	}
	for _, wrong := range []string{`{"a":1}`, `[1`, `[1] [2]`, `x`, `[[1]]`, `[{"a":1}]`} {
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
		{"url", []config.Item{{Name: "url", Value: "u:p@tcp(h:3306)/d"}, {Name: "maxOpenConns", Value: "5"}, {Name: "connMaxIdleTime", Value: "12s"}}, true},
		{"broken", []config.Item{{Name: "url", Value: "nothing"}}, false},
		{"timeout", []config.Item{{Name: "url", Value: "u@tcp(h)/d"}, {Name: "timeout", Value: "1ms"}}, false},
	}
	for _, r := range rows {
		if errs, _ := Component.Check(r.items).Split(false); (len(errs) == 0) != r.ok {
			t.Errorf("%s: %v", r.name, errs)
		}
	}
}

func TestBinaryColumns(t *testing.T) {
	t.Parallel()
	for kind, want := range map[string]bool{
		"BLOB": true, "LONGBLOB": true, "VARBINARY": true, "BINARY": true, "BIT": true, "GEOMETRY": true,
		"TEXT": false, "VARCHAR": false, "JSON": false, "DECIMAL": false, "DATETIME": false, "ENUM": false,
	} {
		if binary(kind) != want {
			t.Errorf("%s: %v", kind, !want)
		}
	}
}

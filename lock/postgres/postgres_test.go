package postgres

import (
	"strings"
	"testing"

	"github.com/penstock-io/penstock/config"
)

func TestOptions(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, value string
		ok          bool
	}{
		{"tableName", "locks", true},
		{"tableName", "app.locks", true},
		{"tableName", "locks; DROP TABLE x", false},
		{"tableName", "Locks", false},
		{"tableName", "a.b.c", false},
		{"tableName", strings.Repeat("a", 51), false},
		{"timeout", "10ms", false},
		{"port", "http", false},
	} {
		ps := Component.Check([]config.Item{{Name: "connectionString", Value: "postgres://h/db"}, {Name: row.name, Value: row.value}})
		if ok := len(ps) == 0; ok != row.ok || !ok && !strings.Contains(ps.Error(), row.name) {
			t.Errorf("%s %q: %v, want success %v", row.name, row.value, ps, row.ok)
		}
	}
	if ps := Component.Check(nil); len(ps) == 0 || !strings.Contains(ps.Error(), "connectionString") {
		t.Errorf("without options: %v", ps)
	}
}

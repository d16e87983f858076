package postgres

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
)

func TestOptions(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, value string
		ok          bool
	}{
		{"table", "configtable", true},
		{"table", "ConfigTable", true},
		{"table", "app.settings_2", true},
		{"table", "", false},
		{"table", "t; DROP TABLE x", false},
		{"table", `"quoted"`, false},
		{"table", "a.b.c", false},
		{"table", strings.Repeat("a", 64), false},
		{"notifyChannel", "with space", true},
		{"notifyChannel", strings.Repeat("c", 64), false},
		{"useAzureAD", "true", false},
		{"useAWSIAM", "true", false},
		{"timeout", "10ms", false},
	} {
		metadata := []config.Item{{Name: "connectionString", Value: "postgres://h/db"}, {Name: row.name, Value: row.value}}
		if row.name != "table" {
			metadata = append(metadata, config.Item{Name: "table", Value: "t"})
		}
		ps := Component.Check(metadata)
		if ok := len(ps) == 0; ok != row.ok || !ok && !strings.Contains(ps.Error(), row.name) {
			t.Errorf("%s %q: %v, want success %v", row.name, row.value, ps, row.ok)
		}
	}
}

func TestListenTo(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		option   string
		metadata map[string]string
		want     []string
	}{
		{"config", nil, []string{"config"}},
		{"config", map[string]string{"pgNotifyChannel": "other"}, []string{"other"}},
		{"", map[string]string{"PGNOTIFYCHANNEL": "other"}, []string{"other"}},
		{"Config", map[string]string{"pgNotifyChannel": "", "x": "y"}, []string{"Config", "config"}},
		{"", map[string]string{"channel": "other"}, nil},
		{"", map[string]string{"pgNotifyChannel": strings.Repeat("c", 64)}, nil},
		{"", map[string]string{"pgNotifyChannel": "a\x00"}, nil},
	} {
		s := &store{channel: row.option}
		got, err := s.listenTo(row.metadata)
		if diff := cmp.Diff(row.want, got); diff != "" || row.want == nil && fault.KindOf(err) != fault.Invalid {
			t.Errorf("%q with %v: %v (-want +got)\n%s", row.option, row.metadata, err, diff)
		}
	}
}

func TestKeyOf(t *testing.T) {
	t.Parallel()
	for payload, want := range map[string]string{
		`{"table":"t","action":"INSERT","data":{"key":"a","value":"1","version":"2","metadata":{}}}`: "a",
		`{"data":{"KEY":"B"}}`: "B",
		`{"data":{"key":""}}`:  "",
		`{"data":{"key":7}}`:   "-",
		`{"data":{}}`:          "-",
		`{"data":"a"}`:         "-",
		`{"key":"a"}`:          "-",
		`a`:                    "-",
		``:                     "-",
	} {
		if key, ok := keyOf(payload); ok != (want != "-") || ok && key != want {
			t.Errorf("%s: %q, %v", payload, key, ok)
		}
	}
}

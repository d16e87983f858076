package state

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/fault"
)

func raw(values ...string) (out []json.RawMessage) {
	for _, v := range values {
		out = append(out, json.RawMessage(v))
	}
	return out
}

func TestParseQuery(t *testing.T) {
	t.Parallel()
	eq := Filter{Op: "EQ", Path: "person.org", Values: raw(`"A"`)}
	for text, want := range map[string]Query{
		`{}`:                                   {},
		`{"filter": {}}`:                       {},
		`{"page": {"limit": 3, "token": "6"}}`: {Limit: 3, Token: "6"},
		`{"filter": {"EQ": {"person.org": "A"}}}`:                   {Filter: &eq},
		`{"filter": {"IN": {"n": [1, null, true, "x"]}}}`:           {Filter: &Filter{Op: "IN", Path: "n", Values: raw("1", "null", "true", `"x"`)}},
		`{"sort": [{"key": "a.b", "order": "DESC"}, {"key": "c"}]}`: {Sort: []Order{{Path: "a.b", Descending: true}, {Path: "c"}}},
		`{"filter": {"OR": [{"EQ": {"person.org": "A"}}, {"AND": [{"GT": {"n": 5}}]}]}}`: {Filter: &Filter{Op: "OR", Filters: []Filter{
			eq, {Op: "AND", Filters: []Filter{{Op: "GT", Path: "n", Values: raw("5")}}},
		}}},
	} {
		got, err := ParseQuery([]byte(text))
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%s: %v (-want +got)\n%s", text, err, diff)
		}
	}
}

func TestParseQueryRefuses(t *testing.T) {
	t.Parallel()
	deep := strings.Repeat(`{"AND": [`, 40) + `{"EQ": {"a": 1}}` + strings.Repeat(`]}`, 40)
	many := `{"IN": {"a": [1` + strings.Repeat(",1", 2000) + `]}}`
	for filter, want := range map[string]string{
		`{"EQ": {"a": 1}, "GT": {"a": 1}}`: "one operator", `{"LIKE": {"a": "x"}}`: "unknown operator", `{"eq": {"a": 1}}`: "unknown operator",
		`{"AND": []}`: "list of conditions", `{"AND": {"a": 1}}`: "list of conditions", `{"AND": [{}]}`: "one operator",
		`{"EQ": {}}`: "one path", `{"EQ": {"a": 1, "b": 2}}`: "one path", `{"EQ": 5}`: "one path", `{"EQ": {"": 5}}`: "empty path",
		`{"EQ": {"a": {"b": 1}}}`: "compares with", `{"IN": {"a": [[1]]}}`: "compares with", `{"IN": {"a": 1}}`: "list of values", `{"IN": {"a": []}}`: "list of values",
		deep: "too large", many: "too large", `[]`: "not the JSON", `5`: "not the JSON",
	} {
		_, err := ParseQuery(fmt.Appendf(nil, `{"filter": %s}`, filter))
		if fault.KindOf(err) != fault.Invalid || !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("%.60s: %v, want %q", filter, err, want)
		}
	}
	for _, text := range []string{``, `x`, `{"sort": [{"key": "a", "order": "up"}]}`, `{"sort": [{"order": "ASC"}]}`, `{"page": {"limit": -1}}`, `{"page": {"limit": "x"}}`} {
		if _, err := ParseQuery([]byte(text)); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func FuzzParseQuery(f *testing.F) {
	f.Add([]byte(`{"filter": {"OR": [{"EQ": {"person.org": "A"}}, {"IN": {"n": [1, 2]}}]}, "sort": [{"key": "a"}], "page": {"limit": 3, "token": "6"}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		q, err := ParseQuery(text)
		if err == nil && q.Limit < 0 {
			t.Errorf("%+v", q)
		}
	})
}

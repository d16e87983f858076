package config

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReadTexts(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		text string
		want map[string]string
		err  string
	}{
		"json":       {`{"/a": "/b", "/c/{id}": "/d"}`, map[string]string{"/a": "/b", "/c/{id}": "/d"}, ""},
		"yaml":       {"/a: /b\n/n: 7\n", map[string]string{"/a": "/b", "/n": "7"}, ""},
		"empty":      {"", map[string]string{}, ""},
		"comment":    {"# nothing\n", map[string]string{}, ""},
		"list":       {"[a, b]", nil, "want a mapping of names to texts, not a list"},
		"inner":      {"a: b\nc: {d: e}", nil, `line 2: "c" is a mapping, want a text`},
		"documents":  {"a: b\n---\nc: d\n", nil, "not several documents"},
		"twice":      {"a: b\na: c\n", nil, "line 2"},
		"no yaml":    {"{", nil, "line 1"},
		"no text":    {"\xff\xfe\x00", nil, ""},
		"very deep":  {strings.Repeat("[", 1000), nil, "line 1"},
		"very large": {strings.Repeat("a: b\n", 60_000), nil, "line"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := ReadTexts(row.text)
			if row.want == nil {
				if err == nil || !strings.Contains(err.Error(), row.err) {
					t.Errorf("%v, %v; want an error with %q", got, err, row.err)
				}
				return
			}
			if diff := cmp.Diff(row.want, got); diff != "" || err != nil {
				t.Errorf("%v\n%s", err, diff)
			}
		})
	}
}

package file

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
)

func TestParse(t *testing.T) {
	t.Parallel()
	type values = map[string]string
	rows := []struct {
		name, text, separator string
		multi                 bool
		want                  map[string]values
	}{
		{name: "flat", text: `{"a":"1","b":""}`, want: map[string]values{"a": {"a": "1"}, "b": {"b": ""}}},
		{name: "other types", text: `{"n":1.50,"t":true,"z":null,"big":12345678901234567890}`, want: map[string]values{"n": {"n": "1.50"}, "t": {"t": "true"}, "big": {"big": "12345678901234567890"}}},
		{name: "nested", text: `{"redis":{"password":"p","hosts":["x","y"]}}`, want: map[string]values{
			"redis:password": {"redis:password": "p"}, "redis:hosts:0": {"redis:hosts:0": "x"}, "redis:hosts:1": {"redis:hosts:1": "y"},
		}},
		{name: "separator", separator: "__", text: `{"a":{"b":"c"}}`, want: map[string]values{"a__b": {"a__b": "c"}}},
		{name: "multi", multi: true, text: `{"plain":"x","db":{"user":"u","more":{"deep":"d"},"list":["l"]},"none":{}}`, want: map[string]values{
			"plain": {"plain": "x"}, "db": {"user": "u", "more:deep": "d", "list:0": "l"}, "none": {},
		}},
		{name: "empty names", text: `{"":"x","a":{"":"y"}}`, want: map[string]values{"": {"": "x"}, "a:": {"a:": "y"}}},
		{name: "byte order mark", text: "\xef\xbb\xbf{\"a\":\"1\"}", want: map[string]values{"a": {"a": "1"}}},
		{name: "escapes", text: `{"a":"\u00e4\n"}`, want: map[string]values{"a": {"a": "ä\n"}}},
		{name: "empty", text: ` {} `, want: map[string]values{}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			sep := row.separator
			if sep == "" {
				sep = ":"
			}
			got, err := parse([]byte(row.text), sep, row.multi)
			if diff := cmp.Diff(row.want, got); err != nil || diff != "" {
				t.Fatalf("error %v, (-want +got)\n%s", err, diff)
			}
		})
	}
}

func TestParseErrors(t *testing.T) {
	t.Parallel()
	rows := []struct{ name, text, want string }{
		{"empty file", "", "1:1: the file ends too early"},
		{"list", "\n[1]", "2:1: the file must hold one JSON object, not a list"},
		{"string", `"x"`, "1:3: the file must hold one JSON object, not a string"},
		{"cut short", `{"a":"1"`, "the file ends too early"},
		{"bad comma", "{\n  \"a\": 1,\n}", "3:1: invalid character"},
		{"twice", "{\"a\":1,\n\"a\":2}", `2:3: the name "a" stands twice in one object`},
		{"twice by nesting", `{"a:b":1,"a":{"b":2}}`, `the name "a:b" stands twice`},
		{"more text", `{} {}`, "more text after the JSON object"},
		{"deep", strings.Repeat(`{"a":`, 100), "more than 64 levels"},
		{"bad word", "{\n\"a\": tru}", "2:6: invalid character '}'"},
		{"yaml", "a: b\n", "1:1: invalid character 'a'"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			got, err := parse([]byte(row.text), ":", false)
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Fatalf("parse = %v, %v; want an error with %q", got, err, row.want)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{`{"a":"1"}`, `{"a":{"b":[1,true,null,{"c":"d"}]}}`, `{`, `[]`, `{"a":1,"a":2}`, "\xff", ``} {
		f.Add([]byte(seed), true)
		f.Add([]byte(seed), false)
	}
	f.Fuzz(func(t *testing.T, data []byte, multi bool) {
		got, err := parse(data, ":", multi)
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Fatalf("error of several lines: %q", err)
			}
			return
		}
		if !json.Valid(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))) {
			t.Fatalf("took %q, which is no JSON: %v", data, got)
		}
	})
}

func write(t *testing.T, path, text string, at time.Time) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, at, at); err != nil {
		t.Fatal(err)
	}
}

func TestReadsAgain(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "secrets.json")
	noon := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	write(t, path, `{"a":"one"}`, noon)
	var log bytes.Buffer
	env := component.Env{Logger: slog.New(slog.NewTextHandler(&log, nil))}
	s, err := open(t.Context(), env, options{SecretsFile: path, NestedSeparator: ":"})
	if err != nil {
		t.Fatal(err)
	}
	expect := func(want string) {
		t.Helper()
		got, err := s.Get(t.Context(), "a", nil)
		if err != nil || got["a"] != want {
			t.Fatalf("Get = %v, %v; want %q", got, err, want)
		}
	}
	expect("one")
	write(t, path, `{"a":"two"}`, noon.Add(time.Second))
	expect("two")
	write(t, path, `{"a":"hidden-value`, noon.Add(2*time.Second))
	expect("two")
	expect("two")
	if n := strings.Count(log.String(), "cannot be read"); n != 1 || strings.Contains(log.String(), "hidden-value") {
		t.Fatalf("log has %d warnings, want one without a value:\n%s", n, log.String())
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	expect("two")
	expect("two")
	if n := strings.Count(log.String(), "cannot be read"); n != 2 {
		t.Fatalf("log has %d warnings, want one more for the missing file:\n%s", n, log.String())
	}
	write(t, path, `{"a":"three"}`, noon.Add(3*time.Second))
	expect("three")
}

func TestAnswersAreCopies(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "secrets.json")
	write(t, path, `{"a":"one"}`, time.Now())
	s, err := open(t.Context(), component.Env{Logger: slog.New(slog.DiscardHandler)}, options{SecretsFile: path, NestedSeparator: ":"})
	if err != nil {
		t.Fatal(err)
	}
	one, _ := s.Get(t.Context(), "a", nil)
	one["a"] = "changed"
	all, _ := s.Bulk(t.Context(), nil)
	all["a"]["a"] = "changed"
	again, err := s.Bulk(t.Context(), nil)
	if diff := cmp.Diff(map[string]map[string]string{"a": {"a": "one"}}, again); err != nil || diff != "" {
		t.Fatalf("error %v, (-want +got)\n%s", err, diff)
	}
	if _, err := s.Get(t.Context(), "b", nil); fault.KindOf(err) != fault.NotFound {
		t.Fatalf("missing secret: %v", err)
	}
}

func TestOpenErrors(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad.json")
	write(t, bad, "{\n\"a\" 1}", time.Now())
	big := filepath.Join(dir, "big.json")
	write(t, big, strings.Repeat(" ", maxSize+1), time.Now())
	rows := []struct {
		name, path, want string
		kind             fault.Kind
	}{
		{"missing", filepath.Join(dir, "none.json"), "open secrets file", fault.NotFound},
		{"folder", dir, "not a file", fault.Invalid},
		{"wrong JSON", bad, "bad.json:2:5: invalid character", fault.Invalid},
		{"too big", big, "more than 4194304 bytes", fault.Invalid},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			_, err := open(t.Context(), component.Env{}, options{SecretsFile: row.path, NestedSeparator: ":"})
			if err == nil || !strings.Contains(err.Error(), row.want) || fault.KindOf(err) != row.kind {
				t.Fatalf("open: %v (kind %v), want %q of kind %v", err, fault.KindOf(err), row.want, row.kind)
			}
		})
	}
	if err := (options{SecretsFile: "x"}).Check(); err == nil || !strings.Contains(err.Error(), "nestedSeparator") {
		t.Fatalf("Check without a separator: %v", err)
	}
}

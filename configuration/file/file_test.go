package file

import (
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/configuration"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/test/conform"
)

// settings is a file that a test changes.
type settings struct {
	path  string
	items map[string]map[string]string
}

func (s *settings) write(t *testing.T) {
	t.Helper()
	b, err := json.Marshal(s.items)
	if err == nil {
		err = os.WriteFile(s.path+".new", b, 0o600)
	}
	if err == nil {
		err = os.Rename(s.path+".new", s.path)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestConform(t *testing.T) { // not parallel: the suite counts goroutines
	var s *settings // of the case that runs
	conform.Configuration(t, Component, conform.ConfigurationSetup{
		Options: func(t *testing.T) map[string]string {
			s = &settings{path: filepath.Join(t.TempDir(), "settings.json"), items: map[string]map[string]string{}}
			s.write(t)
			return map[string]string{"path": s.path}
		},
		Set: func(t *testing.T, key, value, version string) {
			s.items[key] = map[string]string{"value": value, "version": version}
			s.write(t)
		},
		Delete: func(t *testing.T, key string) {
			delete(s.items, key)
			s.write(t)
		},
	})
}

func TestParse(t *testing.T) {
	t.Parallel()
	got, err := parse([]byte(`{"text":"a","whole":{"value":"b","version":"2","metadata":{"k":"v"}},"other":{"value":1},"list":[1, 2],"flag":true,"none":null}`))
	want := map[string]configuration.Item{
		"text": {Value: "a"}, "whole": {Value: "b", Version: "2", Metadata: map[string]string{"k": "v"}},
		"other": {Value: `{"value":1}`}, "list": {Value: "[1, 2]"}, "flag": {Value: "true"}, "none": {},
	}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got)\n%s", err, diff)
	}
}

func TestFilesThatCannotBeRead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	files := map[string]string{"list.json": "[]", "half.json": `{"a":`, "large.json": `{"a":"` + strings.Repeat("x", maxSize) + `"}`}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]fault.Kind{"list.json": fault.Invalid, "half.json": fault.Invalid, "large.json": fault.Invalid, "missing.json": fault.NotFound} {
		env := component.Env{Logger: slog.New(slog.DiscardHandler)}
		_, err := Component.Open(t.Context(), env, []config.Item{{Name: "path", Value: filepath.Join(dir, name)}})
		if err == nil || fault.KindOf(err) != want || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A change that cannot be read leaves what was there, and is logged once.
func TestABadChange(t *testing.T) {
	t.Parallel()
	s := &settings{path: filepath.Join(t.TempDir(), "settings.json"), items: map[string]map[string]string{"a": {"value": "1"}}}
	s.write(t)
	var log strings.Builder
	d, err := Component.Open(t.Context(), component.Env{Logger: slog.New(slog.NewTextHandler(&log, nil))}, []config.Item{{Name: "path", Value: s.path}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.path, []byte(`{"a":"half`), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		got, err := d.(configuration.Driver).Get(t.Context(), nil, nil)
		if err != nil || got["a"].Value != "1" {
			t.Errorf("got %v, %v", got, err)
		}
	}
	if n := strings.Count(log.String(), "cannot be read"); n != 1 {
		t.Errorf("logged %d times: %s", n, &log)
	}
}

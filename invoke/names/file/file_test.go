package file

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/invoke/names"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	// A second write within the clock's grain would not be seen.
	age := time.Now().Add(time.Duration(-len(text)) * time.Minute)
	if err := os.Chtimes(path, age, age); err != nil {
		t.Fatal(err)
	}
}

func resolver1(t *testing.T, path, namespace string, log *slog.Logger) names.Driver {
	t.Helper()
	d, err := Component.Open(t.Context(), component.Env{Namespace: namespace, Logger: log}, []config.Item{{Name: "path", Value: path}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close(context.WithoutCancel(t.Context())) })
	return d.(names.Driver)
}

func find(t *testing.T, d names.Driver, app names.App) string {
	t.Helper()
	list, err := d.Resolve(t.Context(), app)
	if err != nil {
		return fault.KindOf(err).String()
	}
	return strings.Join(list, " ")
}

func TestResolve(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "apps.yaml")
	write(t, path, "shop: 10.0.0.1:50002\nshop.prod: [a:1, 'b:2']\ntill:\n  - '[::1]:3'\n")
	var log strings.Builder
	d := resolver1(t, path, "prod", slog.New(slog.NewTextHandler(&log, nil)))
	for app, want := range map[names.App]string{
		{ID: "shop"}:                    "a:1 b:2",
		{ID: "shop", Namespace: "prod"}: "a:1 b:2",
		{ID: "shop", Namespace: "test"}: "10.0.0.1:50002",
		{ID: "till"}:                    "[::1]:3",
		{ID: "ghost"}:                   "not found",
	} {
		if got := find(t, d, app); got != want {
			t.Errorf("%+v: %s, want %s", app, got, want)
		}
	}
	// A change counts; one that cannot be read does not, and is told once.
	write(t, path, `{"till": "c:1"}`)
	if got := find(t, d, names.App{ID: "till"}) + ", " + find(t, d, names.App{ID: "shop"}); got != "c:1, not found" {
		t.Errorf("after a change: %s", got)
	}
	write(t, path, "till: nowhere")
	for range 3 {
		if got := find(t, d, names.App{ID: "till"}); got != "c:1" {
			t.Errorf("after a change for the worse: %s", got)
		}
	}
	if n := strings.Count(log.String(), "\n"); n != 1 || !strings.Contains(log.String(), "nowhere") {
		t.Errorf("logged %q", log.String())
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if got := find(t, d, names.App{ID: "till"}); got != "c:1" {
		t.Errorf("after the file went: %s", got)
	}
}

func TestWrongFiles(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"- a":                        "want a mapping",
		"shop: {a: b}":               "want a text or a list",
		"shop: [[a]]":                "shop is a list, want a text",
		"shop: 1\n---\nshop: 2\n":    "second document",
		"shop: nohost":               "is not host:port",
		"shop: :1":                   "has no host",
		"shop: a:0":                  "from 1 to 65535",
		"shop: a:http":               "from 1 to 65535",
		strings.Repeat("#\n", 3<<20): "more than",
	} {
		path := filepath.Join(t.TempDir(), "apps.yaml")
		write(t, path, text)
		_, err := Component.Open(t.Context(), component.Env{}, []config.Item{{Name: "path", Value: path}})
		if fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), want) {
			t.Errorf("%.30q: %v, want %q", text, err, want)
		}
	}
	_, err := Component.Open(t.Context(), component.Env{}, []config.Item{{Name: "path", Value: filepath.Join(t.TempDir(), "none")}})
	if fault.KindOf(err) != fault.NotFound {
		t.Errorf("no file: %v", err)
	}
}

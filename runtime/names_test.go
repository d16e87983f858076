package runtime_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/invoke/names"
	namesfile "github.com/penstock-io/penstock/invoke/names/file"
	namessqlite "github.com/penstock-io/penstock/invoke/names/sqlite"
	"github.com/penstock-io/penstock/runtime"
)

// resolving is a Configuration with this name resolution.
func resolving(kind, option, value string) string {
	return fmt.Sprintf("apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: c}\nspec:\n  nameResolution:\n    component: %s\n    configuration: {%s: %q}\n", kind, option, value)
}

// finder runs an instance with a configuration until the test ends, or the
// function it returns is called.
func finder(t *testing.T, id, configuration string) (*instance, *runtime.Runtime, func()) {
	t.Helper()
	in, o := prepare(t, nil, bus)
	in.write(t, "config.yaml", configuration)
	o.AppID, o.Configs = id, []string{filepath.Join(in.dir, "config.yaml")}
	o.Components = append(components(), namesfile.Component, namessqlite.Component)
	r, err := runtime.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 2)
	go func() { done <- r.Run(ctx) }()
	go func() { done <- r.BeFound(ctx, 50002) }()
	ended := false
	end := func() {
		if !ended {
			ended = true
			stop()
			for range 2 {
				if err := <-done; err != nil {
					t.Errorf("run ended with %v\n%s", err, in.log)
				}
			}
		}
	}
	t.Cleanup(end)
	return in, r, end
}

// finds waits until the instances of an app are found, or until there are none.
func finds(t *testing.T, r *runtime.Runtime, id string, want bool) {
	t.Helper()
	eventually(t, fmt.Sprintf("%s is found: %v", id, want), func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, done, err := r.Names().Pick(ctx, names.App{ID: id})
		if err == nil {
			done(nil)
		}
		return want && err == nil || !want && fault.KindOf(err) == fault.NotFound
	})
}

// Instances announce themselves, find each other, and are taken back at the end.
func TestInstancesFindEachOther(t *testing.T) {
	t.Parallel()
	configuration := resolving("sqlite", "connectionString", filepath.Join(t.TempDir(), "names.db"))
	_, shop, _ := finder(t, "shop", configuration)
	_, till, end := finder(t, "till", configuration)
	finds(t, shop, "till", true)
	finds(t, till, "shop", true)
	finds(t, till, "ghost", false)
	end()
	finds(t, shop, "till", false)
}

// A reload exchanges the resolver; one that cannot be used changes nothing.
func TestReloadExchangesTheResolver(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	in, r, _ := finder(t, "shop", resolving("sqlite", "connectionString", filepath.Join(folder, "names.db")))
	finds(t, r, "shop", true)
	in.write(t, "apps.txt", "till: 10.0.0.1:50002")
	in.write(t, "config.yaml", resolving("file", "path", in.dir+"/apps.txt"))
	finds(t, r, "till", true)
	finds(t, r, "shop", false)
	in.write(t, "config.yaml", resolving("file", "path", in.dir+"/none.txt"))
	in.logged(t, 1, "the one before stays")
	finds(t, r, "till", true)
	in.write(t, "config.yaml", resolving("file", "paht", in.dir+"/apps.txt"))
	in.logged(t, 1, `needs option`)
	finds(t, r, "till", true)
}

// A wrong name resolution ends the start; one that is not named is mdns, which a
// build may lack.
func TestNameResolutionAtStart(t *testing.T) {
	t.Parallel()
	in, o := prepare(t, nil, bus)
	in.write(t, "config.yaml", resolving("file", "path", in.dir+"/none.txt"))
	o.Configs = []string{filepath.Join(in.dir, "config.yaml")}
	o.Components = append(components(), namesfile.Component)
	r, err := runtime.New(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "none.txt") {
		t.Errorf("run: %v", err)
	}
	var list component.List = components()
	in, o = prepare(t, nil, bus)
	o.Components = list
	in.run(t, o)
	if text := in.log.String(); strings.Contains(text, "resolution") {
		t.Errorf("logged\n%s", text)
	}
}

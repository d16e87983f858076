package http_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/penstock-io/penstock/api"
	apihttp "github.com/penstock-io/penstock/api/http"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/configuration"
	"github.com/penstock-io/penstock/fault"
)

func (i *instance) ConfigurationStore(name string) (*configuration.Store, error) {
	if name != "settings" {
		return nil, fault.New(fault.NotFound, "configuration store %q is not loaded", name)
	}
	return i.settings, nil
}

func (i *instance) Logger() *slog.Logger { return slog.New(slog.DiscardHandler) }

// drawer is a configuration store in memory.
type drawer struct {
	mu      sync.Mutex
	items   map[string]configuration.Item
	watches map[*configuration.Watch]struct{}
}

func (d *drawer) Get(_ context.Context, keys []string, metadata map[string]string) (map[string]configuration.Item, error) {
	if metadata["stuck"] != "" {
		return nil, fault.New(fault.Unavailable, "drawer is stuck")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	out := map[string]configuration.Item{}
	for key, item := range d.items {
		if len(keys) == 0 || slices.Contains(keys, key) {
			out[key] = item
		}
	}
	return out, nil
}

func (d *drawer) Watch(ctx context.Context, w configuration.Watch) error {
	d.mu.Lock()
	d.watches[&w] = struct{}{}
	d.mu.Unlock()
	w.Up()
	<-ctx.Done()
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.watches, &w)
	return nil
}

func (d *drawer) Close(context.Context) error { return nil }

func (d *drawer) set(key string, item configuration.Item) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.items[key] = item
	for w := range d.watches {
		w.Changed(key)
	}
}

func openSettings(tb testing.TB, env component.Env) (*configuration.Store, *drawer) {
	tb.Helper()
	d := &drawer{items: map[string]configuration.Item{}, watches: map[*configuration.Watch]struct{}{}}
	s, err := configuration.New(configuration.Define("fake", component.About{}, func(context.Context, component.Env, noOptions) (configuration.Driver, error) {
		return d, nil
	}), env, config.Component{Name: env.Name})
	must(tb, err)
	run(tb, s.Instance())
	return s, d
}

// told is what the app was told.
type told struct{ store, key, body string }

func (i *instance) TellApp(_ context.Context, store, key string, body []byte) error {
	i.told <- told{store, key, string(body)}
	return nil
}

func (i *instance) Background(task func(context.Context)) error {
	if i.life == nil {
		return fault.New(fault.NotFound, "there is no app")
	}
	i.tasks.Go(func() { task(i.life) })
	return nil
}

func TestConfiguration(t *testing.T) {
	t.Parallel()
	i := start(t)
	i.drawer.set("a", configuration.Item{Value: "one", Version: "1", Metadata: map[string]string{"m": "x"}})
	i.drawer.set("b/c", configuration.Item{Value: "two"})
	h := i.handler(apihttp.Options{})
	for _, row := range []struct{ target, want string }{
		{"/v1.0/configuration/settings?key=a", `{"a":{"value":"one","version":"1","metadata":{"m":"x"}}}`},
		{"/v1.0-alpha1/configuration/settings?key=a&key=never", `{"a":{"value":"one","version":"1","metadata":{"m":"x"}}}`},
		{"/v1.0/configuration/settings?key=b%2Fc&metadata.x=y", `{"b/c":{"value":"two"}}`},
		{"/v1.0/configuration/settings", `{"a":{"value":"one","version":"1","metadata":{"m":"x"}},"b/c":{"value":"two"}}`},
		{"/v1.0/configuration/settings?key=never", `{}`},
	} {
		if w := ask(h, http.MethodGet, row.target, ""); w.Code != 200 || w.Body.String() != row.want {
			t.Errorf("%s: %d %s, want %s", row.target, w.Code, w.Body, row.want)
		}
	}
}

// An app is told of changes until it unsubscribes; asked twice it is told once.
func TestConfigurationSubscription(t *testing.T) {
	t.Parallel()
	i := start(t)
	var cancel context.CancelFunc
	i.life, cancel = context.WithCancel(context.Background())
	defer i.tasks.Wait()
	defer cancel()
	h := i.handler(apihttp.Options{})
	subscribe := func(query string) (id string) {
		t.Helper()
		w := ask(h, http.MethodGet, "/v1.0/configuration/settings/subscribe"+query, "")
		var out struct{ ID string }
		if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil || w.Code != 200 || out.ID == "" {
			t.Fatalf("subscribe: %d %s", w.Code, w.Body)
		}
		return out.ID
	}
	id := subscribe("?key=a&key=b")
	if again := subscribe("?key=b&key=a"); again != id {
		t.Errorf("the same subscription has the ids %s and %s", id, again)
	}
	if other := subscribe("?key=c"); other == id {
		t.Error("another subscription has the same id")
	}
	i.drawer.set("never", configuration.Item{Value: "x"})
	i.drawer.set("b", configuration.Item{Value: "new", Version: "2"})
	select {
	case got := <-i.told:
		if want := (told{"settings", "b", `{"id":"` + id + `","items":{"b":{"value":"new","version":"2"}}}`}); got != want {
			t.Errorf("told %v, want %v", got, want)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the app is not told")
	}
	for _, want := range []struct {
		status int
		body   string
	}{{200, `{"ok":true}`}, {500, `"message":"unsubscribe`}} {
		if w := ask(h, http.MethodGet, "/v1.0/configuration/settings/"+id+"/unsubscribe", ""); w.Code != want.status || !strings.Contains(w.Body.String(), want.body) {
			t.Errorf("unsubscribe: %d %s, want %d %s", w.Code, w.Body, want.status, want.body)
		}
	}
	i.drawer.set("a", configuration.Item{Value: "unheard"})
	i.drawer.set("c", configuration.Item{Value: "heard"})
	select {
	case got := <-i.told:
		if got.key != "c" {
			t.Errorf("told %v after the end of the subscription", got)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the other subscription is not told")
	}
}

func TestConfigurationErrors(t *testing.T) {
	t.Parallel()
	h, bare := start(t).handler(apihttp.Options{}), apihttp.New(api.New("shop", &instance{empty: true}), apihttp.Options{})
	const base = "/v1.0/configuration/"
	for name, row := range map[string]struct {
		h            http.Handler
		target       string
		status       int
		code, phrase string
	}{
		"no store at all":              {bare, base + "settings", 500, "ERR_CONFIGURATION_STORE_NOT_CONFIGURED", "no configuration store is loaded"},
		"no store at all, subscribe":   {bare, base + "settings/subscribe", 500, "ERR_CONFIGURATION_STORE_NOT_CONFIGURED", "no configuration store is loaded"},
		"no store at all, unsubscribe": {bare, base + "settings/x/unsubscribe", 500, "ERR_CONFIGURATION_STORE_NOT_CONFIGURED", "no configuration store is loaded"},
		"unknown store":                {h, base + "gone?key=a", 400, "ERR_CONFIGURATION_STORE_NOT_FOUND", "gone"},
		"unknown store, subscribe":     {h, base + "gone/subscribe", 400, "ERR_CONFIGURATION_STORE_NOT_FOUND", "gone"},
		"unknown store, unsubscribe":   {h, base + "gone/x/unsubscribe", 400, "ERR_CONFIGURATION_STORE_NOT_FOUND", "gone"},
		"empty key":                    {h, base + "settings?key=", 500, "ERR_CONFIGURATION_GET", "a key is empty"},
		"bad escape":                   {h, base + "settings?key=%zz", 400, "ERR_BAD_REQUEST", "escape"},
		"store fails":                  {h, base + "settings?metadata.stuck=1", 500, "ERR_CONFIGURATION_GET", "drawer is stuck"},
		"no app":                       {h, base + "settings/subscribe?key=a", 500, "ERR_APP_CHANNEL_NIL", "no app"},
	} {
		w := ask(row.h, http.MethodGet, row.target, "")
		if w.Code != row.status || !strings.Contains(w.Body.String(), `"errorCode":"`+row.code+`"`) || !strings.Contains(w.Body.String(), row.phrase) {
			t.Errorf("%s: %d %s; want %d %s, %q", name, w.Code, w.Body, row.status, row.code, row.phrase)
		}
	}
	if w := ask(h, http.MethodPost, base+"settings", ""); w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d, want 405", w.Code)
	}
}

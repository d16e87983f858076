package grpc_test

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"

	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	apigrpc "github.com/penstock-io/penstock/api/grpc"
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

func (i *instance) TellApp(context.Context, string, string, []byte) error { return nil }

func (i *instance) Background(func(context.Context)) error {
	return fault.New(fault.NotFound, "there is no app")
}

func TestConfiguration(t *testing.T) {
	t.Parallel()
	c, i := client(t)
	i.drawer.set("a", configuration.Item{Value: "one", Version: "1", Metadata: map[string]string{"m": "x"}})
	for _, get := range []func(context.Context, *rtv1.GetConfigurationRequest) (*rtv1.GetConfigurationResponse, error){
		func(ctx context.Context, in *rtv1.GetConfigurationRequest) (*rtv1.GetConfigurationResponse, error) {
			return c.GetConfiguration(ctx, in)
		},
		func(ctx context.Context, in *rtv1.GetConfigurationRequest) (*rtv1.GetConfigurationResponse, error) {
			return c.GetConfigurationAlpha1(ctx, in)
		},
	} {
		out, err := get(t.Context(), &rtv1.GetConfigurationRequest{StoreName: "settings", Keys: []string{"a", "never"}})
		it := out.GetItems()["a"]
		if err != nil || len(out.GetItems()) != 1 || it.GetValue() != "one" || it.GetVersion() != "1" || it.GetMetadata()["m"] != "x" {
			t.Errorf("get: %v, %v", out, err)
		}
	}
}

// The first message of a stream carries the id, the others the changes; it ends
// with an unsubscribe.
func TestConfigurationStream(t *testing.T) {
	t.Parallel()
	c, i := client(t)
	ss, err := c.SubscribeConfiguration(t.Context(), &rtv1.SubscribeConfigurationRequest{StoreName: "settings", Keys: []string{"a"}})
	must(t, err)
	first, err := ss.Recv()
	must(t, err)
	if first.GetId() == "" || len(first.GetItems()) != 0 {
		t.Fatalf("first message: %v", first)
	}
	i.drawer.set("b", configuration.Item{Value: "not asked for"})
	i.drawer.set("a", configuration.Item{Value: "new", Version: "2"})
	change, err := ss.Recv()
	must(t, err)
	if it := change.GetItems()["a"]; change.GetId() != first.GetId() || len(change.GetItems()) != 1 || it.GetValue() != "new" || it.GetVersion() != "2" {
		t.Errorf("change: %v", change)
	}
	for _, want := range []bool{true, false} {
		out, err := c.UnsubscribeConfiguration(t.Context(), &rtv1.UnsubscribeConfigurationRequest{StoreName: "settings", Id: first.GetId()})
		if err != nil || out.GetOk() != want || (out.GetMessage() == "") != want {
			t.Errorf("unsubscribe: %v, %v; want ok %v", out, err, want)
		}
	}
	if _, err := ss.Recv(); err == nil {
		t.Error("the stream goes on after the unsubscribe")
	}
}

func TestConfigurationErrors(t *testing.T) {
	t.Parallel()
	c, _ := client(t)
	bare := serve(t, &instance{empty: true}, apigrpc.Options{}).dial(t)
	for name, row := range map[string]struct {
		c      rtv1.DaprClient
		store  string
		keys   []string
		code   codes.Code
		phrase string
	}{
		"no store at all": {bare, "settings", nil, codes.FailedPrecondition, "no configuration store is loaded"},
		"unknown store":   {c, "gone", nil, codes.InvalidArgument, "gone"},
		"empty key":       {c, "settings", []string{""}, codes.Internal, "a key is empty"},
	} {
		_, err := row.c.GetConfiguration(t.Context(), &rtv1.GetConfigurationRequest{StoreName: row.store, Keys: row.keys})
		if status.Code(err) != row.code || !strings.Contains(status.Convert(err).Message(), row.phrase) {
			t.Errorf("get, %s: %v; want %v, %q", name, err, row.code, row.phrase)
		}
		ss, err := row.c.SubscribeConfigurationAlpha1(t.Context(), &rtv1.SubscribeConfigurationRequest{StoreName: row.store, Keys: row.keys})
		must(t, err)
		if _, err = ss.Recv(); err == nil || !strings.Contains(status.Convert(err).Message(), row.phrase) {
			t.Errorf("subscribe, %s: %v; want %q", name, err, row.phrase)
		}
	}
}

//go:build services

package etcd

import (
	"context"
	"fmt"
	"log/slog"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	client "github.com/penstock-io/penstock/client/etcd"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/configuration"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/test/conform"
	"github.com/penstock-io/penstock/test/fake"
	"github.com/penstock-io/penstock/test/services"
)

// writer changes the cluster as others do.
func writer(t *testing.T, addr string) *client.Client {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	c, err := client.Open(ctx, component.Env{}, client.Options{Endpoints: []string{addr}}, "a")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func put(t *testing.T, c *client.Client, key, value string) {
	t.Helper()
	if _, err := c.Put(t.Context(), key, value); err != nil {
		t.Fatal(err)
	}
}

// TestConformOnServer reaches the cluster through a proxy that can be cut.
func TestConformOnServer(t *testing.T) { // not parallel: the suite counts goroutines
	addr := services.Need(t, "etcd")
	w := writer(t, addr)
	proxy, err := fake.NewProxy(addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(proxy.Close)
	var path string // of the case that runs
	conform.Configuration(t, Component, conform.ConfigurationSetup{
		Options: func(t *testing.T) map[string]string {
			path = conform.Unique(t)
			return map[string]string{"endpoints": proxy.Addr(), "keyPrefixPath": path}
		},
		Wrong: map[string]map[string]string{
			"cert": {"tlsEnable": "true", "cert": "-----BEGIN X-----"},
		},
		Set: func(t *testing.T, key, value, _ string) { put(t, w, path+"/"+key, value) },
		Delete: func(t *testing.T, key string) {
			if _, err := w.Delete(t.Context(), path+"/"+key); err != nil {
				t.Fatal(err)
			}
		},
		Break: func(t *testing.T, meanwhile func()) {
			proxy.Set(fake.Network{Reset: true})
			meanwhile()
			proxy.Set(fake.Network{})
		},
		Counts: true,
	})
}

// opened opens the component on a server of its own.
func opened(t *testing.T, o options) *store {
	t.Helper()
	d, err := open(t.Context(), component.Env{Name: "settings", Logger: slog.New(slog.DiscardHandler)}, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return d.(*store)
}

// TestWholeCluster reads without a prefix, in pages, and refuses too many items
// and values that are no text.
func TestWholeCluster(t *testing.T) {
	server := services.Start(t, "etcd")
	w := writer(t, server.Addr)
	s := opened(t, options{Options: client.Options{Endpoints: []string{server.Addr}}})
	const count = 2*page + 1
	fill := func(from, to int) {
		t.Helper()
		for i := from; i < to; i += atOnce {
			var ops []clientv3.Op
			for j := i; j < min(to, i+atOnce); j++ {
				ops = append(ops, clientv3.OpPut(fmt.Sprintf("k%06d", j), "v"))
			}
			if _, err := w.Commit(t.Context(), nil, ops...); err != nil {
				t.Fatal(err)
			}
		}
	}
	fill(0, count)
	items, err := s.Get(t.Context(), nil, nil)
	if err != nil || len(items) != count || items["k002000"].Value != "v" || items["k002000"].Version == "" {
		t.Errorf("%d items, %v, want %d", len(items), err, count)
	}
	var keys []string
	for i := range 2*atOnce + 1 {
		keys = append(keys, fmt.Sprintf("k%06d", i))
	}
	if items, err := s.Get(t.Context(), keys, nil); err != nil || len(items) != len(keys) {
		t.Errorf("%d of %d items, %v", len(items), len(keys), err)
	}
	put(t, w, "bytes", "\xff")
	if _, err := s.Get(t.Context(), []string{"bytes"}, nil); fault.KindOf(err) != fault.Invalid {
		t.Errorf("a value that is no text: %v, want kind invalid", err)
	}
	fill(count, configuration.MaxItems)
	if _, err := s.Get(t.Context(), nil, nil); fault.KindOf(err) != fault.Exhausted {
		t.Errorf("one item too many: %v, want kind exhausted", err)
	}
}

// TestForgottenRevision cuts a watch off and compacts what it missed away: it
// must end with an error, not go on as if nothing had been.
func TestForgottenRevision(t *testing.T) {
	server := services.Start(t, "etcd")
	w := writer(t, server.Addr)
	proxy, err := fake.NewProxy(server.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(proxy.Close)
	s := opened(t, options{Options: client.Options{Endpoints: []string{proxy.Addr()}}})
	up, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- s.Watch(t.Context(), configuration.Watch{Up: func() { close(up) }, Changed: func(string) {}})
	}()
	<-up
	proxy.Set(fake.Network{Reset: true})
	for range 3 {
		put(t, w, "a", "missed")
	}
	res, err := w.Put(t.Context(), "a", "last")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Compact(t.Context(), res.Header.Revision); err != nil {
		t.Fatal(err)
	}
	proxy.Set(fake.Network{})
	if err := <-ended; err == nil {
		t.Error("the watch ended without an error")
	}
}

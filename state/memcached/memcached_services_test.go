//go:build services

package memcached

import (
	"log/slog"
	"syscall"
	"testing"
	"time"

	"github.com/bradfitz/gomemcache/memcache"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/state"
	"github.com/penstock-io/penstock/test/conform"
	"github.com/penstock-io/penstock/test/services"
)

func TestConform(t *testing.T) { // not parallel: the suite counts goroutines
	addr := services.Need(t, "memcached")
	conform.State(t, Component, conform.StateSetup{
		Options: func(*testing.T) map[string]string { return map[string]string{"hosts": addr} },
		Wrong: map[string]map[string]string{
			"hosts":              {"hosts": "localhost"},
			"timeout":            {"timeout": "0"},
			"maxIdleConnections": {"maxIdleConnections": "-1"},
		},
	})
}

func opened(t *testing.T, addr string) *store {
	t.Helper()
	d, err := Component.Open(t.Context(), component.Env{Name: "s", Logger: slog.New(slog.DiscardHandler)}, items("hosts", addr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.(*store).c.Close() })
	return d.(*store)
}

// TestLayout writes as Dapr does and reads with the component, and the other way
// round.
func TestLayout(t *testing.T) {
	addr, prefix := services.Need(t, "memcached"), conform.Unique(t)
	s, bare := opened(t, addr), memcache.New(addr)
	if err := bare.Set(&memcache.Item{Key: prefix + "||theirs", Value: []byte(`{"a":1}`)}); err != nil {
		t.Fatal(err)
	}
	got, err := s.Get(t.Context(), []string{prefix + "||theirs"}, state.Read{})
	if err != nil || string(got[0].Value) != `{"a":1}` {
		t.Errorf("read %+v, %v", got, err)
	}
	if err := s.Apply(t.Context(), []state.Change{{Key: prefix + "||ours", Value: []byte(`{"a":1}`)}}); err != nil {
		t.Fatal(err)
	}
	if it, err := bare.Get(prefix + "||ours"); err != nil || string(it.Value) != `{"a":1}` || it.Flags != 0 {
		t.Errorf("wrote %+v, %v", it, err)
	}
}

func TestTooLarge(t *testing.T) {
	s := opened(t, services.Need(t, "memcached"))
	err := s.Apply(t.Context(), []state.Change{{Key: conform.Unique(t), Value: make([]byte, 2<<20)}})
	if fault.KindOf(err) != fault.Invalid {
		t.Errorf("save of 2 MiB: %v, want kind invalid", err)
	}
}

func TestServerGoneAndBack(t *testing.T) {
	server := services.Start(t, "memcached")
	s := opened(t, server.Addr)
	save := []state.Change{{Key: "a", Value: []byte("1")}}
	if err := s.Apply(t.Context(), save); err != nil {
		t.Fatal(err)
	}
	if err := server.Stop(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := s.Apply(t.Context(), save); !fault.Retriable(err) {
		t.Errorf("save without a server: %v, want an error that is tried again", err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); s.Apply(t.Context(), save) != nil; {
		if time.Now().After(deadline) {
			t.Fatal("the server is back, and a save still fails")
		}
	}
	if items, err := s.Get(t.Context(), []string{"a"}, state.Read{}); err != nil || !items[0].Found {
		t.Errorf("read %+v, %v", items, err)
	}
}

//go:build services

package etcd

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/state"
	"github.com/penstock-io/penstock/test/conform"
	"github.com/penstock-io/penstock/test/services"
)

func TestConform(t *testing.T) { // not parallel: the suite counts goroutines
	addr := services.Need(t, "etcd")
	for _, version := range []string{"v1", "v2"} {
		t.Run(version, func(t *testing.T) {
			prefix := conform.Unique(t)
			conform.State(t, Component, conform.StateSetup{
				Options: func(*testing.T) map[string]string {
					return map[string]string{"endpoints": addr, "keyPrefixPath": prefix}
				},
				Wrong: map[string]map[string]string{
					"maxTxnOps": {"maxTxnOps": "0"},
					"cert":      {"tlsEnable": "true", "cert": "-----BEGIN X-----"},
				},
				Version: version,
			})
		})
	}
}

// opened opens the component on a server.
func opened(t *testing.T, version string, pairs ...string) *store {
	t.Helper()
	env := component.Env{Name: "s", Version: version, Logger: slog.New(slog.DiscardHandler)}
	d, err := Component.Open(t.Context(), env, items(pairs...))
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

// TestLayout writes as Dapr does and reads with the component, and the other way
// round.
func TestLayout(t *testing.T) {
	addr, prefix := services.Need(t, "etcd"), conform.Unique(t)
	ctx := t.Context()
	for version, stored := range map[string]string{"v1": `{"a":1}`, "v2": "\x0a\x07{\"a\":1}\x12\x06\x08\x80\xe2\xcf\xaa\x06\x1a\x00"} {
		s := opened(t, version, "endpoints", addr, "keyPrefixPath", prefix+version)
		if _, err := s.c.Put(ctx, prefix+version+"/app||theirs", stored); err != nil {
			t.Fatal(err)
		}
		got, err := s.Get(ctx, []string{"app||theirs"}, state.Read{})
		if err != nil || string(got[0].Value) != `{"a":1}` || !got[0].Expires.IsZero() {
			t.Errorf("%s: read %+v, %v", version, got, err)
		}
		if err := s.Apply(ctx, []state.Change{{Key: "app||ours", Value: []byte(`{"a":1}`)}}); err != nil {
			t.Fatal(err)
		}
		res, err := s.c.Get(ctx, prefix+version+"/app||ours")
		if err != nil || len(res.Kvs) != 1 || !strings.Contains(string(res.Kvs[0].Value), `{"a":1}`) {
			t.Errorf("%s: wrote %v, %v", version, res, err)
		}
	}
}

// TestRefusedSavesLeaveNoLease saves with a time to live what must not be saved.
func TestRefusedSavesLeaveNoLease(t *testing.T) {
	s := opened(t, "v1", "endpoints", services.Start(t, "etcd").Addr)
	ctx := t.Context()
	save := state.Change{Key: "a", Value: []byte("1"), TTL: time.Hour, FirstWrite: true}
	for range 3 {
		_ = s.Apply(ctx, []state.Change{save}) // the first succeeds
	}
	leases, err := s.c.Leases(ctx)
	if err != nil || len(leases.Leases) != 1 {
		t.Errorf("%d leases are left, want one (%v)", len(leases.Leases), err)
	}
}

func TestServerGoneAndBack(t *testing.T) {
	server := services.Start(t, "etcd")
	s := opened(t, "v1", "endpoints", server.Addr)
	ctx := t.Context()
	save := []state.Change{{Key: "a", Value: []byte("1")}}
	if err := s.Apply(ctx, save); err != nil {
		t.Fatal(err)
	}
	if err := server.Stop(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := s.Apply(ctx, save); !fault.Retriable(err) {
		t.Errorf("save without a server: %v, want an error that is tried again", err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); ; {
		items, err := s.Get(ctx, []string{"a"}, state.Read{})
		if err == nil && items[0].Found {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the server is back, and a read still fails: %v, %v", items, err)
		}
	}
}

func TestTooLarge(t *testing.T) {
	s := opened(t, "v1", "endpoints", services.Need(t, "etcd"), "keyPrefixPath", conform.Unique(t))
	for _, size := range []int{2 << 20, 5 << 20} {
		err := s.Apply(t.Context(), []state.Change{{Key: "a", Value: make([]byte, size)}})
		if be, ok := errors.AsType[*state.BatchError](err); !ok || fault.KindOf(be.Errs[0]) != fault.Invalid {
			t.Errorf("save of %d bytes: %v, want kind invalid", size, err)
		}
	}
	var many []state.Change
	for i := range 129 {
		many = append(many, state.Change{Key: string(rune('a' + i)), Value: []byte("1")})
	}
	if err := s.Transact(t.Context(), many); fault.KindOf(err) != fault.Invalid {
		t.Errorf("transaction of 129 changes: %v, want kind invalid", err)
	}
}

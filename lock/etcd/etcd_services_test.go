//go:build services

package etcd

import (
	"context"
	"log/slog"
	"testing"
	"time"

	client "github.com/penstock-io/penstock/client/etcd"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/lock"
	"github.com/penstock-io/penstock/test/conform"
	"github.com/penstock-io/penstock/test/services"
)

func TestConformOnServer(t *testing.T) { // not parallel: the suite counts goroutines
	addr := services.Need(t, "etcd")
	conform.Lock(t, Component, conform.LockSetup{
		Options: func(t *testing.T) map[string]string {
			return map[string]string{"endpoints": addr, "keyPrefixPath": conform.Unique(t)}
		},
		Wrong: map[string]map[string]string{
			"cert": {"tlsEnable": "true", "cert": "-----BEGIN X-----"},
		},
	})
}

// TestLeasesEndWithTheirLocks counts the leases of a cluster: one for each lock
// that is held, however often others tried and the owner renewed.
func TestLeasesEndWithTheirLocks(t *testing.T) {
	server := services.Start(t, "etcd")
	ctx := t.Context()
	env := component.Env{Name: "locks", Logger: slog.New(slog.DiscardHandler)}
	d, err := open(ctx, env, options{Options: client.Options{Endpoints: []string{server.Addr}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(context.WithoutCancel(ctx)); err != nil {
			t.Error(err)
		}
	})
	leases := func(want int) {
		t.Helper()
		res, err := d.(*store).c.Leases(ctx)
		if err != nil || len(res.Leases) != want {
			t.Errorf("the cluster has %d leases (%v), want %d", len(res.Leases), err, want)
		}
	}
	for _, owner := range []string{"ann", "bob", "bob"} {
		if g, err := d.TryLock(ctx, "lock||a", owner, time.Hour); err != nil || g.Held != (owner == "ann") {
			t.Fatalf("try lock for %s: %+v, %v", owner, g, err)
		}
	}
	leases(1)
	for range 3 {
		if st, err := d.Renew(ctx, "lock||a", "ann", time.Hour); err != nil || st != lock.Done {
			t.Fatalf("renew: %d, %v", st, err)
		}
		if st, err := d.Renew(ctx, "lock||a", "bob", time.Hour); err != nil || st != lock.Foreign {
			t.Fatalf("renew by somebody else: %d, %v", st, err)
		}
	}
	leases(1)
	if st, err := d.Unlock(ctx, "lock||a", "ann"); err != nil || st != lock.Done {
		t.Fatalf("unlock: %d, %v", st, err)
	}
	leases(0)
}

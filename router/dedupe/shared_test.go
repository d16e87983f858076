package dedupe_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/router"
	"github.com/penstock-io/penstock/router/dedupe"
	"github.com/penstock-io/penstock/state"
	"github.com/penstock-io/penstock/state/inmemory"
)

// kept opens a state store that replicas share.
func kept(t *testing.T) func() (*state.Store, error) {
	t.Helper()
	s, err := state.New(inmemory.Component, component.Env{AppID: "shop", Shared: &component.Shared{}}, config.Component{Name: "kept"})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Instance().Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Instance().Close(t.Context()) })
	return func() (*state.Store, error) { return s, nil }
}

func claimIs(t *testing.T, c router.Claims, key string, want router.ClaimState) {
	t.Helper()
	if got, err := c.Claim(t.Context(), key); err != nil || got != want {
		t.Errorf("claim %q: %v, %v, want %v", key, got, err, want)
	}
}

func TestReplicasShareAStore(t *testing.T) {
	t.Parallel()
	find := kept(t)
	a, b := dedupe.InStore(find, "r", time.Hour), dedupe.InStore(find, "r", time.Hour)
	claimIs(t, a, "1", router.Claimed)
	claimIs(t, a, "1", router.Held)
	claimIs(t, b, "1", router.Held)
	a.Release("1")
	claimIs(t, b, "1", router.Held)    // a may come back to it
	claimIs(t, a, "1", router.Claimed) // and does
	if err := a.Confirm(t.Context(), "1"); err != nil {
		t.Fatal(err)
	}
	claimIs(t, a, "1", router.Delivered)
	claimIs(t, b, "1", router.Delivered)
	claimIs(t, dedupe.InStore(find, "other", time.Hour), "1", router.Claimed)
}

// Of many replicas that get the same events at once, each event is delivered
// by one.
func TestReplicasRace(t *testing.T) {
	t.Parallel()
	find := kept(t)
	const events, replicas = 50, 6
	var claimed [events]atomic.Int32
	var wg sync.WaitGroup
	for range replicas {
		c := dedupe.InStore(find, "r", time.Hour)
		wg.Go(func() {
			for i := range events {
				st, err := c.Claim(t.Context(), fmt.Sprint(i))
				if err != nil {
					t.Error(err)
				}
				if st != router.Claimed {
					continue
				}
				claimed[i].Add(1)
				if err := c.Confirm(t.Context(), fmt.Sprint(i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for i := range claimed {
		if n := claimed[i].Load(); n != 1 {
			t.Errorf("event %d was claimed %d times", i, n)
		}
	}
}

func TestStoreThatIsNotThere(t *testing.T) {
	t.Parallel()
	c := dedupe.InStore(func() (*state.Store, error) { return nil, fault.New(fault.NotFound, "no such store") }, "r", 0)
	for range 2 { // the first leaves nothing held
		if st, err := c.Claim(t.Context(), "1"); st != router.Held || fault.KindOf(err) != fault.NotFound {
			t.Errorf("%v, %v", st, err)
		}
	}
	if err := c.Confirm(t.Context(), "1"); fault.KindOf(err) != fault.NotFound {
		t.Error(err)
	}
}

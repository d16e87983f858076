package runtime

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/router"
)

// waits is a source that knows what waits, or hangs when it is asked.
type waits struct {
	router.Source
	n     int64
	hangs bool
}

func (w waits) Backlog(ctx context.Context) (cloudevents.Backlog, bool, error) {
	if w.hangs {
		<-ctx.Done()
		return cloudevents.Backlog{}, false, ctx.Err()
	}
	return cloudevents.Backlog{Messages: w.n}, true, nil
}

// TestABrokerThatHangsHidesNoOther: what the others say is told, and asking ends.
func TestABrokerThatHangsHidesNoOther(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBacklogs()
		var names []string
		for _, r := range []router.Route{
			{Name: "a1", From: "pubsub:a/1", Source: waits{hangs: true}},
			{Name: "a2", From: "pubsub:a/2", Source: waits{n: 1}},
			{Name: "b1", From: "pubsub:b/1", Source: waits{n: 2}},
			{Name: "b2", From: "pubsub:b/2/3", Source: waits{n: 3}},
			{Name: "c", From: "binding:a", Source: &exclusive{Source: waits{n: 4}}},
			{Name: "d", From: "binding:d", Source: router.SourceFunc(nil)},
		} {
			b.note(&r)
			names = append(names, r.Name)
		}
		began := time.Now()
		b.ask(t.Context(), names)
		if took := time.Since(began); took != backlogLimit {
			t.Errorf("it took %s, want %s", took, backlogLimit)
		}
		got := map[string]int64{}
		for name, log := range b.look() {
			got[name] = log.Messages
		}
		delete(got, "a2") // it is asked before the one that hangs, or not at all
		if diff := cmp.Diff(map[string]int64{"b1": 2, "b2": 3, "c": 4}, got); diff != "" {
			t.Error(diff)
		}
	})
}

// TestWhoLooksOnceWaits for those that are asked, and no longer than a while.
func TestWhoLooksOnceWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		b, began := newBacklogs(), time.Now()
		if known := b.await(); known != nil || time.Since(began) != 0 {
			t.Errorf("without routes %v after %s", known, time.Since(began))
		}
		b.note(&router.Route{Name: "r", From: "pubsub:a/1", Source: waits{n: 1}})
		if known := b.await(); known != nil || time.Since(began) != backlogPatience {
			t.Errorf("nobody asks: %v after %s", known, time.Since(began))
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			b.run(ctx, func() []string { return []string{"r"} })
		}()
		if known := b.await(); known["r"].Messages != 1 {
			t.Errorf("got %v", known)
		}
		stop()
		<-done
	})
}

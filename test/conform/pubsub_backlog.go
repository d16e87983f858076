package conform

import (
	"context"
	"testing"
	"time"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/pubsub"
)

func pubSubBacklog() []pubSubCase {
	return []pubSubCase{
		{name: "what waits is counted", can: func(s *suite) bool { return s.backlogged }, run: (*suite).backlog},
	}
}

// tellsBacklog looks through what keeps drivers apart, which can do everything.
func tellsBacklog(d pubsub.Driver) bool {
	switch a := d.(type) {
	case apart:
		return tellsBacklog(a.Driver)
	case apartGroups:
		return tellsBacklog(a.Driver)
	}
	_, ok := d.(pubsub.Backlogged)
	return ok
}

var errNoBacklog = fault.New(fault.NotFound, "the broker does not know what waits")

// backlog follows three messages from their publishing to their acknowledgement.
func (s *suite) backlog(t *testing.T) {
	d, done := s.driver(t)
	defer done()
	sub := pubsub.Subscription{Topic: "t", Group: "group"}
	if b, err := d.(pubsub.Backlogged).Backlog(t.Context(), sub); err != nil || b != (cloudevents.Backlog{}) {
		t.Errorf("without a group %+v, %v", b, err)
	}
	if err := d.(pubsub.Preparer).Prepare(t.Context(), sub); err != nil {
		t.Fatal(err)
	}
	s.wait(t, d, sub, 0)
	began := time.Now().Add(-time.Second) // the broker's clock may be another
	publish(t, d, "t", text("a", "one"), text("b", "two"), text("c", "three"))
	b := s.wait(t, d, sub, 3)
	if !b.Oldest.IsZero() && (b.Oldest.Before(began) || b.Oldest.After(time.Now().Add(time.Second))) {
		t.Errorf("the oldest is of %s, published after %s", b.Oldest, began)
	}
	m := s.subscribe(t, d, sub)
	defer m.stop(t)
	var held []*cloudevents.Delivery
	for range 3 {
		held = append(held, m.next(t))
	}
	s.wait(t, d, sub, 3) // what is held waits
	held[0].Settle(cloudevents.Acked())
	held[1].Settle(cloudevents.Acked())
	held[2].Settle(cloudevents.Acked())
	if b := s.wait(t, d, sub, 0); !b.Oldest.IsZero() {
		t.Errorf("the oldest of none is of %s", b.Oldest)
	}
}

// wait asks until so many messages wait.
func (s *suite) wait(t *testing.T, d pubsub.Driver, sub pubsub.Subscription, want int64) cloudevents.Backlog {
	t.Helper()
	return awaitBacklog(t, s.Patience, want, func(ctx context.Context) (cloudevents.Backlog, error) {
		return d.(pubsub.Backlogged).Backlog(ctx, sub)
	})
}

func awaitBacklog(t *testing.T, patience time.Duration, want int64, ask func(context.Context) (cloudevents.Backlog, error)) cloudevents.Backlog {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for last := time.After(patience); ; {
		b, err := ask(t.Context())
		if err == nil && b.Messages == want {
			return b
		}
		select {
		case <-tick.C:
		case <-last:
			t.Fatalf("%+v, %v; want %d messages", b, err, want)
		}
	}
}

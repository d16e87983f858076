package conform

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/pubsub"
)

// Prepared checks a driver that can make groups ahead: a second group misses
// nothing that was published between Prepare and its first Subscribe.
func Prepared(t *testing.T, d pubsub.Driver) {
	t.Helper()
	p, ok := d.(pubsub.Preparer)
	if !ok {
		t.Fatalf("%T cannot prepare a group", d)
	}
	for _, group := range []string{"one", "two"} {
		if err := p.Prepare(t.Context(), pubsub.Subscription{Topic: "t", Group: group}); err != nil {
			t.Fatal(err)
		}
		if err := d.Publish(t.Context(), "t", []pubsub.Message{{Data: []byte(group)}}); err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]int64{"one": 2, "two": 1}
	for group, n := range want {
		ctx, stop := context.WithTimeout(t.Context(), time.Minute)
		var got atomic.Int64 // a driver may emit from several goroutines
		err := d.Subscribe(ctx, pubsub.Subscription{Topic: "t", Group: group}, func(_ context.Context, m *cloudevents.Delivery) error {
			m.Settle(cloudevents.Acked())
			if got.Add(1) == n {
				stop()
			}
			return nil
		})
		stop()
		if err != nil || got.Load() != n {
			t.Errorf("group %s got %d messages, want %d (%v)", group, got.Load(), n, err)
		}
	}
}

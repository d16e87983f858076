package jetstream

import (
	"testing"
	"time"

	js "github.com/nats-io/nats.go/jetstream"

	"github.com/penstock-io/penstock/pubsub"
	"github.com/penstock-io/penstock/test/fake/natsserver"
)

// TestBacklog: what waits for a group is counted, whether or not anybody reads.
func TestBacklog(t *testing.T) {
	t.Parallel()
	s := natsserver.Start(t, natsserver.Options{})
	if _, err := raw(t, s.URL()).CreateStream(t.Context(), js.StreamConfig{Name: "all", Subjects: []string{"orders"}}); err != nil {
		t.Fatal(err)
	}
	d := opened(t, s.URL())
	defer closed(t, d)
	of := pubsub.Subscription{Topic: "orders", Group: "g"}
	if b, err := d.Backlog(t.Context(), of); err != nil || b.Messages != 0 {
		t.Errorf("without a group %+v, %v", b, err)
	}
	if err := d.Prepare(t.Context(), of); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"1", "2", "3"} {
		publishUntil(t, d, "orders", event(id, "x"))
	}
	// The server confirms a message before it counts it for each group.
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(20 * time.Second); ; <-tick.C {
		b, err := d.Backlog(t.Context(), of)
		if err == nil && b.Messages == 3 {
			return
		}
		if err != nil || b.Messages > 3 || time.Now().After(end) {
			t.Fatalf("three messages are %+v, %v", b, err)
		}
	}
}

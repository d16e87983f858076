package nats

import (
	"testing"
	"time"

	"github.com/penstock-io/penstock/bindings"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/test/fake/natsserver"
)

// TestHeldAndLeftLongerThanAckWait has an app that takes its time, and what was
// left waits for the next Read under the same id.
func TestHeldAndLeftLongerThanAckWait(t *testing.T) {
	url := natsserver.Start(t, natsserver.Options{}).URL()
	d := opened(t, url, nil, "jetStream", "true", "subject", "orders", "publishSubject", "orders", "ackWait", "200ms")
	create := func(text string) {
		t.Helper()
		m := map[string]string{"messageId": text, "partitionKey": "k"}
		if _, err := d.(bindings.Invoker).Invoke(t.Context(), &bindings.Request{Operation: "create", Data: []byte(text), Metadata: m}); err != nil {
			t.Fatal(err)
		}
	}
	create("held")
	create("left")
	create("left") // the server knows it by its id
	got, stop := reading(t, d)
	held, left := next(t, got), next(t, got)
	if held.Key != "k" || held.Metadata["subject"] != "orders" || len(held.Metadata) != 1 {
		t.Errorf("received key %q and %v", held.Key, held.Metadata)
	}
	left.Settle(cloudevents.Left("paused"))
	select {
	case again := <-got:
		t.Fatalf("%q came again while it was held or left", again.Body)
	case <-time.After(time.Second):
	}
	stop()
	held.Settle(cloudevents.Acked())
	got, _ = reading(t, d)
	x := next(t, got)
	if string(x.Body) != "left" || x.Event.ID() != left.Event.ID() || x.Attempt != 1 {
		t.Errorf("received %q as %s, attempt %d; want what was left, which is no attempt", x.Body, x.Event.ID(), x.Attempt)
	}
	x.Settle(cloudevents.Acked())
	select {
	case again := <-got:
		t.Errorf("%q came again", again.Body)
	case <-time.After(500 * time.Millisecond):
	}
}

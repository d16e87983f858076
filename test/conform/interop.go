package conform

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/pubsub"
)

// Layout is a message as it is on a server: test/interop has taken down what
// Dapr's component and Penstock's have left on real ones.
type Layout struct {
	Writer string
	Fields map[string]string // all but the body; their names are the server's
	Body   string
}

// InteropTopic is the topic of the messages that were taken down.
const InteropTopic = "orders"

// InteropSetup says how a pub/sub component's server is seen from outside.
type InteropSetup struct {
	Driver pubsub.Driver
	// Write puts a message on the server, as it was taken down.
	Write func(t *testing.T, l Layout)
	// Look begins to look at the topic; what it returns waits for one message.
	Look func(t *testing.T) func() Layout
}

// Interop holds a component against what was taken down of a server: it reads
// what Dapr's component wrote, and writes what Dapr's component has read.
func Interop(t *testing.T, server string, setup InteropSetup) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	dapr, ours := captured(t, server+"-dapr"), captured(t, server+"-penstock")
	sub := pubsub.Subscription{Topic: InteropTopic, Group: "interop"}
	if p, ok := setup.Driver.(pubsub.Preparer); ok {
		if err := p.Prepare(ctx, sub); err != nil {
			t.Fatal(err)
		}
	}
	next := setup.Look(t)
	err := setup.Driver.Publish(ctx, InteropTopic, []pubsub.Message{{
		Data: []byte(ours.Body), ContentType: cloudevents.ContentType,
		Key: "customer-7", Metadata: map[string]string{"partitionKey": "customer-7"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	got := next()
	got.Writer = ours.Writer
	if diff := cmp.Diff(ours, got); diff != "" {
		t.Errorf("what is written differs from what Dapr's component has read (-taken down +now)\n%s", diff)
	}
	setup.Write(t, dapr)
	var bodies []string
	err = setup.Driver.Subscribe(ctx, sub, func(_ context.Context, d *cloudevents.Delivery) error {
		d.Settle(cloudevents.Acked())
		if bodies = append(bodies, string(d.Body)); len(bodies) == 2 {
			cancel()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{ours.Body, dapr.Body}, bodies); diff != "" {
		t.Fatalf("read (-want +got)\n%s", diff)
	}
	if e, err := cloudevents.Scan([]byte(bodies[1])); err != nil || e.ID() != "event-1" || e.Type() != "com.example.order" {
		t.Errorf("what Dapr wrote is no event: %v", err)
	}
}

// captured reads a file of test/interop, from the folder of a component.
func captured(t *testing.T, name string) (l Layout) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "test", "interop", "testdata", name+".json"))
	if err == nil {
		err = json.Unmarshal(text, &l)
	}
	if err != nil {
		t.Fatal(err)
	}
	return l
}

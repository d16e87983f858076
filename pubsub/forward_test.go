package pubsub_test

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/pubsub"
)

// TestForwardedReadsWhateverTheScopes has a topic of the namespace read that the
// app itself may not.
func TestForwardedReadsWhateverTheScopes(t *testing.T) {
	t.Parallel()
	s := &shelf{}
	b := openIn(t, "prod", s, config.Item{Name: "consumerID", Value: "g", Namespaced: true}, config.Item{Name: "allowedTopics", Value: "orders"})
	if err := b.Forward(t.Context(), "graves", []byte("one"), map[string]string{"k": "v"}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Source(pubsub.Subscription{Topic: "graves"}); fault.KindOf(err) != fault.Denied {
		t.Errorf("source: %v", err)
	}
	var got *cloudevents.Delivery
	err := b.Forwarded(pubsub.Subscription{Topic: "graves"}).Run(t.Context(), func(_ context.Context, d *cloudevents.Delivery) error {
		got = d
		return errEnough
	})
	if !errors.Is(err, errEnough) {
		t.Fatal(err)
	}
	if string(got.Body) != "one" || got.Metadata["k"] != "v" || got.Origin != "bus/graves" {
		t.Errorf("got %+v", got)
	}
}

func TestRepublishKeepsTheBytesAndTheScopes(t *testing.T) {
	t.Parallel()
	s := &shelf{}
	b := open(t, s, config.Item{Name: "protectedTopics", Value: "secret"})
	metadata := map[string]string{"k": "v", "partitionKey": "p"}
	if err := b.Republish(t.Context(), "orders", []byte("{ }"), metadata); err != nil {
		t.Fatal(err)
	}
	m := s.topics["orders"]
	if len(m) != 1 || string(m[0].Data) != "{ }" || !cmp.Equal(m[0].Metadata, metadata) || m[0].Key != "p" {
		t.Errorf("published %+v", m)
	}
	for topic, want := range map[string]fault.Kind{"secret": fault.Denied, "": fault.NotFound} {
		if err := b.Republish(t.Context(), topic, nil, nil); fault.KindOf(err) != want {
			t.Errorf("to %q: %v", topic, err)
		}
		if err := b.MayPublish(topic); fault.KindOf(err) != want {
			t.Errorf("may publish to %q: %v", topic, err)
		}
	}
	if err := b.MayPublish("orders"); err != nil {
		t.Error(err)
	}
}

func TestEventOf(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, body string
		metadata   map[string]string
		want       string // id, source, topic, data
	}{
		{"structured", `{"specversion":"1.0","id":"1","source":"s","type":"t","topic":"orders","data":[1]}`, nil, "1 s orders [1]"},
		{"binary", `[2]`, map[string]string{"content-type": "application/json", "ce_specversion": "1.0", "ce_id": "2", "ce_source": "s", "ce_type": "t"}, "2 s graves [2]"},
		{"none", `[3]`, nil, ""},
	}
	for _, tt := range tests {
		e, err := pubsub.EventOf("bus", "graves", []byte(tt.body), tt.metadata)
		got := ""
		if err == nil {
			topic, _ := e.Attr("topic")
			got = e.ID() + " " + e.Source() + " " + topic + " " + string(e.Data())
		} else if fault.KindOf(err) != fault.Invalid {
			t.Errorf("%s: %v", tt.name, err)
		}
		if got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

// TestDecodeOfAReplay is for an event that comes back without its broker: only
// its origin says which topic of a wildcard it was published to.
func TestDecodeOfAReplay(t *testing.T) {
	t.Parallel()
	b := open(t, &shelf{})
	src, err := b.Source(pubsub.Subscription{Topic: "orders*", Metadata: map[string]string{"rawPayload": "true"}})
	if err != nil {
		t.Fatal(err)
	}
	for origin, want := range map[string]string{"bus/orders-a/b": "orders-a/b", "": "orders*", "coach/orders": "orders*", "busy/x": "orders*"} {
		d := &cloudevents.Delivery{Body: []byte("x"), Origin: origin}
		err := src.Decode(d)
		if err != nil {
			t.Fatalf("%q: %v", origin, err)
		}
		if topic, _ := d.Event.Attr("topic"); topic != want {
			t.Errorf("origin %q: topic %q, want %q", origin, topic, want)
		}
	}
}

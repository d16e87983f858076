package pubsub_test

import (
	"context"
	"errors"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/pubsub"
)

// drawer is a Delayer that keeps what it gets, or fails.
type drawer struct {
	fail error

	mu     sync.Mutex
	topics []string
	kept   []pubsub.Message
}

func (d *drawer) Delay(_ context.Context, bus, topic string, batch []pubsub.Message) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fail != nil {
		return d.fail
	}
	d.topics, d.kept = append(d.topics, bus+"/"+topic), append(d.kept, batch...)
	return nil
}

func TestDelayIsLeftToWhoCan(t *testing.T) {
	t.Parallel()
	rows := []struct {
		name     string
		features pubsub.Features
		metadata map[string]string
		kept     bool // by the delayer
	}{
		{"a broker that can", pubsub.Features{Delay: true}, map[string]string{"delay": "1m"}, false},
		{"a broker that cannot", pubsub.Features{}, map[string]string{"DELAY": "60"}, true},
		{"no time at all", pubsub.Features{}, map[string]string{"delay": "0s"}, false},
		{"a time to come", pubsub.Features{}, map[string]string{"deliverAt": time.Now().Add(time.Hour).Format(time.RFC3339)}, true},
		{"a time that is past", pubsub.Features{}, map[string]string{"deliverAt": "2001-02-03T04:05:06+02:00"}, false},
		{"no delay", pubsub.Features{}, map[string]string{"partitionKey": "k"}, false},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s, d := &shelf{features: row.features}, &drawer{}
			b := open(t, s)
			b.DelayWith(d)
			if err := b.Publish(t.Context(), &pubsub.PublishRequest{Topic: "t", Data: []byte("x"), Metadata: row.metadata}); err != nil {
				t.Fatal(err)
			}
			if row.kept != (len(d.kept) == 1) || row.kept != (len(s.topics["t"]) == 0) {
				t.Errorf("the delayer has %d messages, the broker %d", len(d.kept), len(s.topics["t"]))
			}
			if !row.kept && !row.features.Delay && !s.topics["t"][0].DeliverAt.IsZero() {
				t.Error("the broker was asked for a delay")
			}
		})
	}
}

func TestDelayThatFailsIsNotPublished(t *testing.T) {
	t.Parallel()
	s, d := &shelf{}, &drawer{fail: fault.New(fault.Exhausted, "disk is full")}
	b := open(t, s)
	b.DelayWith(d)
	delayed := map[string]string{"delay": "1m"}
	err := b.Publish(t.Context(), &pubsub.PublishRequest{Topic: "t", Metadata: delayed})
	if fault.KindOf(err) != fault.Exhausted {
		t.Errorf("publish: %v", err)
	}
	errs, err := b.BulkPublish(t.Context(), "t", []pubsub.PublishRequest{
		{Data: []byte("now")}, {Data: []byte("later"), Metadata: delayed}, {Metadata: map[string]string{"delay": "x"}}, {Data: []byte("now too")},
	})
	if err != nil {
		t.Fatal(err)
	}
	kinds := make([]fault.Kind, len(errs))
	for i, err := range errs {
		if err != nil {
			kinds[i] = fault.KindOf(err)
		}
	}
	if d := cmp.Diff([]fault.Kind{0, fault.Exhausted, fault.Invalid, 0}, kinds); d != "" || errs[0] != nil || errs[3] != nil || len(s.topics["t"]) != 2 {
		t.Errorf("%d published, errors %v:\n%s", len(s.topics["t"]), errs, d)
	}
}

func TestDelayTooFarAhead(t *testing.T) {
	t.Parallel()
	b := open(t, &shelf{features: pubsub.Features{Delay: true}})
	for _, metadata := range []map[string]string{{"delay": "100000h"}, {"deliverAt": "9999-12-31T23:59:59Z"}, {"delay": "-1s"}} {
		err := b.Publish(t.Context(), &pubsub.PublishRequest{Topic: "t", Metadata: metadata})
		if fault.KindOf(err) != fault.Invalid || !errors.Is(err, pubsub.ErrMetadata) {
			t.Errorf("%v: %v", metadata, err)
		}
	}
}

// TestDelayQueue takes messages through a queue and compares what the broker
// gets in the end with what it gets at once.
func TestDelayQueue(t *testing.T) {
	t.Parallel()
	store := &shelf{features: pubsub.Features{Delay: true, TTL: true}}
	q := pubsub.NewDelayQueue(open(t, store))
	s := &shelf{features: pubsub.Features{TTL: true}}
	b := open(t, s)
	b.DelayWith(q)
	at := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	metadata := map[string]string{
		"deliverAt": at.Format(time.RFC3339), "rawPayload": "true", "partitionKey": "k", "ttlInSeconds": "7200", "Own": "\x00ü", "topic": "mine", "m.x": "y",
	}
	before := time.Now()
	err := b.Publish(t.Context(), &pubsub.PublishRequest{Topic: "t", Data: []byte("\xff\x00"), ContentType: "a/b", Metadata: maps.Clone(metadata)})
	if err != nil {
		t.Fatal(err)
	}
	kept := store.topics["shop/bus"]
	if len(kept) != 1 || !kept[0].DeliverAt.Equal(at) || kept[0].Key != "t\x00k" || kept[0].Expires.Before(before.Add(2*time.Hour)) {
		t.Fatalf("kept %+v", store.topics)
	}
	d := &cloudevents.Delivery{Body: kept[0].Data, Metadata: kept[0].Metadata, Key: kept[0].Key}
	if err := b.PublishDue(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	got := s.topics["t"][0]
	if !got.Expires.Equal(kept[0].Expires) || !got.DeliverAt.IsZero() {
		t.Errorf("expires %s, want %s; deliver at %s", got.Expires, kept[0].Expires, got.DeliverAt)
	}
	got.Expires = time.Time{}
	want := pubsub.Message{Data: []byte("\xff\x00"), ContentType: "a/b", Metadata: metadata, Key: "k"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("published (-want +got):\n%s", d)
	}
	s.refuse = "\xff"
	if err := b.PublishDue(t.Context(), d); fault.KindOf(err) != fault.Exhausted {
		t.Errorf("the broker's error: %v", err)
	}
	if err := b.PublishDue(t.Context(), &cloudevents.Delivery{}); fault.KindOf(err) != fault.Invalid {
		t.Errorf("a message that the queue did not keep: %v", err)
	}
}

// A raw payload has no place for an expiration: the queue keeps the time to
// live of one that waits for a broker that cannot.
func TestDelayOfARawPayloadExpires(t *testing.T) {
	t.Parallel()
	d := &drawer{}
	b := open(t, &shelf{})
	b.DelayWith(d)
	for _, raw := range []string{"true", "false"} {
		metadata := map[string]string{"delay": "1m", "ttlInSeconds": "90", "rawPayload": raw}
		if err := b.Publish(t.Context(), &pubsub.PublishRequest{Topic: "t", Metadata: metadata}); err != nil {
			t.Fatal(err)
		}
	}
	if left := time.Until(d.kept[0].Expires); left < time.Minute || left > 90*time.Second {
		t.Errorf("the raw payload expires in %s", left)
	}
	e, err := cloudevents.Scan(d.kept[1].Data)
	if err != nil {
		t.Fatal(err)
	}
	if at, ok := e.Expiration(); !ok || !d.kept[1].Expires.IsZero() || time.Until(at) > 90*time.Second {
		t.Errorf("the event expires at %s, its message at %s", at, d.kept[1].Expires)
	}
}

func TestTopicsByNamespace(t *testing.T) {
	t.Parallel()
	s, d := &shelf{}, &drawer{}
	b := openIn(t, "prod", s, config.Item{Name: "consumerID", Value: "prod-g", Namespaced: true}, config.Item{Name: "allowedTopics", Value: "orders,graves"})
	b.DelayWith(d)
	for _, metadata := range []map[string]string{nil, {"delay": "1h"}, {"rawPayload": "true"}} {
		if err := b.Publish(t.Context(), &pubsub.PublishRequest{Topic: "orders", Data: []byte("x"), Metadata: metadata}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.BulkPublish(t.Context(), "orders", []pubsub.PublishRequest{{Data: []byte("y")}}); err != nil {
		t.Fatal(err)
	}
	if err := b.Forward(t.Context(), "graves", []byte("dead"), nil); err != nil {
		t.Fatal(err)
	}
	counts := map[string]int{}
	for topic, list := range s.topics {
		counts[topic] = len(list)
	}
	if d := cmp.Diff(map[string]int{"prodorders": 3, "prodgraves": 1}, counts); d != "" {
		t.Errorf("messages by topic (-want +got):\n%s", d)
	}
	if d := cmp.Diff([]string{"bus/prodorders"}, d.topics); d != "" {
		t.Errorf("delayed (-want +got):\n%s", d)
	}
	src, err := b.Source(pubsub.Subscription{Topic: "orders", Metadata: map[string]string{"rawPayload": "true"}})
	if err != nil {
		t.Fatal(err)
	}
	del := first(t, src)
	if err := src.Decode(del); err != nil {
		t.Fatal(err)
	}
	if topic, _ := del.Event.Attr("topic"); topic != "orders" || del.Origin != "bus/orders" {
		t.Errorf("topic %q, origin %q: the app knows nothing of the namespace", topic, del.Origin)
	}
	e, err := cloudevents.Scan(s.topics["prodorders"][0].Data)
	if err != nil {
		t.Fatal(err)
	}
	if topic, _ := e.Attr("topic"); topic != "orders" {
		t.Errorf("topic of the event %q", topic)
	}
	if b.Group() != "prod-g" {
		t.Errorf("group %q", b.Group())
	}
}

func TestTopicsWithoutTheTemplate(t *testing.T) {
	t.Parallel()
	s := &shelf{}
	b := openIn(t, "prod", s, config.Item{Name: "consumerID", Value: "prod-g"})
	if err := b.Publish(t.Context(), &pubsub.PublishRequest{Topic: "orders"}); err != nil {
		t.Fatal(err)
	}
	if len(s.topics["orders"]) != 1 {
		t.Errorf("topics %v", s.topics)
	}
}

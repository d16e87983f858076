package conform

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/tests"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/pubsub"
	"github.com/penstock-io/penstock/resilience"
	"github.com/penstock-io/penstock/router"
)

// Watermill runs Watermill's universal suite on a broker behind the engine's
// subscriber: in order on one lane, and on many lanes. Open returns a fresh
// broker each time.
func Watermill(t *testing.T, open func(t *testing.T) pubsub.Driver) {
	t.Helper()
	rows := []struct {
		name     string
		features tests.Features
		lanes    int
		key      func(*cloudevents.Delivery) string
	}{
		{"one lane, in order", tests.Features{
			ConsumerGroups: true, GuaranteedOrder: true, GuaranteedOrderWithSingleSubscriber: true,
			Persistent: true, ForceShort: true,
		}, 1, func(*cloudevents.Delivery) string { return "all" }},
		{"many lanes", tests.Features{ConsumerGroups: true, Persistent: true, ForceShort: true}, 16, nil},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			d := open(t)
			t.Cleanup(func() { closeDriver(t, d) })
			pair := func(t *testing.T, group string) (message.Publisher, message.Subscriber) {
				t.Helper()
				return watermillPair(t, d, group, router.SubscriberOptions{Lanes: row.lanes, Key: row.key})
			}
			tests.TestPubSub(t, row.features,
				func(t *testing.T) (message.Publisher, message.Subscriber) { t.Helper(); return pair(t, "g") }, pair)
		})
	}
}

// watermillPair shows the broker to Watermill. The suite opens many of them on
// one broker.
func watermillPair(t *testing.T, d pubsub.Driver, group string, o router.SubscriberOptions) (message.Publisher, message.Subscriber) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context()) // the suite closes by itself
	subscription := func(topic string) pubsub.Subscription {
		return pubsub.Subscription{Topic: topic, Group: group, Key: o.Key}
	}
	o.Logger = slog.New(slog.DiscardHandler)
	o.DrainTimeout = 500 * time.Millisecond // the suite waits 15 s for what a drain cuts
	o.Redelivery = resilience.Retry{Initial: 10 * time.Millisecond, Max: 50 * time.Millisecond}
	o.Source = func(topic string) (router.Source, error) {
		return router.SourceFunc(func(ctx context.Context, emit cloudevents.EmitFunc) error {
			return d.Subscribe(ctx, subscription(topic), emit)
		}), nil
	}
	s, err := router.NewSubscriber(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	p := router.NewPublisher(func(topic string, body []byte, metadata map[string]string) error {
		return d.Publish(ctx, topic, []pubsub.Message{{Data: body, Metadata: metadata}})
	})
	return p, preparing{s, func(topic string) error {
		if p, ok := d.(pubsub.Preparer); ok {
			return p.Prepare(ctx, subscription(topic))
		}
		return nil
	}}
}

// preparing is a subscriber that can make its group before it subscribes.
type preparing struct {
	*router.Subscriber
	prepare func(topic string) error
}

// SubscribeInitialize implements [message.SubscribeInitializer].
func (p preparing) SubscribeInitialize(topic string) error { return p.prepare(topic) }

package pubsub

import (
	"context"
	"time"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
)

// Source is one subscription's events; it has the shape of router.Source.
type Source struct {
	bus *Bus
	sub Subscription
	raw bool
}

// Source returns the events of a subscription. An empty Group means the
// component's consumer id. Kind Denied when the topic is out of scope.
func (b *Bus) Source(s Subscription) (*Source, error) {
	if s.Topic == "" {
		return nil, fault.New(fault.Invalid, "subscribe to %s: topic is empty", b.name)
	}
	if !b.scopes.maySubscribe(s.Topic) {
		return nil, fault.New(fault.Denied, "subscribe to %s/%s: topic is not allowed for app id %q", b.name, s.Topic, b.app)
	}
	if s.Group == "" {
		s.Group = b.group
	}
	return &Source{bus: b, sub: s, raw: isTrue(lookup(s.Metadata, "rawPayload"))}, nil
}

// Prepare makes the subscription's group where the broker can do that ahead, so
// that everything published once it has returned reaches the subscription. A
// broker that is still opening is not waited for: nothing can be published
// through it either.
func (s *Source) Prepare(ctx context.Context) error {
	d, err := s.bus.instance.Acquire()
	if err != nil {
		return nil
	}
	defer s.bus.instance.Release()
	if p, ok := d.(Preparer); ok {
		return fault.Wrap(p.Prepare(ctx, s.sub), "subscribe to %s/%s", s.bus.name, s.sub.Topic)
	}
	return nil
}

// Run hands the subscription's messages to emit until ctx ends. It waits for
// the broker to open first.
func (s *Source) Run(ctx context.Context, emit cloudevents.EmitFunc) error {
	d, err := s.bus.instance.Await(ctx)
	if err != nil {
		return err
	}
	origin := s.bus.name + "/" + s.sub.Topic
	return d.Subscribe(ctx, s.sub, func(ctx context.Context, d *cloudevents.Delivery) error {
		d.Origin = origin
		return emit(ctx, d)
	})
}

// Decode sets the delivery's event: the envelope in its body, or a fresh one
// around it when the subscription asks for rawPayload and the body is none.
func (s *Source) Decode(d *cloudevents.Delivery) error {
	e, err := cloudevents.Scan(d.Body)
	if err == nil {
		d.Event = e
		return nil
	}
	if !s.raw {
		return fault.Wrap(err, "decode message of %s/%s", s.bus.name, s.sub.Topic)
	}
	d.Event, err = cloudevents.Envelope{
		Source: s.bus.app, Topic: s.sub.Topic, PubSub: s.bus.name, Metadata: d.Metadata,
	}.WrapRaw(d.Body)
	return err
}

// Expired is the outcome of an event that came too late, or nil.
func Expired(e *cloudevents.Event, now time.Time) *cloudevents.Outcome {
	if !e.Expired(now) {
		return nil
	}
	o := cloudevents.Dropped("expired", fault.New(fault.Dropped, "event %s expired", e.ID()))
	return &o
}

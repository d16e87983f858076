package pubsub

import (
	"context"
	"maps"
	"slices"
	"strings"
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
		return fault.Wrap(s.bus.instance.Hide(p.Prepare(ctx, s.sub)), "subscribe to %s/%s", s.bus.name, s.sub.Topic)
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
	err = d.Subscribe(ctx, s.sub, func(ctx context.Context, d *cloudevents.Delivery) error {
		d.Origin = origin
		return emit(ctx, d)
	})
	return s.bus.instance.Hide(err)
}

// Decode sets the delivery's event: the one that the metadata and the body make
// in binary mode, or the envelope in its body, or a fresh one around it when
// the subscription asks for rawPayload and the body is none.
func (s *Source) Decode(d *cloudevents.Delivery) error {
	e, err := s.event(d)
	if err == nil {
		d.Event = e
		return nil
	}
	if !s.raw {
		return fault.Wrap(err, "decode message of %s/%s", s.bus.name, s.sub.Topic)
	}
	d.Event, err = received(cloudevents.Envelope{
		Source: s.bus.app, Topic: s.sub.Topic, PubSub: s.bus.name, Metadata: d.Metadata,
	}.WrapRaw(d.Body))
	return err
}

// received makes a built event one that counts as received in structured form:
// the message's own bytes, not those, go to a dead letter.
func received(e *cloudevents.Event, err error) (*cloudevents.Event, error) {
	if err != nil {
		return nil, err
	}
	return cloudevents.Scan(e.JSON())
}

// event reads the event that a message is.
func (s *Source) event(d *cloudevents.Delivery) (*cloudevents.Event, error) {
	if contentType := lookup(d.Metadata, "content-type"); contentType != "" {
		if version := lookup(d.Metadata, "ce_specversion"); version != "" {
			return s.binary(d, contentType, version)
		}
	}
	return cloudevents.Scan(d.Body)
}

// binary makes the event of a message in binary mode as other programs write
// it to brokers: attributes in metadata called ce_*, data in the body.
func (s *Source) binary(d *cloudevents.Delivery, contentType, version string) (*cloudevents.Event, error) {
	if version != "1.0" {
		return nil, fault.New(fault.Invalid, "read event: specversion %.32q is not supported, must be \"1.0\"", version)
	}
	attrs := []cloudevents.Attr{{Name: "topic", Value: s.sub.Topic}, {Name: "pubsubname", Value: s.bus.name}}
	for _, key := range slices.Sorted(maps.Keys(d.Metadata)) {
		if len(key) <= len("ce_") || !strings.EqualFold(key[:len("ce_")], "ce_") {
			continue
		}
		switch name := strings.ToLower(key[len("ce_"):]); name {
		case "specversion", "datacontenttype", "topic", "pubsubname":
		default:
			attrs = append(attrs, cloudevents.Attr{Name: name, Value: d.Metadata[key]})
		}
	}
	return received(cloudevents.New(contentType, d.Body, attrs...))
}

// Expired is the outcome of an event that came too late, or nil.
func Expired(e *cloudevents.Event, now time.Time) *cloudevents.Outcome {
	if !e.Expired(now) {
		return nil
	}
	o := cloudevents.Dropped("expired", fault.New(fault.Dropped, "event %s expired", e.ID()))
	return &o
}

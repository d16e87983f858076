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
	bus   *Bus
	topic string // as the app calls it
	sub   Subscription
	raw   bool
}

// Source returns the events of a subscription. An empty Group means the
// component's consumer id. Kind Denied when the topic is out of scope. Of what
// a wildcard matches, protected topics come only when a scope names them.
func (b *Bus) Source(s Subscription) (*Source, error) {
	if s.Topic == "" {
		return nil, fault.New(fault.Invalid, "subscribe to %s: topic is empty", b.name)
	}
	if !b.scopes.maySubscribe(s.Topic) {
		return nil, fault.New(fault.Denied, "subscribe to %s/%s: topic is not allowed for app id %q", b.name, s.Topic, b.app)
	}
	return b.source(s), nil
}

// Forwarded returns the events of a subscription whatever the scopes say: the
// way of what collects dead letters, as Forward is that of what writes them.
func (b *Bus) Forwarded(s Subscription) *Source { return b.source(s) }

func (b *Bus) source(s Subscription) *Source {
	if s.Group == "" {
		s.Group = b.group
	}
	src := &Source{bus: b, topic: s.Topic, sub: s, raw: s.Raw()}
	src.sub.Topic = b.prefix + s.Topic
	return src
}

// EventOf reads the event that a message of a topic is, in structured or binary
// mode. It needs no broker, so that what was kept of a message can be read long
// after. Kind Invalid when it is none.
func EventOf(bus, topic string, body []byte, metadata map[string]string) (*cloudevents.Event, error) {
	s := &Source{bus: &Bus{name: bus}, topic: topic}
	return s.event(&cloudevents.Delivery{Body: body, Metadata: metadata})
}

// Raw tells that the subscription asks for payloads without an envelope.
func (s Subscription) Raw() bool { return isTrue(lookup(s.Metadata, "rawPayload")) }

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
		return fault.Wrap(s.bus.instance.Hide(p.Prepare(ctx, s.sub)), "subscribe to %s/%s", s.bus.name, s.topic)
	}
	return nil
}

// Backlog asks the broker what waits for the subscription; ok is false where it does
// not know, or is not open.
func (s *Source) Backlog(ctx context.Context) (b cloudevents.Backlog, ok bool, err error) {
	d, err := s.bus.instance.Acquire()
	if err != nil {
		return b, false, nil
	}
	defer s.bus.instance.Release()
	asked, ok := d.(Backlogged)
	if !ok {
		return b, false, nil
	}
	b, err = asked.Backlog(ctx, s.sub)
	return b, err == nil, fault.Wrap(s.bus.instance.Hide(err), "count what waits in %s/%s", s.bus.name, s.topic)
}

// Run hands the subscription's messages to emit until ctx ends. It waits for
// the broker to open first.
func (s *Source) Run(ctx context.Context, emit cloudevents.EmitFunc) error {
	d, err := s.bus.instance.Await(ctx)
	if err != nil {
		return err
	}
	origin := s.bus.name + "/" + s.topic
	err = d.Subscribe(ctx, s.sub, func(ctx context.Context, d *cloudevents.Delivery) error {
		d.Origin = origin
		if d.Topic != "" && d.Topic != s.sub.Topic {
			topic := s.topicOf(d)
			if s.left(topic) {
				d.Settle(cloudevents.Acked())
				return nil
			}
			d.Origin = s.bus.name + "/" + topic
		}
		return emit(ctx, d)
	})
	return s.bus.instance.Hide(err)
}

// topicOf returns the topic of a delivery as the app calls it. One that was
// given up and is replayed says it only in its origin.
func (s *Source) topicOf(d *cloudevents.Delivery) string {
	if d.Topic != "" {
		return strings.TrimPrefix(d.Topic, s.bus.prefix)
	}
	if n := len(s.bus.name); len(d.Origin) > n && d.Origin[n] == '/' && d.Origin[:n] == s.bus.name {
		return d.Origin[n+1:]
	}
	return s.topic
}

// left tells whether a wildcard leaves out a topic that it matches.
func (s *Source) left(topic string) bool {
	return topic == s.sub.Except || !s.bus.scopes.mayReceive(topic)
}

// Decode sets the delivery's event: a fresh one around the body when the
// subscription asks for rawPayload, else the one that the metadata and the body
// make in binary mode, or the envelope in the body. A trace that stands only in
// the metadata is put into the event.
func (s *Source) Decode(d *cloudevents.Delivery) (err error) {
	if s.raw {
		parent, state := traceOf(d.Metadata)
		d.Event, err = received(cloudevents.Envelope{
			Source: s.bus.app, Topic: s.topicOf(d), PubSub: s.bus.name, Metadata: d.Metadata,
			TraceParent: parent, TraceState: state,
		}.WrapRaw(d.Body))
	} else {
		d.Event, err = s.event(d)
	}
	return fault.Wrap(err, "decode message of %s/%s", s.bus.name, s.topicOf(d))
}

// traceOf returns the trace context that a message carries beside its body.
func traceOf(metadata map[string]string) (parent, state string) {
	if len(metadata) == 0 {
		return "", ""
	}
	for _, key := range [...]string{"traceparent", "traceid"} {
		if parent = lookup(metadata, key); cloudevents.ValidTraceParent(parent) {
			return parent, lookup(metadata, "tracestate")
		}
	}
	return "", ""
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
	e, err := cloudevents.Scan(d.Body)
	if err != nil || len(d.Metadata) == 0 {
		return e, err
	}
	if own, _ := e.Attr("traceparent"); own != "" {
		return e, nil
	}
	if parent, state := traceOf(d.Metadata); parent != "" {
		e = e.With(cloudevents.Attr{Name: "traceparent", Value: parent}, cloudevents.Attr{Name: "traceid", Value: parent})
		if state != "" {
			e = e.With(cloudevents.Attr{Name: "tracestate", Value: state})
		}
	}
	return e, nil
}

// binary makes the event of a message in binary mode as other programs write
// it to brokers: attributes in metadata called ce_*, data in the body.
func (s *Source) binary(d *cloudevents.Delivery, contentType, version string) (*cloudevents.Event, error) {
	if version != "1.0" {
		return nil, fault.New(fault.Invalid, "read event: specversion %.32q is not supported, must be \"1.0\"", version)
	}
	attrs := []cloudevents.Attr{{Name: "topic", Value: s.topicOf(d)}, {Name: "pubsubname", Value: s.bus.name}}
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

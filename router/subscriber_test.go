package router

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/tests"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/resilience"
)

// topics is a small broker: each group of a topic gets every message once, in
// order, and keeps those that are not acked.
type topics struct {
	mu      sync.Mutex
	log     map[string][]entry
	groups  map[string][]status // by topic and group, one for each entry
	changed chan struct{}
}

type entry struct {
	body     []byte
	metadata map[string]string
}

type status uint8

const (
	idle status = iota
	out
	done
)

func newTopics() *topics {
	return &topics{log: map[string][]entry{}, groups: map[string][]status{}, changed: make(chan struct{})}
}

// signal wakes the sources. It runs under mu.
func (b *topics) signal() {
	close(b.changed)
	b.changed = make(chan struct{})
}

func (b *topics) publish(topic string, body []byte, metadata map[string]string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.log[topic] = append(b.log[topic], entry{body, metadata})
	b.signal()
	return nil
}

func (b *topics) source(topic, group string) Source {
	return SourceFunc(func(ctx context.Context, emit cloudevents.EmitFunc) error {
		for {
			d, changed := b.take(topic, group)
			if d == nil {
				select {
				case <-changed:
					continue
				case <-ctx.Done():
					return nil
				}
			}
			if err := emit(ctx, d); err != nil {
				d.Settle(cloudevents.Left("refused"))
				return nil
			}
		}
	})
}

// take returns the first idle message, or what to wait for.
func (b *topics) take(topic, group string) (*cloudevents.Delivery, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	name := topic + "\x00" + group
	states := b.groups[name]
	for len(states) < len(b.log[topic]) {
		states = append(states, idle)
	}
	b.groups[name] = states
	i := slices.Index(states, idle)
	if i < 0 {
		return nil, b.changed
	}
	states[i] = out
	e := b.log[topic][i]
	return &cloudevents.Delivery{Body: e.body, Metadata: e.metadata, Settle: func(o cloudevents.Outcome) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.groups[name][i] = done
		if o.Verdict != cloudevents.Ack {
			b.groups[name][i] = idle
			b.signal()
		}
	}}, nil
}

func (b *topics) pair(t *testing.T, group string, o SubscriberOptions) (message.Publisher, message.Subscriber) {
	o.Logger = silent()
	o.Source = func(topic string) (Source, error) { return b.source(topic, group), nil }
	o.DrainTimeout = 500 * time.Millisecond
	o.Redelivery = resilience.Retry{Initial: 10 * time.Millisecond, Max: 50 * time.Millisecond}
	s, err := NewSubscriber(o)
	if err != nil {
		t.Fatal(err)
	}
	// The suite closes the subscribers of its order test before it uses them.
	t.Cleanup(func() { _ = s.Close() })
	return NewPublisher(b.publish), s
}

// TestWatermillSuite runs Watermill's universal suite over the engine: in order
// on one lane, and on many.
func TestWatermillSuite(t *testing.T) {
	t.Parallel()
	rows := []struct {
		name     string
		features tests.Features
		options  SubscriberOptions
	}{
		{"one lane, in order", tests.Features{
			ConsumerGroups: true, GuaranteedOrder: true, GuaranteedOrderWithSingleSubscriber: true,
			Persistent: true, ForceShort: true,
		}, SubscriberOptions{Lanes: 1, Key: func(*cloudevents.Delivery) string { return "all" }}},
		{"many lanes", tests.Features{ConsumerGroups: true, Persistent: true, ForceShort: true}, SubscriberOptions{Lanes: 16}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			b := newTopics()
			tests.TestPubSub(t, row.features,
				func(t *testing.T) (message.Publisher, message.Subscriber) { return b.pair(t, "g", row.options) },
				func(t *testing.T, group string) (message.Publisher, message.Subscriber) {
					return b.pair(t, group, row.options)
				})
		})
	}
}

// subscribed returns a subscriber on a fresh broker with one message "x".
func subscribed(t *testing.T, ctx context.Context) (*Subscriber, <-chan *message.Message, *topics) {
	t.Helper()
	b := newTopics()
	pub, sub := b.pair(t, "g", SubscriberOptions{Lanes: 4})
	in := message.NewMessage("id-1", []byte("x"))
	in.Metadata.Set("a", "b")
	if err := pub.Publish("topic", in); err != nil {
		t.Fatal(err)
	}
	messages, err := sub.Subscribe(ctx, "topic")
	if err != nil {
		t.Fatal(err)
	}
	return sub.(*Subscriber), messages, b
}

func (b *topics) state() status {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.groups["topic\x00g"][0]
}

func TestSubscriberHandsOutTheWholeMessage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sub, messages, b := subscribed(t, t.Context())
		m := <-messages
		if m.UUID != "id-1" || string(m.Payload) != "x" || len(m.Metadata) != 1 || m.Metadata.Get("a") != "b" {
			t.Errorf("message %+v", m)
		}
		if d := DeliveryFrom(m.Context()); d == nil || string(d.Body) != "x" || d.Attempt != 1 {
			t.Errorf("delivery %+v", d)
		}
		m.Nack()
		m = <-messages
		if d := DeliveryFrom(m.Context()); d.Attempt != 2 {
			t.Errorf("attempt %d", d.Attempt)
		}
		m.Ack()
		synctest.Wait()
		if b.state() != done || m.Context().Err() == nil {
			t.Errorf("state %d, context %v", b.state(), m.Context().Err())
		}
		if err := errors.Join(sub.Close(), sub.Close()); err != nil {
			t.Error(err)
		}
		if _, open := <-messages; open {
			t.Error("the channel is open")
		}
		if _, err := sub.Subscribe(t.Context(), "topic"); fault.KindOf(err) != fault.Unavailable {
			t.Errorf("subscribe after close: %v", err)
		}
	})
}

// TestSubscriberLeaves: whatever is handed out, or waits to be, when a
// subscription ends goes back to the source.
func TestSubscriberLeaves(t *testing.T) {
	t.Parallel()
	for _, taken := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			sub, messages, b := subscribed(t, ctx)
			var m *message.Message
			if taken {
				m = <-messages
			}
			synctest.Wait()
			start := time.Now()
			cancel()
			synctest.Wait()
			for range messages {
				t.Error("handed out after the end")
			}
			took := time.Since(start)
			if taken && (took != 500*time.Millisecond || m.Context().Err() == nil) || !taken && took != 0 {
				t.Errorf("taken %v: ended after %s", taken, took)
			}
			if b.state() != idle {
				t.Errorf("taken %v: state %d", taken, b.state())
			}
			if err := sub.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestSubscriberErrors(t *testing.T) {
	t.Parallel()
	lost := func(string) (Source, error) { return nil, fault.New(fault.NotFound, "no such topic") }
	for _, o := range []SubscriberOptions{{}, {Logger: silent()}, {Source: lost}, {Logger: silent(), Source: lost, DrainTimeout: -1}} {
		if _, err := NewSubscriber(o); fault.KindOf(err) != fault.Invalid {
			t.Errorf("options %+v: %v", o, err)
		}
	}
	s, err := NewSubscriber(SubscriberOptions{Logger: silent(), Source: lost})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Subscribe(t.Context(), "x"); fault.KindOf(err) != fault.NotFound {
		t.Errorf("got %v", err)
	}
}

func TestPublisher(t *testing.T) {
	t.Parallel()
	var bodies []string
	p := NewPublisher(func(_ string, body []byte, metadata map[string]string) error {
		if string(body) == "bad" {
			return fault.New(fault.Exhausted, "queue full")
		}
		bodies = append(bodies, string(body)+metadata[MetadataUUID])
		return nil
	})
	err := p.Publish("t", message.NewMessage("1", []byte("a")), &message.Message{UUID: "2", Payload: []byte("b")}, message.NewMessage("3", []byte("bad")))
	if fault.KindOf(err) != fault.Exhausted || !slices.Equal(bodies, []string{"a1", "b2"}) {
		t.Errorf("got %v, %v", err, bodies)
	}
	if err := errors.Join(p.Close(), p.Close()); err != nil {
		t.Error(err)
	}
	if err := p.Publish("t"); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("publish after close: %v", err)
	}
}

package pubsub

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
)

// Delayer keeps messages for brokers that cannot delay them: it has them on the
// disk when it returns nil, and publishes each with [Bus.PublishDue] once its
// DeliverAt has come. Topic is the broker's own name of it.
type Delayer interface {
	Delay(ctx context.Context, bus, topic string, batch []Message) error
}

// DelayWith says who keeps delayed messages when the broker cannot; nil: they
// are refused. Call it before the bus is used.
func (b *Bus) DelayWith(d Delayer) { b.delayer = d }

// DelayQueue keeps messages for other brokers on one that can delay. It is a
// [Delayer]; somebody must read each broker's [DelayQueue.Source].
type DelayQueue struct {
	store *Bus

	mu       sync.Mutex
	prepared map[string]bool // buses whose group is there
}

// NewDelayQueue makes a queue on a bus that is used for nothing else. Its
// broker must have Features.Delay and should be durable.
func NewDelayQueue(store *Bus) *DelayQueue {
	return &DelayQueue{store: store, prepared: map[string]bool{}}
}

// delayGroup is the consumer group of all kept messages: they outlive whatever
// the components and their consumer ids are called.
const delayGroup = "delay"

// Source returns the messages kept for a bus as they become due. Their events
// are not decoded: hand each delivery to [Bus.PublishDue].
func (q *DelayQueue) Source(bus string) *Source {
	topic := q.topic(bus)
	return &Source{bus: q.store, topic: topic, sub: Subscription{Topic: topic, Group: delayGroup}}
}

// topic keeps the messages of apps apart that share a data folder.
func (q *DelayQueue) topic(bus string) string { return q.store.app + "/" + bus }

// Delay implements [Delayer].
func (q *DelayQueue) Delay(ctx context.Context, bus, topic string, batch []Message) error {
	if err := q.prepare(ctx, bus); err != nil {
		return err
	}
	kept := make([]Message, len(batch))
	for i := range batch {
		kept[i] = keep(topic, &batch[i])
	}
	d, err := q.store.instance.Acquire()
	if err != nil {
		return err
	}
	defer q.store.instance.Release()
	return q.store.instance.Hide(d.Publish(ctx, q.topic(bus), kept))
}

// prepare makes the group before the first message: without one a broker keeps
// messages for a while only.
func (q *DelayQueue) prepare(ctx context.Context, bus string) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.prepared[bus] {
		return nil
	}
	if err := q.Source(bus).Prepare(ctx); err != nil {
		return err
	}
	q.prepared[bus] = true
	return nil
}

// The metadata of a kept message: what the message has beside its data, and its
// own metadata behind ownMetadata.
const (
	keptTopic   = "topic"
	keptType    = "type"
	keptKey     = "key"
	keptExpires = "expires"
	ownMetadata = "m."
)

// keep makes the message that is kept: the data as it is, the rest as metadata.
// Order is for each key of each topic.
func keep(topic string, m *Message) Message {
	metadata := make(map[string]string, len(m.Metadata)+4)
	for k, v := range m.Metadata {
		metadata[ownMetadata+k] = v
	}
	metadata[keptTopic] = topic
	out := Message{Data: m.Data, Metadata: metadata, DeliverAt: m.DeliverAt, Expires: m.Expires}
	if m.ContentType != "" {
		metadata[keptType] = m.ContentType
	}
	if m.Key != "" {
		metadata[keptKey] = m.Key
		out.Key = topic + "\x00" + m.Key
	}
	if !m.Expires.IsZero() {
		metadata[keptExpires] = m.Expires.UTC().Format(time.RFC3339Nano)
	}
	return out
}

// kept is the opposite of keep.
func kept(d *cloudevents.Delivery) (topic string, m Message, err error) {
	topic = d.Metadata[keptTopic]
	if topic == "" {
		return "", m, fault.New(fault.Invalid, "read delayed message: it has no topic")
	}
	m = Message{Data: d.Body, ContentType: d.Metadata[keptType], Key: d.Metadata[keptKey]}
	if text := d.Metadata[keptExpires]; text != "" {
		if m.Expires, err = time.Parse(time.RFC3339Nano, text); err != nil {
			return "", m, fault.New(fault.Invalid, "read delayed message: %w", err)
		}
	}
	for k, v := range d.Metadata {
		if name, own := strings.CutPrefix(k, ownMetadata); own {
			if m.Metadata == nil {
				m.Metadata = make(map[string]string, len(d.Metadata))
			}
			m.Metadata[name] = v
		}
	}
	return topic, m, nil
}

// PublishDue publishes a message of a [DelayQueue], byte for byte as it would
// have been published at once. Scopes were looked at then.
func (b *Bus) PublishDue(ctx context.Context, d *cloudevents.Delivery) error {
	topic, m, err := kept(d)
	if err != nil {
		return err
	}
	driver, err := b.instance.Acquire()
	if err != nil {
		return err
	}
	defer b.instance.Release()
	return b.failure(topic, driver.Publish(ctx, topic, []Message{m}))
}

// maxDelay is how far ahead a message may be delayed.
const maxDelay = 10 * 365 * 24 * time.Hour

// deliverAt reads the metadata that delays a message; zero means now.
func deliverAt(metadata map[string]string, now time.Time) (time.Time, error) {
	if len(metadata) == 0 {
		return time.Time{}, nil
	}
	var at time.Time
	if v := lookup(metadata, "delay"); v != "" {
		d, err := config.ParseDuration(v)
		if err != nil || d < 0 {
			return at, fault.New(fault.Invalid, "read metadata delay %.64q: want a duration such as 30s", v)
		}
		at = now.Add(d)
	} else if v := lookup(metadata, "deliverAt"); v != "" {
		t, err := time.Parse(time.RFC3339, v)
		if err != nil {
			return at, fault.New(fault.Invalid, "read metadata deliverAt %.64q: want an RFC 3339 time such as 2030-01-31T08:00:00Z", v)
		}
		at = t
	}
	if at.Sub(now) > maxDelay {
		return at, fault.New(fault.Invalid, "delay to %s: the most is ten years", at.UTC().Format(time.RFC3339))
	}
	return at, nil
}

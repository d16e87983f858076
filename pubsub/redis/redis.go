// Package redis is the broker "pubsub.redis": topics as Redis streams, laid out
// as Dapr does, so that both may share them.
//
// It is opened through [Component]. A topic is the stream of that name; an entry
// has the message in the field data and its metadata as a JSON object in the
// field metadata, the ordering key among them. A group begins with the oldest
// entry that the stream still has, as under Dapr.
//
// Promises: a publish returns when the server has the entry. An entry is
// acknowledged only after an ack or a drop; a retry keeps its time and its count
// in the server. A process that dies is replaced within five seconds, and one
// that works keeps its entries from sidecars of Dapr in the same group.
package redis

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/penstock-io/penstock/client/batch"
	client "github.com/penstock-io/penstock/client/redis"
	"github.com/penstock-io/penstock/client/redis/streams"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/pubsub"
)

// Component is "pubsub.redis".
var Component = pubsub.Define("redis", component.About{
	Summary: "Topics as Redis streams, shared with Dapr",
	Ack:     "XACK, many at once; the entry stays in the stream until it is trimmed",
	Order:   "In the order of the stream for each process, also after one that was killed: what is new waits the 3 s until its entries are taken over; processes that share a group may overtake each other",
	Limits:  "queueDepth (100) entries for each read, 10000 waiting for a retry; maxLenApprox and streamTTL also remove what nobody has read. A user of an access control list needs the keys penstock:* beside its streams",
	Scale:   "Consumer groups; the work of a process that dies is taken over within 5 s",
	Dapr:    "Loses nothing when an app fails, keeps the time and count of a retry, takes over from a dead process in 5 s instead of a minute, makes a deleted group again where it was",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: bus
spec:
  type: pubsub.redis
  version: v1
  metadata:
    - name: redisHost
      value: localhost:6379
`,
}, open)

type options struct {
	client.Options
	MaxLenApprox      int               `meta:"maxLenApprox"      default:"0"    doc:"About how many entries a stream keeps, read or not; 0 keeps all."`
	StreamTTL         string            `meta:"streamTTL"         doc:"About how long a stream keeps entries, read or not; for ever when empty. Not used with maxLenApprox." example:"72h"`
	ProcessingTimeout string            `meta:"processingTimeout" default:"60s"  doc:"How long an entry may be pending with a sidecar of Dapr before it is taken over; a bare number is milliseconds, 0 is for ever."`
	QueueDepth        int               `meta:"queueDepth"        default:"100"  doc:"Most entries that one read brings."`
	RedeliverInterval component.Ignored `meta:"redeliverInterval" doc:"Entries of dead consumers are looked for all the time."`
	Concurrency       component.Ignored `meta:"concurrency"       doc:"The subscription's flow says how many events are under way."`
	AckOnError        component.Ignored `meta:"ackOnError"        doc:"It loses events: use a dead letter topic."`
}

// Check implements component.Checker.
func (o options) Check() error {
	errs := []error{o.Options.Check()}
	if o.MaxLenApprox < 0 {
		errs = append(errs, component.OptionErrorf("maxLenApprox", "must not be negative"))
	}
	if o.QueueDepth < 1 {
		errs = append(errs, component.OptionErrorf("queueDepth", "must be at least 1"))
	}
	for option, text := range map[string]string{"streamTTL": o.StreamTTL, "processingTimeout": o.ProcessingTimeout} {
		if d, err := duration(text); err != nil || d < 0 {
			errs = append(errs, component.OptionErrorf(option, "must be a duration such as 60s, and not negative"))
		}
	}
	return errors.Join(errs...)
}

func duration(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	return client.Duration(text)
}

var errClosed = fault.New(fault.Unavailable, "the broker is closed")

type broker struct {
	c         *client.Client
	groups    *streams.Groups
	publishes *batch.Writer[item]
	most      string // of a stream; empty: no bound
	ttl       time.Duration
	closed    atomic.Bool
}

// item is one message on its way.
type item struct {
	topic string
	m     *pubsub.Message
}

const (
	publishMost  = 512
	publishBytes = 8 << 20
)

func open(ctx context.Context, env component.Env, o options) (pubsub.Driver, error) {
	c, err := client.Open(ctx, env, o.Options)
	if err != nil {
		return nil, err
	}
	timeout, err := duration(o.ProcessingTimeout)
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	b := &broker{c: c}
	if b.ttl, err = duration(o.StreamTTL); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	if o.MaxLenApprox > 0 {
		b.most = strconv.Itoa(o.MaxLenApprox)
	}
	b.groups = streams.New(ctx, streams.Options{Client: c, Logger: env.Logger, Timeout: timeout, Count: o.QueueDepth})
	b.publishes = batch.NewWriter(ctx, batch.Options[item]{
		Write: b.write, Most: publishMost, Bytes: publishBytes, Size: func(it item) int { return len(it.m.Data) },
	})
	return b, nil
}

// Features implements pubsub.Featured.
func (b *broker) Features() pubsub.Features { return pubsub.Features{GiveBack: true} }

// Publish implements pubsub.Driver: all callers' messages go out together.
func (b *broker) Publish(ctx context.Context, topic string, ms []pubsub.Message) error {
	if b.closed.Load() {
		return errClosed
	}
	items := make([]item, len(ms))
	for i := range ms {
		items[i] = item{topic, &ms[i]}
	}
	errs := b.publishes.Do(ctx, items...)
	if errs == nil {
		return nil
	}
	return &pubsub.BatchError{Errs: errs}
}

// write adds a batch in one round trip.
func (b *broker) write(ctx context.Context, items []item) []error {
	cmds := make(rueidis.Commands, 0, len(items))
	errs := make([]error, len(items))
	least := ""
	if b.ttl > 0 {
		least = strconv.FormatInt(time.Now().Add(-b.ttl).UnixMilli(), 10) + "-1"
	}
	for _, it := range items {
		cmds = append(cmds, b.add(it, least))
	}
	failed := false
	for i, r := range b.c.DoMulti(ctx, cmds...) {
		if err := r.Error(); err != nil {
			errs[i], failed = fault.Wrap(client.Classify(err), "add to stream %q", items[i].topic), true
		}
	}
	if !failed {
		return nil
	}
	return errs
}

// add makes the command of one message.
func (b *broker) add(it item, least string) rueidis.Completed {
	key := b.c.B().Xadd().Key(it.topic)
	var to rueidis.Completed
	data := rueidis.BinaryString(it.m.Data)
	meta := metadataOf(it.m)
	switch {
	case b.most != "":
		f := key.Maxlen().Almost().Threshold(b.most).Id("*").FieldValue().FieldValue("data", data)
		if meta != "" {
			f = f.FieldValue("metadata", meta)
		}
		to = f.Build()
	case least != "":
		f := key.Minid().Almost().Threshold(least).Id("*").FieldValue().FieldValue("data", data)
		if meta != "" {
			f = f.FieldValue("metadata", meta)
		}
		to = f.Build()
	default:
		f := key.Id("*").FieldValue().FieldValue("data", data)
		if meta != "" {
			f = f.FieldValue("metadata", meta)
		}
		to = f.Build()
	}
	return to
}

// The names under which request metadata has an ordering key.
const (
	partitionKey = "partitionKey"
	orderingKey  = "orderingKey"
)

// keyOf returns the ordering key in metadata.
func keyOf(metadata map[string]string) string {
	if len(metadata) == 0 {
		return ""
	}
	for _, name := range [...]string{partitionKey, orderingKey} {
		if v := metadata[name]; v != "" {
			return v
		}
		for k, v := range metadata {
			if v != "" && strings.EqualFold(k, name) {
				return v
			}
		}
	}
	return ""
}

// metadataOf is the field metadata of a message: empty when it has none.
func metadataOf(m *pubsub.Message) string {
	metadata := m.Metadata
	if m.Key != "" && keyOf(metadata) != m.Key {
		metadata = maps.Clone(metadata)
		if metadata == nil {
			metadata = map[string]string{}
		}
		maps.DeleteFunc(metadata, func(k, _ string) bool { return strings.EqualFold(k, partitionKey) })
		metadata[partitionKey] = m.Key
	}
	if len(metadata) == 0 {
		return ""
	}
	text, err := json.Marshal(metadata)
	if err != nil {
		return "" // a map of texts always has a form
	}
	return string(text)
}

// decode reads an entry. One of another program, without data, comes with its
// fields as metadata.
func decode(d *cloudevents.Delivery, e *streams.Entry) {
	has := false
	for _, f := range e.Fields {
		switch f.Field {
		case "data":
			d.Body, has = client.Bytes(f.Value), true
		case "metadata":
			// What is no object of texts says nothing to us, as under Dapr.
			_ = json.Unmarshal([]byte(f.Value), &d.Metadata)
		}
	}
	if !has {
		d.Metadata = make(map[string]string, len(e.Fields))
		for _, f := range e.Fields {
			d.Metadata[f.Field] = f.Value
		}
	}
	d.Key = keyOf(d.Metadata)
}

// Prepare implements pubsub.Preparer.
func (b *broker) Prepare(ctx context.Context, s pubsub.Subscription) error {
	return b.groups.Prepare(ctx, s.Topic, s.Group)
}

// Subscribe implements pubsub.Driver.
func (b *broker) Subscribe(ctx context.Context, s pubsub.Subscription, emit cloudevents.EmitFunc) error {
	return b.groups.Read(ctx, s.Topic, s.Group, decode, emit)
}

// Backlog implements pubsub.Backlogged.
func (b *broker) Backlog(ctx context.Context, s pubsub.Subscription) (cloudevents.Backlog, error) {
	return b.groups.Backlog(ctx, s.Topic, s.Group)
}

// Close implements pubsub.Driver.
func (b *broker) Close(ctx context.Context) error {
	if b.closed.Swap(true) {
		return nil
	}
	return errors.Join(b.publishes.Close(ctx), b.groups.Close(ctx), b.c.Close())
}

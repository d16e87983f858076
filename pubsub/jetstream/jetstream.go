// Package jetstream is the broker "pubsub.jetstream": topics in the streams of
// NATS servers.
//
// It is opened through [Component]. A topic is a subject; the stream is the one
// of streamName, else the one that has the subject, else one that is made for it.
// A subscription is a durable pull consumer, which the members of its group
// share. A topic may hold the wildcards of NATS, as in orders.* or orders.>.
//
// Promises: a publish is stored by the stream, on its replicas, when it returns.
// A message is acknowledged when it is settled, and extended as long as it is
// held; of a process that died it comes to another member within ackWait, 4 s.
// A retry comes again from the server, after its delay and counted, also after a
// crash. A consumer or stream that was deleted is made again, a consumer where it
// was. Messages that wait for an answer are at most 1024 beyond what the router
// holds, of 8 MiB together.
package jetstream

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"time"

	js "github.com/nats-io/nats.go/jetstream"

	"github.com/penstock-io/penstock/client/nats"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/pubsub"
)

// Component is "pubsub.jetstream".
var Component = pubsub.Define("jetstream", component.About{
	Summary: "Topics in streams of NATS JetStream",
	Ack:     "Sent to the server when the event is settled, and again after a lost connection; a publish is in the stream when it returns. How much a server's disk has of that is its sync_interval's business.",
	Order:   "In the order of the stream to one member, and those of one key one after the other there; members of a group share messages without regard to keys. What is delivered again comes late.",
	Limits:  "max_payload of the server, 1 MiB usually; 20000 messages without an answer for each consumer (maxAckPending).",
	Scale:   "Members of a group share one durable consumer. A member that dies is replaced within ackWait (4s).",
	Dapr: "A stream is made when none has the topic: it is called like the topic with all but letters, digits, - and _ turned into _ (and then a hash behind it), and keeps everything until streamMaxAge. " +
		"Subscriptions without a durableName are durable and shared by consumerID instead of ephemeral, called <consumerID>-<topic>. " +
		"A push consumer that Dapr made under durableName is left alone; ours is called durableName-<consumerID>-<topic> then and begins as deliverPolicy says. " +
		"ackPolicy is always explicit. Consumers pull, so queueGroupName only names the group and flowControl does nothing. " +
		"ackWait is 4s instead of 30s; what is held longer is extended. A retry waits for the route's back-off, not for ackWait. " +
		"maxDeliver counts attempts that failed, is kept by us, and what has used them up is terminated with a warning in the log. " +
		"What the server takes for a duplicate by its id and is another message is stored all the same.",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: bus
spec:
  type: pubsub.jetstream
  version: v1
  metadata:
    - name: natsURL
      value: nats://localhost:4222
    - name: deliverPolicy
      value: all
`,
}, open)

type options struct {
	nats.Options
	StreamName     string            `meta:"streamName"     doc:"The only stream to use; when empty the one that has the topic." example:"orders"`
	DurableName    string            `meta:"durableName"    doc:"Name of the durable consumer of the first topic; further topics and groups put theirs behind it. The group and the topic when empty."`
	QueueGroupName string            `meta:"queueGroupName" doc:"Stands for the consumer group in the name of the consumer."`
	StartSequence  int64             `meta:"startSequence"  doc:"First message of a new consumer, with deliverPolicy sequence."`
	StartTime      int64             `meta:"startTime"      doc:"When to begin, in seconds since 1970, with deliverPolicy time."`
	DeliverPolicy  string            `meta:"deliverPolicy"  doc:"Where a new consumer begins." enum:"all|last|new|sequence|time" default:"all"`
	AckWait        time.Duration     `meta:"ackWait"        doc:"How long a member that died keeps its messages. Empty: 4s for a new consumer; one that exists keeps its own."`
	MaxDeliver     int               `meta:"maxDeliver"     doc:"Attempts of a message until it is given up; 0 or less is without limit." default:"0"`
	BackOff        []string          `meta:"backOff"        doc:"Shortest pauses before the retries, one after the other." example:"1s, 5s, 30s"`
	MaxAckPending  int               `meta:"maxAckPending"  doc:"Messages of a consumer without an answer, those that wait for a retry among them; 0 is 20000 for a new consumer."`
	Replicas       int               `meta:"replicas"       doc:"Copies of a consumer, and of a stream that is made; 0 is one, or those of the stream."`
	MemoryStorage  bool              `meta:"memoryStorage"  doc:"Keeps the state of consumers, and a stream that is made, in memory only."`
	RateLimit      int64             `meta:"rateLimit"      doc:"Most bits per second that a subscription hands out; 0 is without limit."`
	Heartbeat      time.Duration     `meta:"heartbeat"      doc:"How often an idle server must be heard of; 1s when 0."`
	Concurrency    string            `meta:"concurrency"    doc:"Whether the next message is handed out only when the one before is settled (single)." enum:"single|parallel" default:"parallel"`
	CreateStream   bool              `meta:"createStream"   doc:"Makes a stream for a topic that none has." default:"true"`
	StreamMaxAge   time.Duration     `meta:"streamMaxAge"   doc:"How long a stream that is made keeps messages; 0 is until they are deleted." default:"0s"`
	FlowControl    component.Ignored `meta:"flowControl"    doc:"Consumers pull, which is flow control by itself."`
	AckPolicy      component.Ignored `meta:"ackPolicy"      doc:"Always explicit: no other policy can tell which message failed."`
}

// Check implements component.Checker.
func (o options) Check() error {
	errs := []error{o.Options.Check()}
	negative := func(name string, n int64) {
		if n < 0 {
			errs = append(errs, component.OptionErrorf(name, "must not be negative"))
		}
	}
	negative("startSequence", o.StartSequence)
	negative("maxAckPending", int64(o.MaxAckPending))
	negative("replicas", int64(o.Replicas))
	negative("rateLimit", o.RateLimit)
	if o.DeliverPolicy == "sequence" && o.StartSequence == 0 {
		errs = append(errs, component.OptionErrorf("startSequence", "is needed with deliverPolicy sequence"))
	}
	if o.DeliverPolicy == "time" && o.StartTime == 0 {
		errs = append(errs, component.OptionErrorf("startTime", "is needed with deliverPolicy time"))
	}
	if o.AckWait > 0 && o.AckWait < minAckWait {
		errs = append(errs, component.OptionErrorf("ackWait", "must be at least %s", minAckWait))
	}
	if _, err := o.backOff(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

const minAckWait = 20 * time.Millisecond

func (o options) backOff() (list []time.Duration, err error) {
	for _, text := range o.BackOff {
		d, err := config.ParseDuration(text)
		if err != nil || d < 0 {
			return nil, component.OptionErrorf("backOff", "%q is not a duration", text)
		}
		list = append(list, d)
	}
	return list, nil
}

func (o options) streams() nats.StreamOptions {
	return nats.StreamOptions{
		Stream: o.StreamName, Replicas: o.Replicas, Memory: o.MemoryStorage, MaxAge: o.StreamMaxAge, CreateNever: !o.CreateStream,
	}
}

func (o options) consumer() (nats.ConsumerOptions, error) {
	pauses, err := o.backOff()
	return nats.ConsumerOptions{
		Streams: o.streams(), Name: o.DurableName, Deliver: policy(o.DeliverPolicy), StartSequence: uint64(o.StartSequence),
		StartTime: time.Unix(o.StartTime, 0), AckWait: o.AckWait, MaxDeliver: max(o.MaxDeliver, 0), MaxAckPending: o.MaxAckPending,
		Replicas: o.Replicas, Memory: o.MemoryStorage, BackOff: pauses, Single: o.Concurrency == "single", Heartbeat: o.Heartbeat,
		BitsPerSecond: uint64(o.RateLimit),
	}, err
}

func policy(word string) js.DeliverPolicy {
	switch word {
	case "last":
		return js.DeliverLastPolicy
	case "new":
		return js.DeliverNewPolicy
	case "sequence":
		return js.DeliverByStartSequencePolicy
	case "time":
		return js.DeliverByStartTimePolicy
	}
	return js.DeliverAllPolicy
}

// driver is one component's use of the servers.
type driver struct {
	conn   *nats.Conn
	writer *nats.Publisher
	reader *nats.Consumer
	group  string // stands for that of every subscription; empty: none does
	closed atomic.Bool
}

func open(ctx context.Context, env component.Env, o options) (pubsub.Driver, error) {
	reading, err := o.consumer()
	if err != nil {
		return nil, fault.As(fault.Invalid, err)
	}
	conn, err := nats.Open(ctx, env, o.Options)
	if err != nil {
		return nil, err
	}
	return &driver{
		conn: conn, writer: conn.Publisher(o.streams()), reader: conn.Consumer(ctx, reading, env.Logger.Warn), group: o.QueueGroupName,
	}, nil
}

// Features implements pubsub.Featured. Wildcards are those of NATS.
func (d *driver) Features() pubsub.Features { return pubsub.Features{GiveBack: true} }

// Publish writes the batch in order.
func (d *driver) Publish(ctx context.Context, topic string, ms []pubsub.Message) error {
	if d.closed.Load() {
		return fault.New(fault.Unavailable, "publish: already closed")
	}
	list := make([]nats.Message, len(ms))
	for i := range ms {
		m := &ms[i]
		list[i] = nats.Message{Data: m.Data, Metadata: m.Metadata, Key: m.Key, ID: id(m)}
	}
	if errs := d.writer.Publish(ctx, topic, list); errs != nil {
		return &pubsub.BatchError{Errs: errs}
	}
	return nil
}

// id returns that of the event, by which the server knows a publish that is tried
// again.
func id(m *pubsub.Message) string {
	if !strings.HasPrefix(m.ContentType, cloudevents.ContentType) {
		return ""
	}
	e, err := cloudevents.Scan(m.Data)
	if err != nil {
		return ""
	}
	return e.ID()
}

// Prepare implements pubsub.Preparer.
func (d *driver) Prepare(ctx context.Context, s pubsub.Subscription) error {
	return d.reader.Prepare(ctx, s.Topic, d.groupOf(s))
}

func (d *driver) groupOf(s pubsub.Subscription) string {
	if d.group != "" {
		return d.group
	}
	return s.Group
}

// Subscribe implements pubsub.Driver.
func (d *driver) Subscribe(ctx context.Context, s pubsub.Subscription, emit cloudevents.EmitFunc) error {
	return d.reader.Subscribe(ctx, s.Topic, d.groupOf(s), emit)
}

// Close implements pubsub.Driver.
func (d *driver) Close(ctx context.Context) error {
	if d.closed.Swap(true) {
		return nil
	}
	return errors.Join(d.reader.Close(ctx), d.conn.Close())
}

// Backlog implements pubsub.Backlogged.
func (d *driver) Backlog(ctx context.Context, s pubsub.Subscription) (cloudevents.Backlog, error) {
	return d.reader.Backlog(ctx, s.Topic, d.groupOf(s))
}

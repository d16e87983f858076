// Package kafka is the binding "bindings.kafka": it reads records of topics as
// events, and writes records.
//
// Input: the value of a record is the event's data; the topic, partition and
// offset make its id, so the same record has the same id whenever it is read.
// Output: the operation create writes one record to publishTopic.
//
// Promises: as of pubsub.kafka. The offset is committed only past what was
// acknowledged; a create that returned nil is on all in-sync replicas.
package kafka

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"

	"github.com/penstock-io/penstock/bindings"
	client "github.com/penstock-io/penstock/client/kafka"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
)

// Component is "bindings.kafka".
var Component = bindings.Define("kafka", component.About{
	Summary: "Reads records of Kafka topics as events and writes records",
	Ack:     "Offsets are committed every commitInterval, up to the oldest event that is not done, with a note of up to 4 KB that tells which behind it are; create returns when all in-sync replicas have the record",
	Order:   "By key inside a partition, one of a key at a time; ordering: partition keeps a whole partition in order, none keeps nothing",
	Limits:  "maxUncommitted (10000) events and maxUncommittedBytes (32Mi) of each partition in memory",
	Scale:   "The partitions of the topics are shared by the members of the consumer group. When one comes or goes, a partition that moves is finished and committed by the member that had it before the next one gets it; the others go on meanwhile",
	Dapr:    "A failing event is tried again and never skipped. No Avro, no AWS IAM",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: orders
spec:
  type: bindings.kafka
  version: v1
  metadata:
    - name: brokers
      value: localhost:9092
    - name: authType
      value: none
    - name: topics
      value: orders
    - name: publishTopic
      value: orders
`,
	Capabilities: []string{bindings.InputCapability, bindings.OutputCapability},
	Operations:   operations(),
}, open)

func operations() []string { return []string{"create"} }

type options struct {
	client.Options
	Topics          []string          `meta:"topics" doc:"Topics to read." example:"orders,refunds"`
	PublishTopic    string            `meta:"publishTopic" doc:"Topic that create writes to; the request's metadata topic when empty."`
	ConsumerGroup   string            `meta:"consumerGroup" doc:"Consumer group to read as; the app id when empty."`
	Ordering        string            `meta:"ordering" default:"key" enum:"key|partition|none" doc:"What is delivered one after the other: events of one key, all of a partition, or nothing. Events without a key have no order by key."`
	ValueSchemaType component.Ignored `meta:"valueSchemaType" doc:"Values are handed on as they are."`
}

type output struct {
	cluster  *client.Cluster
	producer *client.Producer
	o        options
	once     sync.Once
	err      error
	consumer *client.Consumer // nil: no input
	group    string
	name     string
}

// binding has an input too.
type binding struct{ *output }

func open(ctx context.Context, env component.Env, o options) (bindings.Driver, error) {
	c, err := client.Open(ctx, env, o.Options)
	if err != nil {
		return nil, err
	}
	b := &output{cluster: c, producer: c.Producer(ctx), o: o, group: o.ConsumerGroup, name: env.Name}
	if b.group == "" {
		b.group = env.AppID
	}
	if len(o.Topics) == 0 {
		return b, nil
	}
	b.consumer = c.Consumer(ctx)
	return &binding{b}, nil
}

// Read implements bindings.Reader.
func (b *binding) Read(ctx context.Context, emit cloudevents.EmitFunc) error {
	return b.consumer.Subscribe(ctx, client.Subscription{
		Group: b.group, Topics: b.o.Topics, Build: b.build, LeftStays: true,
		Key: func(d *cloudevents.Delivery) string { return d.Key },
	}, emit)
}

// Backlog implements bindings.Backlogged.
func (b *binding) Backlog(ctx context.Context) (cloudevents.Backlog, error) {
	return b.consumer.Backlog(ctx, b.group, b.o.Topics)
}

// build makes a delivery of a record. What cannot be in an event, such as a
// time before year 1, is left out of it.
func (b *binding) build(r *client.Record, d *cloudevents.Delivery) {
	d.Body = r.Value
	if d.Body == nil {
		d.Body = []byte{}
	}
	d.Origin = b.name
	d.Metadata = client.Metadata(r, b.o.EscapeHeaders)
	at := r.Topic + "/" + strconv.Itoa(r.Partition)
	received := bindings.Received{
		ID: at + "/" + strconv.FormatInt(r.Offset, 10), Source: "kafka/" + r.Topic, Type: "kafka.record",
		Time: r.Time, ContentType: contentType(r), Data: d.Body,
	}
	e, err := received.Event()
	if err != nil {
		received.ContentType = "application/octet-stream"
		e, _ = received.Event() // bytes fit into any event
	}
	d.Event = e
	switch b.o.Ordering {
	case "partition":
		d.Key = at
	case "key":
		d.Key = string(r.Key)
	}
}

func contentType(r *client.Record) string {
	for _, h := range r.Headers {
		if strings.EqualFold(h.Key, "content-type") {
			return string(h.Value)
		}
	}
	return ""
}

// Operations implements bindings.Invoker.
func (b *output) Operations() []string { return operations() }

// Invoke implements bindings.Invoker.
func (b *output) Invoke(ctx context.Context, r *bindings.Request) (*bindings.Response, error) {
	if r.Operation != "create" {
		return nil, fault.New(fault.Invalid, "operation %.40q is not supported; use create", r.Operation)
	}
	topic := b.o.PublishTopic
	if topic == "" {
		topic = r.Metadata["topic"]
	}
	if topic == "" {
		return nil, fault.New(fault.Invalid, "create: publishTopic is not set and the request has no metadata topic")
	}
	m := client.Message{Value: r.Data, Headers: b.producer.Headers(r.Metadata), Partition: client.AnyPartition}
	if m.Value == nil {
		m.Value = []byte{}
	}
	for _, name := range []string{"partitionKey", "__key"} {
		if key := r.Metadata[name]; key != "" && m.Key == nil {
			m.Key = []byte(key)
		}
	}
	if text := r.Metadata["partitionNumber"]; text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 {
			return nil, fault.New(fault.Invalid, "read metadata partitionNumber: %.40q is not a partition", text)
		}
		m.Partition = n
	}
	if errs := b.producer.Publish(ctx, topic, []client.Message{m}); errs != nil {
		return nil, errs[0]
	}
	return nil, nil
}

// Close implements component.Driver.
func (b *output) Close(ctx context.Context) error {
	b.once.Do(func() {
		if b.consumer != nil {
			b.err = b.consumer.Close(ctx)
		}
		b.err = errors.Join(b.err, b.producer.Close(ctx), b.cluster.Close())
	})
	return b.err
}

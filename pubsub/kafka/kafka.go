// Package kafka is the broker "pubsub.kafka": topics and consumer groups of
// Apache Kafka and what speaks its protocol.
//
// It is opened through [Component]. A message is one record: its data is the
// value, its metadata are the headers, its key is the record's. A subscription
// is a member of the consumer group.
//
// Promises: a publish that returned nil is on all in-sync replicas, unless
// producerRequiredAcks says less. An acknowledged message is committed within
// commitInterval, and never past one that is not done. Messages of one key are
// delivered one at a time and in order inside their partition; a key that is
// stuck holds back nobody else until maxUncommitted messages are behind it. A
// message that is to be tried again waits in memory, and comes again at once
// and uncounted after a crash.
package kafka

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"

	client "github.com/penstock-io/penstock/client/kafka"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/pubsub"
)

// Component is "pubsub.kafka".
var Component = pubsub.Define("kafka", component.About{
	Summary: "Topics and consumer groups of Apache Kafka",
	Ack:     "Offsets are committed every commitInterval, up to the oldest message that is not done, with a note of up to 4 KB that tells which behind it are; a publish returns when all in-sync replicas have it",
	Order:   "By key inside a partition, one of a key at a time; ordering: partition keeps a whole partition in order, none keeps nothing",
	Limits:  "maxUncommitted (10000) messages and maxUncommittedBytes (32Mi) of each partition in memory. A message may come again after a crash, when it was under way for longer than rebalanceDrain while its partition moved, or after a produce request whose answer was lost; a clean stop brings nothing again, unless more is done behind the oldest open message than the note can tell (some 1500 stretches)",
	Scale:   "The partitions of a topic are shared by the members of a group. When one comes or goes, a partition that moves is finished and committed by the member that had it before the next one gets it; the others go on meanwhile. One that was killed is replaced after sessionTimeout: 3s where group.min.session.timeout.ms allows it, 6s with the brokers' defaults. One that stops is replaced at once",
	Dapr:    "Works on many messages of a partition at once, keeping the order of each key; messages without a key in any order (ordering: partition is Dapr's way). A failing message is never skipped. In a group that has members of Dapr too, partitions move as Dapr moves them, and what is under way of them comes again. No Avro, no AWS IAM",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: bus
spec:
  type: pubsub.kafka
  version: v1
  metadata:
    - name: brokers
      value: localhost:9092
    - name: authType
      value: none
`,
}, open)

type options struct {
	client.Options
	ConsumerGroup string `meta:"consumerGroup" doc:"Consumer group of the app's subscriptions, instead of consumerID."`
	Ordering      string `meta:"ordering" default:"key" enum:"key|partition|none" doc:"What is delivered one after the other: messages of one key, all of a partition, or nothing. Messages without a key have no order by key."`
}

type driver struct {
	cluster  *client.Cluster
	producer *client.Producer
	consumer *client.Consumer
	o        options
	appID    string

	once sync.Once
	err  error
}

func open(ctx context.Context, env component.Env, o options) (pubsub.Driver, error) {
	c, err := client.Open(ctx, env, o.Options)
	if err != nil {
		return nil, err
	}
	d := &driver{cluster: c, producer: c.Producer(ctx), consumer: c.Consumer(ctx), o: o, appID: env.AppID}
	return d, nil
}

// Features implements pubsub.Featured.
func (d *driver) Features() pubsub.Features { return pubsub.Features{GiveBack: true} }

// Publish implements pubsub.Driver.
func (d *driver) Publish(ctx context.Context, topic string, batch []pubsub.Message) error {
	ms := make([]client.Message, len(batch))
	for i := range batch {
		if err := d.message(&batch[i], &ms[i]); err != nil {
			return err
		}
	}
	errs := d.producer.Publish(ctx, topic, ms)
	if errs == nil {
		return nil
	}
	if len(errs) == 1 {
		return errs[0]
	}
	return &pubsub.BatchError{Errs: errs}
}

// message makes a record of a message.
func (d *driver) message(m *pubsub.Message, r *client.Message) error {
	*r = client.Message{Value: m.Data, Headers: d.producer.Headers(m.Metadata), Partition: client.AnyPartition}
	if r.Value == nil {
		r.Value = []byte{}
	}
	key := m.Key
	if key == "" {
		key = m.Metadata["__key"]
	}
	if key != "" {
		r.Key = []byte(key)
	}
	if number := m.Metadata["partitionNumber"]; number != "" {
		n, err := strconv.Atoi(number)
		if err != nil || n < 0 {
			return fault.New(fault.Invalid, "read metadata partitionNumber: %.40q is not a partition", number)
		}
		r.Partition = n
	}
	return nil
}

// Prepare implements pubsub.Preparer.
func (d *driver) Prepare(ctx context.Context, s pubsub.Subscription) error {
	return d.consumer.Prepare(ctx, d.group(s.Group), []string{s.Topic})
}

// group is the consumer group of a subscription's: consumerGroup stands for the
// app's own.
func (d *driver) group(asked string) string {
	if d.o.ConsumerGroup == "" {
		return asked
	}
	if asked == d.appID {
		return d.o.ConsumerGroup
	}
	if rest, ok := strings.CutPrefix(asked, d.appID+"-"); ok {
		return d.o.ConsumerGroup + "-" + rest
	}
	return asked
}

// Subscribe implements pubsub.Driver.
func (d *driver) Subscribe(ctx context.Context, s pubsub.Subscription, emit cloudevents.EmitFunc) error {
	if kind := s.Metadata["valueSchemaType"]; kind != "" && !strings.EqualFold(kind, "none") {
		return fault.New(fault.Invalid, "subscribe: valueSchemaType %.40q is not supported: values are handed on as they are", kind)
	}
	key := s.Key
	if key == nil {
		key = func(d *cloudevents.Delivery) string { return d.Key }
	}
	return d.consumer.Subscribe(ctx, client.Subscription{
		Group: d.group(s.Group), Topics: []string{s.Topic}, Build: d.build, Key: key,
	}, emit)
}

// build makes a delivery of a record.
func (d *driver) build(r *client.Record, to *cloudevents.Delivery) {
	to.Body = r.Value
	if to.Body == nil {
		to.Body = []byte{}
	}
	to.Metadata = client.Metadata(r, d.o.EscapeHeaders)
	switch d.o.Ordering {
	case "partition":
		to.Key = r.Topic + "/" + strconv.Itoa(r.Partition)
	case "key":
		to.Key = string(r.Key)
	}
}

// Backlog implements pubsub.Backlogged.
func (d *driver) Backlog(ctx context.Context, s pubsub.Subscription) (cloudevents.Backlog, error) {
	return d.consumer.Backlog(ctx, d.group(s.Group), []string{s.Topic})
}

// Close implements pubsub.Driver.
func (d *driver) Close(ctx context.Context) error {
	d.once.Do(func() {
		d.err = errors.Join(d.consumer.Close(ctx), d.producer.Close(ctx), d.cluster.Close())
	})
	return d.err
}

package rabbitmq

import (
	"fmt"
	"maps"
	"strconv"
	"strings"

	amqp "github.com/rabbitmq/amqp091-go"

	client "github.com/penstock-io/penstock/client/rabbitmq"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/pubsub"
)

// queue is one group's queue and all that belongs to it. Whatever is declared
// is what Dapr declares: the server refuses a second declaration that differs.
type queue struct {
	*driver
	topic, name string
	keys        []string // of the bindings to the topic's exchange
	args        amqp.Table
	quorum      bool
	single      bool // singleActiveConsumer
}

// queue reads a subscription.
func (d *driver) queue(s pubsub.Subscription) (*queue, error) {
	of := func(name string) string {
		for key, value := range s.Metadata {
			if strings.EqualFold(key, name) {
				return value
			}
		}
		return ""
	}
	q := &queue{driver: d, topic: s.Topic, name: of("queueName"), args: d.limits()}
	if q.name == "" {
		q.name = s.Group + "-" + s.Topic
	}
	q.keys = strings.Split(of("routingKey"), ",")
	if d.options.EnableDeadLetter {
		q.args["x-dead-letter-exchange"] = q.dlx()
	}
	switch kind := of("queueType"); kind {
	case "", amqp.QueueTypeClassic:
		q.args[amqp.QueueTypeArg] = amqp.QueueTypeClassic
	case amqp.QueueTypeQuorum:
		q.args[amqp.QueueTypeArg], q.quorum = amqp.QueueTypeQuorum, true
		if !d.options.Durable || d.options.DeletedWhenUnused {
			return nil, fault.New(fault.Invalid, "subscribe to %s: queueType quorum needs the component's options durable: true and deletedWhenUnused: false", s.Topic)
		}
	default:
		return nil, fault.New(fault.Invalid, "subscribe to %s: queueType %.40q is neither classic nor quorum", s.Topic, kind)
	}
	if text := of("singleActiveConsumer"); text != "" {
		var err error
		if q.single, err = config.ParseBool(text); err != nil {
			return nil, fault.New(fault.Invalid, "subscribe to %s: singleActiveConsumer %.40q is not a boolean", s.Topic, text)
		}
		if q.single {
			q.args["x-single-active-consumer"] = true
		}
	}
	for name, arg := range map[string]string{"maxPriority": "x-max-priority", "maxLen": "x-max-length", "maxLenBytes": "x-max-length-bytes"} {
		text := of(name)
		if text == "" {
			continue
		}
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 0 {
			return nil, fault.New(fault.Invalid, "subscribe to %s: %s %.40q is not a number", s.Topic, name, text)
		}
		q.args[arg] = n
		if name == "maxPriority" {
			q.args[arg] = uint8(min(n, 255))
		}
	}
	return q, nil
}

// limits are the arguments of a queue and of its dead letter queue.
func (d *driver) limits() amqp.Table {
	args := amqp.Table{}
	if d.options.MaxLen > 0 {
		args["x-max-length"] = d.options.MaxLen
	}
	if d.options.MaxLenBytes > 0 {
		args["x-max-length-bytes"] = d.options.MaxLenBytes
	}
	return args
}

func (q *queue) dlx() string { return "dlx-" + q.name }

// declare makes the exchange, the queue, and what dead letters need.
func (q *queue) declare(ch *amqp.Channel) error {
	if err := q.exchange(q.topic).Make(ch); err != nil {
		return err
	}
	unused := q.options.DeletedWhenUnused
	if q.options.EnableDeadLetter {
		if err := q.declareDeadLetters(ch); err != nil {
			return err
		}
	}
	if _, err := ch.QueueDeclare(q.name, q.options.Durable, unused, false, false, maps.Clone(q.args)); err != nil {
		return err
	}
	for _, key := range q.keys {
		if err := ch.QueueBind(q.name, key, q.topic, false, nil); err != nil {
			return fmt.Errorf("bind to exchange %s: %w", q.topic, err)
		}
	}
	return nil
}

// declareDeadLetters makes an exchange and a queue that survive a restart of the
// server whatever the others do.
func (q *queue) declareDeadLetters(ch *amqp.Channel) error {
	unused := q.options.DeletedWhenUnused
	if err := ch.ExchangeDeclare(q.dlx(), amqp.ExchangeFanout, true, unused, false, false, nil); err != nil {
		return err
	}
	args := q.limits()
	args["x-queue-mode"] = "lazy"
	dlq := "dlq-" + q.name
	if _, err := ch.QueueDeclare(dlq, true, unused, false, false, args); err != nil {
		return err
	}
	return ch.QueueBind(dlq, "", q.dlx(), false, nil)
}

// exchange is the topic's.
func (d *driver) exchange(topic string) *client.Topology {
	if t := d.latest.Load(); t != nil && t.Name == topic {
		return t
	}
	t := &client.Topology{Name: topic, Make: func(ch *amqp.Channel) error {
		o := &d.options
		declare := ch.ExchangeDeclare
		if o.ExchangeDeclareMode == "passive" {
			declare = ch.ExchangeDeclarePassive
		}
		if err := declare(topic, o.ExchangeKind, o.Durable, o.DeletedWhenUnused, false, false, nil); err != nil {
			return fault.Wrap(client.Classify(err), "declare exchange %s", topic)
		}
		return nil
	}}
	d.latest.Store(t)
	return t
}

// feed says how a queue is read.
func (d *driver) feed(q *queue) client.Feed {
	return client.Feed{
		Queue: q.name, Declare: q.declare, Prefetch: d.options.PrefetchCount, Quorum: q.quorum,
		Single:     d.options.Concurrency == "single",
		DeadLetter: d.options.EnableDeadLetter && !d.options.RequeueInFailure,
		Linger:     d.options.DeletedWhenUnused && !q.single,
		Decode:     d.decode,
	}
}

// decode fills in a delivery.
func (d *driver) decode(m *amqp.Delivery, to *cloudevents.Delivery) error {
	more := 0
	if d.options.Properties {
		more = 4
	}
	to.Metadata = client.Metadata(m, more)
	to.Key = client.Key(m)
	if d.options.Properties {
		for name, value := range map[string]string{
			"messageid": m.MessageId, "correlationid": m.CorrelationId, "type": m.Type, "contenttype": m.ContentType,
		} {
			if value != "" {
				to.Metadata[name] = value
			}
		}
	}
	return nil
}

package rabbitmq

import (
	"context"
	"crypto/rand"
	"strconv"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/penstock-io/penstock/bindings"
	client "github.com/penstock-io/penstock/client/rabbitmq"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
)

// Operations returns create.
func (b *binding) Operations() []string { return operations() }

// invokeTimeout is how long an invocation may take whose caller does not say.
const invokeTimeout = 60 * time.Second

// Invoke implements bindings.Invoker.
func (b *binding) Invoke(ctx context.Context, r *bindings.Request) (*bindings.Response, error) {
	if r.Operation != "create" {
		return nil, fault.New(fault.Invalid, "put message into queue: operation %.40q is not supported; use create", r.Operation)
	}
	if !b.calls.Begin() {
		return nil, fault.New(fault.Unavailable, "put message into queue: the binding is closed")
	}
	defer b.calls.End()
	m, err := b.message(r)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, invokeTimeout)
	defer cancel()
	for _, err := range b.client.Publish(ctx, m) {
		return nil, fault.Wrap(err, "put message into queue %s", b.options.QueueName)
	}
	return nil, nil
}

// message makes the message of a request.
func (b *binding) message(r *bindings.Request) (*client.Message, error) {
	p := amqp.Publishing{
		ContentType: b.options.ContentType, DeliveryMode: amqp.Persistent, Body: r.Data,
		Headers: make(amqp.Table, len(r.Metadata)),
	}
	ttl, set, err := cloudevents.TTL(r.Metadata)
	if err != nil {
		return nil, err
	}
	if set {
		p.Expiration = strconv.FormatInt(ttl.Milliseconds(), 10)
	}
	for name, value := range r.Metadata {
		p.Headers[name] = value
		switch strings.ToLower(name) {
		case "priority":
			n, err := strconv.ParseUint(value, 10, 64)
			if err != nil {
				return nil, fault.New(fault.Invalid, "read metadata priority %.40q: want a number from 0 to 255", value)
			}
			p.Priority = uint8(min(n, 255))
		case "contenttype":
			p.ContentType = value
		case "messageid":
			p.MessageId = value
		case "correlationid":
			p.CorrelationId = value
		case "type":
			p.Type = value
		}
	}
	if p.MessageId == "" {
		p.MessageId = rand.Text()
	}
	return &client.Message{Key: b.options.QueueName, Mandatory: true, Topology: b.queue, Publishing: p}, nil
}

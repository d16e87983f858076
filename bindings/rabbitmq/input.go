package rabbitmq

import (
	"context"
	"crypto/rand"
	"net/url"
	"strings"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/penstock-io/penstock/bindings"
	client "github.com/penstock-io/penstock/client/rabbitmq"
	"github.com/penstock-io/penstock/cloudevents"
)

// Read implements bindings.Reader.
func (b *binding) Read(ctx context.Context, emit cloudevents.EmitFunc) error {
	return b.reader.Read(ctx, client.Feed{
		Queue: b.options.QueueName, Declare: b.declare, Prefetch: b.options.PrefetchCount,
		Linger: b.options.DeleteWhenUnused && !b.options.Exclusive, KeepLeft: true, Decode: b.decode,
	}, emit)
}

// Backlog implements bindings.Backlogged.
func (b *binding) Backlog(ctx context.Context) (cloudevents.Backlog, error) {
	return b.reader.Backlog(ctx, b.options.QueueName, b.options.Exclusive)
}

// decode makes the event of a message. One without an id gets one, which it
// keeps across retries.
func (b *binding) decode(m *amqp.Delivery, to *cloudevents.Delivery) error {
	id := m.MessageId
	if id == "" {
		id, _ = m.Headers[client.HeaderID].(string)
	}
	if id == "" {
		id = rand.Text()
		if m.Headers == nil {
			m.Headers = amqp.Table{}
		}
		m.Headers[client.HeaderID] = id
	}
	contentType := m.ContentType
	if strings.HasPrefix(contentType, "text/plain") { // said of everything, here and there
		contentType = ""
	}
	event, err := bindings.Received{
		ID: id, Source: "rabbitmq:" + url.PathEscape(b.options.QueueName), Type: "io.penstock.rabbitmq.message",
		Time: m.Timestamp, ContentType: contentType, Data: m.Body,
	}.Event()
	if err != nil {
		return err
	}
	to.Event, to.Key, to.Origin = event, client.Key(m), b.name
	to.Metadata = escaped(client.Metadata(m, 0))
	return nil
}

// escaped makes metadata what can be a header of HTTP, the way Dapr does.
func escaped(metadata map[string]string) map[string]string {
	if len(metadata) == 0 {
		return nil
	}
	m := make(map[string]string, len(metadata))
	for name, value := range metadata {
		m[url.QueryEscape(name)] = url.QueryEscape(value)
	}
	return m
}

package sqs

import (
	"cmp"
	"context"
	"net/url"

	"github.com/penstock-io/penstock/bindings"
	client "github.com/penstock-io/penstock/client/aws"
	"github.com/penstock-io/penstock/client/aws/queue"
	"github.com/penstock-io/penstock/cloudevents"
)

// Read implements bindings.Reader.
func (b *binding) Read(ctx context.Context, emit cloudevents.EmitFunc) error {
	return b.queue.Read(ctx, func(ctx context.Context, m *queue.Message) error {
		d, err := b.delivery(m)
		if err != nil {
			return err
		}
		return emit(ctx, d)
	})
}

// Backlog implements bindings.Backlogged.
func (b *binding) Backlog(ctx context.Context) (cloudevents.Backlog, error) {
	return b.queue.Backlog(ctx)
}

func (b *binding) delivery(m *queue.Message) (*cloudevents.Delivery, error) {
	data, metadata, key := client.Unpack(m.Body, m.Texts())
	event, err := bindings.Received{
		ID: m.ID, Source: "sqs:" + url.PathEscape(b.o.QueueName), Type: "io.penstock.sqs.message", Time: m.Sent, Data: data,
	}.Event()
	if err != nil {
		return nil, err
	}
	return &cloudevents.Delivery{
		Body: data, Event: event, Metadata: metadata, Key: cmp.Or(key, m.Group), Attempt: m.Attempt, Origin: b.name, Settle: m.Settle,
	}, nil
}

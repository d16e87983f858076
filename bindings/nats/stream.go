package nats

import (
	"context"
	"errors"
	"net/url"
	"strconv"
	"sync/atomic"

	"github.com/nats-io/nats.go"

	"github.com/penstock-io/penstock/bindings"
	client "github.com/penstock-io/penstock/client/nats"
	"github.com/penstock-io/penstock/cloudevents"
)

// stream reads through a durable consumer.
type stream struct {
	*output
	reader *client.Consumer
	closed atomic.Bool
}

// Read implements bindings.Reader.
func (b *stream) Read(ctx context.Context, emit cloudevents.EmitFunc) error {
	return b.reader.Subscribe(ctx, b.o.Subject, b.group, emit)
}

// Backlog implements bindings.Backlogged.
func (b *stream) Backlog(ctx context.Context) (cloudevents.Backlog, error) {
	return b.reader.Backlog(ctx, b.o.Subject, b.group)
}

// Close implements bindings.Driver.
func (b *stream) Close(ctx context.Context) error {
	if b.closed.Swap(true) {
		return nil
	}
	return errors.Join(b.reader.Close(ctx), b.output.Close(ctx))
}

// build makes the event of a message of a stream. Where it stands there makes
// its id, and when it came, for a stream that is made anew counts from 1 again.
func (b *output) build(m *nats.Msg, at *nats.MsgMetadata, d *cloudevents.Delivery) {
	b.event(m, bindings.Received{
		ID:   at.Stream + "/" + strconv.FormatUint(at.Sequence.Stream, 10) + "/" + strconv.FormatInt(at.Timestamp.UnixNano(), 36),
		Time: at.Timestamp,
	}, d)
}

// event makes the event of a message into d. What a message says that cannot be
// in an event is left out of it.
func (b *output) event(m *nats.Msg, r bindings.Received, d *cloudevents.Delivery) {
	d.Body = m.Data
	if d.Body == nil {
		d.Body = []byte{}
	}
	d.Metadata = make(map[string]string, len(m.Header)+1)
	d.Key = client.Metadata(m.Header, d.Metadata)
	d.Metadata["subject"] = m.Subject
	d.Origin = b.name
	r.Source, r.Type, r.Data = "nats:"+url.PathEscape(m.Subject), "io.penstock.nats.message", d.Body
	r.ContentType = m.Header.Get("Content-Type")
	e, err := r.Event()
	if err != nil {
		r.ContentType = "application/octet-stream"
		e, _ = r.Event() // bytes fit into any event
	}
	d.Event = e
}

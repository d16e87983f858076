package rabbitmq

import (
	"context"
	"strconv"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	client "github.com/penstock-io/penstock/client/rabbitmq"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/pubsub"
)

// Publish implements pubsub.Driver.
func (d *driver) Publish(ctx context.Context, topic string, batch []pubsub.Message) error {
	if !d.calls.Begin() {
		return errClosed
	}
	defer d.calls.End()
	exchange := d.exchange(topic)
	now := time.Now()
	if len(batch) == 1 {
		return d.publishOne(ctx, exchange, &batch[0], now)
	}
	messages := make([]*client.Message, 0, len(batch))
	places := make([]int, 0, len(batch)) // in the batch
	var errs []error
	for i := range batch {
		m, err := d.message(exchange, &batch[i], now)
		switch {
		case err != nil:
			if errs == nil {
				errs = make([]error, len(batch))
			}
			errs[i] = err
		case m != nil:
			messages, places = append(messages, m), append(places, i)
		}
	}
	for i, err := range d.client.Publish(ctx, messages...) {
		if err == nil {
			continue
		}
		if errs == nil {
			errs = make([]error, len(batch))
		}
		errs[places[i]] = err
	}
	if errs == nil {
		return nil
	}
	return &pubsub.BatchError{Errs: errs}
}

// publishOne publishes a batch of one.
func (d *driver) publishOne(ctx context.Context, exchange *client.Topology, one *pubsub.Message, now time.Time) error {
	m, err := d.message(exchange, one, now)
	if err != nil {
		return &pubsub.BatchError{Errs: []error{err}}
	}
	if m == nil {
		return nil
	}
	if errs := d.client.Publish(ctx, m); errs != nil {
		return &pubsub.BatchError{Errs: errs}
	}
	return nil
}

// message makes what is published; nil when it has expired already.
func (d *driver) message(exchange *client.Topology, m *pubsub.Message, now time.Time) (*client.Message, error) {
	out := &client.Message{Exchange: exchange.Name, Topology: exchange}
	p := &out.Publishing
	p.ContentType, p.DeliveryMode, p.Body = m.ContentType, amqp.Persistent, m.Data
	expires := m.Expires
	if expires.IsZero() && d.options.TTL > 0 {
		expires = now.Add(d.options.TTL)
	}
	if len(m.Metadata) > 0 || m.Key != "" || !expires.IsZero() {
		p.Headers = make(amqp.Table, len(m.Metadata)+2)
	}
	if d.options.DeliveryMode == 1 {
		p.DeliveryMode = amqp.Transient
	}
	if p.ContentType == "" {
		p.ContentType = "text/plain"
	}
	for name, value := range m.Metadata {
		if err := property(out, p, name, value); err != nil {
			return nil, err
		}
	}
	if m.Key != "" {
		p.Headers[client.HeaderKey] = m.Key
	}
	if !expires.IsZero() {
		left := expires.Sub(now)
		if left <= 0 {
			return nil, nil
		}
		p.Expiration = strconv.FormatInt(max(left.Milliseconds(), 1), 10)
		p.Headers[client.HeaderExpires] = expires.UnixMilli()
	}
	return out, nil
}

// property puts one of a message's metadata where it belongs: what is for the way
// there is no header, so that nobody who sends the message on sends it astray.
func property(m *client.Message, p *amqp.Publishing, name, value string) error {
	switch strings.ToLower(name) {
	case "routingkey":
		m.Key = value
		return nil
	case "priority":
		n, err := strconv.ParseUint(value, 10, 64)
		if err != nil {
			return fault.New(fault.Invalid, "read metadata priority %.40q: want a number from 0 to 255", value)
		}
		p.Priority = uint8(min(n, 255))
		return nil
	case "contenttype":
		p.ContentType = value
	case "messageid":
		p.MessageId = value
	case "correlationid":
		p.CorrelationId = value
	case "type":
		p.Type = value
	}
	p.Headers[name] = value
	return nil
}

package sqs

import (
	"cmp"
	"context"
	"crypto/rand"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/penstock-io/penstock/bindings"
	client "github.com/penstock-io/penstock/client/aws"
	"github.com/penstock-io/penstock/client/aws/queue"
	"github.com/penstock-io/penstock/fault"
)

// Operations returns create.
func (b *binding) Operations() []string { return operations() }

// invokeTimeout is how long an invocation may take whose caller does not say.
const invokeTimeout = 60 * time.Second

// Invoke implements bindings.Invoker.
func (b *binding) Invoke(ctx context.Context, r *bindings.Request) (*bindings.Response, error) {
	if r.Operation != "create" {
		return nil, fault.New(fault.Invalid, "send message: operation %.40q is not supported; use create", r.Operation)
	}
	o, err := b.outgoing(r)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, invokeTimeout)
	defer cancel()
	return nil, b.queue.Send(ctx, o)
}

// outgoing makes the message of a request. The metadata that says how to send it
// is not sent.
func (b *binding) outgoing(r *bindings.Request) (queue.Outgoing, error) {
	var o queue.Outgoing
	rest := maps.Clone(r.Metadata)
	for name, value := range r.Metadata {
		switch strings.ToLower(name) {
		case "messagegroupid":
			o.Group = client.GroupID(value)
		case "messagededuplicationid":
			o.Dedupe = client.GroupID(value)
		case "delayseconds":
			n, err := strconv.Atoi(value)
			if err != nil || n < 0 || n > int(queue.MaxLater/time.Second) {
				return o, fault.New(fault.Invalid, "read metadata %s %.40q: want a number of seconds from 0 to 900", name, value)
			}
			o.Delay = time.Duration(n) * time.Second
		default:
			continue
		}
		delete(rest, name)
	}
	if b.o.fifo() {
		if o.Delay > 0 {
			return o, fault.New(fault.Invalid, "read metadata delaySeconds: a FIFO queue does not delay single messages")
		}
		o.Group = cmp.Or(o.Group, client.GroupID(b.o.GroupID), client.GroupID(b.name), "penstock")
		o.Dedupe = cmp.Or(o.Dedupe, rand.Text())
	}
	p, err := client.Pack(r.Data, rest, "")
	if err != nil {
		return o, err
	}
	if n := p.Bytes(); n > queue.Bytes {
		return o, fault.New(fault.Invalid, "message of %d bytes with its metadata: SQS takes %d", n, queue.Bytes)
	}
	o.Packed = p
	return o, nil
}

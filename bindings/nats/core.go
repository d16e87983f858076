package nats

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/penstock-io/penstock/bindings"
	client "github.com/penstock-io/penstock/client/nats"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
)

// core reads a subject of core NATS.
type core struct {
	*output
	inbox  *inbox
	closed atomic.Bool
	reads  sync.WaitGroup
	// listening counts the subscriptions that the server knows of.
	listening atomic.Int32
}

// Read implements bindings.Reader.
func (b *core) Read(ctx context.Context, emit cloudevents.EmitFunc) error {
	if b.closed.Load() {
		return fault.New(fault.Unavailable, "read subject %s: already closed", b.o.Subject)
	}
	b.reads.Add(1)
	defer b.reads.Done()
	b.inbox.restore()
	stop, err := b.listen(ctx)
	if err != nil {
		return err
	}
	defer stop()
	for {
		x := b.inbox.pop(ctx)
		if x == nil {
			return nil
		}
		if err := emit(ctx, b.delivery(x)); err != nil {
			b.leave(x)
			if ctx.Err() != nil {
				return nil
			}
			return fault.Wrap(err, "hand over message")
		}
	}
}

const unlistenTimeout = 2 * time.Second

// listen subscribes. stop ends it; what the server has sent by then is kept for
// the next Read, since no other process of the group will get it.
func (b *core) listen(ctx context.Context) (stop func(), err error) {
	nc := b.conn.Raw()
	before := nc.LastError()
	receive := func(m *nats.Msg) {
		id := m.Header.Get(nats.MsgIdHdr)
		if id == "" {
			id = rand.Text()
		}
		b.inbox.push(&held{msg: m, id: id, time: time.Now(), attempt: 1})
	}
	var sub *nats.Subscription
	if b.o.Broadcast {
		sub, err = nc.Subscribe(b.o.Subject, receive)
	} else {
		sub, err = nc.QueueSubscribe(b.o.Subject, b.group, receive)
	}
	if err != nil {
		return nil, fault.Wrap(client.Classify(err), "subscribe to %s", b.o.Subject)
	}
	ended := make(chan struct{})
	sub.SetClosedHandler(func(string) { close(ended) })
	err = flush(ctx, nc) // without a connection the library subscribes when there is one
	if refused := client.Refused(nc, before, b.o.Subject); err == nil && refused != nil {
		_ = sub.Unsubscribe() // the first error says more
		return nil, fault.Wrap(client.Classify(refused), "subscribe to %s", b.o.Subject)
	}
	b.listening.Add(1)
	return func() {
		b.listening.Add(-1)
		if sub.Drain() != nil {
			_ = sub.Unsubscribe() // it has gone with its connection
			return
		}
		patience := time.NewTimer(unlistenTimeout)
		defer patience.Stop()
		select {
		case <-ended:
		case <-patience.C:
			_ = sub.Unsubscribe() // the server does not answer
		}
	}, nil
}

// delivery hands out one message once.
func (b *core) delivery(x *held) *cloudevents.Delivery {
	d := &cloudevents.Delivery{Attempt: x.attempt}
	b.event(x.msg, bindings.Received{ID: x.id, Time: x.time}, d)
	h := &handed{core: b, held: x}
	d.Settle = h.settle
	if b.asks(x) {
		d.Answer = h.answer
	}
	return d
}

// asks tells whether somebody waits for a reply.
func (b *core) asks(x *held) bool { return b.o.Answer && x.msg.Reply != "" }

// handed is one message on its way through the route.
type handed struct {
	*held
	core *core

	mu          sync.Mutex
	settled     bool
	answered    bool
	contentType string
	data        []byte
}

func (h *handed) answer(contentType string, data []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.answered, h.contentType, h.data = true, contentType, data
}

// settle implements Delivery.Settle.
func (h *handed) settle(o cloudevents.Outcome) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.settled {
		return
	}
	h.settled = true
	b := h.core
	switch o.Verdict {
	case cloudevents.Leave:
		b.leave(h.held)
		return
	case cloudevents.Retry:
		if !b.asks(h.held) {
			if !b.inbox.later(h.held, o.After) {
				b.lose([]*held{h.held})
			}
			return
		}
	}
	if b.asks(h.held) {
		b.reply(h.held, h.result(o))
	}
	b.inbox.done(h.held)
}

// result is what the one who asked is told. Of an error it is the kind alone: the
// rest is the business of this side's log.
func (h *handed) result(o cloudevents.Outcome) *nats.Msg {
	failed := o.Verdict != cloudevents.Ack || !h.answered && o.Reason != ""
	switch limit := h.core.conn.Raw().MaxPayload(); {
	case failed && o.Err != nil:
		return refusal(fault.KindOf(o.Err), fault.KindOf(o.Err).String())
	case failed && o.Verdict == cloudevents.Retry:
		return refusal(fault.Unavailable, fault.Unavailable.String())
	case failed:
		return refusal(fault.Dropped, fault.Dropped.String())
	case limit > 0 && int64(len(h.data)+len(h.contentType)+64) > limit:
		return refusal(fault.Internal, "the answer is longer than max_payload")
	}
	m := &nats.Msg{Data: h.data}
	if h.contentType != "" {
		m.Header = nats.Header{"Content-Type": {h.contentType}}
	}
	return m
}

// refusal is an error as services of NATS answer it.
func refusal(kind fault.Kind, text string) *nats.Msg {
	code := kind.HTTPStatus()
	if kind == fault.Dropped { // asking again is no use
		code = http.StatusUnprocessableEntity
	}
	return &nats.Msg{Header: nats.Header{errorHeader: {text}, codeHeader: {strconv.Itoa(code)}}}
}

func (b *core) reply(x *held, m *nats.Msg) {
	m.Subject = x.msg.Reply
	b.sender.writer.Add(m, nil)
}

// leave keeps a message for the next Read, or lets go of it after Close.
func (b *core) leave(x *held) {
	if !b.inbox.leave(x) {
		b.lose([]*held{x})
	}
}

// lose is the end of messages that nobody settled.
func (b *core) lose(list []*held) {
	lost := 0
	for _, x := range list {
		if b.asks(x) {
			b.reply(x, refusal(fault.Unavailable, "stopping"))
		} else {
			lost++
		}
		b.inbox.done(x)
	}
	if lost > 0 {
		b.inbox.log.Warn("messages of NATS are lost: the binding stops, and core NATS does not keep them", "subject", b.o.Subject, "count", lost)
	}
}

// Close implements bindings.Driver.
func (b *core) Close(ctx context.Context) error {
	if b.closed.Swap(true) {
		return nil
	}
	b.lose(b.inbox.close())
	ended := make(chan struct{})
	go func() { b.reads.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-ctx.Done():
		return errors.Join(fault.Wrap(ctx.Err(), "wait for the subscription"), b.output.Close(ctx))
	}
	return b.output.Close(ctx)
}

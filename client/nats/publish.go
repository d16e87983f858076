package nats

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/penstock-io/penstock/fault"
)

const (
	mostPending    = 4096 // publishes whose answer is not there yet, of one publisher
	publishTimeout = 10 * time.Second
)

// Message is one to publish. Data and Metadata are not changed.
type Message struct {
	Data     []byte
	Metadata map[string]string
	Key      string // the ordering key, which travels beside the data
	// ID makes the server take a message that is published twice within its
	// window only once; empty is never.
	ID string
}

// Publisher writes to streams. It may be used by many goroutines.
type Publisher struct {
	conn    *Conn
	streams StreamOptions
	window  window
	out     outbox
}

// Publisher returns a publisher. Streams that are missing are made as the options
// say.
func (c *Conn) Publisher(streams StreamOptions) *Publisher {
	p := &Publisher{conn: c, streams: streams}
	p.out.post = p.post
	return p
}

// Publish writes messages in order and returns when each is confirmed or not:
// nil when all are stored, else one error per message. A subject that no stream
// has gets one. Nothing is written when ctx has ended.
func (p *Publisher) Publish(ctx context.Context, subject string, ms []Message) []error {
	if len(ms) == 0 {
		return nil
	}
	if err := ValidSubject(subject); err != nil {
		return all(len(ms), err)
	}
	if err := ctx.Err(); err != nil {
		return all(len(ms), Classify(err))
	}
	errs := p.round(ctx, subject, ms, nil)
	if !slices.ContainsFunc(errs, noStream) {
		return errs
	}
	if _, err := p.conn.ensureStream(ctx, subject, p.streams); err != nil {
		for i := range errs {
			if noStream(errs[i]) {
				errs[i] = fault.Wrap(Classify(err), "make stream for subject %q", subject)
			}
		}
		return errs
	}
	return p.round(ctx, subject, ms, errs)
}

func noStream(err error) bool {
	return errors.Is(err, jetstream.ErrNoStreamResponse) || errors.Is(err, nats.ErrNoResponders)
}

func all(n int, err error) []error { return slices.Repeat([]error{err}, n) }

// round publishes once: everything, or where before is given what found no
// stream in it.
func (p *Publisher) round(ctx context.Context, subject string, ms []Message, before []error) []error {
	var errs []error
	fail := func(i int, err error) {
		if errs == nil {
			errs = make([]error, len(ms))
		}
		errs[i] = err
	}
	if err := p.conn.acks.open(); err != nil {
		return all(len(ms), Classify(err))
	}
	c := p.conn.acks.call(len(ms))
	defer p.conn.acks.give(c)
	for i := range ms {
		if before != nil && !noStream(before[i]) {
			c.answer(i, answered{err: before[i]})
			continue
		}
		token, reply, room := p.conn.acks.expect(waiter{c, i, &p.window})
		for room != nil && ctx.Err() == nil {
			p.out.send(c.letters) // it may be their places that become free
			clear(c.letters)
			c.letters = c.letters[:0]
			select {
			case <-room:
				token, reply, room = p.conn.acks.expect(waiter{c, i, &p.window})
			case <-ctx.Done():
			}
		}
		if room != nil {
			c.answer(i, answered{err: ctx.Err()})
			continue
		}
		c.tokens[i] = token
		m := &ms[i]
		c.letters = append(c.letters, letter{token, &nats.Msg{Subject: subject, Reply: reply, Data: m.Data, Header: Headers(m.Metadata, m.Key, m.ID)}})
	}
	p.out.send(c.letters)
	p.conn.acks.wait(ctx, c)
	for i := range c.answers {
		err := c.answers[i].err
		if ack := c.answers[i].duplicate; ack != nil {
			err = p.recognized(ctx, ack, subject, &ms[i])
		}
		if err != nil {
			fail(i, Classify(err))
		}
	}
	return errs
}

// post begins publishes, but for those whose callers have given up already.
func (p *Publisher) post(letters []letter) {
	for _, l := range p.conn.acks.awaited(letters) {
		err := p.conn.nc.PublishMsg(l.msg)
		if err == nil {
			continue
		}
		if errors.Is(err, nats.ErrMaxPayload) {
			err = fault.New(fault.Invalid, "publish %d bytes: the server takes %d with the headers (max_payload)", len(l.msg.Data), p.conn.nc.MaxPayload())
		}
		if w, ok := p.conn.acks.forget(l.token); ok {
			w.answer(answered{err: err})
		}
	}
}

// recognized looks at what the server takes for the same message. The server
// compares ids, and for the whole stream: a dead letter has the id of its event.
// What is another message is stored without an id.
func (p *Publisher) recognized(ctx context.Context, ack *jetstream.PubAck, subject string, m *Message) error {
	stream, err := p.conn.js.Stream(ctx, ack.Stream)
	if err != nil {
		return err
	}
	old, err := stream.GetMsg(ctx, ack.Sequence)
	if err == nil && old.Subject == subject && bytes.Equal(old.Data, m.Data) {
		was, is := map[string]string{}, map[string]string{}
		if Metadata(old.Header, was) == Metadata(Headers(m.Metadata, m.Key, m.ID), is) && maps.Equal(was, is) {
			return nil
		}
	}
	if err != nil && !errors.Is(err, jetstream.ErrMsgNotFound) {
		return err
	}
	_, err = p.conn.js.PublishMsg(ctx, &nats.Msg{Subject: subject, Data: m.Data, Header: Headers(m.Metadata, m.Key, "")})
	return err
}

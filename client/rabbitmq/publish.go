package rabbitmq

import (
	"context"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/penstock-io/penstock/client/batch"
	"github.com/penstock-io/penstock/fault"
)

const (
	// window is how many messages one channel has without a confirm.
	window = 256
	// confirmTimeout is how long a confirm is waited for before the connection
	// counts as sick.
	confirmTimeout = 30 * time.Second
	// batchTimeout is how long all tries of a batch may take; then the connection
	// is cut.
	batchTimeout = 60 * time.Second
	// publishTries is how often a message is published whose exchange is gone.
	publishTries = 3
)

// Message is one message to publish.
type Message struct {
	Exchange, Key string
	// Mandatory makes it an error of kind NotFound when no queue gets the message.
	// It must have a MessageId, or a HeaderID, that no other message has.
	Mandatory bool
	// Topology, if not nil, is made before the message is published.
	Topology *Topology
	amqp.Publishing
}

// Topology is what a message needs on the server.
type Topology struct {
	// Name is what it is known by: Make is called once for each connection, and
	// again when something turns out to be gone.
	Name string
	// Make declares it.
	Make func(*amqp.Channel) error
	// Renew, if not zero, is how long a declaration is good for.
	Renew time.Duration
}

// Publish publishes the messages in order and waits until the server has
// confirmed each: nil when all are, else one error per message. When ctx ends
// first, those that are under way have an unknown end.
func (c *Client) Publish(ctx context.Context, messages ...*Message) []error {
	return c.writer().Do(ctx, messages...)
}

// publishLater publishes a message; done is told the end.
func (c *Client) publishLater(m *Message, done func(error)) { c.writer().Add(m, done) }

func (c *Client) writer() *batch.Writer[*Message] {
	return c.writers[c.next.Add(1)%publishers]
}

// publisher is one channel in confirm mode. Its batches come one at a time.
type publisher struct {
	link    *link
	session *session
	ch      *amqp.Channel
	closed  chan *amqp.Error
	returns chan amqp.Return
	spare   attempt // its room is used by every batch
}

// attempt is one try to publish a batch.
type attempt struct {
	*publisher
	messages []*Message
	errs     []error
	confirms []*amqp.DeferredConfirmation
	done     []bool
}

// write publishes a batch and waits for its confirms.
func (p *publisher) write(ctx context.Context, messages []*Message) []error {
	ctx, cancel := context.WithTimeout(ctx, batchTimeout)
	defer cancel()
	a := p.attempt(messages)
	for try := range publishTries {
		if err := p.ready(ctx); err != nil {
			a.fail(err)
			break
		}
		stop := context.AfterFunc(ctx, p.session.kill)
		again := a.run(try == publishTries-1)
		stop()
		if !again {
			break
		}
	}
	return a.result()
}

// attempt makes one of a batch.
func (p *publisher) attempt(messages []*Message) *attempt {
	a, n := &p.spare, len(messages)
	if cap(a.done) < n {
		a.errs, a.confirms, a.done = make([]error, n), make([]*amqp.DeferredConfirmation, n), make([]bool, n)
	}
	a.publisher, a.messages, a.errs, a.confirms, a.done = p, messages, a.errs[:n], a.confirms[:n], a.done[:n]
	clear(a.errs)
	clear(a.confirms)
	clear(a.done)
	return a
}

// ready sees that there is a channel.
func (p *publisher) ready(ctx context.Context) error {
	s, err := p.link.session(ctx, publishPatience)
	if err != nil {
		return err
	}
	if err := s.obstacle(); err != nil {
		return err
	}
	if p.session == s && p.ch != nil && !p.ch.IsClosed() {
		return nil
	}
	p.session, p.ch = s, nil
	ch, err := s.conn.Channel()
	if err != nil {
		return fault.Wrap(Classify(err), "open channel")
	}
	p.closed = ch.NotifyClose(make(chan *amqp.Error, 1))
	p.returns = ch.NotifyReturn(make(chan amqp.Return, window))
	if err := ch.Confirm(false); err != nil {
		return fault.Wrap(Classify(err), "open channel")
	}
	p.ch = ch
	return nil
}

// run publishes what is not done and waits for its confirms. It tells whether
// another try may help: an exchange or a queue was missing that can be declared
// again.
func (a *attempt) run(last bool) (again bool) {
	a.ensure()
	a.send()
	if err := a.confirmed(); err != nil {
		a.fail(err)
		return false
	}
	switch {
	case a.returned(last):
		a.session.forget()
		return true
	case !a.left():
		return false
	}
	err := a.reason()
	if !last && fault.KindOf(err) == fault.NotFound && a.session.forget() {
		return true
	}
	a.fail(err)
	return false
}

// ensure declares what the messages need.
func (a *attempt) ensure() {
	var last *Topology
	for i, m := range a.messages {
		if a.done[i] || m.Topology == last {
			continue
		}
		if err := a.session.ensure(m.Topology); err != nil {
			a.done[i], a.errs[i] = true, err
			continue
		}
		last = m.Topology
	}
}

// send publishes what is not done, with few writes to the connection.
func (a *attempt) send() {
	a.session.out.hold()
	defer a.session.out.release()
	for i, m := range a.messages {
		a.confirms[i] = nil
		if a.done[i] {
			continue
		}
		var err error
		if a.confirms[i], err = a.ch.PublishWithDeferredConfirm(m.Exchange, m.Key, m.Mandatory, false, m.Publishing); err == nil {
			continue
		}
		// A connection that is lost says so a moment before its channels do.
		wrong := m.Publishing.Headers.Validate()
		if wrong == nil {
			return
		}
		a.done[i], a.errs[i] = true, fault.As(fault.Invalid, wrong)
	}
}

// confirmed waits for the confirms. An error means that none comes any more.
func (a *attempt) confirmed() error {
	timer := time.NewTimer(confirmTimeout)
	defer timer.Stop()
	for i, c := range a.confirms {
		if c == nil || a.done[i] {
			continue
		}
		select {
		case <-c.Done():
		case <-timer.C:
			if err := a.session.obstacle(); err != nil {
				a.ch = nil // its confirms come too late for anybody
				return err
			}
			a.session.kill()
			return fault.New(fault.Timeout, "wait for the server's confirm: nothing for %s", confirmTimeout)
		}
		switch {
		case c.Acked():
			a.done[i], a.errs[i] = true, nil
		case !a.ch.IsClosed():
			a.done[i], a.errs[i] = true, fault.New(fault.Unavailable, "the server refused the message")
		}
	}
	return nil
}

// returned finds out which messages no queue has got: the server says so before
// it confirms them. It tells whether one of them has a queue that can be declared
// again.
func (a *attempt) returned(last bool) (again bool) {
	for {
		select {
		case r, ok := <-a.returns:
			if !ok {
				return again
			}
			for i, m := range a.messages {
				if m.Mandatory && m.Key == r.RoutingKey && identity(m.MessageId, m.Headers) == identity(r.MessageId, r.Headers) {
					a.errs[i] = fault.New(fault.NotFound, "no queue gets the message: %.100s", r.ReplyText)
					a.done[i] = last || m.Topology == nil
					again = again || !a.done[i]
				}
			}
		default:
			return again
		}
	}
}

// identity tells a message apart from others.
func identity(id string, headers amqp.Table) string {
	if id == "" {
		id, _ = headers[HeaderID].(string)
	}
	return id
}

// left tells whether the channel was closed under messages.
func (a *attempt) left() bool {
	for _, done := range a.done {
		if !done {
			return true
		}
	}
	return false
}

// reason is why the channel was closed.
func (a *attempt) reason() error {
	timer := time.NewTimer(time.Second)
	defer timer.Stop()
	select {
	case e := <-a.closed:
		if e != nil {
			return fault.Wrap(Classify(e), "wait for the server's confirm")
		}
	case <-timer.C:
	}
	return fault.Wrap(Classify(amqp.ErrClosed), "wait for the server's confirm")
}

// fail gives all that is not done an error.
func (a *attempt) fail(err error) {
	for i := range a.done {
		if !a.done[i] {
			a.done[i] = true
			if a.errs[i] == nil { // else it is why it was tried again
				a.errs[i] = err
			}
		}
	}
}

func (a *attempt) result() []error {
	for _, err := range a.errs {
		if err != nil {
			return a.errs
		}
	}
	return nil
}

// ensure declares what is needed unless that was done on this connection.
func (s *session) ensure(t *Topology) error {
	if t == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if at, ok := s.made[t.Name]; ok && (t.Renew == 0 || time.Since(at) < t.Renew) {
		return nil
	}
	if err := s.declare(t.Make); err != nil {
		return err
	}
	s.made[t.Name] = time.Now()
	return nil
}

// forget has everything declared again; false when nothing was.
func (s *session) forget() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := len(s.made) > 0
	clear(s.made)
	return was
}

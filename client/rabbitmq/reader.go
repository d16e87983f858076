package rabbitmq

import (
	"context"
	"crypto/rand"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/penstock-io/penstock/client/batch"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
)

// DefaultPrefetch is how many messages a consumer holds when nobody says.
const DefaultPrefetch = 256

// Feed says what to read and how.
type Feed struct {
	// Queue is where messages come from. Declare makes it, and all that belongs
	// to it, before it is read and whenever it has gone.
	Queue   string
	Declare func(*amqp.Channel) error
	// Prefetch is how many messages are held without an acknowledgement; 0 means
	// DefaultPrefetch.
	Prefetch int
	// Quorum: the queue is replicated, and so are its retry queues.
	Quorum bool
	// Single delivers one message at a time, in strict order: a retry is waited
	// for here.
	Single bool
	// DeadLetter rejects a message, which the server dead-letters, instead of
	// giving it back for a retry.
	DeadLetter bool
	// Linger keeps a queue that goes with its last consumer for a while after
	// Read ends.
	Linger bool
	// KeepLeft: what was left comes again when Read has ended, not before.
	KeepLeft bool
	// Decode fills in what a message is: Body, Event, Metadata, Key, Origin.
	Decode func(d *amqp.Delivery, to *cloudevents.Delivery) error
}

// Reader is one component's reading: its consumers and what they have under way.
type Reader struct {
	client   *Client
	work     sync.WaitGroup // Reads, ends of consumers, and counting
	counting sync.Mutex     // held while the server is asked how many there are

	ctx  context.Context // ends with Close
	stop context.CancelFunc

	mu        sync.Mutex
	closed    bool
	consumers map[*consumer]struct{}
	anchors   map[string]*anchor
}

// NewReader makes a reader. It must be closed.
func (c *Client) NewReader(ctx context.Context) *Reader {
	r := &Reader{client: c, consumers: map[*consumer]struct{}{}, anchors: map[string]*anchor{}}
	r.ctx, r.stop = context.WithCancel(context.WithoutCancel(ctx))
	return r
}

// Read hands the feed's messages to emit until ctx ends, then returns nil.
// Outcomes may come later, until Close. An error means that the connection, the
// channel or the queue is gone, or cannot be made as it is wanted; the next Read
// waits for the connection.
func (r *Reader) Read(ctx context.Context, f Feed, emit cloudevents.EmitFunc) error {
	if !r.enter() {
		return errClosed
	}
	defer r.work.Done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(r.ctx, cancel)()
	k, err := r.consume(ctx, f)
	if err == nil {
		err = k.serve(ctx, emit)
		k.end()
	}
	switch {
	case r.ctx.Err() != nil:
		return errClosed
	case ctx.Err() != nil:
		return nil
	}
	return err
}

func (r *Reader) enter() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	r.work.Add(1)
	return true
}

// consume begins to consume on a new channel.
func (r *Reader) consume(ctx context.Context, f Feed) (*consumer, error) {
	if f.Single {
		if err := r.others(ctx, f.Queue); err != nil {
			return nil, err
		}
	}
	s, err := r.client.consume.session(ctx, 0)
	if err != nil {
		return nil, err
	}
	k := &consumer{
		reader: r, feed: f, session: s, tag: "penstock-" + rand.Text(), anchor: r.take(f.Queue), gone: make(chan struct{}),
	}
	if a := k.anchor; a == nil || a.session != s || a.ch.IsClosed() || !a.timer.Stop() {
		a.lift()
		k.anchor = nil
		if k.ch, err = s.conn.Channel(); err != nil {
			return nil, fault.Wrap(Classify(err), "open channel")
		}
	} else {
		k.ch = a.ch
		a.head()
	}
	k.closed = k.ch.NotifyClose(make(chan *amqp.Error, 1))
	k.acks = batch.NewWriter(r.ctx, batch.Options[answer]{Write: k.answers, Most: 4096})
	if err := k.begin(); err != nil {
		_ = k.ch.Close() // the server may have closed it
		return nil, err
	}
	r.mu.Lock()
	r.consumers[k] = struct{}{}
	r.mu.Unlock()
	return k, nil
}

// others waits until what earlier Reads of a queue have under way is settled.
func (r *Reader) others(ctx context.Context, queue string) error {
	r.mu.Lock()
	var gone []chan struct{}
	for k := range r.consumers {
		if k.feed.Queue == queue {
			gone = append(gone, k.gone)
		}
	}
	r.mu.Unlock()
	for _, g := range gone {
		select {
		case <-g:
		case <-ctx.Done():
			return fault.Wrap(ctx.Err(), "wait for what is under way")
		}
	}
	return nil
}

// begin declares the queue and asks for its messages.
func (k *consumer) begin() error {
	if k.feed.Declare != nil {
		if err := k.feed.Declare(k.ch); err != nil {
			return fault.Wrap(Classify(err), "declare queue %s", k.feed.Queue)
		}
	}
	prefetch := k.feed.Prefetch
	if prefetch < 1 {
		prefetch = DefaultPrefetch
	}
	if err := k.ch.Qos(prefetch, 0, false); err != nil {
		return fault.Wrap(Classify(err), "set prefetch")
	}
	var err error
	k.messages, err = k.ch.Consume(k.feed.Queue, k.tag, false, false, false, false, nil)
	return fault.Wrap(Classify(err), "consume queue %s", k.feed.Queue)
}

// Close ends all Reads, writes the outcomes that are known, and gives the rest
// back to the server. It waits until ctx ends for both.
func (r *Reader) Close(ctx context.Context) error {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return nil
	}
	r.closed = true
	r.mu.Unlock()
	r.stop()
	idle := make(chan struct{})
	go func() { r.work.Wait(); close(idle) }()
	var err error
	select {
	case <-idle:
	case <-ctx.Done():
		err = fault.Wrap(ctx.Err(), "close: wait for readers")
	}
	r.mu.Lock()
	left := make([]*consumer, 0, len(r.consumers))
	for k := range r.consumers {
		left = append(left, k)
	}
	anchors := r.anchors
	r.anchors = nil
	r.mu.Unlock()
	for _, k := range left {
		err = errors.Join(err, k.close(ctx))
	}
	for _, a := range anchors {
		a.lift()
	}
	return err
}

// consumer is one channel that consumes: one incarnation of a feed. Answers go to
// it and to no other.
type consumer struct {
	reader   *Reader
	feed     Feed
	session  *session
	ch       *amqp.Channel
	tag      string
	closed   chan *amqp.Error
	messages <-chan amqp.Delivery
	anchor   *anchor // whose channel it is, or nil
	acks     *batch.Writer[answer]
	retries  sync.WaitGroup // being published

	mu    sync.Mutex
	known tags     // delivered and not answered
	open  int      // handed out and not settled
	left  []uint64 // wait for the end of Read
	ended bool     // Read has ended

	closing bool // no more retries are counted in
	once    sync.Once
	gone    chan struct{} // closed when the channel is
}

// serve hands out messages until ctx ends or none come any more.
func (k *consumer) serve(ctx context.Context, emit cloudevents.EmitFunc) error {
	if k.anchor != nil {
		k.within(func() { _ = k.ch.Cancel(k.anchor.tag, false) }) // else the channel is gone
		for d := range k.anchor.messages {
			if err := k.hand(ctx, &d, emit); err != nil {
				return err
			}
		}
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case d, ok := <-k.messages:
			if !ok {
				return k.reason()
			}
			if err := k.hand(ctx, &d, emit); err != nil {
				return err
			}
		}
	}
}

// reason is why no more messages come.
func (k *consumer) reason() error {
	if !k.ch.IsClosed() {
		return fault.New(fault.Unavailable, "consume queue %s: the server has ended it, as when the queue is deleted", k.feed.Queue)
	}
	var err error = amqp.ErrClosed
	timer := time.NewTimer(time.Second)
	defer timer.Stop()
	select {
	case e := <-k.closed:
		if e != nil {
			err = e
		}
	case <-timer.C:
	}
	return fault.As(fault.Unavailable, fault.Wrap(Classify(err), "consume queue %s", k.feed.Queue))
}

// delivery is one message under way.
type delivery struct {
	cloudevents.Delivery
	consumer *consumer
	source   amqp.Delivery
	done     atomic.Bool
}

// hand hands one message out.
func (k *consumer) hand(ctx context.Context, d *amqp.Delivery, emit cloudevents.EmitFunc) error {
	k.mu.Lock()
	k.known.add(d.DeliveryTag)
	k.mu.Unlock()
	m := &delivery{consumer: k, source: *d}
	m.Attempt = restore(&k.feed, &m.source) + 1
	if expired(&m.source, time.Now()) {
		k.answer(d.DeliveryTag, reject) // as the server does it
		return nil
	}
	m.Body = m.source.Body
	if err := k.feed.Decode(&m.source, &m.Delivery); err != nil {
		k.answer(d.DeliveryTag, requeue)
		return err
	}
	if k.feed.Single {
		return k.strictly(ctx, m, emit)
	}
	m.Settle = m.settle
	k.mu.Lock()
	k.open++
	k.mu.Unlock()
	if err := emit(ctx, &m.Delivery); err != nil {
		m.finish(requeue)
		if ctx.Err() == nil {
			return fault.Wrap(err, "hand over message")
		}
	}
	return nil
}

// settle is told the outcome.
func (m *delivery) settle(o cloudevents.Outcome) {
	if m.done.Swap(true) {
		return
	}
	switch o.Verdict {
	case cloudevents.Ack, cloudevents.Drop:
		m.finish(ack)
	case cloudevents.Retry:
		m.giveBack(o.After)
	default:
		if !m.consumer.keep(m.source.DeliveryTag) {
			m.finish(requeue)
		}
	}
}

// keep keeps what was left until Read has ended; false when it has.
func (k *consumer) keep(tag uint64) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.feed.KeepLeft || k.ended {
		return false
	}
	k.left = append(k.left, tag)
	k.open--
	return true
}

// finish answers and counts the message out.
func (m *delivery) finish(v verb) {
	k := m.consumer
	k.answer(m.source.DeliveryTag, v)
	k.mu.Lock()
	k.open--
	last := k.ended && k.open == 0
	k.mu.Unlock()
	if last {
		k.retire()
	}
}

// giveBack has the server deliver the message again after the delay: it goes into
// a retry queue, and is acknowledged when it is safe there. Where that cannot
// be, the message is held for the delay and then requeued. Of a channel that is
// gone the server delivers it again anyway.
func (m *delivery) giveBack(after time.Duration) {
	k := m.consumer
	switch {
	case k.feed.DeadLetter:
		m.finish(reject)
		return
	case k.ch.IsClosed() || !k.beginRetry():
		m.finish(requeue)
		return
	}
	delay := retryDelay(after, m.Attempt)
	k.reader.client.publishLater(retry(&k.feed, &m.source, m.Attempt, delay), func(err error) {
		defer k.retries.Done()
		if err == nil {
			m.finish(ack)
			return
		}
		time.AfterFunc(max(delay, time.Second), func() { m.finish(requeue) })
	})
}

// beginRetry counts a retry in, unless the channel is being closed.
func (k *consumer) beginRetry() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.closing {
		k.retries.Add(1)
	}
	return !k.closing
}

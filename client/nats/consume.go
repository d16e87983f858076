package nats

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
)

// ConsumerOptions are those of durable consumers.
type ConsumerOptions struct {
	Streams StreamOptions
	// Name is what the durable is called; empty: group and subject make the
	// name. When a consumer of that name is for something else, they do as well.
	Name string
	// Deliver, StartSequence and StartTime say where a new consumer begins.
	Deliver       jetstream.DeliverPolicy
	StartSequence uint64
	StartTime     time.Time
	// AckWait is how long a consumer that died keeps its messages; zero is 4 s
	// for a new consumer and leaves an existing one as it is.
	AckWait time.Duration
	// MaxDeliver is how many attempts a message gets; zero is without limit.
	MaxDeliver    int
	MaxAckPending int // 0 is 20000
	Replicas      int // of the consumer; 0 is those of the stream
	Memory        bool
	// BackOff are the shortest pauses before a retry, by attempt.
	BackOff []time.Duration
	// Single hands out the next message when the one before is settled.
	Single    bool
	Heartbeat time.Duration // of an idle server; zero is 1 s
	// LeftStays keeps what is left until the Subscribe that handed it out ends;
	// then it goes back to the server. Otherwise it goes back at once.
	LeftStays bool
	// Build makes the delivery of a message and sees all of it; nil sets Topic and
	// Metadata as pub/sub wants them. Body, Attempt and Settle are set afterwards.
	Build func(m *nats.Msg, at *nats.MsgMetadata, d *cloudevents.Delivery)
	// BitsPerSecond bounds the bytes handed out; zero is without limit.
	BitsPerSecond uint64
}

const (
	defaultAckWait    = 4 * time.Second
	defaultAckPending = 20000
	defaultHeartbeat  = time.Second
	fetchMost         = 1024    // messages read ahead of one subscription
	fetchBytes        = 8 << 20 // and their bytes
	lookAround        = 5 * time.Second
)

// Consumer reads subjects through durable consumers.
type Consumer struct {
	conn   *Conn
	o      ConsumerOptions
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	held   *held
	reads  sync.WaitGroup

	mu     sync.Mutex
	closed bool
}

// Consumer returns a reader of subjects. ctx gives values only. Close must be
// called.
func (c *Conn) Consumer(ctx context.Context, o ConsumerOptions, warn func(msg string, args ...any)) *Consumer {
	r := &Consumer{conn: c, o: o}
	r.ctx, r.cancel = context.WithCancel(context.WithoutCancel(ctx))
	r.held = newHeld(r.ctx, c.nc, o, warn)
	return r
}

// Prepare makes the consumers of a group and a subject.
func (r *Consumer) Prepare(ctx context.Context, subject, group string) error {
	names, err := r.conn.streams(ctx, subject, r.o.Streams)
	if err != nil {
		return fault.Wrap(Classify(err), "find stream of subject %q", subject)
	}
	for _, name := range names {
		if _, err := r.bind(ctx, name, subject, group); err != nil {
			return err
		}
	}
	return nil
}

// Subscribe hands the messages of a subject to emit until ctx ends, then returns
// nil; outcomes may arrive until Close. The subject may hold the wildcards of
// NATS: then every stream that has some of it is read, new ones after 5 s.
func (r *Consumer) Subscribe(ctx context.Context, subject, group string, emit cloudevents.EmitFunc) error {
	if !r.enter() {
		return fault.New(fault.Unavailable, "subscribe %q: already closed", subject)
	}
	defer r.reads.Done()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	defer context.AfterFunc(r.ctx, stop)()
	err := r.read(ctx, subject, group, emit)
	switch {
	case r.ctx.Err() != nil:
		return fault.New(fault.Unavailable, "subscribe %q: closed", subject)
	case ctx.Err() != nil:
		return nil
	}
	return fault.Wrap(Classify(err), "read subject %q", subject)
}

func (r *Consumer) enter() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	r.reads.Add(1)
	return true
}

func (r *Consumer) read(ctx context.Context, subject, group string, emit cloudevents.EmitFunc) error {
	names, err := r.conn.streams(ctx, subject, r.o.Streams)
	if err != nil {
		return err
	}
	if !wild(subject) || r.o.Streams.Stream != "" {
		return r.readStream(ctx, names[0], subject, group, emit)
	}
	g, ctx := errgroup.WithContext(ctx)
	reading := map[string]bool{}
	start := func(names []string) {
		for _, name := range names {
			if !reading[name] {
				reading[name] = true
				g.Go(func() error { return r.readStream(ctx, name, subject, group, emit) })
			}
		}
	}
	start(names)
	g.Go(func() error {
		tick := time.NewTicker(lookAround)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
			}
			names, err := r.conn.streams(ctx, subject, r.o.Streams)
			if err != nil {
				return err
			}
			start(names)
		}
	})
	return g.Wait()
}

// wild tells whether a subject holds a wildcard of NATS.
func wild(subject string) bool {
	for part := range strings.SplitSeq(subject, ".") {
		if part == "*" || part == ">" {
			return true
		}
	}
	return false
}

// readStream fetches what one stream has of the subject: batches as large as
// there is room for, so that all that the server counts as delivered is held, and
// its time is extended.
func (r *Consumer) readStream(ctx context.Context, stream, subject, group string, emit cloudevents.EmitFunc) error {
	b, err := r.bind(ctx, stream, subject, group)
	if err != nil {
		return err
	}
	q := newQueue(fetchMost)
	now := &round{}
	done := make(chan error, 1)
	fetching, stop := context.WithCancel(ctx)
	go func() {
		done <- r.fetch(fetching, b, now, q)
		q.end()
	}()
	refused, err := r.hand(ctx, q, emit)
	stop()
	ferr := <-done // from here on what goes back goes to others
	r.held.putBack(append(refused, q.close()...))
	r.held.over(now)
	if err == nil && !errors.Is(ferr, context.Canceled) {
		err = ferr
	}
	return err
}

// fetch fills the queue until ctx ends or the consumer cannot be read.
func (r *Consumer) fetch(ctx context.Context, b *binding, now *round, q *queue) error {
	beat := r.o.Heartbeat
	if beat == 0 {
		beat = defaultHeartbeat
	}
	beat = min(beat, 10*time.Second) // a fetch is over after 30 s
	p, err := r.conn.puller(b, beat, r.held.now)
	if err != nil {
		return err
	}
	take := func(m *nats.Msg) {
		if x := r.held.take(b, now, p.epoch, m); x != nil {
			q.push(x)
		}
	}
	defer p.close(take)
	for {
		room := q.room(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := p.pull(ctx, room, take); err != nil {
			return err
		}
	}
}

// hand gives what is queued to emit, in order, and returns what emit refused.
func (r *Consumer) hand(ctx context.Context, q *queue, emit cloudevents.EmitFunc) ([]*taken, error) {
	pace := newPace(r.o.BitsPerSecond)
	for {
		x := q.pop(ctx)
		if x == nil {
			return nil, nil
		}
		if r.held.forgot(x) {
			continue
		}
		if r.o.Single {
			x.done = make(chan struct{})
		}
		if err := emit(ctx, &x.Delivery); err != nil {
			if ctx.Err() != nil {
				err = nil
			}
			return []*taken{x}, fault.Wrap(err, "hand over message")
		}
		if x.done != nil {
			select {
			case <-x.done:
			case <-ctx.Done():
				return nil, nil
			}
		}
		if !pace.wait(ctx, len(x.Body)) {
			return nil, nil
		}
	}
}

// Close ends the subscriptions, sends what was settled, and gives back the rest
// so that others need not wait for it.
func (r *Consumer) Close(ctx context.Context) error {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.cancel()
	ended := make(chan struct{})
	go func() { r.reads.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-ctx.Done():
		return fault.Wrap(ctx.Err(), "wait for subscriptions")
	}
	return r.held.close(ctx)
}

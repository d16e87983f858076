// Package queue drives one queue of SQS: it receives, keeps what is held from
// coming again, settles and sends, all in batches of ten.
//
// Make a [Queue] with [New], take its messages with [Queue.Read] and give each
// its outcome with [Message.Settle]; send with [Queue.Send]. Several Reads may
// run side by side and share the messages.
//
// A message that was received stays with SQS: while it is held here its time of
// invisibility is extended every third of it, and when this process dies it
// comes again to whoever receives next as soon as that time has passed. What
// was received and not taken, or left, is made visible again at once. Of a FIFO
// queue one message of a group is out at a time.
package queue

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/penstock-io/penstock/client/batch"
	"github.com/penstock-io/penstock/fault"
)

// Limits of SQS.
const (
	Entries  = 10               // in one request
	Bytes    = 1 << 20          // of one message and of one request, attributes included
	MaxDelay = 12 * time.Hour   // of a message that was received
	MaxWait  = 20 * time.Second // of a long poll
	MaxLater = 15 * time.Minute // of a message that is sent
	recalled = 4096             // messages whose uncounted deliveries are remembered
	loopsTop = 8                // receives under way at most
	readyLow = 2 * Entries      // received ahead of whoever takes
	parallel = 4                // requests of one kind under way
	pauseTop = 5 * time.Second  // between tries of a settlement
)

// Options say how a queue is read.
type Options struct {
	// Visibility is how long SQS hides a message from others after it was
	// received or extended: whole seconds, at least 2.
	Visibility time.Duration
	// Wait is how long a receive waits for messages.
	Wait time.Duration
	// Batch is how many messages one receive asks for, 10 at most.
	Batch int
	// Held bounds the messages taken and not settled; zero is without a bound.
	Held int
	// FIFO tells that the queue keeps order in groups.
	FIFO bool
	// Logger may be nil.
	Logger *slog.Logger
}

// Queue is one queue. All methods may be used by many goroutines.
type Queue struct {
	api  *sqs.Client
	url  string
	o    Options
	acks *batch.Writer[*Message]
	show *batch.Writer[change]
	send *batch.Writer[Outgoing]

	ctx    context.Context // of requests: ends when Close is about done
	cancel context.CancelFunc
	reads  context.Context // ends when Close begins
	shut   context.CancelFunc
	work   sync.WaitGroup // extensions
	polls  sync.WaitGroup // receives

	mu      sync.Mutex // guards what follows
	closed  bool
	held    map[*Message]struct{} // received, and neither deleted nor given back
	ready   []*Message            // to be taken
	groups  map[string][]*Message // behind a message of their group that is out
	out     int                   // taken and not settled
	reading int                   // Reads under way
	beating bool
	again   map[string]int // deliveries that do not count, by message id
	wake    chan struct{}  // closed and made anew when something has changed
}

// New makes the queue at url. Nothing is sent.
func New(ctx context.Context, api *sqs.Client, url string, o Options) *Queue {
	o.Batch = min(max(o.Batch, 1), Entries)
	o.Visibility = max(o.Visibility.Truncate(time.Second), 2*time.Second)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	q := &Queue{
		api: api, url: url, o: o,
		held: map[*Message]struct{}{}, groups: map[string][]*Message{}, again: map[string]int{}, wake: make(chan struct{}),
	}
	q.ctx, q.cancel = context.WithCancel(context.WithoutCancel(ctx))
	q.reads, q.shut = context.WithCancel(q.ctx)
	q.acks = batch.NewWriter(ctx, batch.Options[*Message]{Write: q.deleteBatch, Most: Entries, Parallel: parallel})
	q.show = batch.NewWriter(ctx, batch.Options[change]{Write: q.showBatch, Most: Entries, Parallel: parallel})
	sends := parallel
	if o.FIFO {
		sends = 1 // the order
	}
	q.send = batch.NewWriter(ctx, batch.Options[Outgoing]{Write: q.sendBatch, Most: Entries, Bytes: Bytes, Size: func(o Outgoing) int { return o.Bytes() }, Parallel: sends})
	return q
}

// URL returns the address of the queue.
func (q *Queue) URL() string { return q.url }

// Close makes everything that was not settled visible again, writes what was
// settled and sent, and waits for that until ctx ends. Outcomes that come later
// are ignored.
func (q *Queue) Close(ctx context.Context) error {
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		return nil
	}
	q.closed = true
	var rest []*Message
	for m := range q.held {
		if !m.settled {
			m.settled = true
			rest = append(rest, m)
		}
	}
	q.ready, q.groups = nil, map[string][]*Message{}
	q.notify()
	q.mu.Unlock()
	for _, m := range rest {
		q.giveBack(m, 0, true)
	}
	q.shut()
	q.endPolls(ctx)
	q.cancel()
	q.work.Wait() // an extension under way may have something to give back
	return errors.Join(q.send.Close(ctx), q.acks.Close(ctx), q.show.Close(ctx))
}

// pollPatience is how long Close waits for receives to answer. Longer is no
// better: what comes in meanwhile is given back, which counts as a delivery.
const pollPatience = 100 * time.Millisecond

// endPolls waits for the receives under way, and cuts them when that takes too
// long: what SQS hands out to one that is cut is hidden until its time is over.
func (q *Queue) endPolls(ctx context.Context) {
	late := time.AfterFunc(pollPatience, q.cancel)
	defer late.Stop()
	defer context.AfterFunc(ctx, q.cancel)()
	q.polls.Wait()
}

// notify wakes whoever waits for a change; the caller holds mu.
func (q *Queue) notify() {
	close(q.wake)
	q.wake = make(chan struct{})
}

var errClosed = fault.New(fault.Unavailable, "the queue is closed")

// Read hands messages to take until ctx ends, then returns nil. Take may block:
// little is received ahead. When it returns an error the
// message was not taken and is given back. An error means that the queue cannot
// be received from; kind NotFound when there is none.
func (q *Queue) Read(ctx context.Context, take func(context.Context, *Message) error) error {
	inner, stop := context.WithCancel(ctx)
	defer stop()
	defer context.AfterFunc(q.reads, stop)()
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		return errClosed
	}
	q.reading++
	q.mu.Unlock()
	r := &reader{q: q, stop: stop}
	r.start(inner)
	for {
		m, err := q.next(inner)
		if err != nil {
			break
		}
		if err := take(inner, m); err != nil {
			m.Untake(inner)
		}
	}
	stop()
	q.drop()
	if ctx.Err() != nil {
		return nil
	}
	return r.failure()
}

// next waits for a message that may be taken.
func (q *Queue) next(ctx context.Context) (*Message, error) {
	for {
		q.mu.Lock()
		if q.closed {
			q.mu.Unlock()
			return nil, errClosed
		}
		if err := ctx.Err(); err != nil {
			q.mu.Unlock()
			return nil, err
		}
		if m := q.pick(); m != nil {
			q.notify() // there is room
			q.mu.Unlock()
			return m, nil
		}
		wake := q.wake
		q.mu.Unlock()
		select {
		case <-wake:
		case <-ctx.Done():
		}
	}
}

// pick takes the first message that is still ours; the caller holds mu.
func (q *Queue) pick() *Message {
	now := time.Now()
	for len(q.ready) > 0 && (q.o.Held == 0 || q.out < q.o.Held) {
		m := q.ready[0]
		q.ready[0] = nil
		q.ready = q.ready[1:]
		if now.After(m.until) { // we hung: somebody else may have it by now
			q.forget(m)
			continue
		}
		m.taken = true
		q.out++
		return m
	}
	return nil
}

// forget ends the holding of a message that is not ours any more, and of those
// behind it; the caller holds mu.
func (q *Queue) forget(m *Message) {
	delete(q.held, m)
	if q.o.FIFO {
		for _, b := range q.groups[m.Group] {
			delete(q.held, b)
		}
		delete(q.groups, m.Group)
	}
}

// drop gives back what was received ahead when nobody reads any more.
func (q *Queue) drop() {
	q.mu.Lock()
	if q.reading--; q.reading > 0 {
		q.mu.Unlock()
		return
	}
	rest := q.ready
	q.ready = nil
	busy := map[string]bool{}
	for m := range q.held {
		if m.taken && !m.settled {
			busy[m.Group] = true
		}
	}
	for g, behind := range q.groups {
		rest = append(rest, behind...)
		if q.groups[g] = nil; !busy[g] {
			delete(q.groups, g)
		}
	}
	for _, m := range rest {
		m.settled = true
	}
	q.mu.Unlock()
	for _, m := range rest {
		q.giveBack(m, 0, true)
	}
}

package pluggable

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
)

const (
	maxParked  = 1000                   // deliveries of a stream that wait for their pause
	maxCounted = 10_000                 // ids whose attempts are counted
	lingerTime = time.Second            // for a stream to end after its last answer
	leavePause = 100 * time.Millisecond // before a stream takes over from one that left something
)

// message is what a component sends on a stream.
type message struct {
	id, contentType string
	topic           string // of a broker's message
	data            []byte
	metadata        map[string]string
}

// answer is what it is told about a message.
type answer struct {
	id, why string
	failed  bool
}

// wire is a stream of either service. Recv and Send are called by one goroutine
// each.
type wire interface {
	Recv() (message, error)
	Send(answer) error
	CloseSend() error
}

// errLeft ends a run because a message was left, which the component delivers
// again only when the stream has ended.
var errLeft = errors.New("a message was left")

// exchange is one stream: messages come, answers go. When its run ends it is
// retired: it takes no more messages and ends once those it gave to the route
// are settled, so that none of them is delivered beside itself.
type exchange struct {
	wire    wire
	ctx     context.Context    // of the stream
	cancel  context.CancelFunc // ends the stream at once
	arrived chan message
	ended   chan struct{} // closed when nothing comes any more; err is set
	err     error

	retiring chan struct{} // closed by retire
	finished chan struct{} // closed when nothing is answered any more
	wake     chan struct{} // holds one when there is something to answer
	room     chan struct{} // holds one when fewer are parked
	left     chan struct{} // holds one when a message was left; nil when nobody asks

	mu      sync.Mutex // guards what follows
	retired bool
	closed  bool // what is still open will not be answered
	open    int  // given to the route and not settled
	answers []answer
	parked  map[*time.Timer]bool // answers that wait for their pause
	tries   map[string]int       // of messages answered with an error
}

// exchange begins a stream, which is registered with the link. What start makes
// must end with its context. With tellLeft a run ends when a message was left.
func (l *link) exchange(ctx context.Context, tellLeft bool, start func(ctx context.Context, c *connection) (wire, error)) (*exchange, error) {
	c, err := l.connection(ctx)
	if err != nil {
		return nil, err
	}
	x := &exchange{
		arrived: make(chan message), ended: make(chan struct{}), retiring: make(chan struct{}), finished: make(chan struct{}),
		wake: make(chan struct{}, 1), room: make(chan struct{}, 1),
		parked: map[*time.Timer]bool{}, tries: map[string]int{},
	}
	if tellLeft {
		x.left = make(chan struct{}, 1)
	}
	x.ctx, x.cancel = context.WithCancel(context.WithoutCancel(ctx)) // outcomes may come after ctx
	if x.wire, err = start(x.ctx, c); err != nil {
		x.cancel()
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		x.cancel()
		return nil, errClosed
	}
	l.streams[x] = true
	l.tasks.Go(x.receive)
	l.tasks.Go(func() {
		x.reply()
		l.mu.Lock()
		delete(l.streams, x)
		l.mu.Unlock()
	})
	return x, nil
}

// run gives what comes to hand until ctx ends, which is no error, the link is
// closed or the stream breaks.
func (x *exchange) run(ctx context.Context, l *link, hand func(context.Context, message) error) error {
	defer x.retire()
	going, stop := context.WithCancel(ctx)
	defer stop()
	defer context.AfterFunc(x.ctx, stop)()
	defer context.AfterFunc(l.life, stop)()
	for {
		err := x.one(going, hand)
		switch {
		case err == nil:
			continue
		case ctx.Err() != nil:
			return nil
		case l.life.Err() != nil:
			return errClosed
		case going.Err() != nil: // while a message was handed over
			<-x.ended
			return x.broken()
		}
		return err
	}
}

// one waits for one message and hands it over.
func (x *exchange) one(ctx context.Context, hand func(context.Context, message) error) error {
	for x.crowded() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-x.room:
		case <-x.left:
			return errLeft
		}
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-x.ended:
		return x.broken()
	case <-x.left:
		return errLeft
	case m := <-x.arrived:
		return hand(ctx, m)
	}
}

// broken is why the stream ended. A component has no reason to end one.
func (x *exchange) broken() error {
	if errors.Is(x.err, io.EOF) {
		return fault.New(fault.Unavailable, "receive message: the component ended the stream")
	}
	return failed(x.err, "receive message")
}

// receive takes messages off the stream. What arrives when it is retired stays
// with the component, and so does what would: none of it is asked for before the
// last answer is on its way.
func (x *exchange) receive() {
	defer close(x.ended)
	for {
		m, err := x.wire.Recv()
		if err != nil {
			x.err = err
			return
		}
		select {
		case x.arrived <- m:
		case <-x.ctx.Done():
		case <-x.retiring:
			select {
			case <-x.finished:
			case <-x.ctx.Done():
			}
		}
	}
}

// reply sends answers until the last one, and ends the stream.
func (x *exchange) reply() {
	defer x.cancel()
	for {
		batch, last := x.take()
		for _, a := range batch {
			if x.wire.Send(a) != nil {
				return // receive learns the reason
			}
		}
		if last {
			break
		}
		select {
		case <-x.wake:
		case <-x.ended:
			return
		}
	}
	if x.wire.CloseSend() != nil {
		return
	}
	close(x.finished)
	linger := time.NewTimer(lingerTime) // an end by force might overtake the answers
	defer linger.Stop()
	select {
	case <-x.ended:
	case <-linger.C:
	}
}

// take returns the answers that wait, and whether there will be no more.
func (x *exchange) take() (batch []answer, last bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	batch, x.answers = x.answers, nil
	return batch, x.closed || x.retired && x.open == 0
}

// emit hands a delivery of the message with this id to the route.
func (x *exchange) emit(ctx context.Context, id string, d *cloudevents.Delivery, emit cloudevents.EmitFunc) error {
	x.mu.Lock()
	x.open++
	d.Attempt = x.tries[id] + 1
	x.mu.Unlock()
	var once sync.Once
	d.Settle = func(o cloudevents.Outcome) { once.Do(func() { x.settle(id, o) }) }
	err := emit(ctx, d)
	if err != nil {
		d.Settle(cloudevents.Left("not taken"))
	}
	return fault.Wrap(err, "hand over message")
}

// settle notes the outcome of a delivery.
func (x *exchange) settle(id string, o cloudevents.Outcome) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.open--
	switch o.Verdict {
	case cloudevents.Ack, cloudevents.Drop:
		delete(x.tries, id)
		x.answers = append(x.answers, answer{id: id})
	case cloudevents.Retry:
		if !x.retired { // else it comes again when the stream has ended
			x.giveBack(id, o)
		}
	default:
		nudge(x.left)
	}
	nudge(x.wake)
}

// giveBack answers with an error, after the pause that the outcome asks for. The
// caller holds mu.
func (x *exchange) giveBack(id string, o cloudevents.Outcome) {
	if _, counted := x.tries[id]; id != "" && (counted || len(x.tries) < maxCounted) {
		x.tries[id]++
	}
	why := "deliver again"
	if o.Err != nil {
		why = line(o.Err.Error())
	}
	a := answer{id: id, why: why, failed: true}
	if o.After <= 0 {
		x.answers = append(x.answers, a)
		return
	}
	var t *time.Timer
	t = time.AfterFunc(o.After, func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		if x.parked[t] {
			delete(x.parked, t)
			x.answers = append(x.answers, a)
			nudge(x.wake)
			nudge(x.room)
		}
	})
	x.parked[t] = true
}

// crowded tells whether too many answers wait for their pause.
func (x *exchange) crowded() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return len(x.parked) >= maxParked
}

// retire lets the stream end when all it gave out is settled. Answers that wait
// for their pause are not given: the end of the stream says the same.
func (x *exchange) retire() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.retired {
		return
	}
	x.retired = true
	close(x.retiring)
	for t := range x.parked {
		t.Stop()
	}
	clear(x.parked)
	nudge(x.wake)
}

// close retires the stream and does not wait for outcomes.
func (x *exchange) close() {
	x.retire()
	x.mu.Lock()
	defer x.mu.Unlock()
	x.closed = true
	nudge(x.wake)
}

// nudge puts one into a channel that holds one, unless it is there already.
func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

package router

import (
	"context"
	"log/slog"
	"runtime"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
)

// graceTime is how long a target may take to return after its context ended.
const graceTime = time.Second

// incarnation is one run of a route, from Add to Remove: a source, a flow, and
// the Watermill handler between the flow and the chain.
type incarnation struct {
	route    Route
	log      *slog.Logger
	observer Observer
	flow     *flow
	source   *supervisor
	steps    []stepTally
	targets  []targetTally
	// out is where Watermill's handler reads. It has a place for each lane, so
	// a hand-over never blocks.
	out chan *message.Message
	// handled is closed by Watermill when its handler is gone; nil until the
	// incarnation is opened.
	handled <-chan struct{}
	stopped chan struct{} // closed when all of it is gone
}

func newIncarnation(r Route, log *slog.Logger, observer Observer) *incarnation {
	in := &incarnation{
		route: r, observer: observer, steps: make([]stepTally, len(r.Steps)), targets: make([]targetTally, len(r.Targets)),
		log:     log.With("route", r.Name),
		out:     make(chan *message.Message, r.Lanes),
		stopped: make(chan struct{}),
	}
	in.flow = newFlow(&in.route, in.log)
	in.flow.hand = in.hand
	in.source = &supervisor{source: r.Source, emit: in.emit, log: in.log, tally: in.flow.tally}
	return in
}

// open starts the incarnation, whose Watermill handler runs already.
func (in *incarnation) open(base context.Context, handled <-chan struct{}) {
	in.handled = handled
	in.flow.open(base)
	in.source.start(in.flow.base)
}

// emit is what the source gets to hand over deliveries.
func (in *incarnation) emit(ctx context.Context, d *cloudevents.Delivery) error {
	if d == nil || d.Settle == nil {
		return errNoSettle
	}
	return in.flow.admit(ctx, in.newPassage(d))
}

var errNoSettle = fault.New(fault.Invalid, "take event: a delivery needs a Settle function")

func (in *incarnation) newPassage(d *cloudevents.Delivery) *passage {
	d.Attempt = max(d.Attempt, 1)
	p := &passage{d: d, flow: in.flow, key: d.Key, size: size(d)}
	if in.route.Key != nil {
		in.decode(p)
		in.setKey(p)
	}
	return p
}

// setKey asks the route for the key; when that fails, or the event cannot be
// decoded, the transport's own stays.
func (in *incarnation) setKey(p *passage) {
	if p.trip.err != nil {
		return
	}
	err := guard(func() error { p.key = in.route.Key(p.d); return nil })
	if err != nil {
		in.log.Error("find ordering key", "id", p.id(), told("trace", p.traceID()), "origin", p.d.Origin, "error", err)
	}
}

// size is what a delivery weighs in the window.
func size(d *cloudevents.Delivery) int64 {
	if len(d.Body) == 0 && d.Event != nil {
		return int64(d.Event.Size())
	}
	return int64(len(d.Body))
}

// hand passes a round to Watermill.
func (in *incarnation) hand(r *round) {
	r.message.Payload = r.passage.d.Body
	r.message.Metadata = r.passage.d.Metadata
	r.message.SetContext(r)
	in.out <- &r.message
}

// serve is the Watermill handler: one message is one round, or several that go
// to the target together.
func (in *incarnation) serve(m *message.Message) error {
	growStack()
	r := roundFrom(m.Context())
	if r.crew != nil {
		return in.serveAll(m, r)
	}
	d := in.handle(r)
	if d.again || d.tell.Verdict != cloudevents.Ack {
		m.Nack() // Watermill's own Ack, which follows, then has no effect
	}
	in.flow.finish([]*round{r}, []decision{d})
	return nil
}

// growStack makes room on the stack of the goroutine that Watermill starts for
// each message. Otherwise it is copied twice, with all that a target has on it
// by then.
//
//go:noinline
func growStack() {
	var room [6 << 10]byte
	runtime.KeepAlive(&room)
}

// stop stops in two steps: the source, then what is held, of which the rest is
// left when ctx ends. It returns what did not stop in time.
func (in *incarnation) stop(ctx context.Context) error {
	defer close(in.stopped)
	if in.handled == nil {
		return nil
	}
	in.source.stop()
	abandoned := in.flow.drain(ctx)
	var err error
	if abandoned > 0 {
		err = fault.New(fault.Timeout, "stop route %q: %d deliveries did not end with their context", in.route.Name, abandoned)
	}
	if serr := in.source.wait(ctx); serr != nil && err == nil {
		err = fault.Wrap(serr, "stop route %q", in.route.Name)
	}
	close(in.out)
	<-in.handled
	return err
}

package router

import (
	"context"
	"time"

	"github.com/penstock-io/penstock/cloudevents"
)

// Observer is told what happens to deliveries: counts, spans and the journal are
// made of it. Its methods and those of a [Round] are called from many goroutines,
// for one delivery by one at a time, and must not block: the route waits for them.
type Observer interface {
	// Begin is called when a delivery enters the chain, once for each round, when
	// its event was decoded and before its steps. The context it returns is the
	// one that steps and targets get. A nil Round is told nothing of that round.
	Begin(ctx context.Context, s Start) (context.Context, Round)
}

// Round is told what happens in one round of one delivery.
type Round interface {
	// Try is called before each call of a target, also for each delivery of a
	// call with several. The call gets the context that it returns, that of the
	// first delivery where there are several.
	Try(ctx context.Context, target string) context.Context
	// Tried is called after each Try with what came of it. A call that ran out of
	// time or panicked is a Retry.
	Tried(o cloudevents.Outcome)
	// End is called once, last.
	End(e End)
}

// Start is how a round begins.
type Start struct {
	Route string
	// Delivery has its Event when that could be decoded, and its Attempt counted.
	Delivery *cloudevents.Delivery
	// Number counts the rounds of the delivery since it was taken from its source,
	// from 1. It is more than the attempts where nothing could be tried.
	Number int
	// Rest tells that the targets are done with: a dead letter is to be written, or
	// it is to be noted that the event was delivered.
	Rest bool
}

// End is how a round ended.
type End struct {
	// Outcome is Ack, Drop, Leave, or Retry when another round or a redelivery
	// follows. A Drop may have been dead-lettered, which is acked to the source.
	Outcome cloudevents.Outcome
	// Again tells that another round follows after Wait, with the delivery kept
	// here; a Retry without it was given back to the source.
	Again bool
	Wait  time.Duration
	// Buried tells that a dead letter was written.
	Buried bool
}

// watch is who is told of the round under way of a passage.
type watch struct {
	round  Round // nil: nobody
	trying bool
}

// enter begins a round: it counts the attempt that it is, and tells the observer.
func (in *incarnation) enter(r *round, rest bool) context.Context {
	p := r.passage
	if !rest {
		begin(p)
		in.decode(p)
	}
	if in.observer == nil {
		return r
	}
	p.trip.rounds++
	var ctx context.Context
	ctx, p.watch.round = in.observer.Begin(r, Start{Route: in.route.Name, Delivery: p.d, Number: p.trip.rounds, Rest: rest})
	return ctx
}

// try tells of a call of a target.
func (w *watch) try(ctx context.Context, target string) context.Context {
	if w.round == nil {
		return ctx
	}
	w.trying = true
	return w.round.Try(ctx, target)
}

// tried tells what came of the call, if one was made.
func (w *watch) tried(o cloudevents.Outcome) {
	if w.trying {
		w.trying = false
		w.round.Tried(o)
	}
}

// end tells how the round ended, once.
func (w *watch) end(d *decision) {
	round := w.round
	if round == nil {
		return
	}
	w.round = nil
	round.End(End{Outcome: d.seen, Again: d.again, Wait: d.wait, Buried: d.buried})
}

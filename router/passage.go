package router

import (
	"cmp"
	"time"

	"github.com/penstock-io/penstock/cloudevents"
)

// state is where a passage is. It only changes under the flow's mutex.
type state uint8

const (
	queued state = iota // behind another of its key
	ready               // waits for a free place
	under               // under way: handed over, outcome unknown
	parked              // waits for its time
	gone                // its outcome is being told or was told
)

// passage is one delivery on its way through a route, from emit to Settle.
type passage struct {
	d    *cloudevents.Delivery
	flow *flow
	key  string
	size int64

	// These belong to the flow and its mutex.
	state state
	// injected is set before admit and never changes: the delivery came through
	// Inject.
	injected bool
	index    int      // in flow.held
	next     *passage // the next ready one
	after    *passage // the next of the same key
	timer    *time.Timer
	round    *round // the hand-over under way or the last one
	// abandoned tells that its target was not waited for; whoever serves it
	// still gives up its claim.
	abandoned bool

	// trip belongs to the round under way, so to one goroutine at a time.
	trip  trip
	watch watch
	claim claim
	first round // the room for the first hand-over
}

// trip is what the chain remembers of a delivery from one round to the next.
type trip struct {
	// original is the event as it came, before steps; a dead letter carries it.
	original *cloudevents.Event
	stepped  bool // the steps are done, d.Event is their result
	decoded  bool // Decode has run; err is what it said
	err      error
	target   int         // index of the first target that has not taken it
	rounds   int         // those that an observer was told of
	tries    int         // failed tries of that target in this series
	series   int         // series of tries used up: rounds of redelivery
	panics   int         // rounds that ended in a panic
	burials  int         // failed writes of the dead letter
	failed   bool        // the last round was an attempt: the next one counts
	alarmed  bool        // it was logged that it is held
	letter   *DeadLetter // what is left to do is to write this
}

// newRound makes the hand-over that is now under way.
func (p *passage) newRound() *round {
	r := &p.first
	if r.passage != nil {
		r = new(round)
	}
	r.passage = p
	p.round = r
	return r
}

// id returns the event's id for logs.
func (p *passage) id() string {
	if p.d.Event == nil {
		return ""
	}
	return p.d.Event.ID()
}

// traceID names the trace that the delivery belongs to, for logs; empty when it
// belongs to none.
func (p *passage) traceID() string {
	parent, _ := p.d.Trace()
	return cloudevents.TraceID(cmp.Or(parent, p.d.Began))
}

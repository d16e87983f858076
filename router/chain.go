package router

import (
	"context"
	"errors"
	"runtime/debug"
	"strconv"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/resilience"
)

const (
	// HopAttribute is the extension that counts how often an event was sent on
	// from route to route; see [Hop].
	HopAttribute = "penstockhops"
	// MaxHops is how many hops an event may have behind it; it is not sent on
	// once more, because it goes round in circles.
	MaxHops = 32
)

// Hop returns the event with one hop more in its [HopAttribute], or an error of
// kind Invalid after [MaxHops]. A target that sends an event to where another
// route may take it from uses it; the check stands there, and not where events
// come in, so that whoever reads dead letters gets those of a circle too.
func Hop(e *cloudevents.Event) (*cloudevents.Event, error) {
	n := hops(e)
	if n >= MaxHops {
		return nil, fault.New(fault.Invalid, "send event on: more than %d hops, it goes round in circles", MaxHops)
	}
	return e.With(cloudevents.Attr{Name: HopAttribute, Value: strconv.Itoa(n + 1)}), nil
}

// hops reads the count; what is not a number was not written by us and is zero.
func hops(e *cloudevents.Event) int {
	text, ok := e.Attr(HopAttribute)
	if !ok {
		return 0
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0
	}
	return max(n, 0)
}

// These stand for an outcome without an error that a breaker could read.
var (
	errDropped = fault.New(fault.Dropped, "given up")
	errRetry   = fault.New(fault.Unavailable, "to be tried again")
)

// handle is one round of a delivery: gate, then from the outside in recover,
// observe, settle, and what carry does.
func (in *incarnation) handle(r *round) (d decision) {
	p := r.passage
	defer func() {
		if v := recover(); v != nil {
			d = in.settle(r, p, in.panicked(p, v))
		}
		p.watch.end(&d)
	}()
	if p.trip.letter != nil {
		return in.settleLetter(in.enter(r, true), p, p.trip.letter)
	}
	if p.claim.served {
		return in.settleServed(in.enter(r, true), p, cloudevents.Acked())
	}
	if err := in.passGate(); err != nil {
		return in.settle(r, p, result{cloudevents.Retried(err, 0), refused})
	}
	ctx := in.enter(r, false)
	return in.settle(ctx, p, in.carry(ctx, p))
}

// passGate waits until the app may be called. The wait ends when the route
// stops.
func (in *incarnation) passGate() error {
	if in.route.Gate == nil {
		return nil
	}
	return in.route.Gate(in.flow.soft)
}

// carry brings the event through the steps to the targets that have not taken
// it. A panic on the way is a result like any other.
func (in *incarnation) carry(ctx context.Context, p *passage) (res result) {
	defer func() {
		if v := recover(); v != nil {
			res = in.panicked(p, v)
		}
	}()
	if res := in.prepare(ctx, p); res != nil {
		return *res
	}
	for p.trip.target < len(in.route.Targets) {
		res := in.send(ctx, p, &in.route.Targets[p.trip.target])
		if res.Verdict != cloudevents.Ack {
			return res
		}
		p.trip.target++
		p.trip.tries = 0
	}
	return result{Outcome: cloudevents.Acked()}
}

// prepare does what comes before the targets. It returns what the round ends
// with when that is before them.
func (in *incarnation) prepare(ctx context.Context, p *passage) *result {
	if err := p.trip.err; err != nil {
		res := unreadable(err)
		return &res
	}
	if o := in.runSteps(ctx, p); o != nil {
		p.trip.failed = true
		return &result{Outcome: *o}
	}
	return in.claim(ctx, p)
}

// begin counts the attempt that this round is.
func begin(p *passage) {
	if p.trip.failed {
		p.trip.failed = false
		p.d.Attempt++
	}
}

// decode reads the event once, where the source did not.
func (in *incarnation) decode(p *passage) {
	if p.trip.decoded {
		return
	}
	p.trip.decoded = true
	p.trip.err = nil
	if p.d.Event == nil && in.route.Decode != nil {
		p.trip.err = guard(func() error { return in.route.Decode(p.d) })
	}
	if p.d.Event == nil && p.trip.err == nil && len(in.route.Steps) > 0 {
		p.trip.err = fault.New(fault.Invalid, "decode event: there is none, and the route has steps")
	}
	p.trip.original = p.d.Event
}

func unreadable(err error) result {
	o := cloudevents.Dropped("the event cannot be decoded: "+err.Error(), err)
	if fault.KindOf(err) == fault.Dropped {
		return result{Outcome: cloudevents.Dropped(err.Error(), err)}
	}
	return result{o, undecodable}
}

// runSteps runs the steps, once for each delivery.
func (in *incarnation) runSteps(ctx context.Context, p *passage) *cloudevents.Outcome {
	if p.trip.stepped {
		return nil
	}
	e := p.trip.original
	for i := range in.route.Steps {
		next, o := in.route.Steps[i].Do(ctx, e)
		in.steps[i].count(o)
		if o != nil {
			return o
		}
		if next != nil {
			e = next
		}
	}
	p.d.Event = e
	p.trip.stepped = true
	return nil
}

// try is a call of a target: whether it was made, and what came of it.
type try struct {
	made bool
	cloudevents.Outcome
}

// send is one try of one target, under its breaker and time-out.
func (in *incarnation) send(ctx context.Context, p *passage, t *Target) result {
	var o try
	err := in.attempt(ctx, t, func(ctx context.Context) error {
		o = try{true, t.Send(p.watch.try(ctx, t.Name), p.d)}
		return asError(o.Outcome)
	}, &o.made)
	res := judge(p, o.Outcome, err)
	if o.made {
		in.targets[p.trip.target].count(res.Verdict)
	}
	p.watch.tried(res.Outcome)
	return res
}

// attempt makes a call under the target's policy. While the breaker is open it
// waits here and keeps its place, so that nothing is taken from the source only
// to be refused.
func (in *incarnation) attempt(ctx context.Context, t *Target, call func(context.Context) error, made *bool) error {
	err := t.Policy.Try(ctx, call)
	for !*made && errors.Is(err, resilience.ErrOpen) && t.Policy.Breaker.Wait(in.flow.soft) == nil {
		err = t.Policy.Try(ctx, call)
	}
	return err
}

// judge makes a result of what a target said and of how the call ended.
func judge(p *passage, o cloudevents.Outcome, err error) result {
	switch {
	case o.Verdict == cloudevents.Ack, o.Verdict == cloudevents.Drop:
		return result{o, failed}
	case errors.Is(err, resilience.ErrOpen):
		return result{cloudevents.Retried(err, fault.RetryAfter(err)), refused}
	case o.Verdict == cloudevents.Leave && fault.KindOf(err) != fault.Timeout:
		return result{o, failed}
	case o.Verdict == cloudevents.Leave:
		// To the target, the policy's time-out looks like being cut short.
		o = cloudevents.Retried(err, 0)
	case fault.KindOf(err) == fault.Timeout:
		o.Err = err
	}
	p.trip.tries++
	p.trip.failed = true
	return result{o, failed}
}

// asError is how an outcome looks to a breaker: only a Retry is a failure.
func asError(o cloudevents.Outcome) error {
	switch o.Verdict {
	case cloudevents.Ack:
		return nil
	case cloudevents.Drop:
		return errDropped
	case cloudevents.Leave:
		return context.Canceled
	}
	if fault.Retriable(o.Err) {
		return o.Err
	}
	return errRetry
}

// panicked makes a result of a panic. The stack is logged once for a delivery.
func (in *incarnation) panicked(p *passage, v any) result {
	p.trip.panics++
	p.trip.failed = true
	if p.trip.panics == 1 {
		in.log.Error("panic while handling an event", "id", p.id(), told("trace", p.traceID()), "origin", p.d.Origin,
			told("target", in.targetName(p)), "panic", v, "stack", string(debug.Stack()))
	}
	o := cloudevents.Retried(fault.New(fault.Internal, "handle event: panic: %v", v), 0)
	p.watch.tried(o)
	return result{o, panicked}
}

// guard calls f and turns a panic into an error of kind Internal, with the
// stack.
func guard(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fault.New(fault.Internal, "panic: %v\n%s", v, debug.Stack())
		}
	}()
	return f()
}

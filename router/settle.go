package router

import (
	"context"
	"time"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
)

const (
	// maxPanics is how many rounds of one delivery may end in a panic before
	// its retries count as used up.
	maxPanics = 3
	// holdTime is the pause between two looks at an event that can neither be
	// decoded nor dead-lettered.
	holdTime = time.Minute

	stoppingReason = "the route is stopping"
)

// cause is what kind of ending a result is.
type cause uint8

const (
	said        cause = iota // a step said so
	failed                   // a target was tried and said so
	refused                  // nothing was tried: gate or open breaker
	undecodable              // the event could not be read
	panicked                 // something panicked
)

// result is what the chain made of one round.
type result struct {
	cloudevents.Outcome
	cause cause
}

// decision is what follows from a result.
type decision struct {
	again bool          // hand the delivery over again, after wait
	wait  time.Duration // with again
	// tell is what the source is told, unless again.
	tell cloudevents.Outcome
	// seen is how the round ended, for counts and observers; buried, that it
	// was with a dead letter.
	seen   cloudevents.Outcome
	buried bool
}

func tell(o cloudevents.Outcome) decision { return decision{tell: o, seen: o} }

func leave(reason string) decision { return tell(cloudevents.Left(reason)) }

// settle is the one place that decides what becomes of a delivery: ack, another
// round, dead letter, give back or leave. Look here when an event was lost or
// doubled. Two rules stand above the rest: nothing is acked that was not
// delivered, dead-lettered or dropped on purpose; and nothing that the hard stop
// cut short is anything but left.
func (in *incarnation) settle(ctx context.Context, p *passage, res result) decision {
	switch {
	case res.Verdict == cloudevents.Ack:
		return in.settleServed(ctx, p, res.Outcome)
	case res.Verdict == cloudevents.Leave:
		return leave(res.Reason)
	case in.flow.cutting.Load():
		return leave(stoppingReason)
	case res.cause == undecodable:
		return in.settleUndecodable(ctx, p, res)
	case res.Verdict == cloudevents.Drop:
		return in.settleDrop(ctx, p, res)
	default:
		return in.settleRetry(ctx, p, res)
	}
}

// settleDrop gives the delivery up on purpose: with a dead letter where there is
// one, and then it is acked.
func (in *incarnation) settleDrop(ctx context.Context, p *passage, res result) decision {
	if !res.Discard && in.route.DeadLetter != nil {
		return in.settleLetter(ctx, p, in.newLetter(p, res))
	}
	// What a filter leaves out is no news.
	if !res.Discard || res.Err != nil {
		in.log.Warn("event dropped", "id", p.id(), told("trace", p.traceID()), "origin", p.d.Origin,
			told("target", in.targetName(p)), "attempt", p.d.Attempt, "reason", res.Reason, "error", res.Err)
	}
	return decision{tell: cloudevents.Outcome{Verdict: cloudevents.Ack, Reason: res.Reason}, seen: res.Outcome}
}

// settleRetry follows the target's policy, then the dead letter, then the
// route's own back-off. A delivery that was not even tried is never
// dead-lettered, and never given back: the source would only send the next one
// to be refused.
func (in *incarnation) settleRetry(ctx context.Context, p *passage, res result) decision {
	asked := max(res.After, fault.RetryAfter(res.Err))
	usedUp := res.cause == panicked && p.trip.panics >= maxPanics
	if res.cause == failed {
		policy := in.route.Targets[p.trip.target].Policy.Retry
		if policy.Allows(p.trip.tries) && !policy.Refuses(res.Err) {
			return in.waitInLane(p, res, policy.Delay(p.trip.tries, asked))
		}
		usedUp = true
	}
	// An app that ends together with us fails what it has under way.
	if usedUp && in.route.DeadLetter != nil && in.flow.soft.Err() == nil {
		return in.settleLetter(ctx, p, in.newLetter(p, res))
	}
	if res.cause == refused && !p.injected {
		return in.waitInLane(p, res, in.route.Redelivery.Delay(max(p.trip.series, 1), asked))
	}
	p.trip.tries = 0
	p.trip.series++
	// A delivery that was given back begins a new series, so the attempts that
	// the source counted keep the pauses growing.
	n := max(p.trip.series, p.d.Attempt)
	return in.giveBackOrWait(p, res, in.route.Redelivery.Delay(n, asked))
}

// settleUndecodable dead-letters what cannot be read; without a dead letter it
// is held, which is told once, and looked at again now and then.
func (in *incarnation) settleUndecodable(ctx context.Context, p *passage, res result) decision {
	if in.route.DeadLetter != nil {
		return in.settleLetter(ctx, p, in.newLetter(p, res))
	}
	if !p.trip.alarmed {
		p.trip.alarmed = true
		in.log.Error("event held: it cannot be decoded and the route has no dead letter",
			told("trace", p.traceID()), "origin", p.d.Origin, "bytes", len(p.d.Body), "error", res.Err)
	}
	p.trip.decoded = false
	res.Verdict = cloudevents.Retry
	return in.giveBackOrWait(p, res, holdTime)
}

// settleLetter writes the dead letter and acks only after that; as long as it
// cannot be written, writing it is what the delivery waits for.
func (in *incarnation) settleLetter(ctx context.Context, p *passage, l *DeadLetter) decision {
	p.trip.letter = l
	seen := cloudevents.Dropped(l.Reason, nil)
	err := guard(func() error { return in.route.DeadLetter(ctx, l) })
	if err == nil {
		in.flow.tally.buried.Add(1)
		in.log.Warn("event dead-lettered", "id", p.id(), told("trace", p.traceID()), "origin", p.d.Origin,
			told("target", l.Target), "attempts", l.Attempts, "reason", l.Reason)
		return decision{tell: cloudevents.Outcome{Verdict: cloudevents.Ack, Reason: l.Reason}, seen: seen, buried: true}
	}
	if in.flow.cutting.Load() {
		return leave(stoppingReason)
	}
	err = fault.Wrap(err, "write dead letter")
	if p.injected { // whoever injected it still has it
		return leave(l.Reason + "; " + err.Error())
	}
	p.trip.burials++
	wait := in.route.Redelivery.Delay(p.trip.burials, fault.RetryAfter(err))
	return in.waitInLane(p, result{Outcome: cloudevents.Retried(err, wait)}, wait)
}

// giveBackOrWait is for waits of which the source may take over its part: order
// does not matter, it can deliver again later, and no target has the event yet,
// which a new delivery would not know. What was injected is always given back:
// somebody waits to hear of it.
func (in *incarnation) giveBackOrWait(p *passage, res result, wait time.Duration) decision {
	keep := p.key != "" || p.trip.target > 0 || !in.route.GiveBack
	if keep && !p.injected || in.flow.soft.Err() != nil {
		return in.waitInLane(p, res, wait)
	}
	in.trouble("event given back to its source", p, reason(res.Outcome))
	return tell(cloudevents.Retried(res.Err, wait))
}

// waitInLane keeps the delivery for another round; when the route stops there
// is none.
func (in *incarnation) waitInLane(p *passage, res result, wait time.Duration) decision {
	if in.flow.soft.Err() != nil {
		return leave(stoppingReason)
	}
	in.trouble("event not delivered yet", p, reason(res.Outcome))
	in.flow.tally.retried.Add(1)
	return decision{again: true, wait: wait, seen: res.Outcome}
}

func (in *incarnation) newLetter(p *passage, res result) *DeadLetter {
	p.d.Event = p.trip.original
	kind := fault.Dropped
	switch {
	case res.Err != nil:
		kind = fault.KindOf(res.Err)
	case res.Verdict == cloudevents.Retry:
		kind = fault.Unavailable // an app that says RETRY gives no error
	}
	return &DeadLetter{
		Delivery: p.d,
		Route:    in.route.Name,
		Target:   in.targetName(p),
		Reason:   reason(res.Outcome),
		Kind:     kind.String(),
		Attempts: p.d.Attempt,
		Key:      p.key,
		Time:     time.Now(),
	}
}

// reason is why, in one line: for logs and dead letters.
func reason(o cloudevents.Outcome) string {
	switch {
	case o.Reason != "":
		return o.Reason
	case o.Err != nil:
		return o.Err.Error()
	}
	return "the target said " + o.Verdict.String()
}

// targetName names the target that was being served; empty when none was
// reached.
func (in *incarnation) targetName(p *passage) string {
	if !p.trip.stepped || p.trip.target >= len(in.route.Targets) {
		return ""
	}
	return in.route.Targets[p.trip.target].Name
}

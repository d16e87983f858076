package router

import (
	"context"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/penstock-io/penstock/cloudevents"
)

// A carrier is one Watermill message with several rounds, for a target that
// serves many deliveries in one call. Each delivery is gated, prepared and
// settled as if it were alone; only the call is common. So Watermill's hop and
// the target's round trip are paid once for all of them.

// seat is one delivery in a carrier.
type seat struct {
	at  int // its index in the carrier
	p   *passage
	ctx context.Context
}

// serveAll is serve for a carrier.
func (in *incarnation) serveAll(m *message.Message, head *round) error {
	rounds := append(make([]*round, 0, 1+len(head.crew)), head)
	rounds = append(rounds, head.crew...)
	ds := make([]decision, len(rounds))
	in.handleAll(rounds, ds)
	for i := range ds {
		if ds[i].again || ds[i].tell.Verdict != cloudevents.Ack {
			m.Nack()
			break
		}
	}
	in.flow.finish(rounds, ds)
	return nil
}

// handleAll is handle for a carrier: it decides on every round.
func (in *incarnation) handleAll(rounds []*round, ds []decision) {
	if err := in.passGate(); err != nil {
		for i, r := range rounds {
			ds[i] = in.conclude(r, r.passage, result{cloudevents.Retried(err, 0), refused})
		}
		return
	}
	seats := make([]seat, 0, len(rounds))
	for i, r := range rounds {
		if p := r.passage; p.trip.letter != nil || p.claim.served {
			ds[i] = in.handle(r) // what is left to do is not the target's
			continue
		}
		s := seat{at: i, p: r.passage, ctx: r}
		if res := in.board(&s, r); res != nil {
			ds[i] = in.alight(&s, *res)
			continue
		}
		seats = append(seats, s)
	}
	if len(seats) == 0 {
		return
	}
	for i, res := range in.sendAll(seats) {
		ds[seats[i].at] = in.alight(&seats[i], res)
	}
}

// board prepares a delivery, and returns its result when it does not go to the
// target.
func (in *incarnation) board(s *seat, r *round) (res *result) {
	defer func() {
		if v := recover(); v != nil {
			r := in.panicked(s.p, v)
			res = &r
		}
	}()
	s.ctx = in.enter(r, false)
	return in.prepare(s.ctx, s.p)
}

// alight settles a delivery.
func (in *incarnation) alight(s *seat, res result) decision {
	d := in.conclude(s.ctx, s.p, res)
	s.p.watch.end(&d)
	return d
}

// conclude is settle with a net under it.
func (in *incarnation) conclude(ctx context.Context, p *passage, res result) (d decision) {
	defer func() {
		if v := recover(); v != nil {
			d = in.settle(ctx, p, in.panicked(p, v))
		}
	}()
	return in.settle(ctx, p, res)
}

// sendAll is one try of the route's target for all that is on board. An outcome
// that the target does not give is Leave: nothing is known of that delivery.
func (in *incarnation) sendAll(seats []seat) (results []result) {
	results = make([]result, len(seats))
	defer func() {
		if v := recover(); v != nil {
			for i := range seats {
				results[i] = in.panicked(seats[i].p, v)
			}
		}
	}()
	t := &in.route.Targets[0]
	deliveries := make([]*cloudevents.Delivery, len(seats))
	for i := range seats {
		deliveries[i] = seats[i].p.d
	}
	outcomes := make([]cloudevents.Outcome, len(seats))
	made := false
	err := in.attempt(seats[0].ctx, t, func(ctx context.Context) error {
		made = true
		clear(outcomes)
		copy(outcomes, t.SendAll(tryAll(ctx, seats, t.Name), deliveries))
		return worst(outcomes)
	}, &made)
	for i := range seats {
		results[i] = judge(seats[i].p, outcomes[i], err)
		if made {
			in.targets[0].count(results[i].Verdict)
		}
		seats[i].p.watch.tried(results[i].Outcome)
		if results[i].Verdict == cloudevents.Ack {
			seats[i].p.trip.target++
			seats[i].p.trip.tries = 0
		}
	}
	return results
}

// tryAll tells of the call for each delivery and returns the context of it.
func tryAll(ctx context.Context, seats []seat, target string) context.Context {
	for i := range seats[1:] {
		s := &seats[1+i]
		s.p.watch.try(s.ctx, target)
	}
	return seats[0].p.watch.try(ctx, target)
}

// worst is how a call looks to a breaker: it failed when one delivery of it is
// to be tried again.
func worst(outcomes []cloudevents.Outcome) (err error) {
	for _, o := range outcomes {
		switch o.Verdict {
		case cloudevents.Retry:
			return asError(o)
		case cloudevents.Leave:
			err = asError(o)
		}
	}
	return err
}

package router

import (
	"context"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
)

// Inject hands one delivery to a running route as if it came from its source:
// the same window, lanes, steps, targets and dead letter. A route that makes its
// own events, as those of bindings do, reads the body as a structured event
// when d.Event is nil.
//
// It returns when the route has taken the delivery, after waiting for the
// route's gate and for room in its window. Settle is then called exactly once,
// and is told more than a source is: Ack when all targets took the event; Drop
// when it was given up, with Discard when no dead letter of it was written;
// Retry when it was tried and can be tried again; Leave when it was not tried to
// the end. It is not kept for another round once the targets' own retries are
// used up.
//
// Kinds: NotFound when no such route runs, Invalid for a delivery that cannot be
// read, Unavailable when the route is stopping, and what ended ctx.
func (r *Router) Inject(ctx context.Context, name string, d *cloudevents.Delivery) error {
	r.mu.Lock()
	in, runs := r.routes[name], r.base != nil
	r.mu.Unlock()
	if in == nil || !runs {
		return fault.New(fault.NotFound, "inject event: route %q does not run", name)
	}
	return fault.Wrap(in.inject(ctx, d), "inject event into route %q", name)
}

func (in *incarnation) inject(ctx context.Context, d *cloudevents.Delivery) error {
	if d == nil || d.Settle == nil {
		return errNoSettle
	}
	if d.Event == nil && in.route.Decode == nil {
		e, err := cloudevents.Scan(d.Body)
		if err != nil {
			return err
		}
		d.Event = e
	}
	// In the chain a closed gate is waited for whether or not the caller is
	// still there.
	if in.route.Gate != nil {
		if err := in.route.Gate(ctx); err != nil {
			return err
		}
	}
	p := in.newPassage(d)
	p.injected = true
	return in.flow.admit(ctx, p)
}

// injectorHears is the outcome for whoever injected the delivery.
func (p *passage) injectorHears(d decision) cloudevents.Outcome {
	if d.seen.Verdict != cloudevents.Drop {
		return d.tell
	}
	o := d.seen
	o.Discard = p.trip.letter == nil
	return o
}

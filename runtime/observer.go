package runtime

import (
	"context"
	"sync"
	"time"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/router"
	"github.com/penstock-io/penstock/telemetry"
	"github.com/penstock-io/penstock/telemetry/journal"
	"github.com/penstock-io/penstock/telemetry/trace"
)

// observer tells of rounds to all that want to know: metrics and the journal. It
// looks at the clock once for all of them.
type observer struct {
	metrics *telemetry.Metrics // nil: nothing is counted
	journal *journal.Journal
	tracer  *trace.Tracer
	system  func(component string) string // its kind, for spans
	rounds  sync.Pool                     // of *observed that have ended
}

// observed is one round.
type observed struct {
	of    *observer
	began time.Time
	count roundCount
	entry journal.Round
	span  trace.Span // of the try under way
	trace string     // of the last one that was recorded, its id
	route string
	// delivery is that of the round.
	delivery *cloudevents.Delivery
}

func (o *observer) Begin(ctx context.Context, s router.Start) (context.Context, router.Round) {
	r, ok := o.rounds.Get().(*observed)
	if !ok {
		r = &observed{of: o}
	}
	r.began = time.Now()
	r.route, r.delivery = s.Route, s.Delivery
	r.count = countOf(o.metrics, &s)
	o.journal.Begin(&r.entry, eventOf(s.Delivery), journal.Nth{Route: s.Route, Round: s.Number, Attempt: s.Delivery.Attempt}, r.began)
	return ctx, r
}

func (r *observed) Try(ctx context.Context, target string) context.Context {
	r.entry.Try(target, time.Since(r.began))
	if r.of.tracer.On() {
		ctx = r.beginSpan(ctx, target)
	}
	return ctx
}

func (r *observed) Tried(o cloudevents.Outcome) {
	r.entry.Tried(outcomeWord(o.Verdict), whyNot(o), time.Since(r.began))
	if r.span.Recording() {
		r.endSpan(o)
	}
}

func (r *observed) End(e router.End) {
	took := time.Since(r.began)
	r.count.end(r.trace, took, e.Outcome.Verdict)
	r.entry.End(endingOf(&e), took)
	r.count, r.delivery, r.trace = roundCount{}, nil, ""
	r.of.rounds.Put(r)
}

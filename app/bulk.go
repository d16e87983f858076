package app

import (
	"context"
	"sync"
	"time"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/telemetry/trace"
)

// BulkOptions say how deliveries are put together.
type BulkOptions struct {
	To Address
	// Max is how many deliveries one call carries; default 100.
	Max int
	// Wait is how long the first waits for more; default 1 s.
	Wait time.Duration
	// Timeout bounds a call; zero leaves that to the app's.
	Timeout time.Duration
}

// Bulk delivers several events in one call of the app, each with an outcome of
// its own. Deliveries that come while none waits begin a new call, which goes
// out when it is full or its first has waited long enough.
type Bulk struct {
	app *App
	o   BulkOptions

	mu      sync.Mutex
	filling *batch
}

// batch is one call. Its outcomes are written before done is closed; the zero
// outcome is Leave, so a call that never was loses nothing.
type batch struct {
	deliveries []*cloudevents.Delivery
	traces     []trace.Context // of those that are recorded
	full, done chan struct{}
	outcomes   []cloudevents.Outcome
}

// NewBulk makes a Bulk of one path.
func (a *App) NewBulk(o BulkOptions) *Bulk {
	o.Max, o.Wait = orElse(o.Max, 100), orElse(o.Wait, time.Second)
	return &Bulk{app: a, o: o}
}

// Event delivers d together with others and returns its own outcome: that of
// its entry in the answer, a retry when the answer leaves it out, and that of
// the call when the app did not answer for each.
func (k *Bulk) Event(ctx context.Context, d *cloudevents.Delivery) cloudevents.Outcome {
	b, i := k.join(d, trace.Current(ctx).Context())
	if i == 0 {
		k.lead(ctx, b)
		return b.outcomes[0]
	}
	select {
	case <-b.done:
		return b.outcomes[i]
	case <-ctx.Done():
		return Unanswered(ctx, k.o.To.Path, context.Cause(ctx))
	}
}

// join puts d into the batch that fills up and returns its place there.
func (k *Bulk) join(d *cloudevents.Delivery, of trace.Context) (*batch, int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	b := k.filling
	if b == nil {
		b = &batch{full: make(chan struct{}), done: make(chan struct{})}
		k.filling = b
	}
	b.deliveries = append(b.deliveries, d)
	if of.Parent != "" {
		b.traces = append(b.traces, of)
	}
	if len(b.deliveries) == k.o.Max {
		k.filling = nil
		close(b.full)
	}
	return b, len(b.deliveries) - 1
}

// lead waits for the batch to fill, sends it and hands out the outcomes.
func (k *Bulk) lead(ctx context.Context, b *batch) {
	timer := time.NewTimer(k.o.Wait)
	defer timer.Stop()
	select {
	case <-b.full:
	case <-timer.C:
	case <-ctx.Done():
	}
	k.mu.Lock()
	if k.filling == b {
		k.filling = nil
	}
	b.outcomes = make([]cloudevents.Outcome, len(b.deliveries))
	k.mu.Unlock()
	defer close(b.done)
	ctx, span := k.begin(ctx, b)
	k.send(ctx, b)
	span.End()
}

// begin begins the span of a call, with a link to each delivery in it that is
// recorded. It belongs to the first of those.
func (k *Bulk) begin(ctx context.Context, b *batch) (context.Context, trace.Span) {
	if len(b.traces) == 0 {
		return ctx, trace.Span{}
	}
	ctx, span := k.app.tracer.Start(ctx, trace.Begin{Kind: trace.Client, Group: "bulk ", Name: k.o.To.Topic, From: b.traces[0], Links: b.traces})
	span.Set(trace.MessagingDestination, k.o.To.Topic)
	span.Set(trace.MessagingOperation, "process")
	span.Set(trace.MessagingType, "process")
	span.SetInt(trace.MessagingCount, len(b.deliveries))
	return ctx, span
}

func (k *Bulk) send(ctx context.Context, b *batch) {
	if k.o.Timeout > 0 {
		timed, end := context.WithTimeout(ctx, k.o.Timeout)
		defer end()
		ctx = timed
	}
	inner, limit, cancel, err := k.app.enter(ctx)
	if err != nil {
		o := Unanswered(ctx, k.o.To.Path, err)
		for i := range b.outcomes {
			b.outcomes[i] = o
		}
		return
	}
	defer k.app.leave(cancel)
	copy(b.outcomes, k.app.channel.Bulk(inner, &k.o.To, b.deliveries, limit))
	for i := range b.outcomes {
		k.app.note(inner, &b.outcomes[i])
	}
}

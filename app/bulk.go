package app

import (
	"context"
	"sync"
	"time"

	"github.com/penstock-io/penstock/cloudevents"
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
	b, i := k.join(d)
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
func (k *Bulk) join(d *cloudevents.Delivery) (*batch, int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	b := k.filling
	if b == nil {
		b = &batch{full: make(chan struct{}), done: make(chan struct{})}
		k.filling = b
	}
	b.deliveries = append(b.deliveries, d)
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
	k.send(ctx, b)
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

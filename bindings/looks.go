package bindings

import (
	"context"
	"time"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
)

// Ticker is a [Reader] that fires by itself, by a schedule.
type Ticker interface {
	// Ticks says when it fires. It does not block.
	Ticks() Ticks
	// Fire fires once now, beside the schedule and in every other way like it,
	// and returns when that is settled. When ctx ends before, the outcome is a
	// Retry and the tick goes on. Kinds: Unavailable while nobody reads, Conflict
	// when a tick is under way and must be alone, Exhausted when too many wait.
	Fire(ctx context.Context) (id string, o cloudevents.Outcome, err error)
}

// Ticks is when something fires.
type Ticks struct {
	Schedule, TimeZone string
	// Next is zero while nobody reads here, and when it never fires again.
	Next time.Time
	// Last is the tick that was settled last; its Time is zero when none was.
	Last Tick
	// UnderWay is how many ticks were handed over and are not settled.
	UnderWay int
}

// Tick is one that was settled.
type Tick struct {
	ID   string
	Time time.Time // when it was settled
	// Outcome is what the route said; an Ack with a Reason was given up.
	Outcome cloudevents.Outcome
}

// Hooked is a [Reader] that takes requests.
type Hooked interface {
	// Hook says where, and what came last. It does not block.
	Hook() Hook
}

// Hook is where requests are taken.
type Hook struct {
	URL       string // as it is bound here: a proxy in front has another
	Path      string
	Signature string // the scheme; empty: none is asked for
	Taking    bool   // requests are taken now
	// Requests are the last ones, the newest first, at most [MaxRequests].
	Requests []HookRequest
}

// MaxRequests is how many requests a [Hook] remembers.
const MaxRequests = 20

// HookRequest is one that was answered.
type HookRequest struct {
	Time     time.Time
	Method   string
	Status   int
	Bytes    int64
	Duration time.Duration
	Remote   string
	// Answer is what was answered, in one line.
	Answer string
	// IDs are those of its events, the first few.
	IDs []string
}

// Backlogged is a [Reader] whose source knows what waits for it. It may ask the
// source, and is called every ten seconds at most.
type Backlogged interface {
	Backlog(ctx context.Context) (cloudevents.Backlog, error)
}

// Backlog asks the source what waits for the binding; ok is false where it does not
// know, or is not open.
func (b *Binding) Backlog(ctx context.Context) (log cloudevents.Backlog, ok bool, err error) {
	if _, ok := reading[Backlogged](b); !ok {
		return log, false, nil
	}
	d, err := b.instance.Acquire()
	if err != nil {
		return log, false, nil
	}
	defer b.instance.Release()
	asked, ok := d.(Backlogged)
	if !ok {
		return log, false, nil
	}
	log, err = asked.Backlog(ctx)
	return log, err == nil, fault.Wrap(b.instance.Hide(err), "count what waits in %s", b.name)
}

// Ticks says when the binding fires; false for one that does not fire by itself.
func (b *Binding) Ticks() (Ticks, bool) {
	if t, ok := reading[Ticker](b); ok {
		return t.Ticks(), true
	}
	return Ticks{}, false
}

// Fire fires a binding that has a schedule; see [Ticker]. Kind NotFound when it has
// none.
func (b *Binding) Fire(ctx context.Context) (id string, o cloudevents.Outcome, err error) {
	t, ok := reading[Ticker](b)
	if !ok {
		return "", o, fault.New(fault.NotFound, "fire binding %s: it has no schedule", b.name)
	}
	id, o, err = t.Fire(ctx)
	return id, o, fault.Wrap(err, "fire binding %s", b.name)
}

// Hook says where the binding takes requests; false for one that takes none.
func (b *Binding) Hook() (Hook, bool) {
	if h, ok := reading[Hooked](b); ok {
		return h.Hook(), true
	}
	return Hook{}, false
}

// reading is what the driver of an open input can do beside reading.
func reading[T any](b *Binding) (t T, ok bool) {
	if !b.Input() {
		return t, false
	}
	d, err := b.instance.Driver()
	if err != nil {
		return t, false
	}
	t, ok = d.(T)
	return t, ok
}

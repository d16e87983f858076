package cron

import (
	"context"
	"time"

	"github.com/penstock-io/penstock/bindings"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
)

// maxAsked is how many ticks that somebody asked for wait at most.
const maxAsked = 16

// asked is told what became of a tick that somebody asked for.
type asked chan cloudevents.Outcome

// Ticks implements [bindings.Ticker].
func (b *binding) Ticks() bindings.Ticks {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := bindings.Ticks{Schedule: b.options.Schedule, TimeZone: b.schedule.zone.String(), Last: b.settled, UnderWay: len(b.flying)}
	if b.reads {
		t.Next = b.upcoming
	}
	return t
}

// Fire implements [bindings.Ticker]. The tick is none of the schedule: it has an id
// of its own and is not caught up.
func (b *binding) Fire(ctx context.Context) (string, cloudevents.Outcome, error) {
	t := &tick{slot: b.clock.now().Round(0), kept: true, asked: make(asked, 1)}
	if err := b.ask(t); err != nil {
		return "", cloudevents.Outcome{}, err
	}
	b.ring()
	select {
	case o := <-t.asked:
		return b.id(t), o, nil
	case <-ctx.Done():
		return b.id(t), cloudevents.Retried(fault.New(fault.Timeout, "it is under way still"), 0), nil
	}
}

// ask puts the tick among those that wait.
func (b *binding) ask(t *tick) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case !b.reads:
		return fault.New(fault.Unavailable, "its route does not run here, or another replica reads it")
	case b.options.Overlap == "skip" && len(b.flying)+len(b.waiting) > 0:
		return fault.New(fault.Conflict, "a tick is under way, and overlap is skip")
	case count(b.waiting, func(t *tick) bool { return t.asked != nil }) >= maxAsked:
		return fault.New(fault.Exhausted, "%d ticks that were asked for wait already", maxAsked)
	}
	b.wait(t)
	return nil
}

// id is that of the tick's event.
func (b *binding) id(t *tick) string {
	if t.asked != nil {
		return b.env.Name + "-asked-" + t.slot.UTC().Format("20060102T150405.000000000Z")
	}
	return b.env.Name + "-" + t.slot.UTC().Format("20060102T150405Z")
}

// end notes what became of a tick, and tells who asked for it.
func (b *binding) end(t *tick, o cloudevents.Outcome) {
	b.settled = bindings.Tick{ID: b.id(t), Time: time.Now(), Outcome: o}
	if t.asked != nil {
		t.asked <- o
	}
}

package cron

import (
	"context"
	"errors"
	"log/slog"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
)

const (
	maxFlying  = 64
	lookEvery  = time.Minute   // clock jumps are noticed this soon
	grace      = 2 * lookEvery // how late a tick may be with catchUp none
	backwards  = 3 * time.Hour
	firstPause = time.Second // before a tick is given out again
	maxPause   = time.Minute
	savePause  = 500 * time.Millisecond // before a position is written again
	finishTime = 2 * time.Second        // for the last position before the lease is let go
)

// tick is one firing. Its fields change only while it is waiting.
type tick struct {
	slot    time.Time
	attempt int       // retries so far
	after   time.Time // not to be given out before, by the steady clock
	kept    bool      // was under way once, or asked for: never replaced by a newer tick
	asked   asked     // nil for a tick of the schedule
}

// Read fires ticks until ctx ends. With a lease it also waits for what is under
// way then: the next replica goes on from the position that it leaves.
func (b *binding) Read(ctx context.Context, emit cloudevents.EmitFunc) error {
	if !b.reading.TryLock() {
		return fault.New(fault.Conflict, "read ticks: somebody else does already")
	}
	defer b.reading.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer b.stopReading()
	if !b.begin(cancel) {
		return fault.New(fault.Unavailable, "read ticks: the binding is closed")
	}
	if b.takesTurns() {
		if err := b.resume(ctx); err != nil {
			return err
		}
		return errors.Join(b.fire(ctx, emit), b.finish(ctx))
	}
	if b.last.IsZero() {
		b.last = b.clock.start()
	}
	return b.fire(ctx, emit)
}

// fire fires ticks until ctx ends. The position is written before the next one,
// so that a killed process fires again only what was under way.
func (b *binding) fire(ctx context.Context, emit cloudevents.EmitFunc) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		b.collect()
		if err := b.note(ctx); err != nil {
			if ctx.Err() == nil {
				return err
			}
			break
		}
		if t := b.take(); t != nil {
			if err := b.send(ctx, emit, t); err != nil && ctx.Err() == nil {
				return fault.Wrap(err, "hand over tick")
			}
			b.passOver()
			continue
		}
		timer.Reset(b.pause())
		select {
		case <-ctx.Done():
		case <-b.wake:
		case <-timer.C:
		}
	}
	return nil
}

// finish waits until what is under way is settled, and writes the position while
// the lease lasts.
func (b *binding) finish(ctx context.Context) error {
	for !b.atRest() {
		<-b.wake
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTime)
	defer cancel()
	return b.keeper.save(ctx, b.position())
}

// atRest tells whether no tick is under way, or nobody waits for it any more.
func (b *binding) atRest() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.closed || len(b.flying) == 0
}

// begin makes ticks that were left due again. It returns false after Close.
func (b *binding) begin(cancel context.CancelFunc) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.cancel = cancel
	for _, t := range b.left {
		b.wait(t)
	}
	b.left = nil
	b.reads = !b.closed
	return b.reads
}

func (b *binding) stopReading() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reads = false
}

// passOver leaves out the slots that came while a tick was being handed over,
// when overlap is skip: the tick may be settled by now, but was under way then.
func (b *binding) passOver() {
	if b.options.Overlap != "skip" {
		return
	}
	slots, _ := b.schedule.recent(b.last, b.clock.slot().Add(-b.jitter), 1)
	if len(slots) > 0 {
		b.last = slots[0]
		b.skipped.add("overlap", b.last)
	}
}

// note writes the position down when there is a place for it.
func (b *binding) note(ctx context.Context) error {
	b.skipped.log(b.env.Logger, b.clock.steady())
	if b.keeper == nil {
		return nil
	}
	return b.keeper.save(ctx, b.position())
}

// collect takes the slots that are due from the schedule.
func (b *binding) collect() {
	now := b.clock.slot()
	if b.last.Sub(now) > backwards {
		b.env.Logger.Warn("clock was put back, schedule starts anew from here", "last", b.last, "now", now)
		b.last = now
	}
	due := now.Add(-b.jitter)
	bound := 1
	if b.options.CatchUp == "all" {
		bound = b.options.MaxCatchUp
	}
	slots, older := b.schedule.recent(b.last, due, bound)
	if len(slots) == 0 {
		return
	}
	if older {
		b.skipped.add("missed", slots[0])
	}
	b.last = slots[len(slots)-1]
	b.draw()
	if b.options.CatchUp == "none" && now.Sub(b.last) > grace+b.options.Jitter {
		b.skipped.add("late", b.last)
		return
	}
	b.admit(slots, bound)
}

// admit lets slots wait as far as overlap allows.
func (b *binding) admit(slots []time.Time, bound int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	busy := len(b.flying) > 0 || len(b.waiting) > 0
	if b.options.Overlap == "skip" && busy {
		b.skipped.add("overlap", slots[len(slots)-1])
		return
	}
	for _, slot := range slots {
		b.waiting = append(b.waiting, &tick{slot: slot})
	}
	fresh := func(t *tick) bool { return !t.kept }
	for count(b.waiting, fresh) > bound {
		i := slices.IndexFunc(b.waiting, fresh)
		b.skipped.add("overlap", b.waiting[i].slot)
		b.waiting = slices.Delete(b.waiting, i, i+1)
	}
}

func count(ts []*tick, is func(*tick) bool) (n int) {
	for _, t := range ts {
		if is(t) {
			n++
		}
	}
	return n
}

// take returns the next tick to hand over and counts it as under way; nil when
// none may go now.
func (b *binding) take() *tick {
	b.mu.Lock()
	defer b.mu.Unlock()
	i := b.choose()
	if i < 0 || b.waiting[i].after.After(b.clock.steady()) {
		return nil
	}
	t := b.waiting[i]
	b.waiting = slices.Delete(b.waiting, i, i+1)
	b.flying[t] = true
	return t
}

// choose returns which tick that waits is next, or -1; the caller holds mu.
// Without overlap a tick that pauses before its next try holds the others up.
func (b *binding) choose() int {
	most := 1
	if b.options.Overlap == "allow" {
		most = maxFlying
	}
	if len(b.waiting) == 0 || len(b.flying) >= most {
		return -1
	}
	if most == 1 {
		return 0
	}
	first := 0
	for i, t := range b.waiting {
		if t.after.Before(b.waiting[first].after) {
			first = i
		}
	}
	return first
}

// pause returns how long nothing can happen by itself.
func (b *binding) pause() time.Duration {
	d := lookEvery
	now := b.clock.slot()
	next := b.schedule.next(b.last)
	if !next.IsZero() {
		next = next.Add(b.jitter)
		d = min(d, next.Sub(now))
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.upcoming = next
	if i := b.choose(); i >= 0 {
		d = min(d, b.waiting[i].after.Sub(b.clock.steady()))
	}
	return max(d, 0)
}

// send hands one tick over. A tick that is not taken stays owed.
func (b *binding) send(ctx context.Context, emit cloudevents.EmitFunc, t *tick) error {
	e, err := b.event(t)
	if err != nil {
		b.back(t)
		return err
	}
	var once sync.Once
	err = emit(ctx, &cloudevents.Delivery{
		Event:    e,
		Attempt:  t.attempt + 1,
		Origin:   b.env.Name,
		Metadata: b.metadata(t),
		Settle:   func(o cloudevents.Outcome) { once.Do(func() { b.settle(t, o) }) },
	})
	if err != nil {
		b.back(t)
	}
	return err
}

func (b *binding) event(t *tick) (*cloudevents.Event, error) {
	at := t.slot.UTC().Format(time.RFC3339Nano)
	return cloudevents.New("", nil,
		cloudevents.Attr{Name: "id", Value: b.id(t)},
		cloudevents.Attr{Name: "source", Value: b.source()},
		cloudevents.Attr{Name: "type", Value: "io.penstock.cron.tick"},
		cloudevents.Attr{Name: "time", Value: at},
	)
}

func (b *binding) source() string {
	if b.env.AppID == "" {
		return "/" + url.PathEscape(b.env.Name)
	}
	return "/" + url.PathEscape(b.env.AppID) + "/" + url.PathEscape(b.env.Name)
}

// metadata has the keys that Dapr's cron binding sends, in its form of the
// time, and the scheduled time.
func (b *binding) metadata(t *tick) map[string]string {
	return map[string]string{
		"timeZone":      b.schedule.zone.String(),
		"readTimeUTC":   b.clock.now().UTC().Round(0).String(),
		"scheduledTime": t.slot.In(b.schedule.zone).Format(time.RFC3339Nano),
	}
}

// settle ends one handing over; it may be called after Read has returned. A
// tick that was left is given out by the next Read.
func (b *binding) settle(t *tick, o cloudevents.Outcome) {
	switch o.Verdict {
	case cloudevents.Retry:
		pause := o.After
		if pause <= 0 {
			pause = min(firstPause<<min(t.attempt, 6), maxPause)
		}
		t.attempt++
		t.after = b.clock.steady().Add(pause)
		b.back(t)
	case cloudevents.Leave:
		b.leave(t)
	default:
		b.mu.Lock()
		delete(b.flying, t)
		b.end(t, o)
		b.mu.Unlock()
	}
	b.ring()
}

// back puts a tick that was under way among those that wait.
func (b *binding) back(t *tick) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.flying, t)
	t.kept = true
	b.wait(t)
}

// wait puts a tick in its place; the caller holds mu.
func (b *binding) wait(t *tick) {
	i, _ := slices.BinarySearchFunc(b.waiting, t, func(a, t *tick) int { return a.slot.Compare(t.slot) })
	b.waiting = slices.Insert(b.waiting, i, t)
}

// leave keeps a tick for the next Read. The oldest is given up when nobody
// calls Read any more and yet goes on leaving ticks.
func (b *binding) leave(t *tick) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.flying, t)
	t.kept, t.after = true, time.Time{}
	b.left = append(b.left, t)
	if len(b.left) > maxFlying+b.options.MaxCatchUp {
		b.left = slices.Delete(b.left, 0, 1)
	}
}

func (b *binding) ring() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// position returns the time up to which every slot is settled; the schedule
// goes on behind it.
func (b *binding) position() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.last
	owed := func(t *tick) {
		if t.asked != nil {
			return
		}
		if before := b.schedule.before(t.slot); before.Before(p) {
			p = before
		}
	}
	for _, t := range b.waiting {
		owed(t)
	}
	for _, t := range b.left {
		owed(t)
	}
	for t := range b.flying {
		owed(t)
	}
	return p
}

// skipLog counts ticks that are left out and logs them at most once a minute.
type skipLog struct {
	counts map[string]int // by reason, of which there are three
	newest time.Time
	logged time.Time
}

func (l *skipLog) add(reason string, slot time.Time) {
	if l.counts == nil {
		l.counts = map[string]int{}
	}
	l.counts[reason]++
	l.newest = slot
}

func (l *skipLog) log(logger *slog.Logger, now time.Time) {
	if len(l.counts) == 0 || now.Sub(l.logged) < time.Minute {
		return
	}
	logger.Warn("ticks left out", "reasons", l.counts, "newest", l.newest)
	l.counts, l.logged = nil, now
}

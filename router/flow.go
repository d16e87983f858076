package router

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
)

// errStopped is what emit returns when a route takes nothing any more.
var errStopped = fault.New(fault.Unavailable, "take event: the route is stopping")

// flow holds what a route has taken from its source and hands it over, at most
// so many at a time, one after the other for each key. Read it in this order:
// admit (a delivery comes in), dispatch (it is handed over), finish (its round
// is over: told to the source, or parked), wake (its time has come). Stopping
// is stop, then cut, then abandon.
//
// The flow never waits itself, except for the window in admit. hand must take a
// round without blocking; whoever took it calls finish once.
type flow struct {
	// places is how many hand-overs are under way at most, load how many rounds
	// one of them has at most.
	places, load int
	window       *window
	hand         func(*round)
	log          *slog.Logger
	tally        *tally
	// base is what contexts of rounds take their values from; it never ends.
	base context.Context
	// soft ends at the first step of stopping, with errStopped as its cause.
	soft    context.Context
	endSoft context.CancelCauseFunc
	// cutting is set at the second step: what is under way is cut short.
	cutting atomic.Bool
	// idle is closed when the flow is stopping and everything was told.
	idle   chan struct{}
	timers sync.WaitGroup // of parked passages

	mu       sync.Mutex
	lanes    lanes
	held     []*passage // all that are not gone, in no order
	handed   int        // how many hand-overs are under way
	running  int        // how many passages are
	untold   int        // how many were admitted and not told
	paused   bool
	stopping bool
}

func newFlow(r *Route, log *slog.Logger) *flow {
	places, load := r.places()
	return &flow{
		places: places, load: load, window: newWindow(r), log: log, tally: &tally{}, paused: r.Paused,
		idle: make(chan struct{}),
	}
}

// open gives the flow its contexts; it comes before the first admit.
func (f *flow) open(base context.Context) {
	f.base = &endless{base}
	f.soft, f.endSoft = context.WithCancelCause(f.base)
}

// admit waits for room and takes p in. An error means that p was not taken.
func (f *flow) admit(ctx context.Context, p *passage) error {
	if err := f.window.enter(ctx, p.size); err != nil {
		return err
	}
	f.mu.Lock()
	if f.stopping {
		f.mu.Unlock()
		f.window.leave(p.size)
		return errStopped
	}
	f.untold++
	p.index = len(f.held)
	f.held = append(f.held, p)
	f.lanes.add(p)
	f.dispatch()
	f.mu.Unlock()
	return nil
}

// dispatch hands over while there are free places. It runs under mu.
func (f *flow) dispatch() {
	for !f.paused && f.handed < f.places {
		r := f.next()
		if r == nil {
			return
		}
		for n := 1; n < f.load; n++ {
			with := f.next()
			if with == nil {
				break
			}
			r.crew = append(r.crew, with)
		}
		f.handed++
		f.hand(r)
	}
}

// next begins a round of the passage that has been ready for longest; nil when
// there is none. It runs under mu.
func (f *flow) next() *round {
	p := f.lanes.pop()
	if p == nil {
		return nil
	}
	p.state = under
	f.running++
	return p.newRound()
}

// finish ends the rounds of one hand-over: for each the source is told, or the
// passage waits for the next.
func (f *flow) finish(rounds []*round, ds []decision) {
	for _, r := range rounds {
		r.end()
	}
	f.mu.Lock()
	if rounds[0].passage.state != under { // abandoned meanwhile: the source has been told
		f.mu.Unlock()
		for _, r := range rounds {
			r.passage.unclaim()
		}
		return
	}
	f.handed--
	f.running -= len(rounds)
	told := f.divide(rounds, ds)
	f.dispatch()
	f.mu.Unlock()
	if told == 0 {
		return
	}

	// The source hears of these before the next of their keys are handed over.
	for i, r := range rounds {
		if d := &ds[i]; !d.again {
			outcome := d.tell
			if r.passage.injected {
				outcome = r.passage.injectorHears(*d)
			}
			f.tell(r.passage, outcome, d.seen.Verdict)
		}
	}

	var left []*passage
	f.mu.Lock()
	for i, r := range rounds {
		if d := &ds[i]; !d.again {
			// What was injected is kept by somebody else: its source gave those behind it.
			left = append(left, f.follow(r.passage, d.tell.Verdict == cloudevents.Leave && !r.passage.injected)...)
		}
	}
	f.dispatch()
	f.mu.Unlock()
	f.told(told)
	f.leave(left)
}

// divide parks what is to have another round and claims the rest, of which it
// returns the number. It runs under mu.
func (f *flow) divide(rounds []*round, ds []decision) (claimed int) {
	for i, r := range rounds {
		if ds[i].again && !f.stopping {
			f.park(r.passage, ds[i].wait)
			continue
		}
		if ds[i].again {
			ds[i] = leave(stoppingReason)
		}
		f.claim(r.passage)
		claimed++
	}
	return claimed
}

// follow lets the next one of p's key get ready; when p was left, all of its
// key that are held have to be left too, or they would overtake it. It runs
// under mu and returns what is to be left.
func (f *flow) follow(p *passage, left bool) []*passage {
	next := f.lanes.done(p)
	if next == nil || next.state != queued {
		return nil
	}
	if left || f.cutting.Load() {
		return f.chain(next)
	}
	f.lanes.ready(next)
	return nil
}

// chain claims p and all behind it. It runs under mu.
func (f *flow) chain(p *passage) (claimed []*passage) {
	for p != nil {
		f.claim(p)
		claimed = append(claimed, p)
		p = f.lanes.done(p)
	}
	return claimed
}

// claim takes p out: from now on only the claimer may tell its outcome. It runs
// under mu.
func (f *flow) claim(p *passage) {
	p.state = gone
	last := len(f.held) - 1
	f.held[p.index] = f.held[last]
	f.held[p.index].index = p.index
	f.held[last] = nil
	f.held = f.held[:last]
}

// park makes p wait; nothing but its key waits with it. It runs under mu.
func (f *flow) park(p *passage, wait time.Duration) {
	p.state = parked
	f.timers.Add(1)
	p.timer = time.AfterFunc(wait, func() { f.wake(p) })
}

func (f *flow) wake(p *passage) {
	defer f.timers.Done()
	f.mu.Lock()
	defer f.mu.Unlock()
	if p.state == parked {
		f.lanes.ready(p)
		f.dispatch()
	}
}

// tell tells the source the outcome of a claimed passage, once.
func (f *flow) tell(p *passage, o cloudevents.Outcome, seen cloudevents.Verdict) {
	if !p.abandoned {
		p.unclaim()
	}
	err := guard(func() error { p.d.Settle(o); return nil })
	if err != nil {
		f.log.Error("settle event", "id", p.id(), told("trace", p.traceID()), "origin", p.d.Origin, "error", err)
	}
	f.tally.count(seen)
	f.window.leave(p.size)
}

func (f *flow) told(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.untold -= n
	f.checkIdle()
}

// checkIdle runs under mu. Nothing is admitted once stopping is set, so the
// count reaches zero once.
func (f *flow) checkIdle() {
	if f.stopping && f.untold == 0 {
		select {
		case <-f.idle:
		default:
			close(f.idle)
		}
	}
}

func (f *flow) leave(claimed []*passage) {
	for _, p := range claimed {
		f.tell(p, cloudevents.Left(stoppingReason), cloudevents.Leave)
	}
	if len(claimed) > 0 {
		f.told(len(claimed))
	}
}

// pause stops handing over; what is under way goes on, and the source is held
// up when the window is full.
func (f *flow) pause() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.paused = !f.stopping
}

func (f *flow) resume() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.paused = false
	f.dispatch()
}

// stop is the first step: nothing is admitted any more, what waits for its time
// is left with its key, and the rest goes on until it is done.
func (f *flow) stop() {
	f.window.close()
	f.mu.Lock()
	f.stopping = true
	var left []*passage
	for _, p := range slices.Clone(f.held) {
		if p.state == parked {
			if p.timer.Stop() {
				f.timers.Done()
			}
			left = append(left, f.chain(p)...)
		}
	}
	if f.paused {
		left = append(left, f.sweep()...)
		f.paused = false
	}
	f.checkIdle()
	f.mu.Unlock()
	f.endSoft(errStopped)
	f.leave(left)
}

// cut is the second step: what was not handed over is left, and the contexts of
// what is under way end.
func (f *flow) cut() {
	f.cutting.Store(true)
	f.mu.Lock()
	left := f.sweep()
	var rounds []*round
	for _, p := range f.held {
		if p.state == under {
			rounds = append(rounds, p.round)
		}
	}
	f.mu.Unlock()
	for _, r := range rounds {
		r.end()
	}
	f.leave(left)
}

// sweep claims all that are ready, and their keys. It runs under mu.
func (f *flow) sweep() (claimed []*passage) {
	for p := f.lanes.pop(); p != nil; p = f.lanes.pop() {
		claimed = append(claimed, f.chain(p)...)
	}
	return claimed
}

// abandon is for targets that do not end with their context: all that is held
// is left, and the outcome that may still come is not listened to. It returns
// how many were under way.
func (f *flow) abandon() int {
	f.mu.Lock()
	n := f.running
	f.running, f.handed = 0, 0
	left := slices.Clone(f.held)
	for _, p := range left {
		p.abandoned = p.state == under
		f.claim(p)
	}
	f.lanes = lanes{}
	f.mu.Unlock()
	f.leave(left)
	return n
}

// drain stops the flow in two steps: it waits for what is held until ctx ends,
// then cuts, and waits for a grace time more.
func (f *flow) drain(ctx context.Context) (abandoned int) {
	f.stop()
	select {
	case <-f.idle:
	case <-ctx.Done():
		f.cut()
		if !within(graceTime, f.idle) {
			abandoned = f.abandon()
		}
	}
	f.timers.Wait()
	return abandoned
}

// within tells whether done is closed before d is over.
func within(d time.Duration, done <-chan struct{}) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-done:
		return true
	case <-t.C:
		return false
	}
}

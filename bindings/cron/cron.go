// Package cron is the input binding that fires by the clock.
//
// Configure it as bindings.cron with a schedule. Each tick is one event
// without data; its id is made of the component's name and the scheduled time,
// so the same tick has the same id in every process and after a restart.
//
// A schedule is read in its time zone. Where clocks are put forward, what falls
// into the gap fires once at its end; where they are put back, it fires in the
// first pass of the repeated hour only; a schedule of every hour follows real
// time through both. @every counts time and knows no clock.
//
// Delivery: a tick given to the router is delivered until it is settled. With
// catchUp last or all, the position in the schedule is kept in SQLite and ticks
// missed while the process was down, or left over by a stop, are delivered
// after the next start: at least once. With none they are lost with the
// process. An exclusive input has its position with its lease, whatever catchUp
// says: one replica fires each tick, the next goes on behind the last that was
// settled, and what a killed one had under way comes once more, under the same
// id. Ticks are never in flight in greater number than the overlap option
// allows, and never delivered for the same scheduled time twice by a clock that
// is put back by up to three hours.
package cron

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/penstock-io/penstock/bindings"
	"github.com/penstock-io/penstock/client/sqlite"
	"github.com/penstock-io/penstock/component"
)

// Component is listed in package all.
var Component = bindings.Define("cron", component.About{
	Summary: "Fires events by a cron schedule",
	Ack:     "The tick is done; with catchUp last or all that is noted in SQLite, with exclusive in the lock store.",
	Order:   "Ticks come in the order of their scheduled times unless overlap is allow.",
	Limits: "One tick under way and one waiting (overlap queue), one under way (skip) or 64 under way (allow); " +
		"at most maxCatchUp ticks are caught up.",
	Scale: "Every process fires every tick, with exclusive one of them: each tick once, and once more only what a killed one had under way. " +
		"Equal ticks have equal ids, except those of @every without exclusive, which counts from the start of the process.",
	Dapr: "Time zone, overlap, catch-up and jitter are new; a failed tick is tried again; " +
		"@every below one second and schedules that never fire are errors.",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: nightly
spec:
  type: bindings.cron
  version: v1
  metadata:
    - name: schedule
      value: "0 3 * * *"
    - name: timeZone
      value: Europe/Berlin
    - name: catchUp
      value: last
`,
	Capabilities: []string{"INPUT_BINDING"},
}, open)

type options struct {
	Schedule   string        `meta:"schedule,required" doc:"When to fire: five fields (minute, hour, day of month, month, day of week), six with seconds in front, @hourly, @daily, @weekly, @monthly, @yearly, or @every with a duration of whole seconds. TZ=Zone in front sets the time zone." example:"*/15 * * * *"`
	TimeZone   string        `meta:"timeZone" doc:"Time zone of the schedule; that of the process when empty." example:"Europe/Berlin"`
	Overlap    string        `meta:"overlap" enum:"skip|queue|allow" default:"queue" doc:"What happens to a tick while an earlier one is under way. skip leaves it out, queue lets one wait (a newer tick takes the place of one that waits), allow delivers up to 64 at once."`
	CatchUp    string        `meta:"catchUp" enum:"none|last|all" default:"none" doc:"What happens to ticks missed while the process was down, the clock jumped or no replica held the lease. none delivers the newest unless it is more than two minutes late, last delivers the newest, all delivers the newest maxCatchUp in order. last and all keep the position in SQLite; with exclusive it is in the lock store, also with none."`
	MaxCatchUp int           `meta:"maxCatchUp" default:"100" doc:"How many missed ticks catchUp all delivers, 1 to 10000; older ones are left out and logged."`
	Jitter     time.Duration `meta:"jitter" default:"0s" doc:"Delays each tick by a random time up to this, so that many processes do not act at once; shorter than the time between two ticks. The event carries the scheduled time." example:"30s"`
}

// Check refuses schedules that cannot be understood or never fire.
func (o options) Check() error {
	s, err := o.parse()
	if err != nil {
		return err
	}
	if o.MaxCatchUp < 1 || o.MaxCatchUp > 10000 {
		return component.OptionErrorf("maxCatchUp", "%d is not between 1 and 10000", o.MaxCatchUp)
	}
	if shortest := s.shortest(); o.Jitter < 0 || o.Jitter >= shortest {
		return component.OptionErrorf("jitter", "%s is not shorter than the %s between two ticks", o.Jitter, shortest)
	}
	return nil
}

func (o options) parse() (*schedule, error) {
	zone, zoneErr := time.Local, error(nil)
	if o.TimeZone != "" {
		var err error
		if zone, err = loadZone(o.TimeZone); err != nil {
			zone, zoneErr = time.UTC, component.OptionErrorf("timeZone", "%w", err)
		} else if _, own, _ := cutZone(o.Schedule); own != nil {
			zoneErr = component.OptionErrorf("timeZone", "the schedule %q has a time zone already; remove one", o.Schedule)
		}
	}
	s, err := parse(o.Schedule, zone)
	if err != nil {
		err = component.OptionErrorf("schedule", "%w", err)
	}
	return s, errors.Join(zoneErr, err)
}

func open(ctx context.Context, env component.Env, o options) (bindings.Driver, error) {
	b, err := newBinding(env, o)
	if err != nil {
		return nil, err
	}
	if env.Position != nil {
		b.keeper = &leased{at: env.Position, schedule: o.text(), logger: env.Logger}
		return b, nil
	}
	if o.CatchUp == "none" {
		return b, nil
	}
	db, err := sqlite.Open(ctx, env, "")
	if err != nil {
		return nil, err
	}
	if b.keeper, err = openLedger(ctx, db, env, o); err == nil {
		err = b.resume(ctx)
	}
	if err != nil {
		db.Close()
		return nil, err
	}
	return b, nil
}

// binding is the driver. Read runs at most once at a time.
type binding struct {
	env      component.Env
	options  options
	schedule *schedule
	clock    clock
	keeper   keeper // of the position; nil when nobody does
	wake     chan struct{}
	reading  sync.Mutex

	// Only Read and Close use these, holding reading.
	last    time.Time // newest slot that was taken from the schedule
	jitter  time.Duration
	skipped skipLog

	mu      sync.Mutex // guards what follows
	waiting []*tick    // owed and not under way, oldest slot first
	left    []*tick    // owed, for the next Read
	flying  map[*tick]bool
	closed  bool
	cancel  context.CancelFunc // of the running Read
	reads   bool               // Read runs

	upcoming time.Time // when the next slot fires, as Read saw it
	settled  bindings.Tick
}

func newBinding(env component.Env, o options) (*binding, error) {
	s, err := o.parse()
	if err != nil {
		return nil, err
	}
	b := &binding{
		env: env, options: o, schedule: s, clock: newClock(s),
		wake: make(chan struct{}, 1), flying: map[*tick]bool{},
	}
	b.draw()
	return b, nil
}

// draw picks the delay of the next tick.
func (b *binding) draw() {
	if b.options.Jitter > 0 {
		b.jitter = rand.N(b.options.Jitter)
	}
}

// Close stops a Read that still runs and writes the position down. Outcomes
// that arrive later change nothing.
func (b *binding) Close(ctx context.Context) error {
	b.mu.Lock()
	twice := b.closed
	b.closed = true
	if b.cancel != nil {
		b.cancel()
	}
	b.mu.Unlock()
	b.ring()
	if twice || b.keeper == nil {
		return nil
	}
	b.reading.Lock()
	defer b.reading.Unlock()
	if b.takesTurns() {
		return nil // Read has saved it, and there is no lease any more
	}
	return errors.Join(b.keeper.save(ctx, b.position()), b.keeper.close())
}

// takesTurns tells whether replicas take turns in firing.
func (b *binding) takesTurns() bool { return b.env.Position != nil }

// clock tells the time that slots are compared with.
type clock struct {
	now    func() time.Time // the wall clock
	steady func() time.Time // the same, but never put forward or back
	every  bool             // the schedule counts time instead of reading the clock
}

func newClock(s *schedule) clock {
	start := time.Now()
	return clock{
		now:    time.Now,
		steady: func() time.Time { return start.Round(0).Add(time.Since(start)) },
		every:  s.period > 0,
	}
}

func (c clock) slot() time.Time {
	if c.every {
		return c.steady()
	}
	return c.now().Round(0)
}

// start returns where a schedule that was never worked on begins. @every counts
// from the full second.
func (c clock) start() time.Time {
	if c.every {
		return c.slot().Truncate(time.Second)
	}
	return c.slot()
}

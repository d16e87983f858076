package app

import (
	"context"
	"sync"
	"time"

	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/resilience"
)

// HealthOptions say how the app is probed. Zero values are the defaults.
type HealthOptions struct {
	// Enabled asks the app for its health. Without it, the app is well as long
	// as something listens at its port.
	Enabled bool
	// Interval is the time between two questions; default 5 s. An app that is
	// not well is asked at least every second.
	Interval time.Duration
	// Timeout bounds one question; default 500 ms.
	Timeout time.Duration
	// Threshold is how many questions in a row must fail before the app counts
	// as unhealthy; default 3. One success makes it healthy again.
	Threshold int
}

const (
	// slowestLook is the longest pause between two looks at an app that is
	// down: deliveries go on within two seconds after it is back.
	slowestLook  = time.Second
	quickestLook = 200 * time.Millisecond
	// reachTimeout bounds one look at the port.
	reachTimeout = 500 * time.Millisecond
)

func (g *gate) init(healthy bool) {
	g.reachable, g.healthy = true, healthy
	g.open = make(chan struct{})
	g.watchers = map[*func(bool)]struct{}{}
	if healthy {
		close(g.open)
	}
}

// set changes one of the gate's two conditions and tells the watchers when that
// opens or closes it. It returns whether the condition changed.
func (g *gate) set(condition *bool, value bool) bool {
	g.telling.Lock()
	defer g.telling.Unlock()
	g.mu.Lock()
	before := g.reachable && g.healthy
	changed := *condition != value
	*condition = value
	now := g.reachable && g.healthy
	var tell []func(bool)
	if now != before {
		if now {
			close(g.open)
		} else {
			g.open = make(chan struct{})
		}
		for f := range g.watchers {
			tell = append(tell, *f)
		}
	}
	g.mu.Unlock()
	for _, f := range tell {
		f(now)
	}
	return changed
}

func (g *gate) opened() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.open
}

// Ready blocks until the app may be called or ctx ends. It is the gate of the
// routes that deliver to the app; waiting there is not a try.
func (a *App) Ready(ctx context.Context) error {
	select {
	case <-a.opened():
		return nil
	default:
	}
	select {
	case <-a.opened():
		return nil
	case <-ctx.Done():
		return fault.Wrap(ctx.Err(), "wait for the app")
	}
}

// Healthy tells whether the gate is open: the app is reachable and, where it is
// probed, says it is well.
func (a *App) Healthy() bool {
	select {
	case <-a.opened():
		return true
	default:
		return false
	}
}

// Watch calls f with what Healthy returns whenever that changes, one call after
// the other, until stop. f must not block, and must not call the App's methods
// that may change its health.
func (a *App) Watch(f func(healthy bool)) (stop func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	key := &f
	a.watchers[key] = struct{}{}
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.watchers, key)
	}
}

// WaitPort returns when something listens where the app should be, or with an
// error when ctx ends.
func (a *App) WaitPort(ctx context.Context) error {
	r, ok := a.channel.(Reacher)
	if !ok {
		return nil
	}
	for wait := 20 * time.Millisecond; ; wait = min(2*wait, quickestLook) {
		err := reach(ctx, r)
		if err == nil {
			a.set(&a.reachable, true)
			return nil
		}
		if resilience.Sleep(ctx, wait) != nil {
			return fault.Wrap(err, "wait for the app")
		}
	}
}

func reach(ctx context.Context, r Reacher) error {
	ctx, cancel := context.WithTimeout(ctx, reachTimeout)
	defer cancel()
	return r.Reach(ctx)
}

// RunHealth watches the app until ctx ends, and then returns nil. It must run
// as long as the App is used: it is what opens the gate.
func (a *App) RunHealth(ctx context.Context) error {
	var group sync.WaitGroup
	if a.health.Enabled {
		group.Go(func() { a.probe(ctx) })
	}
	a.seek(ctx)
	group.Wait()
	return nil
}

// seek looks for an app that a call did not find, until it listens again.
func (a *App) seek(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.lost:
		}
		a.log.Warn("App is not reachable; deliveries wait")
		wait := quickestLook
		for resilience.Sleep(ctx, wait) == nil {
			r, ok := a.channel.(Reacher)
			if !ok || reach(ctx, r) == nil {
				a.found()
				break
			}
			wait = min(2*wait, slowestLook)
		}
	}
}

func (a *App) found() {
	// A call that failed while we looked is about what was, not what is.
	select {
	case <-a.lost:
	default:
	}
	if a.set(&a.reachable, true) {
		a.log.Info("App is reachable again; deliveries go on")
	}
}

// probe asks the app for its health.
func (a *App) probe(ctx context.Context) {
	failures := 0
	for healthy := false; ; {
		err := a.ask(ctx)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			failures = 0
			healthy = true
		} else if failures++; failures >= a.health.Threshold {
			healthy = false
		}
		if a.set(&a.healthy, healthy) {
			a.report(err)
		}
		wait := a.health.Interval
		if !healthy {
			wait = min(wait, slowestLook)
		}
		if resilience.Sleep(ctx, wait) != nil {
			return
		}
	}
}

func (a *App) report(err error) {
	if err == nil {
		a.log.Info("App is healthy")
		return
	}
	a.log.Warn("App is unhealthy; deliveries wait", "failures", a.health.Threshold, "error", err)
}

func (a *App) ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, a.health.Timeout)
	defer cancel()
	return a.channel.Health(ctx)
}

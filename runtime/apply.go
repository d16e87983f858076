package runtime

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/router"
)

// running is a route that was started, with what it was made of.
type running struct {
	sum  uint64
	sub  *config.Subscription // set for subscriptions, for the metadata document
	kind string               // DECLARATIVE or PROGRAMMATIC
}

// wish is a route that should run.
type wish struct {
	running
	make func(context.Context) (router.Route, error)
}

// prepareTime bounds what the start of one route may wait for its source.
const prepareTime = 10 * time.Second

// applyRoutes stops and starts routes until those that run are those that
// should. Routes that did not change are not touched. What could not be started
// is noted, and logged when that is news.
func (r *Runtime) applyRoutes(ctx, life context.Context) {
	if r.appSeen {
		r.probeBindings(ctx)
	}
	wishes := r.wishes()
	var stale []string
	for name, is := range r.running {
		if w, ok := wishes[name]; !ok || w.sum != is.sum {
			stale = append(stale, name)
		}
	}
	r.stopRoutes(life, stale)
	failed := map[string]error{}
	for _, name := range slices.Sorted(maps.Keys(wishes)) {
		if _, ok := r.running[name]; ok {
			continue
		}
		if err := r.startRoute(ctx, name, wishes[name]); err != nil {
			failed[name] = err
		}
	}
	if ctx.Err() != nil {
		return // it failed because we stop
	}
	r.mu.Lock()
	before := r.unstarted
	r.unstarted = failed
	r.mu.Unlock()
	for name, err := range failed {
		if was := before[name]; was == nil || was.Error() != err.Error() {
			r.log.Error("Route not started", "route", name, "error", err)
		}
	}
}

func (r *Runtime) startRoute(ctx context.Context, name string, w wish) error {
	ctx, cancel := context.WithTimeout(ctx, prepareTime)
	defer cancel()
	route, err := w.make(ctx)
	if err != nil {
		return err
	}
	if err := r.router.Add(route); err != nil {
		return err
	}
	r.mu.Lock()
	r.running[name] = w.running
	r.mu.Unlock()
	r.log.Info("Route started", "route", name)
	return nil
}

// stopRoutes stops routes side by side, so that one drain time is enough for
// all of them.
func (r *Runtime) stopRoutes(life context.Context, names []string) {
	var wg sync.WaitGroup
	for _, name := range names {
		wg.Go(func() {
			if err := r.router.Remove(life, name); err != nil {
				r.log.Warn("Route stopped with events under way; they stay with their source", "route", name, "error", err)
				return
			}
			r.log.Info("Route stopped", "route", name)
		})
	}
	wg.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, name := range names {
		delete(r.running, name)
	}
}

// closed tells whether a component is there and not open: a route that reads it
// starts when it is, which is when it can be told what its source can do.
func (r *Runtime) closed(name string) bool {
	p := r.parts.find(name)
	return p != nil && !p.ready()
}

// wishes lists the routes that should run by name. Those that deliver to the
// app wait until it was seen, and all until their source is open.
func (r *Runtime) wishes() map[string]wish {
	out := map[string]wish{}
	for _, p := range r.set.Pipelines {
		if r.closed(p.From.Binding) || r.closed(p.From.PubSub) {
			continue
		}
		out["pipeline/"+p.Name] = wish{
			running: running{sum: fingerprint(p) ^ r.sumOf(p.From.Binding) ^ r.sumOf(p.From.PubSub)},
			make:    func(ctx context.Context) (router.Route, error) { return r.routes.pipeline(ctx, p) },
		}
	}
	if r.app == nil || !r.appSeen {
		return out
	}
	for _, s := range r.subscriptions() {
		if r.closed(s.PubSub) {
			continue
		}
		out[subscriptionName(s.Subscription)] = wish{
			running: running{sum: fingerprint(s.Subscription) ^ r.sumOf(s.PubSub), sub: &s.Subscription, kind: s.kind},
			make:    func(ctx context.Context) (router.Route, error) { return r.routes.subscription(ctx, s.Subscription) },
		}
	}
	for _, p := range r.parts.all() {
		name := p.config.Name
		if p.binding == nil || !p.ready() || r.pipelineReads(name) || !r.wanted[name] {
			continue
		}
		out["binding/"+name] = wish{
			running: running{sum: r.sumOf(name)},
			make:    func(context.Context) (router.Route, error) { return r.routes.input(name) },
		}
	}
	return out
}

// sumOf is the fingerprint of a component, zero when there is none.
func (r *Runtime) sumOf(name string) uint64 {
	if p := r.parts.find(name); p != nil {
		return p.sum
	}
	return 0
}

// subscription is one with its origin.
type subscription struct {
	config.Subscription
	kind string
}

// subscriptions merges those of the app and those declared; for the same topic
// of the same pub/sub the app's wins, as under Dapr.
func (r *Runtime) subscriptions() []subscription {
	var out []subscription
	seen := map[string]bool{}
	add := func(list []config.Subscription, kind string) {
		for _, s := range list {
			switch {
			case len(s.Rules) == 0:
				r.log.Warn("Subscription has no route; left out", "pubsub", s.PubSub, "topic", s.Topic)
			case seen[subscriptionName(s)]:
				r.log.Warn("Subscription appears twice; the first is used", "pubsub", s.PubSub, "topic", s.Topic)
			default:
				seen[subscriptionName(s)] = true
				out = append(out, subscription{s, kind})
			}
		}
	}
	add(r.fromApp, "PROGRAMMATIC")
	add(r.set.Subscriptions, "DECLARATIVE")
	return out
}

package runtime

import (
	"context"
	"errors"
	"maps"
	"slices"

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

// applyRoutes starts and stops routes until those that run are those that
// should. The caller holds r.mu. Routes that did not change are not touched.
func (r *Runtime) applyRoutes(ctx context.Context) error {
	wishes := r.wishes()
	for _, name := range slices.Sorted(maps.Keys(r.running)) {
		if w, ok := wishes[name]; ok && w.sum == r.running[name].sum {
			continue
		}
		r.stopRoute(ctx, name)
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(wishes)) {
		if _, ok := r.running[name]; ok {
			continue
		}
		if err := r.startRoute(ctx, name, wishes[name]); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (r *Runtime) startRoute(ctx context.Context, name string, w wish) error {
	route, err := w.make(ctx)
	if err != nil {
		return err
	}
	if err := r.router.Add(route); err != nil {
		return err
	}
	r.running[name] = w.running
	r.log.Info("Route started", "route", name)
	return nil
}

func (r *Runtime) stopRoute(ctx context.Context, name string) {
	delete(r.running, name)
	if err := r.router.Remove(ctx, name); err != nil {
		r.log.Warn("Route stopped with events under way; they stay with their source", "route", name, "error", err)
		return
	}
	r.log.Info("Route stopped", "route", name)
}

// wishes lists the routes that should run by name. Those that deliver to the
// app wait until it was seen.
func (r *Runtime) wishes() map[string]wish {
	out := map[string]wish{}
	for _, p := range r.set.Pipelines {
		out["pipeline/"+p.Name] = wish{
			running: running{sum: fingerprint(p) ^ r.sumOf(p.From.Binding) ^ r.sumOf(p.From.PubSub)},
			make:    func(ctx context.Context) (router.Route, error) { return r.routes.pipeline(ctx, p) },
		}
	}
	if r.app == nil || !r.appSeen {
		return out
	}
	for _, s := range r.subscriptions() {
		out[subscriptionName(s.Subscription)] = wish{
			running: running{sum: fingerprint(s.Subscription) ^ r.sumOf(s.PubSub), sub: &s.Subscription, kind: s.kind},
			make:    func(ctx context.Context) (router.Route, error) { return r.routes.subscription(ctx, s.Subscription) },
		}
	}
	for _, p := range r.parts.all() {
		name := p.config.Name
		if p.binding == nil || r.pipelineReads(name) || !r.wanted[name] {
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

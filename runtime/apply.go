package runtime

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/router"
)

// running is a route that was started, with what it was made of.
type running struct {
	sum  uint64
	sub  *config.Subscription // set for subscriptions, for the metadata document
	kind string               // DECLARATIVE, PROGRAMMATIC or STREAMING
	// letters is where its dead letters go; zero when that is no topic.
	letters topic
	// binding is the input binding that it reads; empty when it reads none.
	binding string
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
	r.changing.Add(1)
	defer r.changing.Add(-1)
	if r.appSeen {
		r.probeBindings(ctx)
	}
	wishes, failed := r.wishes()
	var stale []string
	for name, is := range r.running {
		if w, ok := wishes[name]; !ok || w.sum != is.sum {
			stale = append(stale, name)
		}
	}
	r.stopRoutes(life, stale)
	maps.DeleteFunc(wishes, func(name string, _ wish) bool { _, ok := r.running[name]; return ok })
	maps.Copy(failed, r.startRoutes(ctx, wishes))
	maps.Copy(failed, r.applyStreams(ctx))
	if ctx.Err() != nil {
		return // it failed because we stop
	}
	r.mu.Lock()
	before := r.unstarted
	r.unstarted = failed
	r.mu.Unlock()
	for name, err := range failed {
		was := before[name]
		if !errors.Is(err, errClosed) && (was == nil || was.Error() != err.Error()) {
			r.log.Error("Route not started", "route", name, "error", err)
		}
	}
}

// startWidth is how many routes are made at once: each may wait for its source.
const startWidth = 32

// startRoutes makes routes side by side and starts them together. It returns
// those that failed.
func (r *Runtime) startRoutes(ctx context.Context, wishes map[string]wish) map[string]error {
	names := slices.Sorted(maps.Keys(wishes))
	made, errs := make([]router.Route, len(names)), make([]error, len(names))
	var g errgroup.Group
	g.SetLimit(startWidth)
	for i, name := range names {
		g.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, prepareTime)
			defer cancel()
			made[i], errs[i] = wishes[name].make(ctx)
			return nil
		})
	}
	_ = g.Wait() // its functions keep their errors
	var good []router.Route
	failed := map[string]error{}
	for i, name := range names {
		if errs[i] != nil {
			failed[name] = errs[i]
			continue
		}
		good = append(good, made[i])
	}
	if r.add(good...) == nil {
		r.noteStarted(good, wishes)
		return failed
	}
	for _, route := range good { // one of them is wrong
		if err := r.add(route); err != nil {
			failed[route.Name] = err
			continue
		}
		r.noteStarted([]router.Route{route}, wishes)
	}
	return failed
}

func (r *Runtime) noteStarted(routes []router.Route, wishes map[string]wish) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, route := range routes {
		r.running[route.Name] = wishes[route.Name].running
		r.log.Info("Route started", "route", route.Name)
	}
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

// errClosed is about a route whose source is not open, which was told before.
var errClosed = fault.New(fault.Unavailable, "its source is not open yet")

// wishes lists the routes that should run by name. Those that deliver to the
// app wait until it was seen. Those whose source is not open wait for that,
// which is when it can be told what the source can do; they are in waiting,
// unless the source may fail.
func (r *Runtime) wishes() (out map[string]wish, waiting map[string]error) {
	out, waiting = map[string]wish{}, map[string]error{}
	defer func() { r.wishCollectors(out, waiting) }()
	for _, p := range r.set.Pipelines {
		name := "pipeline/" + p.Name
		if r.isClosed(waiting, name, cmp.Or(p.From.Binding, p.From.PubSub)) {
			continue
		}
		out[name] = wish{
			running: running{sum: fingerprint(p) ^ r.sumOf(p.From.Binding) ^ r.sumOf(p.From.PubSub), letters: deadLettersOf(p), binding: p.From.Binding},
			make:    func(ctx context.Context) (router.Route, error) { return r.routes.pipeline(ctx, p) },
		}
	}
	r.wishDelays(out, waiting)
	r.wishOutboxes(out, waiting)
	if r.app == nil || !r.appSeen {
		return out, waiting
	}
	for _, s := range r.subscriptions() {
		name := subscriptionName(s.Subscription)
		if r.isClosed(waiting, name, s.PubSub) {
			continue
		}
		out[name] = wish{
			running: running{
				sum: fingerprint(s.Subscription) ^ r.sumOf(s.PubSub) ^ r.inboundSum(s.PubSub, pubsubPolicies),
				sub: &s.Subscription, kind: s.kind, letters: deadLetterTopicOf(s.Subscription),
			},
			make: func(ctx context.Context) (router.Route, error) { return r.routes.subscription(ctx, s.Subscription) },
		}
	}
	r.wishInputs(out)
	return out, waiting
}

// isClosed tells whether the component a route reads from is there and not open.
// It is then put down as waited for, unless it may fail.
func (r *Runtime) isClosed(waiting map[string]error, route, name string) bool {
	p := r.parts.find(name)
	if p == nil || p.ready() {
		return false
	}
	if !p.config.IgnoreErrors {
		waiting[route] = errClosed
	}
	return true
}

// wishInputs adds the routes of input bindings that the app takes.
func (r *Runtime) wishInputs(out map[string]wish) {
	for _, p := range r.parts.all() {
		name := p.config.Name
		if p.binding == nil || !p.ready() || r.pipelineReads(name) || !r.wanted[name] {
			continue
		}
		out["binding/"+name] = wish{
			running: running{sum: r.sumOf(name) ^ r.inboundSum(name, bindingPolicies), binding: name},
			make:    func(context.Context) (router.Route, error) { return r.routes.input(name) },
		}
	}
}

// sumOf is a number that is another one when the component is, be it of the same
// document; zero when there is none.
func (r *Runtime) sumOf(name string) uint64 {
	if p := r.parts.find(name); p != nil {
		return fingerprint([]uint64{p.sum, p.serial})
	}
	return 0
}

// inboundSum is the fingerprint of the policies of what a component brings in.
func (r *Runtime) inboundSum(name, kind string) uint64 {
	return r.parts.policies.sum(way{name, kind, config.Inbound})
}

// subscription is one with its origin.
type subscription struct {
	config.Subscription
	kind string
}

// subscriptions merges those of the app and those declared. For the same topic
// of the same pub/sub the app's wins, the last it names, and of those declared
// the first, as under Dapr.
func (r *Runtime) subscriptions() []subscription {
	var out []subscription
	seen := map[string]bool{}
	add := func(s config.Subscription, kind string) {
		switch {
		case len(s.Rules) == 0:
			r.log.Warn("Subscription has no route; left out", "pubsub", s.PubSub, "topic", s.Topic)
		case seen[subscriptionName(s)]:
			r.log.Warn("Subscription appears twice; the last of the app's is used, else the first that is declared", "pubsub", s.PubSub, "topic", s.Topic)
		default:
			seen[subscriptionName(s)] = true
			out = append(out, subscription{s, kind})
		}
	}
	for _, s := range slices.Backward(r.fromApp) {
		add(s, "PROGRAMMATIC")
	}
	slices.Reverse(out)
	for _, s := range r.set.Subscriptions {
		add(s, "DECLARATIVE")
	}
	return out
}

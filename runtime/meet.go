package runtime

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/resilience"
)

// answer is what the app said when it was asked for its subscriptions.
type answer struct {
	subs []config.Subscription
	err  error
}

// askAgain says when an app that did not say its subscriptions in any of its
// tries is asked again: after 2 s, doubling to 15 s, or to a minute when it
// answers and cannot say.
func askAgain(n int, err error) time.Duration {
	pauses := resilience.Retry{Initial: 2 * time.Second, Max: time.Minute}
	if waitsForApp(err) {
		pauses.Max = 15 * time.Second
	}
	return pauses.Delay(n, fault.RetryAfter(err))
}

// meetApp waits for the app's port and asks what it wants; again when that
// failed, and when the app is back after it could not be reached or was
// unhealthy, because it may be another one by then.
func (r *Runtime) meetApp(ctx context.Context) {
	r.log.Info("Waiting for the app", "port", r.o.App.Port)
	if err := r.app.WaitPort(ctx); err != nil {
		return
	}
	r.log.Info("Application discovered on port "+fmt.Sprint(r.o.App.Port), "protocol", r.o.App.Protocol)
	defer r.watchApp()()
	for n := 1; ; n++ {
		subs, err := r.client.Subscriptions(ctx)
		if ctx.Err() != nil {
			return
		}
		select {
		case r.met <- answer{subs, err}:
		case <-ctx.Done():
			return
		}
		if fault.Retriable(err) {
			// It ends early only with ctx, which the next question tells.
			_ = resilience.Sleep(ctx, askAgain(n, err))
			continue
		}
		n = 0
		select {
		case <-r.back:
		case <-ctx.Done():
			return
		}
	}
}

// watchApp notes when the app is back after it was lost.
func (r *Runtime) watchApp() (stop func()) {
	var lost atomic.Bool
	return r.app.Watch(func(healthy bool) {
		if !healthy {
			lost.Store(true)
		} else if lost.Swap(false) {
			nudge(r.back)
		}
	})
}

// hear takes over what the app said. An app that said something before and
// fails to say it again is believed to want the same. One that said it is waited
// for until the routes follow; see heard.
func (r *Runtime) hear(a answer) {
	r.mu.Lock()
	news := a.err != nil && (r.unasked == nil || r.unasked.Error() != a.err.Error())
	if a.err != nil {
		r.unasked = a.err
	}
	r.mu.Unlock()
	r.said = a.err == nil
	if news {
		r.log.Error("App did not say its subscriptions; until it does, only declared ones and those it said before are used", "error", a.err)
	}
	if a.err == nil {
		r.fromApp = a.subs
		clear(r.wanted)
	}
	r.appSeen = true
}

// heard ends the wait for what the app says, once the routes follow it: an event
// that is published as soon as the instance is ready has them.
func (r *Runtime) heard() {
	if !r.said {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unasked = nil
}

// waitsForApp tells why the app's subscriptions keep the instance from being
// ready. An app that answers, but cannot say, is not waited for: it may be one
// that has none and fails for every path it does not know.
func waitsForApp(err error) bool {
	return fault.Retriable(err) && fault.KindOf(err) != fault.Internal
}

// probeBindings asks the app which input bindings it takes.
func (r *Runtime) probeBindings(ctx context.Context) {
	for _, p := range r.parts.all() {
		if p.binding == nil || !p.ready() || !p.binding.Input() {
			continue
		}
		name := p.config.Name
		if _, asked := r.wanted[name]; asked || r.pipelineReads(name) {
			continue
		}
		if p.binding.InputDeclared() {
			r.wanted[name] = true
			continue
		}
		want, err := r.client.WantsBinding(ctx, inputAddress(p))
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			r.log.Warn("App did not answer whether it takes the binding; taken as yes", "name", name, "path", p.binding.Route(), "error", err)
			want = true
		}
		r.wanted[name] = want
		if !want {
			r.log.Info("App does not take events of input binding "+name, "path", p.binding.Route())
		}
	}
}

// pipelineReads tells whether a pipeline starts from the binding.
func (r *Runtime) pipelineReads(name string) bool {
	return slices.ContainsFunc(r.set.Pipelines, func(p config.Pipeline) bool { return p.From.Binding == name })
}

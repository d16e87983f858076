// Package router moves events from sources to targets: Watermill, tamed.
//
// A [Route] is source → steps → targets. A caller makes a [Router], adds routes
// to it, before or while it runs, and removes them; everything else happens by
// itself. The way of one event is readable in five files: incarnation.go (emit
// takes it), window.go (the bound), lanes.go and flow.go (order and
// concurrency), chain.go (what is done with it), settle.go (what becomes of it).
// Only this package and adapters of brokers import Watermill.
//
// The package promises, for each route: a delivery is settled exactly once; it
// is acked only when all targets took it, it was dropped on purpose, or its dead
// letter is durable; deliveries of one key are never under way together and keep
// the order in which they were emitted, across retries too; a failing key holds
// up no other; at most Lanes deliveries are under way and at most Window are
// held; and stopping leaves what it cuts short to the source, without an ack, a
// dead letter or an attempt.
package router

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/penstock-io/penstock/fault"
)

const (
	defaultDrainTimeout = 10 * time.Second
	// closeTimeout is what Watermill gets to close when all handlers are gone.
	closeTimeout = 2 * time.Second
)

// Options are those of a [Router].
type Options struct {
	// Logger is required.
	Logger *slog.Logger
	// DrainTimeout is how long a route that stops may go on with what it
	// holds; zero is 10 s.
	DrainTimeout time.Duration
	// Observer is told what happens; nil is nobody.
	Observer Observer
}

// Router runs routes. Its methods may be called from any goroutine.
type Router struct {
	log      *slog.Logger
	drain    time.Duration
	observer Observer
	inner    *message.Router

	mu         sync.Mutex
	ran        bool
	base       context.Context // set while Run runs
	closed     bool            // no route is added any more
	generation int
	routes     map[string]*incarnation
	leaving    map[*incarnation]struct{} // being removed
}

// New makes a router; nothing happens before Run.
func New(o Options) (*Router, error) {
	if o.Logger == nil {
		return nil, fault.New(fault.Invalid, "make router: no logger")
	}
	if o.DrainTimeout < 0 {
		return nil, fault.New(fault.Invalid, "make router: a drain timeout of %s", o.DrainTimeout)
	}
	inner, err := message.NewRouter(message.RouterConfig{CloseTimeout: closeTimeout}, quietLogger{o.Logger})
	if err != nil {
		return nil, fault.Wrap(err, "make router")
	}
	keep := &keepAlive{out: make(chan *message.Message)}
	inner.AddConsumerHandler("keep-alive", "", keep, func(*message.Message) error { return nil })
	r := &Router{
		log: o.Logger, drain: o.DrainTimeout, observer: o.Observer, inner: inner,
		routes: map[string]*incarnation{}, leaving: map[*incarnation]struct{}{},
	}
	if r.drain == 0 {
		r.drain = defaultDrainTimeout
	}
	return r, nil
}

// Run runs the routes until ctx ends, then drains them all and returns. It may
// be called once; a second call is of kind Conflict. The error names what did
// not stop in time.
func (r *Router) Run(ctx context.Context) error {
	if !r.first() {
		return fault.New(fault.Conflict, "run router: it runs or has run already")
	}
	base := &endless{ctx}
	ended := make(chan error, 1)
	go func() { ended <- r.inner.Run(base) }()
	select {
	case <-r.inner.Running():
	case err := <-ended:
		return fault.Wrap(err, "run router")
	}
	err := r.startAll(base)
	if err == nil {
		select {
		case <-ctx.Done():
		case err = <-ended: // it cannot: keep-alive keeps it
			return errors.Join(fault.Wrap(err, "run router"), r.Drain(base))
		}
	}
	err = errors.Join(err, r.Drain(base))
	if cerr := r.inner.Close(); cerr != nil {
		err = errors.Join(err, fault.Wrap(cerr, "close router"))
	}
	return errors.Join(err, <-ended)
}

func (r *Router) first() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	first := !r.ran
	r.ran = true
	return first
}

func (r *Router) startAll(base context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.base = base
	all := make([]*incarnation, 0, len(r.routes))
	for _, in := range r.routes {
		all = append(all, in)
	}
	return r.start(all...)
}

// start gives each incarnation a handler and starts its source. It runs under
// mu.
func (r *Router) start(all ...*incarnation) error {
	handlers := make([]*message.Handler, len(all))
	for i, in := range all {
		r.generation++
		name := fmt.Sprintf("%s@%d", in.route.Name, r.generation)
		handlers[i] = r.inner.AddConsumerHandler(name, "", outlet{in.out}, in.serve)
	}
	if err := r.inner.RunHandlers(r.base); err != nil {
		return fault.Wrap(err, "start routes")
	}
	for i, in := range all {
		in.open(r.base, handlers[i].Stopped())
	}
	return nil
}

// Add adds routes, which start at once when the router runs; many at once cost
// much less than one by one. After an error none was added; it names the route
// at fault. Kinds: Invalid for a route that makes no sense, Conflict for a name
// in use, Unavailable when the router is draining.
func (r *Router) Add(routes ...Route) error {
	all := make([]*incarnation, len(routes))
	for i, route := range routes {
		route, err := route.prepared()
		if err != nil {
			return err
		}
		all[i] = newIncarnation(route, r.log, r.observer)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.admit(all); err != nil {
		return err
	}
	if r.base != nil {
		if err := r.start(all...); err != nil {
			for _, in := range all {
				delete(r.routes, in.route.Name)
			}
			return err
		}
	}
	return nil
}

// admit puts the incarnations into the table, all or none. It runs under mu.
func (r *Router) admit(all []*incarnation) error {
	for i, in := range all {
		var err error
		switch name := in.route.Name; {
		case r.closed:
			err = fault.New(fault.Unavailable, "add route %q: the router is draining", name)
		case r.routes[name] != nil:
			err = fault.New(fault.Conflict, "add route %q: the name is in use", name)
		default:
			r.routes[name] = in
			continue
		}
		for _, in := range all[:i] {
			delete(r.routes, in.route.Name)
		}
		return err
	}
	return nil
}

// Remove stops a route in two steps and returns when it is gone: the source is
// stopped and what is held goes on until it is done, ctx ends or the drain
// timeout is over; then the rest is cut and left to the source. The name is free
// at once. Kinds: NotFound, and Timeout when something did not stop.
func (r *Router) Remove(ctx context.Context, name string) error {
	r.mu.Lock()
	in := r.routes[name]
	if in == nil {
		r.mu.Unlock()
		return fault.New(fault.NotFound, "remove route %q: there is none", name)
	}
	r.retire(in)
	r.mu.Unlock()
	return r.stop(ctx, in)
}

// retire runs under mu.
func (r *Router) retire(in *incarnation) {
	delete(r.routes, in.route.Name)
	r.leaving[in] = struct{}{}
}

func (r *Router) stop(ctx context.Context, in *incarnation) error {
	ctx, cancel := context.WithTimeout(ctx, r.drain)
	defer cancel()
	err := in.stop(ctx)
	r.mu.Lock()
	delete(r.leaving, in)
	r.mu.Unlock()
	return err
}

// Drain removes all routes side by side, as Remove does, and waits for those
// that are being removed already. No route can be added after that.
func (r *Router) Drain(ctx context.Context) error {
	r.mu.Lock()
	r.closed = true
	var others, mine []*incarnation
	for in := range r.leaving {
		others = append(others, in)
	}
	for _, in := range r.routes {
		mine = append(mine, in)
		r.retire(in)
	}
	r.mu.Unlock()

	errs := make([]error, len(mine))
	var wg sync.WaitGroup
	for i, in := range mine {
		wg.Go(func() { errs[i] = r.stop(ctx, in) })
	}
	wg.Wait()
	for _, in := range others {
		<-in.stopped
	}
	return errors.Join(errs...)
}

// Pause stops handing over deliveries of a route; what is under way goes on,
// and the source is held up when the window is full. Kind: NotFound.
func (r *Router) Pause(name string) error { return r.with(name, "pause", (*flow).pause) }

// Resume ends a Pause. Kind: NotFound.
func (r *Router) Resume(name string) error { return r.with(name, "resume", (*flow).resume) }

func (r *Router) with(name, verb string, do func(*flow)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	in := r.routes[name]
	if in == nil {
		return fault.New(fault.NotFound, "%s route %q: there is none", verb, name)
	}
	do(in.flow)
	return nil
}

// Routes returns what each route is doing, by name; those being removed too.
func (r *Router) Routes() []Status {
	r.mu.Lock()
	all := make([]*incarnation, 0, len(r.routes)+len(r.leaving))
	for _, in := range r.routes {
		all = append(all, in)
	}
	for in := range r.leaving {
		all = append(all, in)
	}
	r.mu.Unlock()
	list := make([]Status, len(all))
	for i, in := range all {
		list[i] = in.status()
	}
	slices.SortFunc(list, func(a, b Status) int { return strings.Compare(a.Name, b.Name) })
	return list
}

package router

import (
	"cmp"
	"context"
	"time"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/resilience"
)

const (
	defaultWindow      = 64
	defaultWindowBytes = 64 << 20
	// maxLanes bounds what is set aside for a route: one pointer for each lane.
	maxLanes = 1 << 16
	// carriers is how many calls of a target with SendAll are under way at once:
	// enough that one fills while others are out.
	carriers = 4
)

// Source is where a route's events come from. Run fetches and emits until ctx
// ends, then returns nil; it does not wait for outcomes. An error means that
// the source broke: the engine calls Run again after a back-off.
type Source interface {
	Run(ctx context.Context, emit cloudevents.EmitFunc) error
}

// SourceFunc is a function that is a [Source].
type SourceFunc func(ctx context.Context, emit cloudevents.EmitFunc) error

// Run calls f.
func (f SourceFunc) Run(ctx context.Context, emit cloudevents.EmitFunc) error { return f(ctx, emit) }

// Target is one place an event goes to. Send returns when the result is
// durable. A Retry outcome is tried again under Policy; what is then left is
// settled by the route.
type Target struct {
	// Name is for logs, metrics and dead letters: "app:/orders".
	Name string
	// Send may be called from several goroutines at once, never twice at once
	// for one delivery. It must return when ctx ends: that is the hard stop.
	Send func(ctx context.Context, d *cloudevents.Delivery) cloudevents.Outcome
	// SendAll, when not nil, serves several deliveries in one call and returns
	// one outcome each; no two of them have the same key. A route that has this
	// target alone uses it for what is ready together, so that its Lanes are
	// spread over four calls at most; what is ready alone goes to Send.
	SendAll func(ctx context.Context, ds []*cloudevents.Delivery) []cloudevents.Outcome
	// Policy bounds and breaks each call of Send and says how often a Retry is
	// tried again. Between tries the delivery waits without holding a place:
	// other keys go on, however many fail.
	Policy resilience.Policy
}

// Step changes or filters an event on its way. It returns the event to go on
// with; nil is the same one. An outcome other than nil ends the delivery there;
// a Retry runs the steps again, from the first, after the route's back-off.
type Step struct {
	// Name is for logs and metrics: "filter", "transform".
	Name string
	Do   func(ctx context.Context, e *cloudevents.Event) (*cloudevents.Event, *cloudevents.Outcome)
}

// DeadLetter is an event that was given up, with the reason.
type DeadLetter struct {
	Delivery *cloudevents.Delivery // Body, Event (nil when undecodable), Metadata
	Route    string
	Target   string // where it failed; empty when no target was reached
	Reason   string
	Kind     string // fault kind of the error, "dropped" when the app said DROP
	Attempts int
	Key      string // by which the route orders; empty when it does not
	Time     time.Time
}

// Route is source → steps → targets.
type Route struct {
	// Name is unique while the route runs: "subscription/bus/orders",
	// "binding/github", "pipeline/archive".
	Name string
	// From says to people where the events come from: "pubsub:bus/orders",
	// "binding:github".
	From   string
	Source Source
	// Decode sets d.Event when a source leaves that to the route; nil when the
	// source always sets it. An error makes the delivery undecodable, one of
	// kind Dropped drops it.
	Decode func(d *cloudevents.Delivery) error
	// Key returns the ordering key; empty means no order. Nil uses d.Key. It
	// is called in emit, with d.Event decoded where that is possible.
	Key func(d *cloudevents.Delivery) string
	// Lanes is how many deliveries are under way at once; zero is 1, the most
	// is 65,536.
	Lanes int
	// Window bounds the deliveries taken from the source and not settled;
	// default max(64, 4*Lanes). WindowBytes bounds their bodies; default
	// 64 MiB; one larger body is still let through alone. What is emitted
	// behind a key that fails counts too: a source that goes on emitting such
	// a key fills the window with it in the end, one that holds it back does
	// not.
	Window      int
	WindowBytes int64
	Steps       []Step
	// Once keeps events that were delivered before from being delivered again;
	// nil delivers whatever comes.
	Once *Once
	// Targets are served in order; one that took the event is not served again
	// when a later one makes the delivery retry.
	Targets []Target
	// DeadLetter writes a dead letter and returns when it is durable. Nil when
	// the route has none.
	DeadLetter func(ctx context.Context, l *DeadLetter) error
	// Redelivery is the back-off between rounds after the targets' own
	// policies are used up and there is no dead letter, for ever: its Limit is
	// not looked at. Zero: 200 ms doubling to 15 s. A delivery without a key is
	// given back to the source where the source can (GiveBack), otherwise it
	// waits in its lane.
	Redelivery resilience.Retry
	GiveBack   bool
	// Paused adds the route as if [Router.Pause] had been called.
	Paused bool
	// Gate, when not nil, is the gate for app health. The engine calls it
	// before each hand-over and it blocks until the app may be called or ctx
	// ends. Waiting there is not an attempt.
	Gate func(ctx context.Context) error
}

// prepared returns the route with its defaults, or what is wrong with it.
func (r Route) prepared() (Route, error) {
	if err := r.check(); err != nil {
		return r, err
	}
	r.Lanes = max(r.Lanes, 1)
	r.Window = cmp.Or(r.Window, max(defaultWindow, 4*r.Lanes))
	r.WindowBytes = cmp.Or(r.WindowBytes, defaultWindowBytes)
	return r, nil
}

// places returns how many hand-overs are under way at once and how many
// deliveries one of them has at most.
func (r *Route) places() (places, load int) {
	if len(r.Targets) != 1 || r.Targets[0].SendAll == nil || r.Lanes == 1 {
		return r.Lanes, 1
	}
	places = min(carriers, r.Lanes)
	return places, r.Lanes / places
}

func (r Route) check() error {
	switch {
	case r.Name == "":
		return fault.New(fault.Invalid, "add route: it has no name")
	case r.Source == nil:
		return r.wrong("it has no source")
	case r.Lanes < 0 || r.Lanes > maxLanes:
		return r.wrong("%d lanes: use 1 to %d", r.Lanes, maxLanes)
	case r.Window < 0 || r.WindowBytes < 0:
		return r.wrong("a window of %d events and %d bytes: use 0 for the default or more", r.Window, r.WindowBytes)
	case len(r.Targets) == 0:
		return r.wrong("it has no target")
	}
	for i, t := range r.Targets {
		if t.Send == nil {
			return r.wrong("target %d (%q) has no Send", i+1, t.Name)
		}
	}
	if r.Once != nil && (r.Once.Key == nil || r.Once.Claims == nil) {
		return r.wrong("its Once needs a Key and Claims")
	}
	for i, s := range r.Steps {
		if s.Do == nil {
			return r.wrong("step %d (%q) has no Do", i+1, s.Name)
		}
	}
	return nil
}

func (r Route) wrong(format string, args ...any) error {
	return fault.Wrap(fault.New(fault.Invalid, format, args...), "add route %q", r.Name)
}

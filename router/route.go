package router

import (
	"context"
	"time"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/resilience"
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
	Name   string
	Send   func(ctx context.Context, d *cloudevents.Delivery) cloudevents.Outcome
	Policy resilience.Policy
}

// Step changes or filters an event on its way. It returns the event to go on
// with. An outcome other than nil ends the delivery there.
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
	Time     time.Time
}

// Route is source → steps → targets.
type Route struct {
	// Name is unique while the route runs: "subscription/bus/orders",
	// "binding/github", "pipeline/archive".
	Name   string
	Source Source
	// Decode sets d.Event when a source leaves that to the route; nil when the
	// source always sets it. An error makes the delivery undecodable.
	Decode func(d *cloudevents.Delivery) error
	// Key returns the ordering key; empty means no order. Nil uses d.Key.
	Key func(d *cloudevents.Delivery) string
	// Lanes is how many deliveries are under way at once; at least 1.
	Lanes int
	// Window bounds the deliveries taken from the source and not settled;
	// default max(64, 4*Lanes). WindowBytes bounds their bodies; default
	// 64 MiB; one larger body is still let through alone.
	Window      int
	WindowBytes int64
	Steps       []Step
	// Targets are served in order; one that took the event is not served again
	// when a later one makes the delivery retry.
	Targets []Target
	// DeadLetter writes a dead letter and returns when it is durable. Nil when
	// the route has none.
	DeadLetter func(ctx context.Context, l *DeadLetter) error
	// Redelivery is the back-off between rounds after the targets' own
	// policies are used up and there is no dead letter; zero: 200 ms doubling
	// to 15 s. A delivery without a key is given back to the source where the
	// source can (GiveBack), otherwise it waits in its lane.
	Redelivery resilience.Retry
	GiveBack   bool
	// Ready, when not nil, must be closed or receive before events are taken:
	// the gate for app health. The engine calls it before each hand-over and
	// it blocks until the app may be called or ctx ends. Waiting there is not
	// an attempt.
	Gate func(ctx context.Context) error
}

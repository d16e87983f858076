// Package bindings is the contract of bindings: connectors that bring events
// in from an outside system, send them out to one, or both.
//
// An implementation lives in a folder below this one, returns a [Driver] from
// its open function and implements [Reader], [Invoker] or both. Everybody else
// uses [Binding], which adds what all bindings share: opening in the
// background, operation checks, the outbound policy, error kinds and restart of
// a broken reader.
//
// Delivery: at least once. A reader's event stays owned by the outside system
// until the route settles it.
package bindings

import (
	"context"
	"maps"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/telemetry/trace"
)

// Driver is what an implementation returns.
type Driver = component.Driver

// Reader is an input binding. Read fetches events and hands each to emit until
// ctx ends, then returns nil without waiting for outcomes: they may still
// arrive through Settle until Close. An error means that the connection broke;
// Read is then called again after a pause. A reader that got a position in its
// Env has saved it when Read returns.
type Reader interface {
	Read(ctx context.Context, emit cloudevents.EmitFunc) error
}

// Invoker is an output binding. Invoke returns when the effect is durable on
// the other side, with an error of a kind that says whether trying again can
// help. Operations lists what Invoke takes, the usual one first.
type Invoker interface {
	Operations() []string
	Invoke(ctx context.Context, r *Request) (*Response, error)
}

// Request is one call of an output binding. Data and Metadata are not changed
// by the implementation. Metadata may be nil.
type Request struct {
	Operation string
	Data      []byte
	Metadata  map[string]string
}

// in returns the request as part of a span: the binding hands the span's context on,
// unless whoever asks said another one.
func (r *Request) in(s trace.Span) *Request {
	if !s.Recording() {
		return r
	}
	c := s.Context()
	if said := r.Metadata["traceparent"]; said != "" && !c.Follows(said) {
		return r
	}
	out := *r
	out.Metadata = make(map[string]string, len(r.Metadata)+2)
	maps.Copy(out.Metadata, r.Metadata)
	out.Metadata["traceparent"] = c.Parent
	if c.State != "" {
		out.Metadata["tracestate"] = c.State
	}
	return &out
}

// Response is what an output binding answers; nil means nothing.
type Response struct {
	Data     []byte
	Metadata map[string]string
}

// common are the options that every binding has.
type common struct {
	Route     string   `meta:"route"     doc:"Path of the app that events go to; the component's name when empty."`
	Direction []string `meta:"direction" doc:"What to use the binding for: input, output, or both as in \"input, output\". Empty: whatever the app asks for." enum:"input|output"`
	Reply     string   `meta:"reply"     doc:"Whether an answer of the app that asks for outputs (to, state) is carried out as part of the delivery." enum:"carryOut|ignore" default:"carryOut"`
	Exclusive string   `meta:"exclusive" doc:"Name of a lock store. Of all replicas of the app, only the one that holds the binding's lease there reads; another takes over within 2 s when it stops, within 7 s when it dies."`
}

// Define makes the definition of a binding called "bindings.<name>".
func Define[O any](name string, about component.About, open func(context.Context, component.Env, O) (Driver, error)) component.Definition {
	return component.Define("bindings."+name, about, component.OptionsOf(common{}), open)
}

// DefineAny makes the definition of a binding that lives outside this process
// and alone knows its options; see [component.DefineAny]. About.Operations may
// be nil: the driver then tells them when it is open.
func DefineAny(name string, about component.About, open func(context.Context, component.Env, map[string]string) (Driver, error)) component.Definition {
	return component.DefineAny("bindings."+name, about, component.OptionsOf(common{}), open)
}

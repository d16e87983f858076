package runtime

import (
	"context"
	"strings"
	"time"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/telemetry"
	"github.com/penstock-io/penstock/telemetry/trace"
)

// trace makes traces go where the Configuration and the environment say.
func (r *Runtime) trace(ctx context.Context, t config.Tracing) error {
	if r.traced != nil && config.Equal(*r.traced, t) {
		return nil
	}
	s := trace.Settings{
		AppID: r.o.AppID, Namespace: r.o.Namespace, Version: r.o.Version, Rate: t.Rate,
		Stdout: t.Stdout, Zipkin: t.Zipkin, Env: r.o.Env, Out: r.o.Stdout,
		OTLP: trace.OTLP{Endpoint: t.OTLP.Endpoint, Protocol: t.OTLP.Protocol, Insecure: t.OTLP.Insecure, Timeout: t.OTLP.Timeout},
	}
	for _, h := range t.OTLP.Headers {
		s.OTLP.Headers = append(s.OTLP.Headers, trace.Header(h))
	}
	warnings, err := r.tracer.Use(ctx, s)
	for _, w := range warnings {
		r.log.Warn("Tracing: " + w)
	}
	if err != nil {
		return fault.As(fault.Invalid, fault.Wrap(err, "set up tracing"))
	}
	r.traced = &t
	if to := r.tracer.Exporters(); len(to) > 0 {
		r.log.Info("Traces are recorded", "exporters", to)
	}
	return nil
}

// beginSpan begins the span of a try: a consumer of the event. It goes on in the
// event's trace, or in one that begins with the first try.
func (r *observed) beginSpan(ctx context.Context, target string) context.Context {
	d := r.delivery
	from := trace.Context{}
	if from.Parent, from.State = d.Trace(); from.Parent == "" {
		from.Parent = d.Began
	}
	component, topic, subscribed := strings.Cut(d.Origin, "/")
	b := trace.Begin{Kind: trace.Consumer, Group: "bindings/", Name: component, From: from, Alone: true, Root: true}
	if subscribed {
		b.Group, b.Name = "pubsub/", topic
	}
	ctx, r.span = r.of.tracer.Start(ctx, b)
	if from.Parent == "" {
		d.Began = r.span.Context().Parent
	}
	if !r.span.Recording() {
		return ctx
	}
	r.span.Set(trace.MessagingSystem, r.of.system(component))
	r.span.Set(trace.MessagingDestination, topic)
	r.span.Set(trace.MessagingOperation, "process")
	r.span.Set(trace.MessagingType, "process")
	if d.Event != nil {
		r.span.Set(trace.MessagingID, d.Event.ID())
	}
	r.span.Set(trace.Component, component)
	r.span.Set(trace.Route, r.route)
	r.span.Set(trace.Target, target)
	r.span.SetInt(trace.Attempt, d.Attempt)
	return ctx
}

// endSpan ends it with what came of the try.
func (r *observed) endSpan(o cloudevents.Outcome) {
	r.span.Set(trace.Outcome, o.Verdict.String())
	switch {
	case o.Err != nil:
		r.span.Fail(fault.KindOf(o.Err).String())
	case o.Verdict == cloudevents.Retry:
		r.span.Fail("retry")
	case o.Verdict == cloudevents.Drop:
		r.span.Fail("drop")
	}
	r.trace = r.span.TraceID()
	r.span.End()
	r.span = trace.Span{}
}

// kindOf is the last part of a component's type; empty when there is none.
func (ps *parts) kindOf(name string) string {
	p := ps.find(name)
	if p == nil {
		return ""
	}
	_, kind, _ := strings.Cut(p.def.Type, ".")
	return kind
}

// lastSpans is how long a stop waits for the last spans to be taken.
const lastSpans = time.Second

// endTraces sends what is left.
func (r *Runtime) endTraces(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastSpans)
	defer cancel()
	r.tracer.Close(ctx)
}

// spanCounts are the metrics of the tracer itself.
func spanCounts() []telemetry.Gauge {
	return []telemetry.Gauge{
		{Name: "penstock_trace_spans_total", Help: "Spans that were recorded, by what became of them.", Labels: []string{"outcome"}, Counter: true},
	}
}

// spans are the values of those.
func (r *Runtime) spans() []telemetry.Sample {
	c := r.tracer.Counts()
	return []telemetry.Sample{
		{Value: float64(c.Sent), Labels: []string{"sent"}},
		{Value: float64(c.Dropped), Labels: []string{"dropped"}},
		{Value: float64(c.Failed), Labels: []string{"failed"}},
	}
}

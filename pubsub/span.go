package pubsub

import (
	"context"
	"maps"
	"strings"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/telemetry/trace"
)

// begin begins the span of a publish.
func (b *Bus) begin(ctx context.Context, topic string, from trace.Context, links []trace.Context) (context.Context, trace.Span) {
	ctx, span := b.tracer.Start(ctx, trace.Begin{Kind: trace.Producer, Group: "publish ", Name: topic, From: from, Root: true, Links: links})
	if span.Recording() {
		span.Set(trace.MessagingSystem, b.system)
		span.Set(trace.MessagingDestination, topic)
		span.Set(trace.MessagingOperation, "publish")
		span.Set(trace.MessagingType, "send")
		span.Set(trace.Component, b.name)
	}
	return ctx, span
}

// beginBulk begins that of several, with a link to each trace they are of.
func (b *Bus) beginBulk(ctx context.Context, topic string, rs []PublishRequest) (context.Context, trace.Span) {
	if !b.tracer.On() || len(rs) == 0 {
		return ctx, trace.Span{}
	}
	var links []trace.Context
	for i := range rs[:min(len(rs), trace.MaxLinks)] {
		if rs[i].Event != nil {
			links = append(links, eventTrace(rs[i].Event))
		}
	}
	ctx, span := b.begin(ctx, topic, rs[0].from(b.tracer), links)
	span.SetInt(trace.MessagingCount, len(rs))
	return ctx, span
}

// from is the trace that a request belongs to: what was said with it, or the event's
// own.
func (r *PublishRequest) from(t *trace.Tracer) trace.Context {
	if r.TraceParent == "" && r.Event != nil && t.On() {
		return eventTrace(r.Event)
	}
	return trace.Context{Parent: r.TraceParent, State: r.TraceState}
}

// in returns the request as part of a span, whose context goes on with the event. An
// event that was read from somewhere gets it too when it is of the same trace.
func (r *PublishRequest) in(s trace.Span) *PublishRequest {
	c := s.Context()
	if c.Parent == "" || c.Parent == r.TraceParent || r.Event != nil && !s.Recording() {
		return r
	}
	out := *r
	out.TraceParent, out.TraceState = c.Parent, c.State
	if r.Event == nil {
		return &out
	}
	if own, _ := r.Event.Attr("traceparent"); own != "" && !c.Follows(own) {
		return r
	}
	out.Event = r.Event.With(cloudevents.Attr{Name: "traceparent", Value: c.Parent}, cloudevents.Attr{Name: "traceid", Value: c.Parent})
	return &out
}

// beside returns the metadata with the trace that the request said, unless they say
// one. A raw payload has no other place for it; beside an event it is for those who
// look there, and left out when nobody records it.
func (r *PublishRequest) beside(raw bool) map[string]string {
	if r.TraceParent == "" || !raw && strings.HasSuffix(r.TraceParent, "-00") || lookup(r.Metadata, "traceparent") != "" {
		return r.Metadata
	}
	out := make(map[string]string, len(r.Metadata)+2)
	maps.Copy(out, r.Metadata)
	out["traceparent"] = r.TraceParent
	if r.TraceState != "" {
		out["tracestate"] = r.TraceState
	}
	return out
}

// allIn is in for several.
func allIn(rs []PublishRequest, s trace.Span) []PublishRequest {
	if s.Context().Parent == "" {
		return rs
	}
	out := make([]PublishRequest, len(rs))
	for i := range rs {
		out[i] = *rs[i].in(s)
	}
	return out
}

func eventTrace(e *cloudevents.Event) trace.Context {
	parent, _ := e.Attr("traceparent")
	state, _ := e.Attr("tracestate")
	return trace.Context{Parent: parent, State: state}
}

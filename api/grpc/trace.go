package grpc

import (
	"context"
	"encoding/hex"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/penstock-io/penstock/api"
	"github.com/penstock-io/penstock/telemetry/trace"
)

// traceOf reads the trace context of a call: that of the call's span, or what goes on
// in its place; grpc-trace-bin, which older clients send; or else the W3C keys.
func traceOf(ctx context.Context) (api.Trace, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	h := api.TraceHeaders{Parent: md["traceparent"], State: md["tracestate"], Baggage: md["baggage"]}
	if bin := md["grpc-trace-bin"]; len(bin) == 1 {
		if parent, ok := traceParent(bin[0]); ok {
			h.Parent = []string{parent}
		}
	}
	t, err := h.Trace()
	if err != nil {
		return t, err
	}
	if s := trace.Current(ctx); s.Recording() {
		return t.In(s.Context()), nil
	}
	if given := trace.Given(ctx); given.Parent != "" {
		return t.In(given), nil
	}
	return t, nil
}

// begin begins the span of a call; one whose trace is wrong has none.
func (g *guard) begin(ctx context.Context, method string) (context.Context, trace.Span) {
	if !g.tracer.On() {
		return ctx, trace.Span{}
	}
	from, err := traceOf(ctx)
	if err != nil {
		return ctx, trace.Span{}
	}
	if !g.known[method] {
		method = proxied
	}
	ctx, span := g.tracer.Start(ctx, trace.Begin{Kind: trace.Server, Name: method, From: from.Context(), Root: true})
	if !span.Recording() {
		if c := span.Context(); c.Parent != from.Parent {
			ctx = trace.Give(ctx, c)
		}
		return ctx, span
	}
	span.Set(trace.RPCSystem, "grpc")
	span.Set(trace.RPCMethod, method)
	return ctx, span
}

// endSpan ends it.
func endSpan(s trace.Span, err error) {
	if !s.Recording() {
		return
	}
	code := status.Code(err)
	s.SetInt(trace.RPCStatus, int(code))
	switch code { // those that are the server's failure
	case codes.Unknown, codes.DeadlineExceeded, codes.Unimplemented, codes.Internal, codes.Unavailable, codes.DataLoss:
		s.Fail(code.String())
	}
	s.End()
}

// The binary trace context: a version, then fields, each a number and its bytes
// (https://github.com/census-instrumentation/opencensus-specs, BinaryEncoding).
const (
	binLen     = 29
	traceField = 1
	spanField  = 18
	flagField  = 27
)

// traceParent writes a binary trace context as traceparent.
func traceParent(bin string) (string, bool) {
	if len(bin) < binLen || bin[0] != 0 || bin[traceField] != 0 || bin[spanField] != 1 || bin[flagField] != 2 {
		return "", false
	}
	b := append(make([]byte, 0, 55), "00-"...)
	b = append(hex.AppendEncode(b, []byte(bin[traceField+1:spanField])), '-')
	b = append(hex.AppendEncode(b, []byte(bin[spanField+1:flagField])), '-')
	return string(hex.AppendEncode(b, []byte(bin[flagField+1:binLen]))), true
}

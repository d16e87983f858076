package grpc

import (
	"context"
	"encoding/hex"

	"google.golang.org/grpc/metadata"

	"github.com/penstock-io/penstock/api"
)

// trace reads the trace context of a call: grpc-trace-bin, which older clients
// send, or else the W3C keys.
func trace(ctx context.Context) (api.Trace, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	h := api.TraceHeaders{Parent: md["traceparent"], State: md["tracestate"], Baggage: md["baggage"]}
	if bin := md["grpc-trace-bin"]; len(bin) == 1 {
		if parent, ok := traceParent(bin[0]); ok {
			h.Parent = []string{parent}
		}
	}
	return h.Trace()
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

package invoke

import (
	"context"
	"errors"
	"net/http"
	"net/url"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/penstock-io/penstock/invoke/message"
	"github.com/penstock-io/penstock/telemetry/trace"
)

// begin begins the span of one try.
func (v *Invoker) begin(ctx context.Context, target string, from trace.Context) (context.Context, trace.Span) {
	if !v.o.Tracer.On() {
		return ctx, trace.Span{}
	}
	if isURL(target) { // the rest may hold what nobody else should read
		if u, err := url.Parse(target); err == nil {
			target = u.Host
		}
	}
	ctx, span := v.o.Tracer.Start(ctx, trace.Begin{Kind: trace.Client, Group: "invoke ", Name: target, From: from})
	span.Set(trace.AppID, target)
	return ctx, span
}

// endTry ends it when the answer begins, whose body may last. A try that found
// nobody else to ask was none.
func endTry(s trace.Span, answer *message.Response, err error) {
	if !errors.Is(err, errNoOther) {
		EndCall(s, answer, err, http.StatusBadRequest)
	}
}

// EndCall ends the span of a call. A status of HTTP is a failure from that one on.
func EndCall(s trace.Span, answer *message.Response, err error, failure int) {
	switch {
	case !s.Recording():
	case err != nil:
		s.Done(err)
	case answer.RPC != nil:
		EndRPC(s, answer.RPC.Err())
	default:
		s.SetInt(trace.HTTPStatus, answer.Status)
		if answer.Status >= failure {
			s.Fail(http.StatusText(answer.Status))
		}
		s.End()
	}
}

// StatusOf is the status of an answer, one of HTTP or of gRPC; without an answer it
// is gRPC's for an error of ours.
func StatusOf(answer *message.Response) int {
	switch {
	case answer == nil:
		return int(codes.Internal)
	case answer.RPC != nil:
		return int(status.Code(answer.RPC.Err()))
	}
	return answer.Status
}

// EndRPC ends the span of what ended with a status of gRPC.
func EndRPC(s trace.Span, err error) {
	code := status.Code(err)
	s.SetInt(trace.RPCStatus, int(code))
	if code != codes.OK {
		s.Fail(code.String())
	}
	s.End()
}

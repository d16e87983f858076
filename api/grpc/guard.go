package grpc

import (
	"context"
	"log/slog"
	"path"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	"github.com/penstock-io/penstock/api"
	"github.com/penstock-io/penstock/invoke/proxy"
	"github.com/penstock-io/penstock/telemetry"
	"github.com/penstock-io/penstock/telemetry/trace"
)

// guard is what every call passes.
type guard struct {
	api     *api.API
	tokens  api.Tokens
	arrival time.Duration
	log     *slog.Logger
	metrics *telemetry.Metrics
	tracer  *trace.Tracer
	known   map[string]bool // methods that are served
	working atomic.Int64    // calls under way
}

// enter refuses a call without the token, or of an API that spec.api of the
// Configuration forbids, before any of its message is read, and bounds the
// arrival of that message.
func (g *guard) enter(ctx context.Context, in *tap.Info) (context.Context, error) {
	err := g.tokens.Check(in.Header[api.TokenHeader])
	if err == nil {
		err = g.api.AllowMethod(in.FullMethodName)
	}
	if err != nil {
		err = statusOf(ctx, err)
		g.logged(ctx, in.FullMethodName, time.Now(), err)
		return ctx, err
	}
	ctx, cancel := context.WithCancel(ctx)
	return context.WithValue(ctx, arrivalKey{}, time.AfterFunc(g.arrival, cancel)), nil
}

// arrivalKey finds the timer that waits for the first message of a call.
type arrivalKey struct{}

// arrived ends the wait for the first message.
func arrived(ctx context.Context) {
	if timer, ok := ctx.Value(arrivalKey{}).(*time.Timer); ok {
		timer.Stop()
	}
}

// unary is around every call with one message.
func (g *guard) unary(ctx context.Context, in any, info *grpc.UnaryServerInfo, h grpc.UnaryHandler) (out any, err error) {
	arrived(ctx)
	g.working.Add(1)
	defer g.working.Add(-1)
	if g.api.Log().Enabled {
		defer func(start time.Time) { g.logged(ctx, info.FullMethod, start, err) }(time.Now())
	}
	if g.metrics != nil {
		defer func(start time.Time) { g.counted(info.FullMethod, start, err) }(time.Now())
	}
	ctx, span := g.begin(ctx, info.FullMethod)
	defer func() { endSpan(span, err) }()
	defer g.recovered(ctx, info.FullMethod, &err)
	if out, err = h(ctx, in); err != nil {
		return nil, g.answer(ctx, info.FullMethod, err)
	}
	return out, nil
}

// stream is around every call with more. What it waits for before its first
// message is for the method to say.
func (g *guard) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, h grpc.StreamHandler) (err error) {
	ctx := ss.Context()
	if !waits(info.FullMethod) {
		arrived(ctx)
	}
	g.working.Add(1)
	defer g.working.Add(-1)
	if g.api.Log().Enabled {
		defer func(start time.Time) { g.logged(ctx, info.FullMethod, start, err) }(time.Now())
	}
	if g.metrics != nil {
		defer func(start time.Time) { g.counted(info.FullMethod, start, err) }(time.Now())
	}
	ctx, span := g.begin(ctx, info.FullMethod)
	defer func() { endSpan(span, err) }()
	if g.tracer.On() {
		ss = spanned{ss, ctx}
	}
	defer g.recovered(ctx, info.FullMethod, &err)
	if err = h(srv, ss); err != nil {
		err = g.answer(ctx, info.FullMethod, err)
	}
	return err
}

// spanned is a stream within a span.
type spanned struct {
	grpc.ServerStream
	ctx context.Context
}

// Context implements [grpc.ServerStream].
func (s spanned) Context() context.Context { return s.ctx }

// proxied stands for the methods of apps' own services.
const proxied = "(proxied)"

// counted counts a call that has ended. A call of an app's own service counts as
// one of these, whatever its name is.
func (g *guard) counted(method string, start time.Time, err error) {
	if !g.known[method] {
		method = proxied
	}
	code := status.Code(err)
	g.metrics.GRPCCall(method, int(code), code.String(), start)
}

// waits tells whether a method waits for its first message by itself.
func waits(method string) bool {
	switch method {
	case rtv1.Dapr_SubscribeTopicEventsAlpha1_FullMethodName, rtv1.Dapr_EncryptAlpha1_FullMethodName, rtv1.Dapr_DecryptAlpha1_FullMethodName:
		return true
	}
	return false
}

// answer is the status of an error. The generated answer of a method that is
// not there is put in our words.
func (g *guard) answer(ctx context.Context, method string, err error) error {
	if a, ok := err.(answered); ok {
		return a.error
	}
	if _, ours := err.(*api.Error); !ours && method != rtv1.Dapr_InvokeService_FullMethodName && status.Code(err) == codes.Unimplemented {
		err = api.Errorf(api.Unimplemented, "the method %s is not in this build of Penstock", path.Base(method))
	}
	if _, ready := err.(interface{ GRPCStatus() *status.Status }); !ready {
		p := api.AsError(err).Problem
		g.metrics.ErrorCode(p.Code(), p.Category())
	}
	return statusOf(ctx, err)
}

// unknown takes calls of services that are not there: those of the app that the
// metadata dapr-app-id names.
func (g *guard) unknown(_ any, ss grpc.ServerStream) error {
	c := proxy.New(ss)
	if c.Target == "" {
		return api.Errorf(api.Unimplemented,
			"the method %s is not in this build of Penstock; to call an app's own, name the app in the metadata %s, once", cut(c.Method), proxy.AppID)
	}
	if err := g.api.AllowMethod(rtv1.Dapr_InvokeService_FullMethodName); err != nil {
		return err
	}
	err := g.api.Forward(ss.Context(), c)
	if proxy.IsAnswer(err) {
		return answered{err}
	}
	return err
}

// answered is the status of another app, which is not put in our words.
type answered struct{ error }

// recovered turns a panic of ours into an answer; the process goes on.
func (g *guard) recovered(ctx context.Context, method string, err *error) {
	if p := recover(); p != nil {
		g.log.Error("handler panicked", "method", cut(method), "panic", p, "stack", string(debug.Stack()))
		*err = statusOf(ctx, api.Errorf(api.Internal, "serve call: internal error"))
	}
}

func (g *guard) logged(ctx context.Context, method string, start time.Time, err error) {
	if !g.api.Log().Enabled {
		return
	}
	agent := strings.Join(metadata.ValueFromIncomingContext(ctx, "user-agent"), " ")
	g.log.Info("gRPC API Called", "method", cut(method), "code", status.Code(err).String(),
		"duration", time.Since(start).Milliseconds(), "useragent", cut(agent))
}

// cut keeps log lines readable whatever a client sends.
func cut(s string) string {
	const limit = 256
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "") + "..."
}

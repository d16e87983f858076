package grpc

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/penstock-io/penstock/app"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/telemetry/trace"
)

// method is one of the app's, with the name that people know it by.
type method struct{ name, path string }

func eventMethod() method {
	return method{"OnTopicEvent", rtv1.AppCallback_OnTopicEvent_FullMethodName}
}

func bindingMethod() method {
	return method{"OnBindingEvent", rtv1.AppCallback_OnBindingEvent_FullMethodName}
}

func topicsMethod() method {
	return method{"ListTopicSubscriptions", rtv1.AppCallback_ListTopicSubscriptions_FullMethodName}
}

func bindingsMethod() method {
	return method{"ListInputBindings", rtv1.AppCallback_ListInputBindings_FullMethodName}
}

func healthMethod() method {
	return method{"HealthCheck", rtv1.AppCallbackHealthCheck_HealthCheck_FullMethodName}
}

// bulkMethod is the method for a bulk, or its older name.
func bulkMethod(alpha bool) method {
	if alpha {
		return method{"OnBulkTopicEventAlpha1", rtv1.AppCallbackAlpha_OnBulkTopicEventAlpha1_FullMethodName}
	}
	return method{"OnBulkTopicEvent", rtv1.AppCallback_OnBulkTopicEvent_FullMethodName}
}

// StatusError is a gRPC status that is not OK. Errors of a [Channel] that have
// one in their chain have the kind it stands for.
type StatusError struct {
	Method string
	Code   codes.Code
	// Message is the beginning of what the app said, for people.
	Message string
}

// Error names method, code and the beginning of the message.
func (e *StatusError) Error() string {
	text := "call app at " + e.Method + ": answered " + e.Code.String()
	if e.Message != "" {
		text += ": " + e.Message
	}
	return text
}

// GRPCCode returns the code, by which a policy may judge the error.
func (e *StatusError) GRPCCode() uint32 { return uint32(e.Code) }

func isUnimplemented(err error) bool {
	e, ok := errors.AsType[*StatusError](err)
	return ok && e.Code == codes.Unimplemented
}

// call is what comes back from the app beside its answer.
type call struct {
	peer            peer.Peer
	header, trailer metadata.MD
}

func (k *call) options() []grpc.CallOption {
	return []grpc.CallOption{grpc.Peer(&k.peer), grpc.Header(&k.header), grpc.Trailer(&k.trailer)}
}

// answered tells whether anything came back: also an app that says nothing but
// its status sends the type of its content.
func (k *call) answered() bool { return len(k.header)+len(k.trailer) > 0 }

// pause is how long the app asks to wait, in its header or trailer.
func (k *call) pause() time.Duration {
	for _, md := range [...]metadata.MD{k.trailer, k.header} {
		if v := md["retry-after"]; len(v) > 0 {
			return app.Pause(v[0])
		}
	}
	return 0
}

// clockSkew is how much before the end of a call the app may say that it is over.
const clockSkew = 50 * time.Millisecond

// failed makes the error of a call that gRPC says failed. Unavailable is said by
// an app that answers and by ourselves when there is none; only the first has
// been on a connection.
func (k *call) failed(ctx context.Context, method string, err error) error {
	const shown = 120
	if ctx.Err() != nil {
		return fault.Wrap(context.Cause(ctx), "call app at %s", method)
	}
	s := status.Convert(err)
	// The app's clock, which counts the same time, may be the first to end the
	// call; that is no code of the app's.
	if until, ok := ctx.Deadline(); ok && s.Code() == codes.DeadlineExceeded && time.Until(until) < clockSkew {
		return fault.Wrap(context.DeadlineExceeded, "call app at %s", method)
	}
	if k.peer.Addr == nil && s.Code() == codes.Unavailable {
		return fault.Wrap(app.Unreachable(errors.New(s.Message())), "call app at %s", method)
	}
	message := strings.ToValidUTF8(s.Message(), "\uFFFD")
	if len(message) > shown {
		message = strings.ToValidUTF8(message[:shown], "") + "..."
	}
	err = fault.As(fault.FromGRPCCode(uint32(s.Code())), &StatusError{Method: method, Code: s.Code(), Message: message})
	if after := k.pause(); after > 0 {
		err = fault.WithRetryAfter(err, after)
	}
	return err
}

// invoke makes one call. It is made a second time when its connection, which
// was good until then, broke before the app answered: the app may have restarted
// since the last call, and deliveries are made at least once.
func (c *Channel) invoke(ctx context.Context, m method, in, out any, k *call) error {
	options := k.options()
	began := time.Now()
	err := c.conn.Invoke(ctx, m.path, in, out, options...)
	if err != nil && c.wasGood(k, err) {
		*k = call{}
		err = c.conn.Invoke(ctx, m.path, in, out, options...)
	}
	if local, ok := k.peer.LocalAddr.(*net.TCPAddr); ok && k.answered() && c.good.Load() != local {
		c.good.Store(local)
	}
	if err == nil || k.answered() {
		c.o.Metrics.AppRPC(m.path, m == healthMethod(), status.Code(err).String(), time.Since(began))
	}
	if err != nil {
		return k.failed(ctx, m.name, err)
	}
	return nil
}

// wasGood tells whether a call failed because a connection broke that had
// carried an answer.
func (c *Channel) wasGood(k *call, err error) bool {
	local, ok := k.peer.LocalAddr.(*net.TCPAddr)
	return ok && status.Code(err) == codes.Unavailable && !k.answered() && c.good.Load() == local
}

// ask calls a method that takes nothing.
func (c *Channel) ask(ctx context.Context, m method, out any) error {
	return c.invoke(c.outgoing(ctx, nil, nil), m, &emptypb.Empty{}, out, &call{})
}

// limited bounds ctx where the caller has not.
func limited(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	if limit <= 0 {
		return ctx, func() {}
	}
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, limit)
}

// The limits of metadata. Servers of other languages take 8 KiB of headers in
// all, with 32 bytes for each on top, and refuse a call that has more: it would
// be tried for ever.
const (
	maxMetaCount  = 100
	maxMetaTotal  = 5 << 10
	metaOverhead  = 32
	maxBaggage    = 1 << 10
	maxTraceState = 512
)

// outgoing adds what goes with a call beside its message: the token, the trace
// of the event, which may be nil, and the delivery's metadata.
func (c *Channel) outgoing(ctx context.Context, e *cloudevents.Event, more map[string]string) context.Context {
	md := make(metadata.MD, len(more)+4)
	if c.token != nil {
		md["dapr-api-token"] = c.token
	}
	if s := trace.Current(ctx); s.Recording() {
		addSpan(md, s.Context())
	}
	if e != nil {
		addTrace(md, e)
	}
	addMetadata(md, more)
	if len(md) == 0 {
		return ctx
	}
	return metadata.NewOutgoingContext(ctx, md)
}

// addTrace adds a span in the event's trace, in both forms that apps look for.
func addTrace(md metadata.MD, e *cloudevents.Event) {
	if baggage, ok := e.Attr("baggage"); ok && len(baggage) <= maxBaggage {
		md["baggage"] = []string{app.Escape(baggage, isPlain)}
	}
	parent, _ := e.Attr("traceparent")
	if md["traceparent"] != nil || !cloudevents.ValidTraceParent(parent) {
		return
	}
	child := cloudevents.ChildTraceParent(parent)
	md["traceparent"] = []string{child}
	md["grpc-trace-bin"] = []string{traceBin(child)}
	if state, ok := e.Attr("tracestate"); ok && len(state) <= maxTraceState {
		md["tracestate"] = []string{app.Escape(state, isPlain)}
	}
}

// addSpan adds the context of a span, in both forms that apps look for.
func addSpan(md metadata.MD, c trace.Context) {
	c.Metadata(md)
	md["grpc-trace-bin"] = []string{traceBin(c.Parent)}
}

// traceBin is the binary form of a valid traceparent: a version, and the trace,
// the span and the flags, each with the number of its field in front.
func traceBin(parent string) string {
	text := "0000" + cloudevents.TraceID(parent) + "01" + cloudevents.SpanID(parent) + "02" + parent[len(parent)-2:]
	raw, err := hex.DecodeString(text)
	if err != nil { // cannot be: a valid traceparent is hexadecimal
		return ""
	}
	return string(raw)
}

// addMetadata adds what gRPC can carry and md does not have, within the limits;
// what is over them is left out, the names in the order of the alphabet.
func addMetadata(md metadata.MD, more map[string]string) {
	const escaped = 3 // how much longer a value may get
	left := maxMetaTotal
	worst := 0
	for name, value := range more {
		worst += len(name) + escaped*len(value) + metaOverhead
	}
	if len(more) <= maxMetaCount && worst <= left {
		for name, value := range more {
			addValue(md, name, value, left)
		}
		return
	}
	count := 0
	for _, name := range slices.Sorted(maps.Keys(more)) {
		size := addValue(md, name, more[name], left)
		if left -= size; size > 0 {
			count++
		}
		if count == maxMetaCount {
			return
		}
	}
}

// addValue returns what the value takes of the limit; zero when it was left out.
func addValue(md metadata.MD, name, value string, left int) (size int) {
	key := strings.ToLower(name)
	if len(value) > left || !isName(key) || isOurs(key) {
		return 0
	}
	if _, taken := md[key]; taken {
		return 0
	}
	if strings.HasSuffix(key, "-bin") {
		size = base64.RawStdEncoding.EncodedLen(len(value)) // as it travels
	} else {
		value = app.Escape(value, isPlain)
		size = len(value)
	}
	if size += len(key) + metaOverhead; size > left {
		return 0
	}
	md[key] = []string{value}
	return size
}

// isOurs tells whether a name belongs to this call or connection, or to gRPC.
func isOurs(key string) bool {
	switch key {
	case "host", "content-length", "content-type", "content-encoding", "transfer-encoding", "connection",
		"keep-alive", "upgrade", "te", "trailer", "expect", "proxy-connection", "proxy-authorization",
		"http2-settings", "accept-encoding", "user-agent", "dapr-api-token", "traceparent", "tracestate":
		return true
	}
	return strings.HasPrefix(key, "grpc-")
}

// isName tells whether a lower-case name can be one of metadata.
func isName(key string) bool {
	if key == "" || len(key) > 256 {
		return false
	}
	for i := range len(key) {
		c := key[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.' {
			return false
		}
	}
	return true
}

func isPlain(c byte) bool { return c >= ' ' && c < 0x7f }

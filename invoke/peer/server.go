package peer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	internalv1 "github.com/dapr/dapr/pkg/proto/internals/v1"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/invoke"
	"github.com/penstock-io/penstock/invoke/access"
	"github.com/penstock-io/penstock/invoke/identity"
	"github.com/penstock-io/penstock/invoke/message"
	"github.com/penstock-io/penstock/telemetry"
	"github.com/penstock-io/penstock/telemetry/trace"
)

// ServerOptions are the settings of a [Server].
type ServerOptions struct {
	// AppID and Namespace are those of the app that is served here: calls of its own
	// gRPC services name it.
	AppID, Namespace string
	// App is the user's program; nil when there is none, which every call is told.
	// Calls of its own gRPC services go to an App that is an [invoke.Forwarder].
	App invoke.App
	// Access decides who may call what; nil: everybody may call everything.
	Access *access.Guard
	// Identity turns mutual TLS on: only who proves to be an app gets in, and what is
	// said of the caller in a header is what it proved. Nil: plain text.
	Identity identity.Source
	// MaxBody bounds one message of a request, and the whole body of a call that
	// is one message, in bytes; default 4 MiB.
	MaxBody int64
	// Direct serves a handler of HTTP/1.1 on a listener, with [DirectContext], until
	// ctx ends; then it lets calls under way finish. Nil: there are no direct calls.
	// It is for an app that speaks HTTP.
	Direct func(ctx context.Context, h http.Handler, l net.Listener) error
	// Drain is how long calls under way may take once the server is to stop,
	// default 5 s.
	Drain time.Duration
	// Cut ends the drain at once when it is closed; may be nil.
	Cut <-chan struct{}
	// Tracer makes spans of calls; nil: none.
	Tracer *trace.Tracer
	// Metrics counts calls; nil: nobody does.
	Metrics *telemetry.Metrics
	Logger  *slog.Logger
}

// Server takes the calls of other sidecars. It is used once.
type Server struct {
	o     ServerOptions
	creds credentials.TransportCredentials // nil: plain text
	grpc  *grpc.Server
}

// The bounds of connections, as for the API.
const (
	maxStreams  = 1000
	handshake   = 10 * time.Second
	askAlive    = 30 * time.Second
	answerAlive = 10 * time.Second
	minPing     = 5 * time.Second
	workers     = 32 // goroutines kept for calls, whose stacks need not grow anew
)

// NewServer makes a server.
func NewServer(o ServerOptions) *Server {
	if o.MaxBody <= 0 {
		o.MaxBody = 4 << 20
	}
	if o.Drain <= 0 {
		o.Drain = 5 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{o: o}
	s.creds = s.credentials()
	s.grpc = grpc.NewServer(append(s.secure(),
		grpc.MaxRecvMsgSize(int(o.MaxBody)+slack), grpc.MaxSendMsgSize(int(o.MaxBody)+slack),
		grpc.MaxHeaderListSize(MaxHead), grpc.MaxConcurrentStreams(maxStreams), grpc.ConnectionTimeout(handshake),
		grpc.InitialWindowSize(window), grpc.InitialConnWindowSize(connWindow),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: minPing, PermitWithoutStream: true}),
		grpc.KeepaliveParams(s.keepalive()),
		grpc.WaitForHandlers(true), grpc.NumStreamWorkers(workers),
		grpc.UnknownServiceHandler(s.forward), grpc.ForceServerCodecV2(newCodec()),
	)...)
	internalv1.RegisterServiceInvocationServer(s.grpc, &service{s: s})
	return s
}

// Run serves on the listeners, which it closes, until ctx ends or one of them
// breaks. Then it takes no more calls, lets those under way finish for the drain
// time and cuts off the rest. It returns nil after a stop on demand.
func (s *Server) Run(ctx context.Context, listeners ...net.Listener) error {
	if len(listeners) == 0 {
		return nil
	}
	split := &splitter{creds: s.creds, grpc: newArrivals(listeners[0].Addr())}
	g, gctx := errgroup.WithContext(ctx)
	if s.o.Direct != nil && s.o.App != nil {
		split.direct = newArrivals(split.grpc.addr)
		g.Go(func() error { return s.o.Direct(gctx, http.HandlerFunc(s.serveDirect), split.direct) })
	}
	for _, l := range listeners {
		g.Go(func() error { return split.listen(gctx, l) })
	}
	g.Go(func() error {
		if err := s.grpc.Serve(split.grpc); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			return fault.Wrap(err, "serve other sidecars")
		}
		return nil
	})
	g.Go(func() error {
		<-gctx.Done()
		s.stop(context.WithoutCancel(gctx))
		return nil
	})
	return g.Wait()
}

func (s *Server) stop(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, s.o.Drain)
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		s.grpc.GracefulStop()
		cancel()
	})
	select {
	case <-ctx.Done():
	case <-s.o.Cut:
	}
	s.grpc.Stop()
}

// service is the protocol. Calls of actors are not there yet.
type service struct {
	internalv1.UnimplementedServiceInvocationServer
	s *Server
}

// CallLocal takes a call of one message.
func (v *service) CallLocal(ctx context.Context, in *internalv1.InternalInvokeRequest) (out *internalv1.InternalInvokeResponse, err error) {
	defer v.s.recovered(&err)
	data := in.GetMessage().GetData().GetValue()
	answer, err := v.call(ctx, in, io.NopCloser(bytes.NewReader(data)), int64(len(data)))
	if err != nil {
		return nil, err
	}
	body, err := message.ReadAll(answer.Body, v.s.o.MaxBody)
	if err != nil {
		return nil, statusOf(ctx, err)
	}
	out = encodeResponse(answer)
	out.Message.Data.Value = body
	return out, nil
}

// CallLocalStream takes a call whose bodies are streams.
func (v *service) CallLocalStream(s internalv1.ServiceInvocation_CallLocalStreamServer) (err error) {
	defer v.s.recovered(&err)
	first, err := s.Recv()
	if err != nil {
		return err
	}
	if first.GetRequest().GetMetadata() == nil || first.GetRequest().GetMessage() == nil {
		return status.Error(codes.InvalidArgument, "parsing InternalInvokeRequest error: request does not contain the required fields in the leading chunk")
	}
	body := &incoming{s: s, left: first.GetPayload()}
	if data := first.GetRequest().GetMessage().GetData().GetValue(); len(data) > 0 && body.left == nil {
		body.left = &commonv1.StreamPayload{Data: data}
		body.early = true
	}
	answer, err := v.call(s.Context(), first.Request, body, -1)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if err := send(s, answer); err != nil {
		return statusOf(s.Context(), err)
	}
	if answer.RPC == nil {
		s.SetTrailer(v.trailers(answer))
	}
	return nil
}

// call calls the app. Length is that of the body when the protocol tells it.
func (v *service) call(ctx context.Context, in *internalv1.InternalInvokeRequest, body io.ReadCloser, length int64) (*message.Response, error) {
	if v.s.o.App == nil {
		return nil, status.Error(codes.Internal, "app channel is not initialized")
	}
	md, _ := metadata.FromIncomingContext(ctx)
	r, err := decode(in, md)
	if err != nil {
		return nil, statusOf(ctx, err)
	}
	r.Body = body
	if length >= 0 {
		r.Length = length
	}
	answer, err := v.s.call(ctx, r)
	if err != nil {
		return nil, statusOf(ctx, err)
	}
	return answer, nil
}

// statusOf is the status of an error, in Dapr's words: whatever keeps the app from
// answering is internal, so that other sidecars do not try again.
func statusOf(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return status.FromContextError(ctx.Err()).Err()
	case fault.KindOf(err) == fault.Invalid:
		return status.Error(codes.InvalidArgument, text(err))
	case fault.KindOf(err) == fault.Denied:
		return status.Error(codes.PermissionDenied, text(err))
	}
	return status.Error(codes.Internal, "error invoking app channel: "+text(err))
}

// text is an error's, short and valid: it travels as a header.
func text(err error) string {
	const limit = 512
	s := err.Error()
	return strings.ToValidUTF8(s[:min(len(s), limit)], "\uFFFD")
}

// recovered turns a panic of ours into a status; the process goes on.
func (s *Server) recovered(err *error) {
	if p := recover(); p != nil {
		s.o.Logger.Error("call of another sidecar panicked", "panic", p, "stack", string(debug.Stack()))
		*err = status.Error(codes.Internal, "internal error")
	}
}

// send writes the answer, each piece of its body as it comes.
func send(s internalv1.ServiceInvocation_CallLocalStreamServer, answer *message.Response) error {
	size := int64(chunk)
	if answer.Length >= 0 {
		size = min(size, answer.Length)
	}
	buf := make([]byte, size)
	out := &internalv1.InternalInvokeResponseStream{Response: encodeResponse(answer)}
	n, err := 0, error(nil)
	switch {
	case answer.Length == 0:
		err = io.EOF
	case answer.Length > 0 && answer.Length <= chunk:
		// The answer to HEAD has a length and no body, which is EOF at once.
		if n, err = io.ReadFull(answer.Body, buf); err == nil {
			err = io.EOF
		}
	}
	for seq := uint64(0); ; {
		if err != nil && err != io.EOF {
			return err
		}
		if n > 0 {
			out.Payload = &commonv1.StreamPayload{Data: buf[:n], Seq: seq}
			seq++
		}
		if n > 0 || out.Response != nil {
			if err := s.Send(out); err != nil {
				return err
			}
		}
		if err != nil {
			return nil
		}
		out.Reset()
		n, err = answer.Body.Read(buf)
	}
}

// trailers are those of an app that speaks HTTP, and what tells that it may be called
// directly.
func (v *service) trailers(answer *message.Response) metadata.MD {
	md := metadata.MD{}
	if v.s.o.Direct != nil {
		md.Set(directKey, "1")
	}
	for name, values := range answer.Trailer {
		if message.Good(name, values) && !message.OneHop(name) {
			md[trailerPrefix+strings.ToLower(name)] = values
		}
	}
	return md
}

// incoming is the body of a request.
type incoming struct {
	s     internalv1.ServiceInvocation_CallLocalStreamServer
	left  *commonv1.StreamPayload // nil: nothing
	early bool                    // left was no piece of the stream
	seq   uint64
	err   error
}

// Read implements [io.Reader].
func (b *incoming) Read(p []byte) (int, error) {
	for b.err == nil && len(b.left.GetData()) == 0 {
		b.err = b.next()
	}
	if len(b.left.GetData()) > 0 {
		n := copy(p, b.left.Data)
		b.left.Data = b.left.Data[n:]
		return n, nil
	}
	return 0, b.err
}

// next takes the next piece.
func (b *incoming) next() error {
	if b.left != nil && !b.early {
		b.seq++
	}
	b.left, b.early = nil, false
	m, err := b.s.Recv()
	switch {
	case errors.Is(err, io.EOF):
		return io.EOF
	case err != nil:
		return fault.New(fault.Unavailable, "read request: %w", err)
	case m.GetRequest().GetMetadata() != nil || m.GetRequest().GetMessage() != nil:
		return fault.New(fault.Invalid, "read request: it begins twice")
	}
	if b.left = m.GetPayload(); b.left != nil && b.left.Seq != b.seq {
		b.left = nil
		return fault.New(fault.Invalid, "read request: piece %d came, %d is next", m.Payload.Seq, b.seq)
	}
	return nil
}

// Close implements [io.Closer]. What is still to come is not read.
func (b *incoming) Close() error { return nil }

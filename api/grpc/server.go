package grpc

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	_ "google.golang.org/grpc/encoding/gzip" // for clients that compress; a message is bounded after it was unpacked
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"github.com/penstock-io/penstock/api"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/invoke/proxy"
	"github.com/penstock-io/penstock/telemetry"
	"github.com/penstock-io/penstock/telemetry/trace"
)

// DefaultMaxBody is the limit of a message in bytes, 4 MiB.
const DefaultMaxBody = 4 << 20

// Options are the settings of a [Server]. The zero value is usable.
type Options struct {
	// Tokens are the accepted values of the metadata key dapr-api-token; empty
	// ones are ignored. Without any the key is not checked.
	Tokens []string
	// MaxBody limits a message in bytes, both ways; zero or less is
	// DefaultMaxBody.
	MaxBody int64
	// ReadBuffer bounds the call metadata in bytes, default 4 KiB; as over
	// HTTP, 4 KiB more pass.
	ReadBuffer int
	// Arrival bounds the handshake of a connection, default 10 s, and six times
	// that the arrival of a call's message.
	Arrival time.Duration
	// Drain is how long calls under way may take once the server is to stop,
	// default 5 s.
	Drain time.Duration
	// Cut ends the drain at once when it is closed; may be nil.
	Cut <-chan struct{}
	// Metrics count calls; nil: nothing does.
	Metrics *telemetry.Metrics
	// Tracer makes spans of calls; nil: none.
	Tracer *trace.Tracer
	// Logger gets panics and the calls that the API says to log; nil discards
	// both.
	Logger *slog.Logger
}

// Server serves the API over gRPC without TLS. It is used once.
type Server struct {
	grpc   *grpc.Server
	drain  time.Duration
	cut    <-chan struct{}
	guard  *guard
	conns  *conns
	ending chan struct{} // closed when streams are to end
}

// The bounds of connections, as in Dapr where it has them. A connection that
// says nothing is asked whether it is alive; one without calls is closed, which
// clients do not notice.
const (
	maxStreams  = 1000
	handshake   = 10 * time.Second
	idle        = 3 * time.Minute
	askAlive    = 10 * time.Second
	answerAlive = 10 * time.Second
	minPing     = 8 * time.Second
	workers     = 32 // goroutines kept for calls, whose stacks need not grow anew
)

// New makes a server of the API.
func New(a *api.API, o Options) *Server {
	s := &Server{drain: either(o.Drain, 5*time.Second), cut: o.Cut, ending: make(chan struct{}), conns: &conns{open: map[*conn]struct{}{}}}
	log := o.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	arrival := either(o.Arrival, handshake)
	g := &guard{api: a, tokens: api.NewTokens(o.Tokens), arrival: 6 * arrival, log: log}
	s.guard = g
	maxBody := int(either(o.MaxBody, DefaultMaxBody))
	s.grpc = grpc.NewServer(
		grpc.MaxRecvMsgSize(maxBody), grpc.MaxSendMsgSize(maxBody),
		grpc.MaxHeaderListSize(uint32(either(o.ReadBuffer, 4<<10)+4<<10)),
		grpc.MaxConcurrentStreams(maxStreams), grpc.ConnectionTimeout(arrival),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: minPing, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: idle, Time: askAlive, Timeout: answerAlive}),
		grpc.InTapHandle(g.enter), grpc.NumStreamWorkers(workers),
		grpc.UnaryInterceptor(g.unary), grpc.StreamInterceptor(g.stream), grpc.UnknownServiceHandler(g.unknown),
		grpc.ForceServerCodecV2(proxy.Codec()),
	)
	rtv1.RegisterDaprServer(s.grpc, &service{api: a, maxBody: maxBody, ending: s.ending, working: &g.working})
	reflection.Register(s.grpc)
	if g.metrics, g.tracer = o.Metrics, o.Tracer; g.metrics != nil || g.tracer != nil {
		g.known = methods(s.grpc)
	}
	return s
}

// methods are the full names of all that a server has.
func methods(s *grpc.Server) map[string]bool {
	out := map[string]bool{}
	for service, info := range s.GetServiceInfo() {
		for _, m := range info.Methods {
			out["/"+service+"/"+m.Name] = true
		}
	}
	return out
}

func either[T int | int64 | time.Duration](v, fallback T) T {
	if v <= 0 {
		return fallback
	}
	return v
}

// Run serves on the listeners, which it closes, until ctx ends or one of them
// breaks. Then it stops in two steps: it takes no more connections and calls,
// ends streams, which their clients take up again elsewhere, and lets other
// calls under way finish for the drain time; what is left is cut off and its
// context ends. Run returns nil after a stop on demand, also when it had to cut
// calls off, and no method is running any more unless it ignores the end of its
// context for a second.
func (s *Server) Run(ctx context.Context, listeners ...net.Listener) error {
	g, gctx := errgroup.WithContext(ctx)
	for _, l := range listeners {
		g.Go(func() error {
			if err := s.grpc.Serve(s.conns.of(l)); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
				return fault.Wrap(err, "serve grpc on %s", l.Addr())
			}
			return nil
		})
	}
	g.Go(func() error {
		<-gctx.Done()
		s.stop(context.WithoutCancel(gctx))
		return nil
	})
	return g.Wait()
}

// stop is the two steps.
func (s *Server) stop(ctx context.Context) {
	close(s.ending)
	draining, cancel := context.WithTimeout(ctx, s.drain)
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		s.grpc.GracefulStop()
		cancel()
	})
	s.quiet(draining)
	s.conns.close()
	s.grpc.Stop()
	s.await(ctx)
}

// The watch over the end of the drain: looks, and how many of them without a
// call under way are enough.
const (
	look  = 10 * time.Millisecond
	looks = 20
)

// quiet returns when ctx ends, or there has been no call for a while: a
// connection that does not answer would hold up the graceful stop.
func (s *Server) quiet(ctx context.Context) {
	tick := time.NewTicker(look)
	defer tick.Stop()
	for still := 0; still < looks; still++ {
		select {
		case <-ctx.Done():
			return
		case <-s.cut:
			return
		case <-tick.C:
		}
		if s.guard.working.Load() > 0 {
			still = 0
		}
	}
}

// await waits for methods that were cut off, a second at most.
func (s *Server) await(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for s.guard.working.Load() > 0 {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

package http

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/penstock-io/penstock/fault"
)

// ServerOptions are the settings of a [Server]. The zero value is usable.
type ServerOptions struct {
	// ReadBuffer bounds the request headers in bytes, default 4 KiB; net/http
	// lets 4 KiB more pass. Larger ones are answered with 431.
	ReadBuffer int
	// HeaderTimeout bounds the arrival of the headers, default 10 s.
	HeaderTimeout time.Duration
	// ReadTimeout bounds the arrival of headers and body, default 60 s.
	ReadTimeout time.Duration
	// IdleTimeout ends connections without requests, default 120 s.
	IdleTimeout time.Duration
	// Drain is how long requests under way may take once the server is to
	// stop, default 5 s.
	Drain time.Duration
	// Cut ends the drain at once when it is closed; may be nil.
	Cut <-chan struct{}
	// Context, when not nil, makes the context of a connection's requests.
	Context func(context.Context, net.Conn) context.Context
	// Logger gets what net/http has to say; nil discards it.
	Logger *slog.Logger
}

// Server serves a handler over HTTP/1.1 and HTTP/2, with prior knowledge or
// after an upgrade. It is used once.
type Server struct {
	http    http.Server
	h2c     *upgrades
	drain   time.Duration
	cut     <-chan struct{}
	working atomic.Int64
}

// maxStreams bounds the requests under way on one HTTP/2 connection.
const maxStreams = 250

// NewServer makes a server.
func NewServer(h http.Handler, o ServerOptions) *Server {
	log := o.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Server{drain: either(o.Drain, 5*time.Second), cut: o.Cut}
	h = s.counted(h)
	s.http = http.Server{
		MaxHeaderBytes:    either(o.ReadBuffer, 4<<10),
		ReadHeaderTimeout: either(o.HeaderTimeout, 10*time.Second),
		ReadTimeout:       either(o.ReadTimeout, 60*time.Second),
		IdleTimeout:       either(o.IdleTimeout, 120*time.Second),
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		Protocols:         new(http.Protocols),
		ConnContext:       o.Context,
		// Else net/http would answer OPTIONS * by itself, before any check.
		DisableGeneralOptionsHandler: true,
		HTTP2:                        &http.HTTP2Config{MaxConcurrentStreams: maxStreams},
	}
	s.http.Protocols.SetHTTP1(true)
	s.http.Protocols.SetUnencryptedHTTP2(true)
	s.h2c = newUpgrades()
	s.http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.Header["Upgrade"]) == 0 || !s.h2c.take(w, r) {
			h.ServeHTTP(w, r)
		}
	})
	return s
}

func either[T int | time.Duration](v, fallback T) T {
	if v <= 0 {
		return fallback
	}
	return v
}

// counted knows how many requests are under way, so that Run can wait for them.
func (s *Server) counted(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.working.Add(1)
		defer s.working.Add(-1)
		h.ServeHTTP(w, r)
	})
}

// Run serves on the listeners, which it closes, until ctx ends or one of them
// breaks. Then it stops in two steps: it takes no more connections and lets
// requests under way finish for the drain time; what is left is cut off and its
// context ends. A connection on which no request has arrived is not waited for.
// Run returns nil after a stop on demand, also when it had to cut requests off, and no handler is running any more unless it ignores the end of
// its context for a second.
func (s *Server) Run(ctx context.Context, listeners ...net.Listener) error {
	base, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	s.http.BaseContext = func(net.Listener) context.Context { return base }
	g, gctx := errgroup.WithContext(ctx)
	for _, l := range append(slices.Clone(listeners), s.h2c) {
		g.Go(func() error {
			if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				return fault.Wrap(err, "serve http on %s", l.Addr())
			}
			return nil
		})
	}
	g.Go(func() error {
		<-gctx.Done()
		s.stop(gctx, cut)
		return nil
	})
	return g.Wait()
}

// stop is the two steps.
func (s *Server) stop(ctx context.Context, cut context.CancelFunc) {
	ctx = context.WithoutCancel(ctx)
	draining, cancel := context.WithTimeout(ctx, s.drain)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { s.quiet(draining, cancel) })
	err := s.http.Shutdown(draining)
	cancel()
	wg.Wait()
	if err == nil {
		return
	}
	cut()
	// It closes sockets; that one is closed already is no news.
	_ = s.http.Close()
	s.await(ctx)
}

// The watch over the end of the drain: looks, and how many of them without a
// request under way are enough.
const (
	look  = 10 * time.Millisecond
	looks = 20
)

// quiet ends draining once there has been no request for a while. Clients open
// connections in advance and never use them; Shutdown would wait for those.
func (s *Server) quiet(ctx context.Context, end context.CancelFunc) {
	tick := time.NewTicker(look)
	defer tick.Stop()
	for idle := 0; idle < looks; {
		select {
		case <-ctx.Done():
			return
		case <-s.cut:
			end()
			return
		case <-tick.C:
		}
		if idle++; s.working.Load() > 0 {
			idle = 0
		}
	}
	end()
}

// await waits for handlers that were cut off, a second at most.
func (s *Server) await(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for s.working.Load() > 0 {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

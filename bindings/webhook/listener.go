package webhook

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
)

// The bounds of a listener.
const (
	maxHeader     = 16 << 10
	maxConns      = 1024
	headerTimeout = 5 * time.Second
	bodyTimeout   = 30 * time.Second
	writeTimeout  = 10 * time.Second
	idleTimeout   = 60 * time.Second
	closeTimeout  = 2 * time.Second
)

// listener serves the webhooks of one address.
type listener struct {
	address string // as bound
	server  *http.Server
	served  sync.WaitGroup
	conns   connections

	mu    sync.Mutex
	hooks map[string][]*hook // by path, oldest first; all of one component
}

// listen returns the listener of the hook's address with the hook added. The
// function it returns takes the hook off again; the last one stops serving.
func listen(ctx context.Context, env component.Env, h *hook) (*listener, func() error, error) {
	base := context.WithoutCancel(ctx)
	l, release, err := component.Share(env.Shared, "webhook listener "+h.o.Listen, func() (*listener, func() error, error) {
		return startListener(base, h.o.Listen, env.Logger)
	})
	if err != nil {
		return nil, nil, err
	}
	if err := l.add(h); err != nil {
		return nil, nil, errors.Join(err, release())
	}
	return l, func() error {
		l.remove(h)
		return release()
	}, nil
}

func startListener(ctx context.Context, address string, log *slog.Logger) (*listener, func() error, error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, nil, fault.New(fault.Unavailable, "listen on %s: the address is in use by another process; choose another with listen", address)
	case errors.Is(err, syscall.EACCES):
		return nil, nil, fault.New(fault.Denied, "listen on %s: %w", address, err)
	case err != nil:
		return nil, nil, fault.New(fault.Invalid, "listen on %s: %w", address, err)
	}
	l := serve(ctx, ln, log)
	log.Info("webhooks listening", "address", l.address)
	return l, func() error { return l.stop(ctx) }, nil
}

// serve starts a server on ln.
func serve(ctx context.Context, ln net.Listener, log *slog.Logger) *listener {
	l := &listener{address: ln.Addr().String(), hooks: map[string][]*hook{}}
	protocols := &http.Protocols{}
	protocols.SetHTTP1(true)
	l.server = &http.Server{
		Handler:           l,
		Protocols:         protocols,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader - 4096, // net/http adds as much for its own needs
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		ConnState:         l.conns.changed,
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	l.served.Go(func() {
		if err := l.server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			log.Error("webhook listener stopped", "address", l.address, "error", err)
		}
	})
	return l
}

// stop ends the server. The hooks have waited for their requests before.
func (l *listener) stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, closeTimeout)
	defer cancel()
	l.conns.closeNew()
	err := l.server.Shutdown(ctx)
	if err != nil {
		err = l.server.Close()
	}
	l.served.Wait()
	return fault.Wrap(err, "close listener %s", l.address)
}

// add registers a hook. A second one of the same component is the next version
// of it, which takes over once it reads.
func (l *listener) add(h *hook) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	there := l.hooks[h.path]
	if len(there) > 0 && there[0].name != h.name {
		return fault.New(fault.Conflict, "register path %s on %s: component %q has it already; give one of them another path",
			h.path, h.o.Listen, there[0].name)
	}
	l.hooks[h.path] = append(there, h)
	return nil
}

func (l *listener) remove(h *hook) {
	l.mu.Lock()
	defer l.mu.Unlock()
	left := slices.DeleteFunc(l.hooks[h.path], func(o *hook) bool { return o == h })
	if len(left) == 0 {
		delete(l.hooks, h.path)
		return
	}
	l.hooks[h.path] = left
}

// find returns the newest hook of the path that takes requests, else the
// newest, else nil.
func (l *listener) find(path string) *hook {
	l.mu.Lock()
	defer l.mu.Unlock()
	hooks := l.hooks[path]
	for _, h := range slices.Backward(hooks) {
		if h.ready() {
			return h
		}
	}
	if len(hooks) == 0 {
		return nil
	}
	return hooks[len(hooks)-1]
}

// ServeHTTP hands a request to the hook of its path.
func (l *listener) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// Not every writer has deadlines; those of a connection do. The one for
	// reading holds for bodies that nobody reads, too.
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Now().Add(bodyTimeout))
	_ = rc.SetWriteDeadline(time.Time{})
	h := l.find(r.URL.Path)
	if h == nil {
		http.Error(w, "no webhook has this path", http.StatusNotFound)
		return
	}
	h.ServeHTTP(w, r)
}

// connections bounds the connections of a listener. Above maxConns the one
// that has been idle longest gives way, so that many silent clients cannot
// keep a busy one out.
type connections struct {
	mu    sync.Mutex
	state map[net.Conn]connState
	turn  uint64
}

type connState struct {
	state http.ConnState
	since uint64
}

func (c *connections) changed(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if state == http.StateClosed || state == http.StateHijacked {
		delete(c.state, conn)
		return
	}
	if c.state == nil {
		c.state = map[net.Conn]connState{}
	}
	c.turn++
	c.state[conn] = connState{state, c.turn}
	if len(c.state) > maxConns {
		_ = c.victim(conn).Close() // the server sees it and says StateClosed
	}
}

// victim picks the connection to close: the longest idle, else the oldest that
// has not sent a request, else the newcomer.
func (c *connections) victim(newcomer net.Conn) net.Conn {
	var idle, silent net.Conn
	for conn, s := range c.state {
		switch {
		case s.state == http.StateIdle && (idle == nil || s.since < c.state[idle].since):
			idle = conn
		case s.state == http.StateNew && (silent == nil || s.since < c.state[silent].since):
			silent = conn
		}
	}
	victim := newcomer
	switch {
	case idle != nil:
		victim = idle
	case silent != nil:
		victim = silent
	}
	delete(c.state, victim)
	return victim
}

// closeNew closes connections that have not sent a request, which a graceful
// stop would wait for.
func (c *connections) closeNew() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn, s := range c.state {
		if s.state == http.StateNew {
			_ = conn.Close() // nothing was said on it
		}
	}
}

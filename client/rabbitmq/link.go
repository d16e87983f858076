package rabbitmq

import (
	"context"
	"crypto/tls"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/penstock-io/penstock/fault"
)

const (
	dialTimeout  = 10 * time.Second
	closeTimeout = 2 * time.Second
	firstPause   = 100 * time.Millisecond
	// publishPatience is how long a publish waits for a connection that was lost
	// before it says so.
	publishPatience = 2 * time.Second
)

var errClosed = fault.New(fault.Unavailable, "the client is closed")

// link is one connection that is made again when it is lost.
type link struct {
	use    string // what for, in its name on the server
	config Config
	name   string

	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup

	mu      sync.Mutex
	current *session
	changed chan struct{} // closed when current or why changes
	why     error         // of the last failed try
	running bool
	closed  bool
}

// session is one connection.
type session struct {
	conn    *amqp.Connection
	lost    chan *amqp.Error
	blocks  chan amqp.Blocking
	blocked atomic.Pointer[string]

	raw net.Conn
	out *gatherer // over raw, and TLS where there is some

	mu   sync.Mutex
	made map[string]time.Time // topology that was declared, and when
}

func newLink(ctx context.Context, use, name string, c Config) *link {
	l := &link{use: use, name: name, config: c, changed: make(chan struct{})}
	l.ctx, l.cancel = context.WithCancel(context.WithoutCancel(ctx))
	return l
}

// open makes the first connection, so that what is wrong with it is known at
// once. After it a lost connection is made again in the background.
func (l *link) open(ctx context.Context) error {
	s, err := l.dial(ctx)
	if err != nil {
		return err
	}
	if !l.start(s) {
		s.end()
		return errClosed
	}
	return nil
}

// start looks after a connection, or makes it when there is none, in the
// background; false when it does so already or never again.
func (l *link) start(s *session) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.running {
		return false
	}
	l.running = true
	l.set(s, nil)
	l.work.Go(func() { l.run(s) })
	return true
}

// set changes the state; the lock is held.
func (l *link) set(s *session, why error) {
	l.current, l.why = s, why
	close(l.changed)
	l.changed = make(chan struct{})
}

// run looks after the connection until the link is closed.
func (l *link) run(s *session) {
	for {
		if s == nil {
			if s = l.again(); s == nil {
				return
			}
			l.mu.Lock()
			l.set(s, nil)
			l.mu.Unlock()
		}
		err := s.watch(l.ctx)
		l.mu.Lock()
		l.set(nil, err)
		l.mu.Unlock()
		s.end()
		s = nil
	}
}

// again connects, however long it takes; nil when the link was closed.
func (l *link) again() *session {
	pause := firstPause
	for {
		s, err := l.dial(l.ctx)
		if err == nil {
			return s
		}
		l.mu.Lock()
		l.set(nil, err)
		l.mu.Unlock()
		timer := time.NewTimer(pause/2 + rand.N(pause/2+1))
		select {
		case <-timer.C:
		case <-l.ctx.Done():
			timer.Stop()
			return nil
		}
		pause = min(2*pause, max(l.config.ReconnectWait, firstPause))
	}
}

// session returns the connection. One that is lost is waited for; after the
// patience, if that is not zero, the error says why there is none.
func (l *link) session(ctx context.Context, patience time.Duration) (*session, error) {
	l.start(nil)
	var late <-chan time.Time
	if patience > 0 {
		timer := time.NewTimer(patience)
		defer timer.Stop()
		late = timer.C
	}
	for {
		l.mu.Lock()
		s, changed, why, closed := l.current, l.changed, l.why, l.closed
		l.mu.Unlock()
		switch {
		case closed:
			return nil, errClosed
		case s != nil && !s.conn.IsClosed():
			return s, nil
		}
		select {
		case <-changed:
		case <-late:
			if why == nil { // its loss is just being noticed
				why = amqp.ErrClosed
			}
			return nil, fault.As(fault.Unavailable, fault.Wrap(why, "connect to RabbitMQ again"))
		case <-ctx.Done():
			return nil, fault.Wrap(ctx.Err(), "connect to RabbitMQ")
		}
	}
}

// close ends the connection. It does not wait for a server that does not answer.
func (l *link) close() {
	l.mu.Lock()
	l.closed = true
	close(l.changed)
	l.changed = make(chan struct{})
	l.mu.Unlock()
	l.cancel()
	l.work.Wait()
}

// dial makes one connection.
func (l *link) dial(ctx context.Context) (*session, error) {
	u, err := parse(l.config.URL)
	if err != nil {
		return nil, fault.As(fault.Invalid, err)
	}
	secure, err := l.config.tls(u)
	if err != nil {
		return nil, err
	}
	s := &session{lost: make(chan *amqp.Error, 1), blocks: make(chan amqp.Blocking, 16), made: map[string]time.Time{}}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	stop := func() bool { return true }
	s.conn, err = amqp.DialConfig(bare(l.config.URL, u), l.settings(func(string, string) (net.Conn, error) {
		raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(u.Host, strconv.Itoa(u.Port)))
		if err != nil {
			return nil, err
		}
		stop = context.AfterFunc(ctx, func() { _ = raw.Close() })
		s.raw, s.out = raw, &gatherer{Conn: raw}
		if secure != nil {
			over := tls.Client(raw, secure)
			s.out.Conn = over
			err = over.HandshakeContext(ctx)
		}
		return s.out, err
	}))
	if !stop() && ctx.Err() != nil {
		if err == nil {
			s.end()
		}
		return nil, fault.Wrap(ctx.Err(), "connect to %s:%d", u.Host, u.Port)
	}
	if err != nil {
		if s.out != nil {
			_ = s.raw.Close() // the library does so, but not after a handshake that failed
			err = s.out.reason(err)
		}
		return nil, fault.Wrap(Classify(err), "connect to %s:%d", u.Host, u.Port)
	}
	s.conn.NotifyClose(s.lost)
	s.conn.NotifyBlocked(s.blocks)
	return s, nil
}

// bare is the URL without TLS, which the library leaves to us then: it would hide
// why a server does not like our certificate, and encrypt each small write alone.
func bare(url string, u amqp.URI) string {
	if u.Scheme == "amqps" {
		return "amqp" + url[len("amqps"):]
	}
	return url
}

// settings are those of the library.
func (l *link) settings(dial func(network, addr string) (net.Conn, error)) amqp.Config {
	c := amqp.Config{
		Heartbeat: l.config.HeartBeat, Locale: "en_US", Dial: dial,
		Properties: amqp.Table{"product": "Penstock", "connection_name": l.name + " " + l.use},
	}
	if l.config.External {
		c.SASL = []amqp.Authentication{&amqp.ExternalAuth{}}
	}
	return c
}

// watch returns why the connection ended; nil when the link did.
func (s *session) watch(ctx context.Context) error {
	for {
		select {
		case b, ok := <-s.blocks:
			switch {
			case !ok:
				s.blocks = nil
			case b.Active:
				s.blocked.Store(&b.Reason)
			default:
				s.blocked.Store(nil)
			}
		case e := <-s.lost:
			if e == nil {
				return amqp.ErrClosed
			}
			return e
		case <-ctx.Done():
			return nil
		}
	}
}

// end closes the connection, politely for a short time.
func (s *session) end() { _ = s.conn.CloseDeadline(time.Now().Add(closeTimeout)) }

// kill closes the connection at once.
func (s *session) kill() { _ = s.raw.Close() }

// obstacle is why nothing may be published now, or nil.
func (s *session) obstacle() error {
	if reason := s.blocked.Load(); reason != nil {
		return fault.New(fault.Unavailable, "the server takes no messages at present: %.200s", *reason)
	}
	return nil
}

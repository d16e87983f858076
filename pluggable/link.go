package pluggable

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
)

const (
	instanceHeader = "x-component-instance"
	maxMessage     = 16 << 20
	maxRest        = 64 << 10        // of a message beside its data
	greetTime      = 5 * time.Second // to connect and say Init, unless the component says otherwise
)

var errClosed = fault.New(fault.Unavailable, "use component: it is closed")

// link is one component's way to its program. It has at most one connection at
// a time; a new one is made by whoever needs it, and is greeted before anybody
// uses it, since behind it may be another process than before.
type link struct {
	path, instance string
	greet          func(ctx context.Context, conn *grpc.ClientConn) error // says Init
	greetTime      time.Duration
	life           context.Context // ends with Close

	live  atomic.Pointer[connection] // the last one; it may be gone
	tasks sync.WaitGroup             // tries to connect, and streams

	mu      sync.Mutex // guards what follows
	trying  *try
	streams map[*exchange]bool
	closed  bool
	end     context.CancelFunc // of life
}

// connection is one greeted connection.
type connection struct {
	*grpc.ClientConn
	gone chan struct{} // closed when it can carry no new calls
}

// try is one attempt to connect, which all who need it wait for.
type try struct {
	done chan struct{}
	conn *connection
	err  error
}

// openLink connects for the first time.
func openLink(ctx context.Context, path string, env component.Env, greet func(context.Context, *grpc.ClientConn) error) (*link, error) {
	l := &link{path: path, instance: env.Name, greet: greet, greetTime: greetTime, streams: map[*exchange]bool{}}
	if end, ok := ctx.Deadline(); ok {
		l.greetTime = time.Until(end)
	}
	l.life, l.end = context.WithCancel(context.WithoutCancel(ctx))
	if _, err := l.connection(ctx); err != nil {
		l.end()
		l.tasks.Wait()
		return nil, err
	}
	return l, nil
}

// connection returns the greeted connection, making one when there is none.
func (l *link) connection(ctx context.Context) (*connection, error) {
	if c := l.live.Load(); c != nil && !c.isGone() {
		return c, nil
	}
	t, err := l.try()
	if err != nil {
		return nil, err
	}
	select {
	case <-t.done:
		return t.conn, t.err
	case <-ctx.Done():
		return nil, fault.Wrap(ctx.Err(), "connect to the pluggable component at %s", l.path)
	}
}

// try returns the attempt under way, or begins one. It does not depend on the
// context of the call that began it, since others wait for it too.
func (l *link) try() (*try, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, errClosed
	}
	if l.trying != nil {
		return l.trying, nil
	}
	t := &try{done: make(chan struct{})}
	if c := l.live.Load(); c != nil && !c.isGone() { // made in between
		t.conn = c
		close(t.done)
		return t, nil
	}
	l.trying = t
	l.tasks.Go(func() {
		ctx, cancel := context.WithTimeout(l.life, l.greetTime)
		defer cancel()
		t.conn, t.err = l.connect(ctx)
		l.mu.Lock()
		if t.err == nil {
			if old := l.live.Swap(t.conn); old != nil {
				_ = old.Close() // it is gone already; this frees what it holds
			}
		}
		l.trying = nil
		l.mu.Unlock()
		close(t.done)
	})
	return t, nil
}

// connect makes a connection and greets the program behind it.
func (l *link) connect(ctx context.Context) (*connection, error) {
	d := &dialer{path: l.path, gone: make(chan struct{})}
	conn, err := grpc.NewClient("passthrough:///pluggable",
		grpc.WithContextDialer(d.dial),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithAuthority("localhost"), // what a path would be is refused by some servers
		grpc.WithIdleTimeout(0),
		grpc.WithDisableServiceConfig(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
		grpc.WithPerRPCCredentials(named(l.instance)))
	if err != nil {
		return nil, fault.New(fault.Internal, "connect to %s: %w", l.path, err)
	}
	if err := l.greet(ctx, conn); err != nil {
		_ = conn.Close()                 // nothing was sent over it that matters
		if e := d.err.Load(); e != nil { // says it without what gRPC says around it
			return nil, fault.New(fault.Unavailable, "connect to the pluggable component: %w", *e)
		}
		return nil, fault.Wrap(err, "connect to the pluggable component at %s", l.path)
	}
	return &connection{conn, d.gone}, nil
}

// named puts the component's name into every call: several may use one program.
type named string

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (n named) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{instanceHeader: string(n)}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials.
func (named) RequireTransportSecurity() bool { return false }

// Close ends the streams, answers on their way first, and the connection. It
// waits for them until ctx ends and then cuts them.
func (l *link) Close(ctx context.Context) error {
	l.mu.Lock()
	l.closed = true
	for x := range l.streams {
		x.close()
	}
	l.mu.Unlock()
	l.end()
	done := make(chan struct{})
	go func() { l.tasks.Wait(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
		l.mu.Lock()
		for x := range l.streams {
			x.cancel()
		}
		l.mu.Unlock()
		<-done // at once: nothing waits for the other side any more
	}
	if c := l.live.Load(); c != nil {
		_ = c.Close() // only that it is closed already
	}
	return nil
}

func (c *connection) isGone() bool {
	select {
	case <-c.gone:
		return true
	default:
		return false
	}
}

// dialer dials once: gRPC would connect again by itself, to a process that was
// not told Init.
type dialer struct {
	path   string
	dialed atomic.Bool
	err    atomic.Pointer[error] // why it could not
	once   sync.Once
	gone   chan struct{}
}

func (d *dialer) dial(ctx context.Context, _ string) (net.Conn, error) {
	if d.dialed.Swap(true) {
		d.lose()
		return nil, fault.New(fault.Unavailable, "the connection is gone")
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", d.path)
	if err != nil {
		d.err.Store(&err)
		d.lose()
		return nil, err
	}
	return &watched{conn, d.lose}, nil
}

func (d *dialer) lose() { d.once.Do(func() { close(d.gone) }) }

// watched tells when a connection ends.
type watched struct {
	net.Conn
	lose func()
}

// Read tells of an end that the other side made.
func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if err != nil {
		w.lose()
	}
	return n, err
}

// Close tells of an end that gRPC made.
func (w *watched) Close() error {
	w.lose()
	return w.Conn.Close()
}

// tooLarge refuses what would never go through; gRPC says that a limit is
// reached, which sounds as if it might pass.
func tooLarge(data []byte) error {
	if len(data) > maxMessage-maxRest {
		return fault.New(fault.Invalid, "send %d bytes: more than 16 MiB do not go to a pluggable component", len(data))
	}
	return nil
}

// failed gives an error of gRPC its kind; what the other side wrote is cut to
// one short line.
func failed(err error, verb string) error {
	if err == nil {
		return nil
	}
	s := status.Convert(err)
	code := uint32(s.Code())
	return fault.As(fault.FromGRPCCode(code), &codeError{code, fmt.Sprintf("%s: %s (%s)", verb, line(s.Message()), s.Code())})
}

// codeError is a gRPC status that is not OK.
type codeError struct {
	code uint32
	text string
}

func (e *codeError) Error() string { return e.text }

// GRPCCode returns the code, by which a policy may judge the error.
func (e *codeError) GRPCCode() uint32 { return e.code }

// line is a text as one line of bounded length without a full stop.
func line(text string) string {
	const most = 1000
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "..."
		return text
	}
	return strings.TrimRight(text, ".")
}

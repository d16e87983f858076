package peer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc/credentials"

	"github.com/penstock-io/penstock/fault"
)

// A connection for direct calls begins with hello, and is answered with welcome;
// HTTP/1.1 follows. Hello is as long as what a server of gRPC waits for, so that one
// that knows nothing of it hangs up at once.
const (
	hello   = "PENSTOCK/1 direct calls\r\n"
	welcome = "PENSTOCK/1 welcome\r\n"
	// tell is how much of the beginning tells the protocols apart: gRPC begins with
	// "PRI".
	tell = 3
)

// opening is how long a connection may take until it is known what it is for.
const opening = 10 * time.Second

// splitter sorts the connections of other sidecars by the protocol that they speak.
type splitter struct {
	creds  credentials.TransportCredentials // nil: plain text
	grpc   *arrivals
	direct *arrivals // nil: there are no direct calls
}

// listen sorts the connections of a listener, which it closes, until ctx ends or the
// listener breaks.
func (s *splitter) listen(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	var sorting sync.WaitGroup
	defer sorting.Wait()
	defer cancel()
	context.AfterFunc(ctx, func() { _ = l.Close() }) // it closes a socket
	pause := time.Duration(0)
	for {
		raw, err := l.Accept()
		switch {
		case err == nil:
			pause = 0
			sorting.Go(func() { s.sort(ctx, raw) })
			continue
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fault.Wrap(err, "accept connections on %s", l.Addr())
		}
		// There are no descriptors left, or the like: it may pass.
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// sort hands a connection on, or closes it.
func (s *splitter) sort(ctx context.Context, raw net.Conn) {
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	c, err := s.open(raw)
	if !stop() || err != nil {
		_ = raw.Close() // nothing was said that would be missed
		return
	}
	to := s.grpc
	if c.direct {
		to = s.direct
	}
	to.put(c)
}

// open finds out who and what a connection is for.
func (s *splitter) open(raw net.Conn) (*arrival, error) {
	_ = raw.SetDeadline(time.Now().Add(opening))
	c := &arrival{Conn: raw, since: time.Now()}
	if s.creds != nil {
		conn, info, err := s.creds.ServerHandshake(raw)
		if err != nil {
			return nil, err
		}
		c.Conn, c.info = conn, info
	}
	begin := make([]byte, tell, len(hello))
	if _, err := io.ReadFull(c.Conn, begin); err != nil {
		return nil, err
	}
	if s.direct != nil && string(begin) == hello[:tell] {
		begin = begin[:len(hello)]
		if _, err := io.ReadFull(c.Conn, begin[tell:]); err != nil {
			return nil, err
		}
		if string(begin) != hello {
			return nil, fault.New(fault.Invalid, "open connection: it speaks another version")
		}
		if _, err := io.WriteString(c.Conn, welcome); err != nil {
			return nil, err
		}
		c.direct, begin = true, nil
	}
	c.begin.Reset(begin)
	return c, c.Conn.SetDeadline(time.Time{})
}

// arrival is a connection that was sorted.
type arrival struct {
	net.Conn
	info   credentials.AuthInfo // nil: plain text
	since  time.Time
	direct bool
	begin  bytes.Reader // what was read of it
}

// Read implements [net.Conn].
func (a *arrival) Read(p []byte) (int, error) {
	if a.begin.Len() > 0 {
		return a.begin.Read(p)
	}
	return a.Conn.Read(p)
}

// arrivals is a listener of connections that were sorted.
type arrivals struct {
	addr  net.Addr
	conns chan *arrival
	ended chan struct{}
	end   func()
}

func newArrivals(addr net.Addr) *arrivals {
	a := &arrivals{addr: addr, conns: make(chan *arrival), ended: make(chan struct{})}
	a.end = sync.OnceFunc(func() { close(a.ended) })
	return a
}

func (a *arrivals) put(c *arrival) {
	select {
	case a.conns <- c:
	case <-a.ended:
		_ = c.Close() // the server stops
	}
}

// Accept implements [net.Listener].
func (a *arrivals) Accept() (net.Conn, error) {
	select {
	case c := <-a.conns:
		return c, nil
	case <-a.ended:
		return nil, net.ErrClosed
	}
}

// Close implements [net.Listener].
func (a *arrivals) Close() error {
	a.end()
	return nil
}

// Addr implements [net.Listener].
func (a *arrivals) Addr() net.Addr { return a.addr }

// opened are the credentials of connections whose handshake was made before.
type opened struct {
	credentials.TransportCredentials
}

// ServerHandshake implements [credentials.TransportCredentials].
func (opened) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	a, ok := c.(*arrival)
	if !ok || a.info == nil {
		return nil, nil, fault.New(fault.Denied, "open connection: nobody proved to be on the other side")
	}
	return c, a.info, nil
}

// Clone implements [credentials.TransportCredentials].
func (o opened) Clone() credentials.TransportCredentials { return o }

package rabbitmq

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"

	amqp "github.com/rabbitmq/amqp091-go"
)

// gathered is how many bytes are written at once at most.
const gathered = 64 << 10

// gatherer is a connection to the server. The library writes after every message
// and every acknowledgement; between hold and release that is put together.
type gatherer struct {
	net.Conn

	ended atomic.Pointer[error] // why nothing can be read any more

	mu     sync.Mutex
	holds  int
	buffer []byte
}

// Read implements net.Conn.
func (g *gatherer) Read(p []byte) (int, error) {
	n, err := g.Conn.Read(p)
	if err != nil {
		g.ended.CompareAndSwap(nil, &err)
	}
	return n, err
}

// reason is why the connection ended, where the library says only that it did: in
// TLS a server tells after the handshake what it does not like.
func (g *gatherer) reason(err error) error {
	why := g.ended.Load()
	if why != nil && (refusedTLS(*why) || errors.Is(err, amqp.ErrClosed) && !errors.Is(*why, io.EOF)) {
		return *why
	}
	return err
}

// Write implements net.Conn. While it is held an error shows at release.
func (g *gatherer) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.holds == 0 {
		return g.Conn.Write(p)
	}
	if len(g.buffer)+len(p) > gathered {
		if err := g.flush(); err != nil {
			return 0, err
		}
	}
	if len(p) > gathered {
		return g.Conn.Write(p)
	}
	g.buffer = append(g.buffer, p...)
	return len(p), nil
}

// hold keeps what is written until release. Nothing may wait for an answer of
// the server in between.
func (g *gatherer) hold() {
	g.mu.Lock()
	g.holds++
	g.mu.Unlock()
}

// release writes what was kept. A connection that does not take it is closed,
// which the reader of the library notices.
func (g *gatherer) release() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.holds--
	if g.flush() != nil {
		_ = g.Close() // it may be closed already
	}
}

// flush writes the buffer; the lock is held.
func (g *gatherer) flush() error {
	if len(g.buffer) == 0 {
		return nil
	}
	_, err := g.Conn.Write(g.buffer)
	g.buffer = g.buffer[:0]
	return err
}

package grpc

import (
	"net"
	"sync"
)

// conns knows every connection of a server. The server itself does not until
// the handshake is over, and would wait for that when it stops.
type conns struct {
	mu   sync.Mutex
	open map[*conn]struct{} // under mu; nil once closed
}

// of returns the listener with its connections known.
func (cs *conns) of(l net.Listener) net.Listener { return &listener{l, cs} }

// close closes every connection, those still to come too. That one is closed
// already is no news.
func (cs *conns) close() {
	cs.mu.Lock()
	open := cs.open
	cs.open = nil
	cs.mu.Unlock()
	for c := range open {
		_ = c.Conn.Close()
	}
}

type listener struct {
	net.Listener
	conns *conns
}

// Accept implements [net.Listener].
func (l *listener) Accept() (net.Conn, error) {
	raw, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &conn{raw, l.conns}
	l.conns.mu.Lock()
	defer l.conns.mu.Unlock()
	if l.conns.open == nil {
		_ = raw.Close()
	} else {
		l.conns.open[c] = struct{}{}
	}
	return c, nil
}

type conn struct {
	net.Conn
	conns *conns
}

// Close implements [net.Conn].
func (c *conn) Close() error {
	c.conns.mu.Lock()
	delete(c.conns.open, c)
	c.conns.mu.Unlock()
	return c.Conn.Close()
}

// Package fake has stand-ins for what surrounds penstock in tests: a network
// that fails in the ways real ones do.
package fake

import (
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// Network is how a [Proxy] treats its connections.
type Network struct {
	// Reset ends every connection with RST, and each new one at once.
	Reset bool
	// Silent holds every byte back, both ways, and tells nobody: connections
	// stay open, new ones are accepted, nothing comes through. What was held goes
	// on when the network is no longer silent, as after a cable was plugged in.
	Silent bool
	// Latency is added to each read, both ways.
	Latency time.Duration
	// Bandwidth is how many bytes a second go through each way of a connection;
	// 0 is no limit.
	Bandwidth int
}

// Proxy is a TCP proxy on a port of 127.0.0.1 whose network can be made to fail
// while it runs.
type Proxy struct {
	listener net.Listener
	target   string
	running  sync.WaitGroup

	mu      sync.Mutex
	network Network
	changed chan struct{} // closed by the next change
	pairs   map[*pair]struct{}
	closed  bool
}

// pair is one connection: the client's half, and the server's once it is
// dialled.
type pair struct {
	client, server net.Conn
	gone           chan struct{} // closed when the halves are
	once           sync.Once
}

// NewProxy starts a proxy in front of an address. The caller closes it.
func NewProxy(target string) (*Proxy, error) { return NewProxyAt("127.0.0.1:0", target) }

// NewProxyAt starts a proxy that listens on an address of its own.
func NewProxyAt(addr, target string) (*Proxy, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	p := &Proxy{listener: l, target: target, changed: make(chan struct{}), pairs: map[*pair]struct{}{}}
	p.running.Go(p.accept)
	return p, nil
}

// Addr is where the proxy listens, as host:port.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Set changes the network, for connections that are open too. The zero Network
// is one without faults.
func (p *Proxy) Set(n Network) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.network = n
	close(p.changed)
	p.changed = make(chan struct{})
	if n.Reset {
		for c := range p.pairs {
			c.end()
		}
	}
}

// HalfOpen ends the server's half of every open connection and leaves the
// client's open and silent, as when a peer is gone without a word. New
// connections are not touched.
func (p *Proxy) HalfOpen() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.pairs {
		if c.server != nil {
			reset(c.server)
		}
	}
}

// Close ends the proxy and every connection, and waits for both.
func (p *Proxy) Close() {
	p.mu.Lock()
	p.closed = true
	p.listener.Close()
	for c := range p.pairs {
		c.end()
	}
	p.mu.Unlock()
	p.running.Wait()
}

func (p *Proxy) now() (n Network, changed <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.network, p.changed
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue // out of descriptors, or the client is gone already
		}
		c := &pair{client: client, gone: make(chan struct{})}
		p.mu.Lock()
		if p.closed || p.network.Reset {
			reset(client)
		} else {
			p.pairs[c] = struct{}{}
			p.running.Go(func() { p.serve(c) })
		}
		p.mu.Unlock()
	}
}

// serve dials the server, which waits while the network is silent, and copies
// both ways. A server that cannot be reached resets the connection.
func (p *Proxy) serve(c *pair) {
	defer func() {
		c.end()
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.pairs, c)
	}()
	if !p.pass(c, 0) { // that long the client waits for an answer
		return
	}
	server, err := net.DialTimeout("tcp", p.target, 10*time.Second)
	if err != nil {
		return
	}
	p.mu.Lock()
	c.server = server
	p.mu.Unlock()
	select {
	case <-c.gone: // ended while it was dialled
		reset(server)
	default:
	}
	var both sync.WaitGroup
	both.Go(func() { p.copy(c, c.server, c.client) })
	p.copy(c, c.client, c.server)
	both.Wait()
}

// copy moves bytes from one half to the other as the network lets them, and then
// the end of the stream, or its breaking off.
func (p *Proxy) copy(c *pair, to, from net.Conn) {
	err := p.move(c, to, from)
	if !p.pass(c, 0) {
		return
	}
	switch {
	case err == nil:
		closeWrite(to)
	case errors.Is(err, net.ErrClosed): // HalfOpen has closed the server's half
		io.Copy(io.Discard, c.client)
		c.end()
	default:
		c.end()
	}
}

func (p *Proxy) move(c *pair, to, from net.Conn) error {
	buf := make([]byte, 16<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if !p.pass(c, n) {
				return net.ErrClosed
			}
			if _, err := to.Write(buf[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// pass waits until n bytes may go on. It returns false when the connection is
// gone before.
func (p *Proxy) pass(c *pair, n int) bool {
	for {
		network, changed := p.now()
		if network.Silent {
			select {
			case <-changed:
			case <-c.gone:
				return false
			}
			continue
		}
		wait := network.Latency
		if network.Bandwidth > 0 {
			wait += time.Duration(n) * time.Second / time.Duration(network.Bandwidth)
		}
		if wait == 0 {
			return true
		}
		select {
		case <-time.After(wait):
			return true
		case <-changed: // the new network decides anew
		case <-c.gone:
			return false
		}
	}
}

// end breaks both halves off.
func (c *pair) end() {
	c.once.Do(func() {
		close(c.gone)
		reset(c.client)
		if c.server != nil {
			reset(c.server)
		}
	})
}

func reset(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		t.SetLinger(0) // Close sends RST then
	}
	c.Close()
}

func closeWrite(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		t.CloseWrite()
	}
}

package amqp

import (
	"bufio"
	"io"
	"net"
	"strings"
	"time"
)

const heartbeatTime = 2 * time.Second

// conn is one connection. What it has to say is queued, so that nobody who holds
// the lock waits for a client.
type conn struct {
	server  *Server
	raw     net.Conn
	r       *bufio.Reader
	wake    chan struct{}
	ended   chan struct{}
	blocked bool // guarded by the server's lock, as is all that follows

	pending  []byte
	over     bool // nothing more is said
	channels map[uint16]*channel
}

func newConn(s *Server, raw net.Conn) *conn {
	return &conn{
		server: s, raw: raw, r: bufio.NewReaderSize(raw, 64<<10),
		wake: make(chan struct{}, 1), ended: make(chan struct{}), channels: map[uint16]*channel{},
	}
}

func (c *conn) cut() { _ = c.raw.Close() }

// say queues frames; the lock is held.
func (c *conn) say(frames ...frame) {
	if c.over {
		return
	}
	for _, f := range frames {
		c.pending = f.append(c.pending)
	}
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *conn) method(channel uint16, w *out) { c.say(frame{frameMethod, channel, w.b}) }

// content queues a method with a message.
func (c *conn) content(channel uint16, w *out, p properties, body []byte) {
	head := (&out{}).short(60).short(0).huge(uint64(len(body)))
	c.say(frame{frameMethod, channel, w.b}, frame{frameHeader, channel, p.append(head).b})
	for len(body) > 0 {
		n := min(len(body), frameMax-8)
		c.say(frame{frameBody, channel, body[:n]})
		body = body[n:]
	}
}

// write sends what is queued, and heartbeats.
func (c *conn) write() {
	tick := time.NewTicker(heartbeatTime)
	defer tick.Stop()
	var b []byte
	for {
		b = b[:0]
		ended := false
		select {
		case <-c.wake:
		case <-tick.C:
			b = frame{kind: frameHeartbeat}.append(b)
		case <-c.ended:
			ended = true
		}
		c.server.mu.Lock()
		b = append(b, c.pending...)
		c.pending = c.pending[:0]
		c.server.mu.Unlock()
		if _, err := c.raw.Write(b); err != nil || ended {
			c.cut()
			return
		}
	}
}

// serve reads until the connection ends, and cleans up after it.
func (c *conn) serve() {
	defer close(c.ended)
	defer c.gone()
	defer func() { _ = recover() }() // what cannot be read is the client's mistake
	if c.greet() != nil {
		return
	}
	for {
		f, err := readFrame(c.r)
		if err != nil {
			return
		}
		if f.kind == frameHeartbeat {
			continue
		}
		c.server.mu.Lock()
		goOn := c.take(f)
		calm := c.server.calm
		held := c.blocked
		if c.r.Buffered() == 0 || held {
			for _, ch := range c.channels {
				ch.confirm()
			}
		}
		c.server.mu.Unlock()
		if !goOn {
			return
		}
		if held {
			<-calm // as a server that reads no more
		}
	}
}

// gone gives back all that the connection had.
func (c *conn) gone() {
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	c.over = true
	delete(c.server.conns, c)
	for _, ch := range c.channels {
		ch.end()
	}
	for _, q := range c.server.broker.queues {
		if q.owner == c {
			c.server.broker.deleteQueue(q)
		}
	}
}

// greet opens the connection.
func (c *conn) greet() error {
	var head [8]byte
	if _, err := io.ReadFull(c.r, head[:]); err != nil || string(head[:4]) != "AMQP" {
		return io.ErrUnexpectedEOF
	}
	capabilities := table{
		"publisher_confirms": true, "exchange_exchange_bindings": true, "basic.nack": true, "consumer_cancel_notify": true,
		"connection.blocked": true, "consumer_priorities": true, "authentication_failure_close": true, "per_consumer_qos": true,
	}
	c.tell(method(10, 10).octet(0).octet(9).table(table{"product": "fake", "capabilities": capabilities}).longtext("PLAIN EXTERNAL").longtext("en_US"))
	r, err := c.hear()
	if err != nil {
		return err
	}
	r.table()
	mechanism, response := r.text(), r.longtext()
	if mechanism == "PLAIN" && response != "\x00guest\x00guest" {
		c.tell(method(10, 50).short(403).text("ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN").short(0).short(0))
		_, _ = c.hear() // its answer
		return io.EOF
	}
	c.tell(method(10, 30).short(2047).long(frameMax).short(60))
	if _, err := c.hear(); err != nil {
		return err
	}
	if r, err = c.hear(); err != nil {
		return err
	}
	if vhost := r.text(); vhost != "/" {
		c.tell(method(10, 50).short(530).text("NOT_ALLOWED - vhost " + vhost + " not found").short(10).short(40))
		_, _ = c.hear() // its answer
		return io.EOF
	}
	c.tell(method(10, 41).text(""))
	return nil
}

func (c *conn) tell(w *out) {
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	c.method(0, w)
}

// hear reads the next method, without its name.
func (c *conn) hear() (*in, error) {
	for {
		f, err := readFrame(c.r)
		if err != nil {
			return nil, err
		}
		if f.kind == frameMethod {
			r := &in{f.payload}
			r.take(4)
			return r, nil
		}
	}
}

// take acts on a frame; false when the connection is over.
func (c *conn) take(f frame) bool {
	if f.channel == 0 {
		r := &in{f.payload}
		r.short()
		if r.short() == 50 {
			c.method(0, method(10, 51))
			return false
		}
		return true
	}
	ch := c.channels[f.channel]
	if ch == nil {
		ch = newChannel(c, f.channel)
		c.channels[f.channel] = ch
	}
	if wrong := ch.take(f); wrong != nil {
		ch.end()
		ch.closing = true
		c.method(ch.id, method(20, 40).short(wrong.code).text(strings.ToValidUTF8(wrong.text, "?")).short(0).short(0))
	}
	return true
}

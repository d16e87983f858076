package http

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"

	"golang.org/x/net/http2/hpack"

	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/invoke/message"
)

// upgrades turns connections that began as HTTP/1.1 into HTTP/2 when their first
// request asks for it with "Upgrade: h2c". net/http knows HTTP/2 with prior
// knowledge only; so it is a listener that hands such connections to the same
// server once more, now as HTTP/2. All limits and the drain are the server's.
type upgrades struct {
	conns  chan net.Conn
	closed chan struct{}
	close  func()
}

func newUpgrades() *upgrades {
	u := &upgrades{conns: make(chan net.Conn), closed: make(chan struct{})}
	u.close = sync.OnceFunc(func() { close(u.closed) })
	return u
}

// Accept implements [net.Listener].
func (u *upgrades) Accept() (net.Conn, error) {
	select {
	case c := <-u.conns:
		return c, nil
	case <-u.closed:
		return nil, net.ErrClosed
	}
}

// Close implements [net.Listener].
func (u *upgrades) Close() error {
	u.close()
	return nil
}

// Addr implements [net.Listener].
func (u *upgrades) Addr() net.Addr { return &net.UnixAddr{Name: "upgrades", Net: "unix"} }

// take upgrades the connection of a request that asks for it. It tells whether
// it did: a server need not, and this one does not for a request with a body.
func (u *upgrades) take(w http.ResponseWriter, r *http.Request) bool {
	if !asksForHTTP2(r) || r.ContentLength != 0 {
		return false
	}
	first, ok := asStream(r)
	if !ok {
		return false
	}
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return false
	}
	if _, err := io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"); err != nil {
		_ = conn.Close() // the client is gone
		return true
	}
	select {
	case u.conns <- newUpgraded(conn, buffered.Reader, first):
	case <-u.closed:
		_ = conn.Close() // the server stops
	}
	return true
}

// asksForHTTP2 tells whether a request asks for HTTP/2 as RFC 7540 3.2 has it.
// What it says of its settings is said again in the first frame.
func asksForHTTP2(r *http.Request) bool {
	settings := r.Header["Http2-Settings"]
	if !r.ProtoAtLeast(1, 1) || r.ProtoMajor != 1 || len(settings) != 1 ||
		!message.HasToken(r.Header["Upgrade"], "h2c") || !message.HasToken(r.Header["Connection"], "Upgrade") || !message.HasToken(r.Header["Connection"], "HTTP2-Settings") {
		return false
	}
	raw, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(settings[0], "="))
	const setting = 6 // bytes
	return err == nil && len(raw)%setting == 0
}

// What is needed of HTTP/2 here.
const (
	preface       = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	frameHead     = 9       // bytes before the payload of a frame
	maxFrame      = 1 << 14 // of the payload, before anything else was agreed on
	headersFrame  = 1
	settingsFrame = 4
	endsAll       = 0x1 | 0x4 // the headers, and the stream on this side
)

// asStream writes a request without a body as the frame that begins stream 1,
// the one an upgrade answers on. Nothing of it enters the table that client and
// server keep of headers, of which the client knows only its own.
func asStream(r *http.Request) (frame []byte, ok bool) {
	var b bytes.Buffer
	b.Write(make([]byte, frameHead))
	e := hpack.NewEncoder(&b)
	put := func(name, value string) {
		_ = e.WriteField(hpack.HeaderField{Name: name, Value: value, Sensitive: true}) // into memory
	}
	put(":method", r.Method)
	put(":scheme", "http")
	put(":authority", r.Host)
	put(":path", r.RequestURI)
	for name, values := range r.Header {
		switch name {
		case "Connection", "Upgrade", "Http2-Settings", "Keep-Alive", "Proxy-Connection", "Transfer-Encoding", "Te":
			continue // of this connection, as HTTP/1.1
		}
		for _, v := range values {
			put(strings.ToLower(name), v)
		}
	}
	frame = b.Bytes()
	n := len(frame) - frameHead
	frame[0], frame[1], frame[2], frame[3], frame[4], frame[8] = byte(n>>16), byte(n>>8), byte(n), headersFrame, endsAll, 1
	return frame, n <= maxFrame
}

// upgraded is a connection after the 101. Behind what the client begins with, as
// every client of HTTP/2 does, stands its first request, which it has sent before.
type upgraded struct {
	net.Conn
	rest   io.Reader // of the client
	first  []byte    // the request
	begun  bool
	before []byte // still to be read before the rest
}

func newUpgraded(c net.Conn, buffered *bufio.Reader, first []byte) *upgraded {
	ahead, _ := buffered.Peek(buffered.Buffered()) // it is there
	return &upgraded{Conn: c, rest: io.MultiReader(bytes.NewReader(bytes.Clone(ahead)), c), first: first}
}

// Read implements [net.Conn].
func (c *upgraded) Read(p []byte) (int, error) {
	if !c.begun {
		if err := c.begin(); err != nil {
			return 0, err
		}
	}
	if len(c.before) > 0 {
		n := copy(p, c.before)
		c.before = c.before[n:]
		return n, nil
	}
	return c.rest.Read(p)
}

// begin reads the preface and the settings of the client.
func (c *upgraded) begin() error {
	c.before = make([]byte, len(preface)+frameHead)
	if _, err := io.ReadFull(c.rest, c.before); err != nil {
		return err
	}
	head := c.before[len(preface):]
	size := int(head[0])<<16 | int(head[1])<<8 | int(head[2])
	if string(c.before[:len(preface)]) != preface || head[3] != settingsFrame || size > maxFrame {
		return fault.New(fault.Invalid, "upgrade to http/2: the client does not begin with its settings")
	}
	settings := make([]byte, size)
	if _, err := io.ReadFull(c.rest, settings); err != nil {
		return err
	}
	c.before = append(append(c.before, settings...), c.first...)
	c.begun = true
	return nil
}

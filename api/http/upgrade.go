package http

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"

	"golang.org/x/net/http2"

	"github.com/penstock-io/penstock/api"
)

// upgrades are the connections that began as HTTP/1.1 and went on as HTTP/2,
// because their first request asked for it with "Upgrade: h2c". net/http knows
// HTTP/2 with prior knowledge only, and forgets a connection that it gave away;
// so these are kept, told to end and closed here.
type upgrades struct {
	base    *http.Server // never serves; its settings and its Shutdown are those of the connections
	h2      *http2.Server
	handler http.Handler

	mu    sync.Mutex
	conns map[net.Conn]struct{} // under mu
	ended chan struct{}         // under mu; not nil once no more are taken, closed when none is left
}

func newUpgrades(like *http.Server, h http.Handler) *upgrades {
	u := &upgrades{
		base: &http.Server{
			MaxHeaderBytes: like.MaxHeaderBytes, ReadTimeout: like.ReadTimeout, IdleTimeout: like.IdleTimeout, ErrorLog: like.ErrorLog,
		},
		h2: &http2.Server{MaxConcurrentStreams: maxStreams}, handler: h, conns: map[net.Conn]struct{}{},
	}
	if err := http2.ConfigureServer(u.base, u.h2); err != nil {
		panic(err) // it is about TLS, of which there is none
	}
	return u
}

// take upgrades the connection of a request that asks for it and serves it to
// its end. It tells whether it did; a server need not, and this one does not for
// a first request with a large body, which it would have to keep meanwhile.
func (u *upgrades) take(w http.ResponseWriter, r *http.Request) bool {
	settings, ok := upgradeSettings(r)
	if !ok || r.ContentLength < 0 || r.ContentLength > firstRead {
		return false
	}
	body, err := readKnown(r.Body, int(r.ContentLength))
	if err != nil {
		w.Header().Set("Connection", "close")
		respondError(w, api.Errorf(api.BodyRead, "read request body: %w", err))
		return true
	}
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		r.Body = io.NopCloser(bytes.NewReader(body))
		return false
	}
	defer conn.Close()
	if !u.add(conn) {
		return true
	}
	defer u.remove(conn)
	if _, err := io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"); err != nil {
		return true // the client is gone
	}
	first := r.Clone(r.Context())
	first.Body = io.NopCloser(bytes.NewReader(body))
	for _, name := range []string{"Connection", "Upgrade", "Http2-Settings"} {
		first.Header.Del(name)
	}
	u.h2.ServeConn(&readAhead{Conn: conn, ahead: buffered.Reader}, &http2.ServeConnOpts{
		Context: r.Context(), BaseConfig: u.base, Handler: u.handler, UpgradeRequest: first, Settings: settings,
	})
	return true
}

// upgradeSettings tells whether a request asks for HTTP/2 as RFC 7540 3.2 has it,
// and returns the settings that it brings.
func upgradeSettings(r *http.Request) ([]byte, bool) {
	given := r.Header["Http2-Settings"]
	if r.ProtoMajor != 1 || r.ProtoMinor != 1 || len(given) != 1 ||
		!hasToken(r.Header["Upgrade"], "h2c") || !hasToken(r.Header["Connection"], "Upgrade") || !hasToken(r.Header["Connection"], "HTTP2-Settings") {
		return nil, false
	}
	settings, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(given[0], "="))
	const setting = 6 // bytes
	return settings, err == nil && len(settings)%setting == 0
}

func hasToken(values []string, token string) bool {
	for _, v := range values {
		for part := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.Trim(part, " \t"), token) {
				return true
			}
		}
	}
	return false
}

func (u *upgrades) add(c net.Conn) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ended != nil {
		return false
	}
	u.conns[c] = struct{}{}
	return true
}

func (u *upgrades) remove(c net.Conn) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.conns, c)
	if len(u.conns) == 0 && u.ended != nil {
		close(u.ended)
	}
}

// shutdown takes no more connections, tells the clients of those there are to
// send no more requests, and returns when all are gone or ctx ends.
func (u *upgrades) shutdown(ctx context.Context) error {
	u.mu.Lock()
	u.ended = make(chan struct{})
	ended := u.ended
	if len(u.conns) == 0 {
		close(ended)
	}
	u.mu.Unlock()
	if err := u.base.Shutdown(ctx); err != nil {
		return err
	}
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// close closes what is left.
func (u *upgrades) close() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for c := range u.conns {
		_ = c.Close() // its requests end with it; there is nobody to tell
	}
}

// readAhead reads what net/http had read of a connection before it goes on with
// the connection.
type readAhead struct {
	net.Conn
	ahead *bufio.Reader
}

// Read implements [net.Conn].
func (c *readAhead) Read(p []byte) (int, error) {
	if n := c.ahead.Buffered(); n > 0 {
		return c.ahead.Read(p[:min(n, len(p))])
	}
	return c.Conn.Read(p)
}

package http_test

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	apihttp "github.com/penstock-io/penstock/api/http"
)

// client is one HTTP/2 connection that began as HTTP/1.1.
type client struct {
	net.Conn
	f *http2.Framer
	h *hpack.Encoder
	b *bytes.Buffer
}

const asksForH2 = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n"

// upgrade sends a request that asks for HTTP/2 and takes the 101.
func upgrade(t *testing.T, addr, request string) *client {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	must(t, c.SetDeadline(time.Now().Add(time.Minute)))
	_, err = io.WriteString(c, request+http2.ClientPreface)
	must(t, err)
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, nil)
	must(t, err)
	if resp.StatusCode != 101 || resp.Header.Get("Upgrade") != "h2c" {
		t.Fatalf("%s %v, want 101", resp.Status, resp.Header)
	}
	cl := &client{Conn: c, f: http2.NewFramer(c, r), b: &bytes.Buffer{}}
	cl.h = hpack.NewEncoder(cl.b)
	cl.f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	must(t, cl.f.WriteSettings())
	return cl
}

// get sends a request on a stream, with so many headers of 100 bytes.
func (c *client) get(t *testing.T, stream uint32, host, path string, headers int) {
	t.Helper()
	c.b.Reset()
	fields := [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", host}, {":path", path}}
	for range headers {
		fields = append(fields, [2]string{"x", strings.Repeat("x", 99)})
	}
	for _, f := range fields {
		must(t, c.h.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}))
	}
	must(t, c.f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: c.b.Bytes(), EndHeaders: true, EndStream: true}))
}

// status reads on to the answer on a stream.
func (c *client) status(t *testing.T, stream uint32) string {
	t.Helper()
	for {
		frame, err := c.f.ReadFrame()
		must(t, err)
		switch f := frame.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				must(t, c.f.WriteSettingsAck())
			}
		case *http2.MetaHeadersFrame:
			if f.StreamID == stream {
				return f.PseudoValue("status")
			}
		}
	}
}

// A client that asks for HTTP/2 gets it, with its first request served, and
// the same checks on every request.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	i := start(t)
	addr, stop := serve(t, i.handler(apihttp.Options{Tokens: []string{"x"}, MaxBody: 10}), apihttp.ServerOptions{})
	for _, row := range []struct{ name, request, status string }{
		{"health", "GET /v1.0/healthz HTTP/1.1\r\nHost: localhost\r\n" + asksForH2 + "\r\n", "204"},
		{"token and query", "POST /v1.0/publish/bus/a%2Fb?metadata.ttlInSeconds=10 HTTP/1.1\r\nHost: localhost\r\nDapr-Api-Token: x\r\nContent-Length: 0\r\n" + asksForH2 + "\r\n", "204"},
		{"no token", "GET /v1.0/metadata HTTP/1.1\r\nHost: localhost\r\n" + asksForH2 + "\r\n", "401"},
		{"other host", "GET /v1.0/healthz HTTP/1.1\r\nHost: evil.test\r\n" + asksForH2 + "\r\n", "403"},
		{"other origin", "GET /v1.0/healthz HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.test\r\n" + asksForH2 + "\r\n", "403"},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := upgrade(t, addr, row.request)
			if got := c.status(t, 1); got != row.status {
				t.Errorf("first request: %s, want %s", got, row.status)
			}
			for n, later := range []struct {
				host, path string
				headers    int
				status     string
			}{
				{"localhost", "/v1.0/healthz", 0, "204"},
				{"evil.test", "/v1.0/healthz", 0, "403"},
				{"localhost", "/v1.0/metadata", 0, "401"},
				{"localhost", "/v1.0/healthz", 80, "431"},
			} {
				stream := uint32(2*n + 3)
				c.get(t, stream, later.host, later.path, later.headers)
				if got := c.status(t, stream); got != later.status {
					t.Errorf("%s%s: %s, want %s", later.host, later.path, got, later.status)
				}
			}
		})
	}
	if all := i.broker.all(); len(all) != 1 || all[0].topic != "a/b" {
		t.Errorf("published %v", all)
	}
	began := time.Now()
	must(t, stop())
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("idle connections held up the stop for %v", took)
	}
}

// What is no proper request for HTTP/2 is served as the HTTP/1.1 it is.
func TestNoUpgrade(t *testing.T) {
	t.Parallel()
	i := start(t)
	addr, _ := serve(t, i.handler(apihttp.Options{}), apihttp.ServerOptions{})
	head := "POST /v1.0/publish/bus/t HTTP/1.1\r\nHost: localhost\r\n"
	for name, request := range map[string]string{
		"other protocol":    head + strings.Replace(asksForH2, "h2c", "websocket", 1) + "Content-Length: 0\r\n\r\n",
		"h2 over TLS":       head + strings.Replace(asksForH2, "h2c", "h2", 1) + "Content-Length: 0\r\n\r\n",
		"no settings":       head + "Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 0\r\n\r\n",
		"two settings":      head + asksForH2 + "HTTP2-Settings: AAMAAABk\r\nContent-Length: 0\r\n\r\n",
		"settings cut off":  head + strings.Replace(asksForH2, "AAAAA\r\n", "A\r\n", 1) + "Content-Length: 0\r\n\r\n",
		"not on connection": head + strings.Replace(asksForH2, "Connection: Upgrade, HTTP2-Settings", "Connection: Upgrade", 1) + "Content-Length: 0\r\n\r\n",
		"chunks":            head + asksForH2 + "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
		"body":              head + asksForH2 + "Content-Length: 1\r\n\r\nx",
		"HTTP/1.0":          strings.Replace(head, "1.1", "1.0", 1) + asksForH2 + "Content-Length: 0\r\n\r\n",
	} {
		if status, body, _ := talk(t, addr, request); status != 204 {
			t.Errorf("%s: %d %s", name, status, body)
		}
	}
}

// A stop waits for requests on such connections like for any other, and cuts
// those that do not finish.
func TestStopCoversUpgrades(t *testing.T) {
	t.Parallel()
	begun, finish := make(chan struct{}), make(chan struct{})
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(begun)
		select {
		case <-finish:
			w.WriteHeader(204)
		case <-r.Context().Done():
		}
	})
	for name, drain := range map[string]time.Duration{"finishes": 30 * time.Second, "is cut": 50 * time.Millisecond} {
		begun, finish = make(chan struct{}), make(chan struct{})
		addr, stop := serve(t, h, apihttp.ServerOptions{Drain: drain})
		c := upgrade(t, addr, "GET / HTTP/1.1\r\nHost: localhost\r\n"+asksForH2+"\r\n")
		<-begun
		result := make(chan error, 1)
		go func() { result <- stop() }()
		if name == "is cut" {
			must(t, <-result)
			continue
		}
		for {
			frame, err := c.f.ReadFrame()
			must(t, err)
			if _, away := frame.(*http2.GoAwayFrame); away {
				break
			}
		}
		close(finish)
		if got := c.status(t, 1); got != "204" {
			t.Errorf("answer during the stop: %s", got)
		}
		must(t, c.Close())
		must(t, <-result)
	}
}

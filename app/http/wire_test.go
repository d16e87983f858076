package http

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/penstock-io/penstock/fault"
)

// counting counts the connections to a server.
func counting(t *testing.T, h http.HandlerFunc) (url string, opened *atomic.Int32) {
	t.Helper()
	opened = &atomic.Int32{}
	s := httptest.NewUnstartedServer(h)
	s.Config.ConnState = func(_ net.Conn, st http.ConnState) {
		if st == http.StateNew {
			opened.Add(1)
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	return s.URL, opened
}

func echo(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	_, _ = w.Write(body)
}

func TestConnectionsAreKept(t *testing.T) {
	t.Parallel()
	url, opened := counting(t, echo)
	c := channel(t, url, Options{MaxConcurrency: 4})
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			for j := range 50 {
				want := fmt.Sprintf("%d/%d", i, j)
				a, err := c.Call(t.Context(), &Request{Path: "/", Body: []byte(want)})
				if err != nil || string(a.Body) != want {
					t.Errorf("answer %v, %v; want %s", a, err, want)
				}
			}
		})
	}
	group.Wait()
	if n := len(c.wire.idle); n == 0 || n > 4 {
		t.Errorf("%d idle connections, want 1 to 4", n)
	}
	before := opened.Load()
	for range 20 {
		if _, err := c.Call(t.Context(), &Request{Path: "/"}); err != nil {
			t.Fatal(err)
		}
	}
	if opened.Load() != before {
		t.Errorf("%d new connections for calls one after the other", opened.Load()-before)
	}
}

// TestLargeRequests cross the border between wire and transport; the app
// answers before it has read all of them.
func TestLargeRequests(t *testing.T) {
	t.Parallel()
	for _, size := range []int{smallBody - 1, smallBody, smallBody + 1, 8 << 20} {
		body := bytes.Repeat([]byte("x"), size)
		c := channel(t, serve(t, echo), Options{MaxBody: 16 << 20})
		if a, err := c.Call(t.Context(), &Request{Path: "/", Body: body}); err != nil || !bytes.Equal(a.Body, body) {
			t.Errorf("%d bytes: %v", size, err)
		}
		early := channel(t, serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
		}), Options{})
		if size <= smallBody {
			if a, err := early.Call(t.Context(), &Request{Path: "/", Body: body}); err != nil || a.Status != 413 {
				t.Errorf("%d bytes, answered early: %v, %v", size, a, err)
			}
		}
	}
}

// TestClosedIdleConnection wants a request that may not be made twice to go
// over a new connection when the app has closed the idle one.
func TestClosedIdleConnection(t *testing.T) {
	t.Parallel()
	closed := make(chan struct{}, 1)
	s := httptest.NewUnstartedServer(http.HandlerFunc(echo))
	s.Config.ConnState = func(_ net.Conn, st http.ConnState) {
		if st == http.StateClosed {
			closed <- struct{}{}
		}
	}
	s.Config.IdleTimeout = 5 * time.Millisecond
	s.Start()
	t.Cleanup(s.Close)
	c := channel(t, s.URL, Options{})
	for range 3 {
		a, err := c.Call(t.Context(), &Request{Path: "/", Body: []byte("once")})
		if err != nil || string(a.Body) != "once" {
			t.Fatalf("%v, %v", a, err)
		}
		<-closed
		l := c.wire.idle[0]
		for deadline := time.Now().Add(60 * time.Second); quiet(l); { // until the end has come over
			if time.Now().After(deadline) {
				t.Fatal("the closed connection looks alive")
			}
		}
	}
}

// TestUnaskedAnswer wants an answer that nobody asked for to reach nobody.
func TestUnaskedAnswer(t *testing.T) {
	t.Parallel()
	sent := make(chan struct{})
	c := channel(t, serve(t, func(w http.ResponseWriter, r *http.Request) {
		conn, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(rw, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		_ = rw.Flush()
		<-sent
		_, _ = io.WriteString(rw, "HTTP/1.1 500 Evil\r\nContent-Length: 0\r\n\r\n")
		_ = rw.Flush()
		_, _ = io.Copy(io.Discard, rw) // until the other side is gone
	}), Options{})
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	for range 2 {
		a, err := c.Call(ctx, &Request{Path: "/", Header: http.Header{"Idempotency-Key": nil}})
		if err != nil || a.Status != 200 {
			t.Fatalf("%v, %v", a, err)
		}
		l := c.wire.idle[0]
		sent <- struct{}{}
		for quiet(l) { // until it has come over
			if ctx.Err() != nil {
				t.Fatal("the answer nobody asked for did not come")
			}
		}
	}
	c.Close()
}

func TestOddAnswers(t *testing.T) {
	t.Parallel()
	for _, r := range []struct {
		name, answer, body string
		status             int
	}{
		{"after early hints", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "ok", 200},
		{"HTTP/1.0", "HTTP/1.0 200 OK\r\n\r\nold", "old", 200},
		{"more than announced", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 500 Evil\r\n\r\n", "ok", 200},
		{"trailers", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n2\r\nok\r\n0\r\nX: y\r\n\r\n", "ok", 200},
		{"no content with content", "HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nevil", "", 204},
	} {
		c := channel(t, rawServer(t, func(w io.Writer) { _, _ = io.WriteString(w, r.answer) }), Options{})
		for range 2 { // the second shows that nothing is left over from the first
			a, err := c.Call(t.Context(), &Request{Path: "/", Header: http.Header{"Idempotency-Key": nil}})
			if err != nil || a.Status != r.status || string(a.Body) != r.body {
				t.Errorf("%s: %v, %v", r.name, a, err)
			}
		}
	}
}

func TestTimeoutOfRequest(t *testing.T) {
	t.Parallel()
	c := channel(t, serve(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}), Options{})
	for _, size := range []int{0, smallBody + 1} {
		_, err := c.Call(t.Context(), &Request{Path: "/", Body: make([]byte, size), Timeout: 30 * time.Millisecond})
		if fault.KindOf(err) != fault.Timeout {
			t.Errorf("%d bytes: error = %v of kind %v, want timeout", size, err, fault.KindOf(err))
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Call(ended, &Request{Path: "/"}); err == nil {
		t.Error("a call with an ended context was made")
	}
}

func TestOldConnectionsAreClosed(t *testing.T) {
	t.Parallel()
	url, _ := counting(t, echo)
	c := channel(t, url, Options{})
	w := c.wire
	for range 3 {
		l, err := w.open(t.Context(), time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		w.put(l)
	}
	for _, l := range w.idle[:2] {
		l.since = l.since.Add(-idleTime)
	}
	w.closeOld()
	if len(w.idle) != 1 || w.sweep == nil {
		t.Errorf("%d idle connections, want the young one, and another look", len(w.idle))
	}
	w.idle[0].since = w.idle[0].since.Add(-idleTime)
	w.closeOld()
	if len(w.idle) != 0 || w.sweep != nil {
		t.Errorf("%d idle connections, want none, and no other look", len(w.idle))
	}
}

// FuzzMessage wants every request to be read as it was meant, whatever path and
// headers are.
func FuzzMessage(f *testing.F) {
	f.Add("POST", "/orders?a=b", "Traceparent", "00-1", []byte("{}"))
	f.Add("GET", "/a b", "X\r\nEvil", "a\r\nEvil: 1\r\n\r\nGET /admin HTTP/1.1", []byte(""))
	f.Add("POST", "//x", "Content-Length", "0", []byte("GET / HTTP/1.1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, method, path, name, value string, body []byte) {
		if !isToken(method) || len(path)+len(name)+len(value) > 1000 {
			t.Skip()
		}
		c, err := New(Options{Port: 80})
		if err != nil {
			t.Fatal(err)
		}
		u, err := c.url(path)
		if err != nil {
			t.Skip()
		}
		m := &message{method: method, target: u.RequestURI(), host: "app:80", header: http.Header{name: {value}}, body: body}
		in := bufio.NewReader(bytes.NewReader(m.append(nil)))
		r, err := http.ReadRequest(in)
		if err != nil {
			if strings.Contains(m.target, " ") || method == "CONNECT" || method == "PRI" {
				t.Skip() // refused by the reader, not misread
			}
			t.Fatalf("%v: %q", err, m.append(nil))
		}
		got, err := io.ReadAll(r.Body)
		if err != nil || !bytes.Equal(got, body) || r.Method != method || r.RequestURI != m.target || r.Host != "app:80" || len(r.Header) > 2 {
			t.Errorf("read as %v %v %v %q, %v", r.Method, r.RequestURI, r.Header, got, err)
		}
		if _, err := in.ReadByte(); err != io.EOF {
			t.Error("there is more than one request")
		}
	})
}

// FuzzWireAnswer has an app answer anything; nothing panics, hangs or is larger
// than allowed.
func FuzzWireAnswer(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
	f.Add([]byte("HTTP/1.1 103 X\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 101 X\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"))
	f.Fuzz(func(t *testing.T, answer []byte) {
		c, err := New(Options{Port: 80, MaxBody: 1000})
		if err != nil {
			t.Fatal(err)
		}
		c.wire.dial = func(context.Context, string, string) (net.Conn, error) {
			return &canned{in: bytes.NewReader(answer)}, nil
		}
		a, err := c.Call(t.Context(), &Request{Path: "/"})
		if err == nil && len(a.Body) > 1000 {
			t.Errorf("%d bytes", len(a.Body))
		}
		c.Close()
	})
}

// canned is a connection that says what is in it.
type canned struct {
	net.Conn
	in *bytes.Reader
}

func (c *canned) Read(b []byte) (int, error)  { return c.in.Read(b) }
func (c *canned) Write(b []byte) (int, error) { return len(b), nil }
func (c *canned) Close() error                { return nil }
func (c *canned) SetDeadline(time.Time) error { return nil }

package http

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/penstock-io/penstock/app"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/resilience"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// channel makes a channel to a web server.
func channel(t testing.TB, server string, o Options) *Channel {
	t.Helper()
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	o.Port, _ = strconv.Atoi(u.Port())
	if o.Address == "" {
		o.Address = u.Hostname()
	}
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func serve(t testing.TB, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

// rawServer answers every connection with what answer writes after it has read
// the head of one request.
func rawServer(t *testing.T, answer func(w io.Writer)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			if req, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
				_, _ = io.Copy(io.Discard, req.Body)
				answer(conn)
			}
			conn.Close()
		}
	}()
	return "http://" + l.Addr().String()
}

// endless writes text until the other side has had enough; it counts.
func endless(w io.Writer, text string, limit int) int {
	n := 0
	for n < limit {
		m, err := io.WriteString(w, text)
		if n += m; err != nil {
			break
		}
	}
	return n
}

// hostile is an app that misbehaves, and what a call of it says.
type hostile struct {
	name   string
	answer func(w io.Writer)
	want   fault.Kind
	text   string
}

const maxTestBody = 1 << 20

func TestEndlessApps(t *testing.T) {
	t.Parallel()
	const gig = 1 << 30
	block := strings.Repeat("x", 64<<10)
	var wrote atomic.Int64
	t.Cleanup(func() {
		if n := wrote.Load(); n > 64<<20 {
			t.Errorf("%d MB were taken from the apps", n>>20)
		}
	})
	testHostile(t, []hostile{
		{"1 GB announced", func(w io.Writer) {
			fmt.Fprintf(w, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", gig)
			wrote.Add(int64(endless(w, block, gig)))
		}, fault.Exhausted, "more than 1048576 bytes"},
		{"1 GB in chunks", func(w io.Writer) {
			_, _ = io.WriteString(w, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
			wrote.Add(int64(endless(w, fmt.Sprintf("%x\r\n%s\r\n", len(block), block), gig)))
		}, fault.Exhausted, "more than 1048576 bytes"},
		{"1 GB until the end", func(w io.Writer) {
			_, _ = io.WriteString(w, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
			wrote.Add(int64(endless(w, block, gig)))
		}, fault.Exhausted, "more than 1048576 bytes"},
		{"100 MB of headers", func(w io.Writer) {
			_, _ = io.WriteString(w, "HTTP/1.1 200 OK\r\n")
			wrote.Add(int64(endless(w, "X: "+block[:8000]+"\r\n", 100<<20)))
		}, fault.Unavailable, "headers exceeded"},
		{"endless early hints", func(w io.Writer) {
			wrote.Add(int64(endless(w, "HTTP/1.1 103 Early Hints\r\nLink: "+block[:8000]+"\r\n\r\n", 100<<20)))
		}, fault.Unavailable, "headers exceeded"},
	})
}

func TestBrokenApps(t *testing.T) {
	t.Parallel()
	testHostile(t, []hostile{
		{"cut in the body", func(w io.Writer) {
			_, _ = io.WriteString(w, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
		}, fault.Unavailable, "unexpected EOF"},
		{"cut in a chunk", func(w io.Writer) {
			_, _ = io.WriteString(w, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nhalf")
		}, fault.Unavailable, "unexpected EOF"},
		{"cut in the head", func(w io.Writer) { _, _ = io.WriteString(w, "HTTP/1.1 200") }, fault.Unavailable, "unexpected EOF"},
		{"nothing", func(io.Writer) {}, fault.Unavailable, "EOF"},
		{"nonsense", func(w io.Writer) { _, _ = io.WriteString(w, "220 mail.example ESMTP\r\n") }, fault.Unavailable, "; is --app-protocol right?"},
		{"nonsense length", func(w io.Writer) { _, _ = io.WriteString(w, "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n") }, fault.Unavailable, "bad Content-Length"},
		{"another protocol", func(w io.Writer) {
			_, _ = io.WriteString(w, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
		}, fault.Invalid, "switch protocols"},
		{"slow drip", func(w io.Writer) {
			_, _ = io.WriteString(w, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for range 1000 {
				if _, err := io.WriteString(w, "."); err != nil {
					return
				}
				<-tick.C
			}
		}, fault.Timeout, "deadline exceeded"},
	})
}

func testHostile(t *testing.T, rows []hostile) {
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			c := channel(t, rawServer(t, r.answer), Options{MaxBody: maxTestBody})
			patience := time.Minute
			if r.want == fault.Timeout {
				patience = time.Second
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			answer, err := c.Call(ctx, &Request{Path: "/orders", Body: []byte("{}")})
			if err == nil || !strings.Contains(err.Error(), r.text) || fault.KindOf(err) != r.want {
				t.Errorf("answer = %v, error = %v of kind %v; want %q of kind %v", answer, err, fault.KindOf(err), r.text, r.want)
			}
		})
	}
}

func TestNeverAnswers(t *testing.T) {
	t.Parallel()
	c := channel(t, serve(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}), Options{})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if _, err := c.Call(ctx, &Request{Path: "/"}); fault.KindOf(err) != fault.Timeout {
		t.Errorf("error = %v of kind %v, want timeout", err, fault.KindOf(err))
	}
}

func TestRefusedIsUnreachable(t *testing.T) {
	t.Parallel()
	c := channel(t, "http://127.0.0.1:1", Options{})
	for name, err := range map[string]error{
		"call":  second(c.Call(t.Context(), &Request{Path: "/"})),
		"reach": c.Reach(t.Context()),
	} {
		if fault.KindOf(err) != fault.Unavailable || !isOpen(err) {
			t.Errorf("%s: error = %v of kind %v, want an unreachable app", name, err, fault.KindOf(err))
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestAnswerSizes(t *testing.T) {
	t.Parallel()
	for _, size := range []int{0, 1, 510, 511, 512, 513, 100_000, 1 << 20} {
		for _, chunked := range []bool{false, true} {
			c := channel(t, serve(t, func(w http.ResponseWriter, _ *http.Request) {
				if chunked {
					w.(http.Flusher).Flush()
				} else {
					w.Header().Set("Content-Length", strconv.Itoa(size))
				}
				_, _ = io.WriteString(w, strings.Repeat("x", size))
			}), Options{MaxBody: 1 << 20})
			a, err := c.Call(t.Context(), &Request{Path: "/"})
			if err != nil || len(a.Body) != size {
				t.Errorf("size %d, chunked %v: %v", size, chunked, err)
			}
		}
	}
}

func TestRequestHeaders(t *testing.T) {
	t.Parallel()
	var got http.Header
	c := channel(t, serve(t, func(_ http.ResponseWriter, r *http.Request) { got = r.Header }), Options{Token: "s3cret"})
	_, err := c.Call(t.Context(), &Request{
		Path: "/", ContentType: "text/plain\r\nX-Evil: 1", Header: http.Header{"Traceparent": {"mine"}},
		Metadata: map[string]string{
			"rawPayload": "true", "ce_id": "1", "traceparent": "theirs", "Dapr-API-Token": "forged",
			"Content-Length": "99", "Host": "evil", "Connection": "close", "Transfer-Encoding": "chunked",
			"accept-encoding": "gzip", "bad:name": "x", "bad\r\nname": "x", "": "x", "empty": "",
			"percent": "100%", "crlf": "a\r\nb%", "utf8": "é", "nul": "\x00", "large": strings.Repeat("x", maxMetaValue+1),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := http.Header{
		"Dapr-Api-Token": {"s3cret"}, "Traceparent": {"mine"}, "User-Agent": {"penstock"}, "Content-Length": {"0"},
		"Content-Type": {"text/plain%0D%0AX-Evil: 1"}, "Rawpayload": {"true"}, "Ce_id": {"1"}, "Empty": {""},
		"Percent": {"100%"}, "Crlf": {"a%0D%0Ab%25"}, "Utf8": {"%C3%A9"}, "Nul": {"%00"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
}

func TestMetadataIsBounded(t *testing.T) {
	t.Parallel()
	many, wide := map[string]string{}, map[string]string{}
	for i := range 100_000 {
		many[fmt.Sprintf("n%06d", i)] = "v"
	}
	for i := range 50 {
		wide[fmt.Sprintf("n%02d", i)] = strings.Repeat("v", 8000)
	}
	for name, row := range map[string]struct {
		metadata map[string]string
		want     int
	}{"many": {many, maxMetaCount}, "wide": {wide, 4}} {
		h := http.Header{}
		addMetadata(h, row.metadata)
		if len(h) != row.want {
			t.Errorf("%s: %d headers, want %d", name, len(h), row.want)
		}
	}
}

func TestPaths(t *testing.T) {
	t.Parallel()
	var got string
	c := channel(t, serve(t, func(_ http.ResponseWriter, r *http.Request) { got = r.Host + " " + r.RequestURI }), Options{})
	for path, want := range map[string]string{
		"/a/b?c=d&e": "/a/b?c=d&e", "orders": "/orders", "": "/", "/a%2Fb": "/a%2Fb", "/ä b": "/%C3%A4%20b",
		"//evil/x": "//evil/x", "@evil": "/@evil", "/a#b": "/a%23b", "http://evil/": "/http://evil/",
	} {
		if _, err := c.Call(t.Context(), &Request{Path: path}); err != nil {
			t.Errorf("%q: %v", path, err)
			continue
		}
		if got != c.address+" "+want {
			t.Errorf("%q: request %q, want %q", path, got, want)
		}
	}
	for _, path := range []string{"/%zz", "/a\nb", "/\x00"} {
		if _, err := c.Call(t.Context(), &Request{Path: path}); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%q: error = %v, want invalid", path, err)
		}
	}
	for i := range 2 * maxURLs {
		if _, err := c.url(fmt.Sprintf("/%d", i)); err != nil {
			t.Fatal(err)
		}
	}
	if n := c.urlCount.Load(); n > maxURLs {
		t.Errorf("%d paths are remembered, the limit is %d", n, maxURLs)
	}
}

func TestRedirectsAreAnswers(t *testing.T) {
	t.Parallel()
	c := channel(t, serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/a" {
			t.Errorf("followed to %s", r.URL)
		}
		http.Redirect(w, r, "/b", http.StatusTemporaryRedirect)
	}), Options{})
	if a, err := c.Call(t.Context(), &Request{Path: "/a"}); err != nil || a.Status != 307 {
		t.Errorf("answer = %v, %v", a, err)
	}
}

// TestStaleConnection lets the app close an idle connection just when the next
// request is written to it, as servers with a short keep-alive do.
func TestStaleConnection(t *testing.T) {
	t.Parallel()
	var calls atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if calls.Add(1) == 2 { // the request arrives, and the connection dies
			conn, _, _ := w.(http.Hijacker).Hijack()
			conn.Close()
			return
		}
		_, _ = w.Write(body)
	}))
	t.Cleanup(server.Close)
	c := channel(t, server.URL, Options{})
	for i := range 2 {
		a, err := c.Call(t.Context(), &Request{Path: "/", Body: []byte("body"), Header: http.Header{"Idempotency-Key": nil}})
		if err != nil || string(a.Body) != "body" {
			t.Errorf("call %d: %v", i+1, err)
		}
	}
	calls.Store(1)
	if _, err := c.Call(t.Context(), &Request{Path: "/", Body: []byte("body")}); err == nil {
		t.Error("a request that may not be done twice was repeated")
	}
}

func TestProtocols(t *testing.T) {
	t.Parallel()
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) })
	h2c := httptest.NewUnstartedServer(handler)
	h2c.Config.Protocols = new(http.Protocols)
	h2c.Config.Protocols.SetUnencryptedHTTP2(true)
	h2c.Start()
	t.Cleanup(h2c.Close)
	tls := httptest.NewUnstartedServer(handler)
	tls.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	tls.EnableHTTP2 = true
	tls.StartTLS()
	t.Cleanup(tls.Close)
	for _, r := range []struct{ protocol, url, want string }{
		{"", serve(t, handler), "HTTP/1.1"},
		{"h2c", h2c.URL, "HTTP/2.0"},
		{"https", tls.URL, "HTTP/2.0"},
	} {
		c := channel(t, r.url, Options{Protocol: r.protocol})
		a, err := c.Call(t.Context(), &Request{Path: "/", Body: []byte("x")})
		if err != nil || string(a.Body) != r.want {
			t.Errorf("%q: %v, %v; want %s", r.protocol, a, err, r.want)
		}
	}
	// Away from loopback the certificate counts.
	c := channel(t, tls.URL, Options{Protocol: "https"})
	c.transport = newTransport(Options{Protocol: "https", Address: "app.example"})
	if _, err := c.Call(t.Context(), &Request{Path: "/"}); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("error = %v, want one about the certificate", err)
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	for want, o := range map[string]Options{
		"app port 0: want 1 to 65535":                                  {},
		"app port 70000: want 1 to 65535":                              {Port: 70000},
		`app protocol "grpc": want http, https or h2c`:                 {Port: 1, Protocol: "grpc"},
		`app address "http://x": want a host name or IP address alone`: {Port: 1, Address: "http://x"},
		"app API token: it holds characters that no header can carry":  {Port: 1, Token: "a\nb"},
		"app limits: none may be negative":                             {Port: 1, MaxBody: -1},
		`parse "/%zz": invalid URL escape "%zz"`:                       {Port: 1, HealthPath: "%zz"},
	} {
		if _, err := New(o); err == nil || err.Error() != want || fault.KindOf(err) != fault.Invalid {
			t.Errorf("error = %v, want %s", err, want)
		}
	}
	c, err := New(Options{Port: 80, Address: "[::1]"})
	if err != nil || c.address != "[::1]:80" || !app.IsLoopback(c.o.Address) {
		t.Errorf("address = %v, %v", c, err)
	}
}

func isOpen(err error) bool {
	return err != nil && strings.Contains(err.Error(), "refused") && errors.Is(err, resilience.ErrOpen)
}

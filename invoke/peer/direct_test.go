package peer_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/penstock-io/penstock/invoke/message"
	"github.com/penstock-io/penstock/invoke/peer"
)

// An app cannot speak for its sidecar.
func TestAnAppCannotRefuseForItsSidecar(t *testing.T) {
	t.Parallel()
	at := direct.listen(t, appFunc(func(context.Context, *message.Request) (*message.Response, error) {
		answer := text(http.StatusTeapot, "mine")
		answer.Header["Penstock-Status"] = []string{"14"}
		return answer, nil
	}), 0)
	answer, err := direct.client(t, at).Call(t.Context(), at, there, get())
	if err != nil {
		t.Fatal(err)
	}
	if body := all(t, answer.Body); answer.Status != http.StatusTeapot || body != "mine" || answer.Header["Penstock-Status"] != nil {
		t.Errorf("%d %q %v", answer.Status, body, answer.Header)
	}
}

func TestAccessOfDirectCalls(t *testing.T) {
	t.Parallel()
	a, calls := newIssuer(t), new(atomic.Int64)
	at := direct.serve(t, peer.ServerOptions{App: answers(calls), Identity: show(a.sign(t, nil)), Access: shopOnly()})
	shop, other := clientAs(t, show(a.sign(t, named("shop")))), clientAs(t, show(a.sign(t, named("other"))))
	learn := func(c *peer.Client) { // the call that tells of the way is refused or not like any other
		if answer, err := c.Call(t.Context(), at, there, &message.Request{Verb: "GET", Path: "orders", Header: http.Header{}}); err == nil {
			all(t, answer.Body)
		}
	}
	learn(shop)
	learn(other)
	for _, row := range []struct {
		c          *peer.Client
		verb, path string
		want       codes.Code
	}{
		{shop, "GET", "orders/7", codes.OK},
		{shop, "GET", "orders/a%20b", codes.OK},
		{shop, "POST", "orders/7", codes.PermissionDenied},
		{shop, "GET", "orders/secret", codes.PermissionDenied},
		{shop, "GET", "orders/%73ecret", codes.PermissionDenied},
		{other, "GET", "orders/7", codes.PermissionDenied},
	} {
		answer, err := row.c.Call(t.Context(), at, there, &message.Request{
			Verb: row.verb, Path: row.path, Header: http.Header{"Dapr-Caller-App-Id": {"shop"}},
		})
		if err == nil {
			if body := all(t, answer.Body); body != "spiffe://public/ns/default/shop shop" {
				t.Errorf("%s: called by %q", row.path, body)
			}
		}
		if got := codeOf(err); got != row.want {
			t.Errorf("%s %s: %v, want %s", row.verb, row.path, err, row.want)
		}
	}
}

func codeOf(err error) codes.Code {
	var coded interface{ GRPCCode() uint32 }
	if errors.As(err, &coded) {
		return codes.Code(coded.GRPCCode())
	}
	if err != nil {
		return codes.Unknown
	}
	return codes.OK
}

// serveAt serves an app at an address until stop is called.
func serveAt(t *testing.T, address string, o peer.ServerOptions) (at string, stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- peer.NewServer(o).Run(ctx, l) }()
	return l.Addr().String(), func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// repeated is a body that can be had once more.
type repeated struct{ io.Reader }

func (repeated) Close() error { return nil }

func (repeated) Again() (io.ReadCloser, error) { return repeated{strings.NewReader("body")}, nil }

// Whoever takes over an address is called as it wants: a Penstock that was started
// again goes on to be called directly, anybody else is called with messages.
func TestTheOtherSideIsReplaced(t *testing.T) {
	t.Parallel()
	app := appFunc(func(_ context.Context, r *message.Request) (*message.Response, error) {
		body, err := io.ReadAll(r.Body)
		return text(200, string(body)), err
	})
	at, stop := serveAt(t, "127.0.0.1:0", withDirect(t, peer.ServerOptions{App: app, Drain: time.Second}))
	c := direct.client(t, at)
	post := func() error {
		r := &message.Request{Verb: "POST", Path: "x", Header: http.Header{}, Body: repeated{strings.NewReader("body")}, Length: 4}
		answer, err := c.Call(t.Context(), at, there, r)
		if codeOf(err) == codes.Unavailable { // it went to the connection that was just closed
			r.Body, _ = repeated{}.Again()
			answer, err = c.Call(t.Context(), at, there, r)
		}
		if err == nil && all(t, answer.Body) != "body" {
			t.Error("the body did not come back")
		}
		return err
	}
	if err := post(); err != nil {
		t.Fatal(err)
	}
	stop()
	_, stop = serveAt(t, at, withDirect(t, peer.ServerOptions{App: app, Drain: time.Second}))
	if err := post(); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	stop()
	_, stop = serveAt(t, at, peer.ServerOptions{App: app, Drain: time.Second})
	defer stop()
	if err := post(); err != nil {
		t.Errorf("it takes no direct calls any more: %v", err)
	}
}

// A sidecar that takes no direct calls cannot pass a WebSocket on, and is none the
// worse for having been asked.
func TestAWebSocketNeedsTheDirectWay(t *testing.T) {
	t.Parallel()
	calls := new(atomic.Int64)
	at := listen(t, answers(calls), 0)
	c := client(t)
	for range 2 {
		r := get()
		r.Upgrade = "websocket"
		if _, err := c.Call(t.Context(), at, there, r); !errors.Is(err, message.ErrNoUpgrade) {
			t.Errorf("%v", err)
		}
		answer, err := c.Call(t.Context(), at, there, get())
		if err != nil {
			t.Fatal(err)
		}
		all(t, answer.Body)
	}
	if calls.Load() != 2 {
		t.Errorf("%d calls got through", calls.Load())
	}
}

// What is no sidecar's answer is no app's either.
func TestTheAnswerOfSomebodyElse(t *testing.T) {
	t.Parallel()
	at, stop := serveAt(t, "127.0.0.1:0", withDirect(t, peer.ServerOptions{App: answers(new(atomic.Int64)), Drain: time.Second}))
	c := direct.client(t, at)
	answer, err := c.Call(t.Context(), at, there, get())
	if err != nil {
		t.Fatal(err)
	}
	all(t, answer.Body)
	stop()
	l, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.ReadFull(conn, make([]byte, len(hello)))
			_, _ = io.WriteString(conn, welcome+"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno")
			_ = conn.(*net.TCPConn).CloseWrite()
		}
	}()
	if answer, err := c.Call(t.Context(), at, there, get()); codeOf(err) != codes.Unavailable {
		t.Errorf("%+v %v", answer, err)
	}
}

const (
	hello   = "PENSTOCK/1 direct calls\r\n"
	welcome = "PENSTOCK/1 welcome\r\n"
)

// What begins neither as gRPC nor as a direct call is hung up on, and what proves
// nothing gets no welcome.
func TestOtherProtocolsAreHungUpOn(t *testing.T) {
	t.Parallel()
	calls := new(atomic.Int64)
	at := direct.listen(t, answers(calls), 0)
	c := direct.client(t, at)
	if answer, err := c.Call(t.Context(), at, there, get()); err != nil {
		t.Fatal(err)
	} else {
		all(t, answer.Body)
	}
	secure := listenAs(t, answers(calls), show(newIssuer(t).sign(t, nil)))
	for begin, to := range map[string]string{
		"GET /secret HTTP/1.1\r\nHost: x\r\n\r\n":        at,
		strings.Replace(hello, "/1", "/2", 1):            at,
		hello[:8] + strings.Repeat("x", 64):              at,
		hello + "GET /x HTTP/1.1\r\nHost: x\r\n\r\n":     secure,
		"\x16\x03\x01" + strings.Repeat("\x00", 40):      at,
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + "garbage!!": secure,
	} {
		conn, err := net.Dial("tcp", to)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, begin)
		_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		said, err := io.ReadAll(conn)
		var late net.Error
		if errors.As(err, &late) && late.Timeout() || strings.Contains(string(said), "welcome") || strings.Contains(string(said), "200") {
			t.Errorf("%q is answered with %q: %v", begin, said, err)
		}
		conn.Close()
	}
	if n := calls.Load(); n != 1 {
		t.Errorf("%d calls got through", n-1)
	}
}

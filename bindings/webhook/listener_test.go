package webhook

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
)

// pipes is a listener without a network, so that time can be fake.
type pipes struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.done) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

func (p *pipes) dial() net.Conn {
	client, server := net.Pipe()
	p.conns <- server
	return client
}

// TestSlowSenders runs in fake time: each sender stops in the middle and must
// be gone after its deadline, while a request beside it is served at once.
func TestSlowSenders(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, sent string
		after      time.Duration
		want       string
	}{
		{"in the request line", "POST /in HT", headerTimeout, ""},
		{"in the headers", "POST /in HTTP/1.1\r\nHost: x\r\nX-A: ", headerTimeout, ""},
		{"in the body", "POST /in HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc", bodyTimeout, "HTTP/1.1 408"},
		{"in a chunk", "POST /in HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nabc", bodyTimeout, "HTTP/1.1 408"},
		{"in a body that nobody reads", "POST /no HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc", bodyTimeout, "HTTP/1.1 404"},
		{"before anything", "", headerTimeout, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ln := &pipes{conns: make(chan net.Conn), done: make(chan struct{})}
				l, h, stop := serveOn(t, ln)
				defer stop()
				slow := ln.dial()
				if _, err := io.WriteString(slow, row.sent); err != nil {
					t.Fatal(err)
				}
				start := time.Now()
				if got := exchange(t, ln.dial(), "POST /in HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"); !strings.HasPrefix(got, "HTTP/1.1 200") {
					t.Errorf("the request beside it: %q", got)
				}
				if d := time.Since(start); d != 0 {
					t.Errorf("the request beside it took %v", d)
				}
				got, err := io.ReadAll(slow)
				if err != nil && !errors.Is(err, io.ErrClosedPipe) || !strings.HasPrefix(string(got), row.want) {
					t.Errorf("the slow one got %q, %v", got, err)
				}
				if d := time.Since(start); d < row.after || d > row.after+time.Second {
					t.Errorf("the slow one was cut after %v, want %v", d, row.after)
				}
				_, _ = l, h
			})
		})
	}
}

// serveOn starts a listener with one hook at /in whose route acknowledges.
func serveOn(t *testing.T, ln net.Listener) (*listener, *hook, func()) {
	log := slog.New(slog.DiscardHandler)
	l := serve(t.Context(), ln, log)
	h := newHook("in", options{
		Answer: outcome, Timeout: time.Second, MaxConcurrency: 2, MaxBody: 1 << 20, Methods: []string{"POST"}, ReplayWindow: time.Hour,
	}, log)
	h.memory = newMemory(time.Hour, time.Now)
	if err := l.add(h); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = h.read(ctx, func(_ context.Context, d *cloudevents.Delivery) error {
			d.Settle(cloudevents.Acked())
			return nil
		})
	})
	synctest.Wait()
	return l, h, func() {
		cancel()
		wg.Wait()
		if err := l.stop(context.WithoutCancel(ctx)); err != nil {
			t.Errorf("stop: %v", err)
		}
	}
}

// exchange writes a request and returns everything that comes back.
func exchange(t *testing.T, c net.Conn, request string) string {
	t.Helper()
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(got)
}

func TestIdleConnectionsGiveWay(t *testing.T) {
	t.Parallel()
	r := openWebhook(t, newEnv(t, "in"))
	run(t, r, ack)
	var dialer net.Dialer
	var conns []net.Conn
	for range maxConns + 200 {
		c, err := dialer.DialContext(t.Context(), "tcp", r.listener.address)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	send(t, r, "POST", "/in", "x").want(t, 200, "ack")
	waitFor(t, "connections to be cut", func() bool {
		r.listener.conns.mu.Lock()
		defer r.listener.conns.mu.Unlock()
		return len(r.listener.conns.state) <= maxConns
	})
	// The oldest went first.
	_ = conns[0].SetReadDeadline(time.Now().Add(soon))
	if _, err := conns[0].Read(make([]byte, 1)); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the oldest connection: %v, want closed", err)
	}
	for _, c := range conns {
		c.Close()
	}
}

func TestConnectionVictims(t *testing.T) {
	t.Parallel()
	c := &connections{}
	var all []net.Conn
	for range maxConns {
		a, b := net.Pipe()
		t.Cleanup(func() { a.Close(); b.Close() })
		all = append(all, a)
		c.changed(a, http.StateNew)
		c.changed(a, http.StateActive)
	}
	more := func() net.Conn {
		a, b := net.Pipe()
		t.Cleanup(func() { a.Close(); b.Close() })
		c.changed(a, http.StateNew)
		return a
	}
	gone := func(conn net.Conn) bool { _, ok := c.state[conn]; return !ok }
	if n := more(); !gone(n) {
		t.Error("all are busy: the newcomer must go")
	}
	c.changed(all[5], http.StateIdle)
	c.changed(all[3], http.StateIdle)
	if n := more(); gone(n) || !gone(all[5]) || gone(all[3]) {
		t.Error("the longest idle must go")
	}
	c.changed(all[3], http.StateClosed)
	if len(c.state) != maxConns-1 {
		t.Errorf("%d connections counted", len(c.state))
	}
}

func TestKeepAliveAndPipelining(t *testing.T) {
	t.Parallel()
	r := openWebhook(t, newEnv(t, "in"))
	run(t, r, ack)
	var dialer net.Dialer
	c, err := dialer.DialContext(t.Context(), "tcp", r.listener.address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	one := "POST /in HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nok"
	bad := "POST /no HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nok"
	if _, err := io.WriteString(c, one+bad+one); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(c)
	for i, want := range []int{200, 404, 200} {
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("answer %d is %d, want %d", i, res.StatusCode, want)
		}
	}
}

func TestHTTP2IsOff(t *testing.T) {
	t.Parallel()
	r := openWebhook(t, newEnv(t, "in"))
	run(t, r, ack)
	var dialer net.Dialer
	c, err := dialer.DialContext(t.Context(), "tcp", r.listener.address)
	if err != nil {
		t.Fatal(err)
	}
	got := exchange(t, c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	if !strings.HasPrefix(got, "HTTP/1.1 4") && !strings.HasPrefix(got, "HTTP/1.1 505") {
		t.Errorf("the preface of HTTP/2 got %q", got)
	}
}

// FuzzItems checks that no request makes the mapping panic, and that what
// comes out are events that can be written and read again.
func FuzzItems(f *testing.F) {
	presets := []string{none, standard, github, gitlab, stripe, slack, shopify, generic, bearer}
	f.Add(0, "application/json", "push", "1", []byte(`{"repository":{"full_name":"o/r"}}`))
	f.Add(4, "application/json", "", "", []byte(`{"id":"evt","type":"a","data":{"object":{"id":5}}}`))
	f.Add(5, "application/x-www-form-urlencoded", "", "", []byte("command=%2Fx&trigger_id=1"))
	f.Add(0, "application/cloudevents-batch+json", "", "", []byte(`[{"specversion":"1.0","id":"1","source":"s","type":"t"}]`))
	f.Add(0, "text/plain", "\xff", "\x00", []byte("\xff"))
	f.Fuzz(func(t *testing.T, n int, contentType, event, id string, body []byte) {
		o := options{Signature: presets[uint(n)%uint(len(presets))], Answer: outcome, MaxConcurrency: 1, IDHeader: "Webhook-Id"}
		if o.Signature != none {
			o.Secret = component.NewSecret("whsec_AAAA")
		}
		h := newHook("in", o, slog.New(slog.DiscardHandler))
		head := http.Header{"Content-Type": {contentType}}
		for _, name := range []string{"X-Github-Event", "X-Gitlab-Event", "X-Shopify-Topic", "Ce-Type", "Ce-Source"} {
			head.Set(name, event)
		}
		for _, name := range []string{"X-Github-Delivery", "Webhook-Id", "X-Shopify-Webhook-Id", "Ce-Id"} {
			head.Set(name, id)
		}
		if strings.HasPrefix(event, "ce") {
			head.Set("Ce-Specversion", "1.0")
		}
		_, _ = slackChallenge(head, body)
		items, err := h.items(head, body)
		if err != nil {
			return
		}
		for _, it := range items {
			if it.key == "" || it.event.ID() == "" {
				t.Fatal("an event without id")
			}
			if _, err := cloudevents.Scan(it.event.JSON()); err != nil {
				t.Fatalf("event cannot be read again: %v\n%s", err, it.event.JSON())
			}
			attrs, kind, err := encodeAttrs(it.event)
			if err != nil {
				t.Fatal(err)
			}
			back, err := decodeEvent(attrs, kind, it.body)
			if err != nil || string(back.JSON()) != string(it.event.JSON()) {
				t.Fatalf("the spool changed the event: %v\n%s\n%s", err, it.event.JSON(), back.JSON())
			}
		}
	})
}

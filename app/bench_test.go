package app_test

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/penstock-io/penstock/app"
	"github.com/penstock-io/penstock/cloudevents"
)

// stub answers every request with an empty 200, at as little cost as can be, so
// that a benchmark sees the client.
func stub(tb testing.TB) string {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				buf := make([]byte, 64<<10)
				for {
					if _, err := conn.Read(buf); err != nil {
						return
					}
					if _, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"); err != nil {
						return
					}
				}
			}()
		}
	}()
	return "http://" + l.Addr().String()
}

func event(tb testing.TB) *cloudevents.Delivery {
	tb.Helper()
	raw := []byte(`{"specversion":"1.0","id":"1","source":"/s","type":"t","traceparent":"` + parent +
		`","data":{"text":"` + strings.Repeat("x", 256) + `"}}`)
	e, err := cloudevents.Scan(raw)
	if err != nil {
		tb.Fatal(err)
	}
	return &cloudevents.Delivery{Body: raw, Event: e}
}

// post is the least that a Go program does to send an event.
func post(tb testing.TB, client *http.Client, url string, body []byte) {
	resp, err := client.Post(url, "application/cloudevents+json", bytes.NewReader(body))
	if err != nil {
		tb.Fatal(err)
	}
	_, _ = io.ReadAll(resp.Body)
	resp.Body.Close()
}

func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkDeliver compares a delivery, outcome included, with a bare Post of
// the same body.
func BenchmarkDeliver(b *testing.B) {
	url := stub(b)
	d := event(b)
	run := func(b *testing.B, f func()) {
		b.ReportAllocs()
		start := cpu()
		for b.Loop() {
			f()
		}
		b.ReportMetric(float64((cpu()-start).Nanoseconds())/float64(b.N), "cpu-ns/op")
	}
	b.Run("post", func(b *testing.B) {
		client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 100}}
		defer client.CloseIdleConnections()
		run(b, func() { post(b, client, url+"/orders", d.Body) })
	})
	b.Run("deliver", func(b *testing.B) {
		a := connect(b, url, app.Options{MaxConcurrency: 100})
		run(b, func() {
			if o := a.Event(b.Context(), at("/orders"), d); o.Verdict != cloudevents.Ack {
				b.Fatal(o)
			}
		})
	})
}

// TestDeliverAllocations holds that a delivery allocates no more than a bare
// Post.
func TestDeliverAllocations(t *testing.T) { // not parallel: counts allocations
	url := stub(t)
	d := event(t)
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	bare := testing.AllocsPerRun(500, func() { post(t, client, url+"/orders", d.Body) })
	a := connect(t, url, app.Options{MaxConcurrency: 100})
	ours := testing.AllocsPerRun(500, func() {
		if o := a.Event(t.Context(), at("/orders"), d); o.Verdict != cloudevents.Ack {
			t.Fatal(o)
		}
	})
	t.Logf("post: %v allocations, deliver: %v", bare, ours)
	if ours > bare {
		t.Errorf("a delivery makes %v allocations, a bare Post %v", ours, bare)
	}
}

package peer_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/penstock-io/penstock/invoke/identity"
	"github.com/penstock-io/penstock/invoke/message"
	"github.com/penstock-io/penstock/invoke/peer"
)

// BenchmarkCall is a call of 1 KiB each way between two sidecars in this process,
// with mutual TLS and without; cpu-ns/op is what both sides together work.
func BenchmarkCall(b *testing.B) {
	a := newIssuer(b)
	body := strings.Repeat("x", 1<<10)
	for name, ids := range map[string][2]identity.Source{
		"plain":      {},
		"mutual TLS": {show(a.sign(b, nil)), show(a.sign(b, named("here")))},
	} {
		b.Run(name, func(b *testing.B) {
			app := appFunc(func(_ context.Context, r *message.Request) (*message.Response, error) {
				_, err := io.Copy(io.Discard, r.Body)
				return text(200, body), err
			})
			at := serve(b, peer.ServerOptions{AppID: "there", App: app, Identity: ids[0], Drain: time.Second})
			c := clientAs(b, ids[1])
			call := func() {
				answer, err := c.Call(b.Context(), at, there, &message.Request{
					Verb: "POST", Path: "x", Header: http.Header{}, Length: int64(len(body)), Body: io.NopCloser(strings.NewReader(body)),
				})
				if err != nil {
					b.Fatal(err)
				}
				all(b, answer.Body)
			}
			call() // the connection opens
			before := worked(b)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					call()
				}
			})
			b.ReportMetric(float64(worked(b)-before)/float64(b.N), "cpu-ns/op")
		})
	}
}

// worked is how long processors have worked for this process.
func worked(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

package nats

import (
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/test/fake/natsserver"
)

// BenchmarkPublish has callers that wait for the answer to one message each, from a
// server in another process: what is counted is this side's alone.
func BenchmarkPublish(b *testing.B) {
	s := natsserver.Start(b, natsserver.Options{})
	c, err := Open(b.Context(), component.Env{}, Options{URL: s.URL()})
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := c.Close(); err != nil {
			b.Error(err)
		}
	}()
	if _, err := c.js.CreateStream(b.Context(), jetstream.StreamConfig{Name: "orders", Subjects: []string{"orders"}, Storage: jetstream.MemoryStorage}); err != nil {
		b.Fatal(err)
	}
	p, ms := c.Publisher(StreamOptions{}), []Message{{Data: make([]byte, 256)}}
	b.ReportAllocs()
	b.SetParallelism(128)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if errs := p.Publish(b.Context(), "orders", ms); errs != nil {
				b.Error(errs)
			}
		}
	})
}

package router

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/resilience"
)

// pump emits n deliveries, as fast as the window lets it, and tells when all
// are settled.
type pump struct {
	n    int
	keys []string
	left chan struct{}
}

func (p *pump) Run(ctx context.Context, emit cloudevents.EmitFunc) error {
	body := []byte(`{"a":1}`)
	settle := func(cloudevents.Outcome) { p.left <- struct{}{} }
	all := make([]cloudevents.Delivery, p.n)
	for i := range all {
		all[i].Body, all[i].Settle = body, settle
		if len(p.keys) > 0 {
			all[i].Key = p.keys[i%len(p.keys)]
		}
		if err := emit(ctx, &all[i]); err != nil {
			return err
		}
	}
	<-ctx.Done()
	return nil
}

func bench(b *testing.B, keys, lanes int, policy resilience.Policy) {
	b.Helper()
	benchTarget(b, keys, lanes, Target{Name: "t", Send: ackAll, Policy: policy})
}

func benchTarget(b *testing.B, keys, lanes int, t Target) {
	b.Helper()
	p := &pump{n: b.N, left: make(chan struct{}, 1024)}
	for i := range keys {
		p.keys = append(p.keys, fmt.Sprintf("key-%d", i))
	}
	r, err := New(Options{Logger: silent()})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	<-r.inner.Running()
	b.ReportAllocs()
	b.ResetTimer()
	if err := r.Add(Route{Name: "r", Source: p, Lanes: lanes, Targets: []Target{t}}); err != nil {
		b.Fatal(err)
	}
	for range b.N {
		<-p.left
	}
	b.StopTimer()
	cancel()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
}

// BenchmarkRoute is one event through source, window, lane, Watermill, chain
// and settle, to a target that does nothing.
func BenchmarkRoute(b *testing.B) {
	b.Run("1 lane", func(b *testing.B) { bench(b, 0, 1, resilience.Policy{}) })
	b.Run("64 lanes", func(b *testing.B) { bench(b, 0, 64, resilience.Policy{}) })
	b.Run("64 lanes 1000 keys", func(b *testing.B) { bench(b, 1000, 64, resilience.Policy{}) })
	b.Run("64 lanes timeout breaker", func(b *testing.B) {
		bench(b, 0, 64, resilience.Policy{Timeout: time.Minute, Breaker: resilience.NewBreaker(resilience.BreakerConfig{})})
	})
}

// TestAllocations holds the cost of one event: Watermill's sixteen and ours.
func TestAllocations(t *testing.T) {
	b := newBook(t)
	settled := make(chan struct{})
	r := running(t, Options{})
	mustAdd(t, r, Route{Name: "r", Source: b, Lanes: 8, Targets: []Target{{Name: "t", Send: ackAll}}})
	d := &cloudevents.Delivery{Body: []byte("x"), Key: "k", Settle: func(cloudevents.Outcome) { settled <- struct{}{} }}
	got := testing.AllocsPerRun(1000, func() {
		b.in <- d
		<-settled
	})
	t.Logf("%.0f allocations for one event", got)
	if got > 18 {
		t.Errorf("%.0f allocations for one event, the limit is 18", got)
	}
}

// BenchmarkWatermillAlone is the floor: a bare router and a subscriber that
// keeps 64 messages in flight.
func BenchmarkWatermillAlone(b *testing.B) {
	r, err := message.NewRouter(message.RouterConfig{}, watermill.NopLogger{})
	if err != nil {
		b.Fatal(err)
	}
	out := make(chan *message.Message)
	r.AddConsumerHandler("h", "topic", outlet{out}, func(*message.Message) error { return nil })
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	<-r.Running()
	acked := make(chan *message.Message, 64)
	b.ReportAllocs()
	b.ResetTimer()
	go func() {
		for range b.N {
			m := message.NewMessage("", nil)
			acked <- m
			out <- m
		}
	}()
	for range b.N {
		<-(<-acked).Acked()
	}
	b.StopTimer()
	close(out)
	cancel()
	<-done
}

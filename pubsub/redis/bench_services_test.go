//go:build services

package redis

import (
	"context"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/pubsub"
	"github.com/penstock-io/penstock/test/conform"
)

const benchEvents, benchCallers, benchRounds = 50_000, 256, 4

// BenchmarkAgainstBareLoop publishes and consumes the same number of messages of
// 256 B with the client library alone and with the component, in turns, and prints
// both rates, their ratio and the ratio of the CPU time of this process.
func BenchmarkAgainstBareLoop(b *testing.B) {
	addr := server(b)
	c, d := dial(b, addr), openAt(b, addr)
	for b.Loop() {
		var bare, ours [2]spent
		for range benchRounds {
			topic := conform.Unique(b)
			bare[0].measure(func() { barePublish(b, c, topic) })
			ours[0].measure(func() { ourPublish(b, d, topic) })
			bare[1].measure(func() { bareConsume(b, c, topic) })
			ours[1].measure(func() { ourConsume(b, d, topic) })
			if err := c.Do(b.Context(), c.B().Del().Key(topic).Build()).Error(); err != nil {
				b.Error(err)
			}
		}
		for i, what := range []string{"publish", "consume"} {
			b.ReportMetric(bare[i].rate(), "bare-"+what+"/s")
			b.ReportMetric(ours[i].rate(), what+"/s")
			b.ReportMetric(ours[i].rate()/bare[i].rate(), what+"-ratio")
			b.ReportMetric(ours[i].cpu.Seconds()/bare[i].cpu.Seconds(), what+"-cpu-ratio")
		}
	}
}

// spent is what all rounds of a kind took.
type spent struct{ wall, cpu time.Duration }

func (s *spent) measure(run func()) {
	began, used := time.Now(), cpuTime()
	run()
	s.wall += time.Since(began)
	s.cpu += cpuTime() - used
}

func (s *spent) rate() float64 { return benchRounds * benchEvents / s.wall.Seconds() }

func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// barePublish has callers that wait for one message each, which the library
// sends together.
func barePublish(b *testing.B, c rueidis.Client, topic string) {
	b.Helper()
	crowd(func(body []byte) {
		cmd := c.B().Xadd().Key(topic).Id("*").FieldValue().FieldValue("data", rueidis.BinaryString(body)).Build()
		if err := c.Do(b.Context(), cmd).Error(); err != nil {
			b.Error(err)
		}
	})
}

func ourPublish(b *testing.B, d pubsub.Driver, topic string) {
	b.Helper()
	crowd(func(body []byte) {
		if err := d.Publish(b.Context(), topic, []pubsub.Message{{Data: body}}); err != nil {
			b.Error(err)
		}
	})
}

func crowd(publish func([]byte)) {
	var callers sync.WaitGroup
	body := make([]byte, 256)
	for c := range benchCallers {
		callers.Go(func() {
			for range (benchEvents - c + benchCallers - 1) / benchCallers {
				publish(body)
			}
		})
	}
	callers.Wait()
}

// bareConsume reads and acknowledges a hundred at a time.
func bareConsume(b *testing.B, c rueidis.Client, topic string) {
	b.Helper()
	if err := c.Do(b.Context(), c.B().XgroupCreate().Key(topic).Group("bare").Id("0").Build()).Error(); err != nil {
		b.Fatal(err)
	}
	for n := 0; n < benchEvents; {
		got, err := c.Do(b.Context(), c.B().Xreadgroup().Group("bare", "one").Count(100).Block(1000).Streams().Key(topic).Id(">").Build()).AsXRead()
		if err != nil {
			b.Fatal(err)
		}
		var ids []string
		for _, e := range got[topic] {
			ids = append(ids, e.ID)
		}
		if err := c.Do(b.Context(), c.B().Xack().Key(topic).Group("bare").Id(ids...).Build()).Error(); err != nil {
			b.Fatal(err)
		}
		n += len(ids)
	}
}

func ourConsume(b *testing.B, d pubsub.Driver, topic string) {
	b.Helper()
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	n := 0
	err := d.Subscribe(ctx, pubsub.Subscription{Topic: topic, Group: "app"}, func(_ context.Context, x *cloudevents.Delivery) error {
		x.Settle(cloudevents.Acked())
		if n++; n == benchEvents {
			cancel()
		}
		return nil
	})
	if err != nil {
		b.Error(err)
	}
}

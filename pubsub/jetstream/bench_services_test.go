//go:build services

package jetstream

import (
	"context"
	"sync"
	"syscall"
	"testing"
	"time"

	js "github.com/nats-io/nats.go/jetstream"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/pubsub"
	"github.com/penstock-io/penstock/test/conform"
	"github.com/penstock-io/penstock/test/services"
)

const benchEvents, benchCallers = 50_000, 256

// BenchmarkAgainstBareLoop publishes and consumes the same number of messages of
// 256 B with the client library alone and with the component, and prints both
// rates, their ratio and the ratio of the CPU time of this process.
func BenchmarkAgainstBareLoop(b *testing.B) {
	url := services.Need(b, "nats")
	j := raw(b, url)
	for b.Loop() {
		topic := conform.Unique(b)
		_, err := j.CreateStream(b.Context(), js.StreamConfig{Name: topic, Subjects: []string{topic}, Storage: js.MemoryStorage})
		if err != nil {
			b.Fatal(err)
		}
		d := opened(b, url)
		bare, bareCPU := measure(func() { barePublish(b, j, topic) })
		ours, oursCPU := measure(func() { ourPublish(b, d, topic) })
		batches, batchesCPU := measure(func() { ourBatches(b, d, topic) })
		b.ReportMetric(batches/bare, "batch-publish-ratio")
		b.ReportMetric(batchesCPU/bareCPU, "batch-publish-cpu-ratio")
		b.ReportMetric(bare, "bare-publish/s")
		b.ReportMetric(ours, "publish/s")
		b.ReportMetric(ours/bare, "publish-ratio")
		b.ReportMetric(oursCPU/bareCPU, "publish-cpu-ratio")
		bare, bareCPU = measure(func() { bareConsume(b, j, topic) })
		ours, oursCPU = measure(func() { ourConsume(b, d, topic) })
		b.ReportMetric(bare, "bare-consume/s")
		b.ReportMetric(ours, "consume/s")
		b.ReportMetric(ours/bare, "consume-ratio")
		b.ReportMetric(oursCPU/bareCPU, "consume-cpu-ratio")
		closed(b, d)
		if err := j.DeleteStream(b.Context(), topic); err != nil {
			b.Error(err)
		}
	}
}

// measure returns the rate of a run and the CPU time of this process.
func measure(run func()) (rate, cpu float64) {
	began, used := time.Now(), cpuTime()
	run()
	return benchEvents / time.Since(began).Seconds(), (cpuTime() - used).Seconds()
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// barePublish has as many messages without an answer as there are callers.
func barePublish(b *testing.B, j js.JetStream, topic string) {
	b.Helper()
	waiting := make(chan js.PubAckFuture, benchCallers)
	var answers sync.WaitGroup
	answers.Go(func() {
		for f := range waiting {
			select {
			case <-f.Ok():
			case err := <-f.Err():
				b.Error(err)
			}
		}
	})
	body := make([]byte, 256)
	for range benchEvents {
		f, err := j.PublishAsync(topic, body)
		if err != nil {
			b.Fatal(err)
		}
		waiting <- f
	}
	close(waiting)
	answers.Wait()
}

// ourPublish has callers that wait for one message each.
func ourPublish(b *testing.B, d pubsub.Driver, topic string) {
	b.Helper()
	var callers sync.WaitGroup
	body := make([]byte, 256)
	for c := range benchCallers {
		callers.Go(func() {
			for range (benchEvents - c + benchCallers - 1) / benchCallers {
				if err := d.Publish(b.Context(), topic, []pubsub.Message{{Data: body}}); err != nil {
					b.Error(err)
				}
			}
		})
	}
	callers.Wait()
}

// ourBatches has callers that publish several at once, as pipelines do.
func ourBatches(b *testing.B, d pubsub.Driver, topic string) {
	b.Helper()
	const callers, each = 4, benchCallers / 4
	batch := make([]pubsub.Message, each)
	for i := range batch {
		batch[i] = pubsub.Message{Data: make([]byte, 256)}
	}
	var publishing sync.WaitGroup
	for range callers {
		publishing.Go(func() {
			for n := 0; n < benchEvents/callers; n += each {
				if err := d.Publish(b.Context(), topic, batch[:min(each, benchEvents/callers-n)]); err != nil {
					b.Error(err)
				}
			}
		})
	}
	publishing.Wait()
}

// bareConsume reads as many as were published at once; there are more.
func bareConsume(b *testing.B, j js.JetStream, topic string) {
	b.Helper()
	c, err := j.CreateConsumer(b.Context(), topic, js.ConsumerConfig{Durable: "bare", AckPolicy: js.AckExplicitPolicy, MaxAckPending: 20000})
	if err != nil {
		b.Fatal(err)
	}
	messages, err := c.Messages(js.PullMaxMessages(256), js.WithMessagesErrOnMissingHeartbeat(false))
	if err != nil {
		b.Fatal(err)
	}
	for range benchEvents {
		m, err := messages.Next()
		if err != nil {
			b.Fatal(err)
		}
		if err := m.Ack(); err != nil {
			b.Fatal(err)
		}
	}
	messages.Stop()
	if err := j.Conn().FlushTimeout(10 * time.Second); err != nil {
		b.Error(err)
	}
}

// ourConsume closes the driver, since an acknowledgement is done by then.
func ourConsume(b *testing.B, d *driver, topic string) {
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
	closed(b, d)
}

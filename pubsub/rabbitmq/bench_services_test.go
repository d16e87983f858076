//go:build services

package rabbitmq

import (
	"context"
	"sync"
	"syscall"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/pubsub"
	"github.com/penstock-io/penstock/test/conform"
	"github.com/penstock-io/penstock/test/services"
)

const benchEvents, benchCallers = 20_000, 256

// BenchmarkAgainstBareLoop publishes and consumes the same number of messages of
// 256 B with the client library alone and with the component, and prints both
// rates, their ratio and the ratio of the CPU time of this process.
func BenchmarkAgainstBareLoop(b *testing.B) {
	url := services.Need(b, "rabbitmq")
	for b.Loop() {
		topic := conform.Unique(b)
		d := bus(b, url, pubsub.Subscription{Topic: topic}, map[string]string{"deletedWhenUnused": "false"})
		bare, bareCPU := measure(func() { barePublish(b, server(b, url), topic) })
		ours, oursCPU := measure(func() { ourPublish(b, d, topic) })
		b.ReportMetric(bare, "bare-publish/s")
		b.ReportMetric(ours, "publish/s")
		b.ReportMetric(ours/bare, "publish-ratio")
		b.ReportMetric(oursCPU/bareCPU, "publish-cpu-ratio")
		bare, bareCPU = measure(func() { bareConsume(b, server(b, url), "app-"+topic) })
		ours, oursCPU = measure(func() { ourConsume(b, d, topic) })
		b.ReportMetric(bare, "bare-consume/s")
		b.ReportMetric(ours, "consume/s")
		b.ReportMetric(ours/bare, "consume-ratio")
		b.ReportMetric(oursCPU/bareCPU, "consume-cpu-ratio")
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

// barePublish has as many messages without a confirm as there are callers.
func barePublish(b *testing.B, ch *amqp.Channel, topic string) {
	b.Helper()
	if err := ch.Confirm(false); err != nil {
		b.Fatal(err)
	}
	waiting := make(chan *amqp.DeferredConfirmation, benchCallers)
	var confirms sync.WaitGroup
	confirms.Go(func() {
		for c := range waiting {
			if !c.Wait() {
				b.Error("refused")
			}
		}
	})
	body := make([]byte, 256)
	for range benchEvents {
		c, err := ch.PublishWithDeferredConfirm(topic, "", false, false, amqp.Publishing{DeliveryMode: 2, Body: body})
		if err != nil {
			b.Fatal(err)
		}
		waiting <- c
	}
	close(waiting)
	confirms.Wait()
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

func bareConsume(b *testing.B, ch *amqp.Channel, queue string) {
	b.Helper()
	if err := ch.Qos(256, 0, false); err != nil {
		b.Fatal(err)
	}
	messages, err := ch.Consume(queue, "", false, false, false, false, nil)
	if err != nil {
		b.Fatal(err)
	}
	for range benchEvents {
		m := <-messages
		if err := m.Ack(false); err != nil {
			b.Fatal(err)
		}
	}
	_ = ch.Close()
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

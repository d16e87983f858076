//go:build services

package kafka

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/pubsub"
	"github.com/penstock-io/penstock/test/conform"
	"github.com/penstock-io/penstock/test/services"
)

const benchEvents, benchCallers = 100_000, 256

// BenchmarkAgainstBareLoop publishes and consumes the same number of messages of
// 256 B with the client library alone and with the component, and prints both
// rates, their ratio and the ratio of the CPU time of this process. Publishing is
// one message a call from many callers, against the library's Writer; a batch is
// many messages a call from one caller, against one produce request of as many
// after the other, to one partition after the other. What many callers cost beside
// requests without any is told too, as "alone": one loop for each partition, with
// as many messages in each request as are under way there. All replicas confirm,
// and the group commits every second, in all. What is written first is not
// measured, since the brokers are slow with it.
func BenchmarkAgainstBareLoop(b *testing.B) {
	brokers := services.Need(b, "kafka")
	for b.Loop() {
		topic := conform.Unique(b)
		if err := create(b.Context(), brokers, topic, benchPartitions); err != nil {
			b.Fatal(err)
		}
		d := opened(b, brokers, map[string]string{"initialOffset": "oldest"})
		w := &bareWriter{b: b, client: admin(brokers), topic: topic}
		w.connect()
		w.spread(benchEvents)
		ourPublish(b, d, topic, benchEvents/10, 1)
		one := func() { ourPublish(b, d, topic, benchEvents, 1) }
		compare(b, "publish", benchEvents, func() { w.each(benchEvents) }, one)
		compare(b, "alone", benchEvents, func() { w.spread(benchEvents) }, one)
		compare(b, "batch", benchEvents, func() { w.batches(benchEvents) }, func() { ourPublish(b, d, topic, benchEvents, benchCallers) })
		bare, end := bareConsume(b, brokers, topic)
		ours := ourConsume(b, d, topic)
		compare(b, "consume", benchEvents, bare, ours)
		end()
		shut(b, d)
		w.client.Transport.(*kafka.Transport).CloseIdleConnections()
	}
}

// compare reports what two runs with as many events take.
func compare(b *testing.B, name string, events float64, bare, ours func()) {
	b.Helper()
	bareRate, bareCPU := measure(events, bare)
	rate, cpu := measure(events, ours)
	b.ReportMetric(bareRate, "bare-"+name+"/s")
	b.ReportMetric(rate, name+"/s")
	b.ReportMetric(rate/bareRate, name+"-ratio")
	b.ReportMetric(cpu/bareCPU, name+"-cpu-ratio")
}

// measure returns the rate of a run and the CPU time of this process.
func measure(events float64, run func()) (rate, cpu float64) {
	began, used := time.Now(), cpuTime()
	run()
	return events / time.Since(began).Seconds(), (cpuTime() - used).Seconds()
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// publish has benchCallers callers of one message, or one caller of as many.
func publish(events, each int, call func(n int)) {
	var callers sync.WaitGroup
	n := benchCallers / each
	for c := range n {
		callers.Go(func() {
			for left := (events - c + n - 1) / n; left > 0; left -= each {
				call(min(left, each))
			}
		})
	}
	callers.Wait()
}

// bareWriter is the loop on the client library alone.
type bareWriter struct {
	b      *testing.B
	client *kafka.Client
	topic  string
}

const benchPartitions = 3

// connect waits until the library knows the topic: a broker may hear of a new one
// late, and the library remembers for seconds that there is none.
func (w *bareWriter) connect() {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for last := time.After(time.Minute); ; {
		to := &kafka.Transport{}
		w.client.Transport = to
		var err error
		for p := range benchPartitions {
			if err = w.try(p, 1); err != nil {
				break
			}
		}
		if err == nil {
			return
		}
		to.CloseIdleConnections()
		select {
		case <-tick.C:
		case <-last:
			w.b.Fatal(err)
		}
	}
}

// produce writes messages to a partition, and waits for all replicas.
func (w *bareWriter) produce(partition, n int) {
	if err := w.try(partition, n); err != nil {
		w.b.Error(err)
	}
}

func (w *bareWriter) try(partition, n int) error {
	body := make([]byte, 256)
	records := make([]kafka.Record, n)
	for i := range records {
		records[i].Value = kafka.NewBytes(body)
	}
	res, err := w.client.Produce(w.b.Context(), &kafka.ProduceRequest{
		Topic: w.topic, Partition: partition, RequiredAcks: kafka.RequireAll, Records: kafka.NewRecordReader(records...),
	})
	if err == nil {
		err = res.Error
	}
	return err
}

// each writes one message a call from benchCallers callers. The Writer waits for
// its time when it has less than a batch, so that time is short, and the batch is
// what they have under way for a partition.
func (w *bareWriter) each(events int) {
	body := make([]byte, 256)
	to := &kafka.Writer{
		Addr: w.client.Addr, Topic: w.topic, Transport: w.client.Transport, RequiredAcks: kafka.RequireAll,
		Balancer: &kafka.RoundRobin{}, BatchSize: benchCallers / benchPartitions, BatchTimeout: time.Millisecond,
	}
	publish(events, 1, func(int) {
		if err := to.WriteMessages(w.b.Context(), kafka.Message{Value: body}); err != nil {
			w.b.Error(err)
		}
	})
	if err := to.Close(); err != nil {
		w.b.Error(err)
	}
}

// spread writes to all partitions at the same time, with benchCallers messages
// under way.
func (w *bareWriter) spread(events int) {
	var parts sync.WaitGroup
	for p := range benchPartitions {
		parts.Go(func() {
			for left := events / benchPartitions; left > 0; left -= benchCallers / benchPartitions {
				w.produce(p, min(left, benchCallers/benchPartitions))
			}
		})
	}
	parts.Wait()
}

// batches writes benchCallers messages at a time.
func (w *bareWriter) batches(events int) {
	for n := 0; n < events; n += benchCallers {
		w.produce(n/benchCallers%benchPartitions, min(events-n, benchCallers))
	}
}

func ourPublish(b *testing.B, d pubsub.Driver, topic string, events, each int) {
	b.Helper()
	body := make([]byte, 256)
	publish(events, each, func(n int) {
		ms := make([]pubsub.Message, n)
		for i := range ms {
			ms[i].Data = body
		}
		if err := d.Publish(b.Context(), topic, ms); err != nil {
			b.Error(err)
		}
	})
}

// bareConsume returns what consumes all; the group has been joined.
func bareConsume(b *testing.B, brokers, topic string) (run, end func()) {
	b.Helper()
	r := kafka.NewReader(kafka.ReaderConfig{
		Brokers: strings.Split(brokers, ","), Topic: topic, GroupID: "bare-" + topic, StartOffset: kafka.FirstOffset,
		MaxWait: 250 * time.Millisecond, CommitInterval: time.Second, QueueCapacity: 1000,
	})
	next := func() {
		m, err := r.FetchMessage(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		if err := r.CommitMessages(b.Context(), m); err != nil {
			b.Fatal(err)
		}
	}
	next()
	return func() {
		for range benchEvents - 1 {
			next()
		}
	}, func() { _ = r.Close() }
}

// ourConsume does the same.
func ourConsume(b *testing.B, d pubsub.Driver, topic string) (run func()) {
	b.Helper()
	ctx, cancel := context.WithCancel(b.Context())
	var n atomic.Int64 // a partition is one goroutine
	begun, begin, ended := make(chan struct{}, 3), make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- d.Subscribe(ctx, pubsub.Subscription{Topic: topic, Group: "app-" + topic}, func(_ context.Context, x *cloudevents.Delivery) error {
			if n.Load() == 0 {
				begun <- struct{}{}
				<-begin
			}
			x.Settle(cloudevents.Acked())
			if n.Add(1) == benchEvents {
				cancel()
			}
			return nil
		})
	}()
	<-begun
	return func() {
		close(begin)
		if err := <-ended; err != nil {
			b.Error(err)
		}
	}
}

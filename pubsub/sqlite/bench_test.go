package sqlite

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/pubsub"
)

// BenchmarkPublish compares publishers that wait for a commit each with 64
// that share commits, on the same file in the same run, and prints the ratio.
func BenchmarkPublish(b *testing.B) {
	d := openAt(b, filepath.Join(b.TempDir(), "bus.db"))
	attach(b, d)
	body := make([]byte, 256)
	publish := func(key string) {
		if err := d.Publish(b.Context(), "t", []pubsub.Message{{Key: key, Data: body}}); err != nil {
			b.Error(err)
		}
	}
	var alone, together float64
	for b.Loop() {
		const serial, publishers, each = 200, 64, 200
		start := time.Now()
		for range serial {
			publish("k")
		}
		alone = serial / time.Since(start).Seconds()
		start = time.Now()
		var wg sync.WaitGroup
		for p := range publishers {
			wg.Go(func() {
				for range each {
					publish(strconv.Itoa(p))
				}
			})
		}
		wg.Wait()
		together = publishers * each / time.Since(start).Seconds()
	}
	b.ReportMetric(alone, "alone/s")
	b.ReportMetric(together, "together/s")
	b.ReportMetric(together/alone, "ratio")
}

// attach makes the group g of topic t.
func attach(t testing.TB, d *driver) {
	t.Helper()
	q, err := d.b.join(t.Context(), pubsub.Subscription{Topic: "t", Group: "g"})
	if err != nil {
		t.Fatal(err)
	}
	d.b.leave(q)
}

// BenchmarkPublishDeliver has 64 publishers and one subscriber that
// acknowledges at once.
func BenchmarkPublishDeliver(b *testing.B) {
	for _, keys := range []int{1, 64, 10_000} {
		b.Run(fmt.Sprintf("keys=%d", keys), func(b *testing.B) {
			d := openAt(b, filepath.Join(b.TempDir(), "bus.db"))
			ctx, cancel := context.WithCancel(b.Context())
			got := make(chan struct{}, 64)
			var wg sync.WaitGroup
			wg.Go(func() {
				_ = d.Subscribe(ctx, pubsub.Subscription{Topic: "t", Group: "g"}, func(_ context.Context, x *cloudevents.Delivery) error {
					x.Settle(cloudevents.Acked())
					got <- struct{}{}
					return nil
				})
			})
			work := make(chan int)
			var publishers sync.WaitGroup
			body := make([]byte, 256)
			for range 64 {
				publishers.Go(func() {
					for i := range work {
						if err := d.Publish(ctx, "t", []pubsub.Message{{Key: strconv.Itoa(i % keys), Data: body}}); err != nil {
							b.Error(err)
						}
					}
				})
			}
			b.ReportAllocs()
			n, received := 0, 0
			for b.Loop() {
				select {
				case work <- n:
					n++
				case <-got:
					received++
				}
			}
			close(work)
			publishers.Wait()
			b.ReportMetric(float64(received)/b.Elapsed().Seconds(), "delivered/s")
			for ; received < n; received++ {
				<-got
			}
			cancel()
			wg.Wait()
		})
	}
}

// BenchmarkStuckKeys compares the rate of other keys beside nothing with that
// beside 100 stuck keys that have 1000 messages each behind them.
func BenchmarkStuckKeys(b *testing.B) {
	var free, beside float64
	for b.Loop() {
		free, beside = rateBeside(b, 1), rateBeside(b, 100_000)
	}
	b.ReportMetric(free, "free/s")
	b.ReportMetric(beside, "beside/s")
	b.ReportMetric(beside/free, "ratio")
}

func rateBeside(b *testing.B, stuck int) float64 {
	b.Helper()
	d := fresh(b)
	attach(b, d)
	const events, ahead = 20_000, 5000
	body := make([]byte, 256)
	fill := func(name string, n, keys int) {
		for at := 0; at < n; at += ahead {
			batch := make([]pubsub.Message, min(ahead, n-at))
			for i := range batch {
				batch[i] = pubsub.Message{Key: name + strconv.Itoa(i%keys), Data: body}
			}
			publish(b, d, batch...)
		}
	}
	fill("stuck", stuck, 100)
	fill("free", events, 1000)
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	n := 0
	var start time.Time
	err := d.Subscribe(ctx, pubsub.Subscription{Topic: "t", Group: "g"}, func(_ context.Context, x *cloudevents.Delivery) error {
		if x.Key[0] == 's' {
			return nil
		}
		if n++; n == 1 {
			start = time.Now()
		}
		x.Settle(cloudevents.Acked())
		if n == events {
			cancel()
		}
		return nil
	})
	if err != nil {
		b.Error(err)
	}
	rate := events / time.Since(start).Seconds()
	if err := d.Close(context.WithoutCancel(ctx)); err != nil {
		b.Error(err)
	}
	return rate
}

//go:build services

package postgres

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/pubsub"
	"github.com/penstock-io/penstock/test/services"
)

const benchEvents, benchCallers = 10_000, 128

// BenchmarkAgainstBareLoop publishes and consumes messages of 256 B with the
// client library alone, each in a statement of its own on 16 connections, and
// with the component, and prints the rates and their ratios.
func BenchmarkAgainstBareLoop(b *testing.B) {
	addr := services.Need(b, "postgres")
	for b.Loop() {
		prefix := prefixed(b, addr)
		d := openAt(b, addr, "tablePrefix", prefix)
		if err := d.Prepare(b.Context(), pubsub.Subscription{Topic: "t", Group: "g"}); err != nil {
			b.Fatal(err)
		}
		pool, err := pgxpool.New(b.Context(), addr+"?pool_max_conns=16")
		if err != nil {
			b.Fatal(err)
		}
		if _, err := pool.Exec(b.Context(), "CREATE TABLE "+prefix+"bare (id bigserial PRIMARY KEY, body bytea)"); err != nil {
			b.Fatal(err)
		}
		bare := rate(func() { barePublish(b, pool, prefix+"bare") })
		ours := rate(func() { ourPublish(b, d) })
		b.ReportMetric(bare, "bare-publish/s")
		b.ReportMetric(ours, "publish/s")
		b.ReportMetric(ours/bare, "publish-ratio")
		bare = rate(func() { bareConsume(b, pool, prefix+"bare") })
		ours = rate(func() { ourConsume(b, d) })
		b.ReportMetric(bare, "bare-consume/s")
		b.ReportMetric(ours, "consume/s")
		b.ReportMetric(ours/bare, "consume-ratio")
		if _, err := pool.Exec(b.Context(), "DROP TABLE "+prefix+"bare"); err != nil {
			b.Error(err)
		}
		pool.Close()
		closed(b, d)
	}
}

func rate(run func()) float64 {
	began := time.Now()
	run()
	return benchEvents / time.Since(began).Seconds()
}

// crowd calls do for each event from as many goroutines as there are callers.
func crowd(do func()) {
	var wg sync.WaitGroup
	for caller := range benchCallers {
		wg.Go(func() {
			for range (benchEvents + caller) / benchCallers {
				do()
			}
		})
	}
	wg.Wait()
}

func barePublish(b *testing.B, pool *pgxpool.Pool, table string) {
	body := make([]byte, 256)
	crowd(func() {
		if _, err := pool.Exec(b.Context(), "INSERT INTO "+table+" (body) VALUES ($1)", body); err != nil {
			b.Error(err)
		}
	})
}

func ourPublish(b *testing.B, d *driver) {
	body := make([]byte, 256)
	crowd(func() {
		if err := d.Publish(b.Context(), "t", []pubsub.Message{{Data: body}}); err != nil {
			b.Error(err)
		}
	})
}

// bareConsume takes rows as such tables are usually read: one for each worker in
// a transaction of its own.
func bareConsume(b *testing.B, pool *pgxpool.Pool, table string) {
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for {
				tag, err := pool.Exec(b.Context(), "DELETE FROM "+table+" WHERE id = (SELECT id FROM "+table+
					" ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING body")
				if err != nil {
					b.Error(err)
				}
				if err != nil || tag.RowsAffected() == 0 {
					return
				}
			}
		})
	}
	wg.Wait()
}

func ourConsume(b *testing.B, d *driver) {
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	left := benchEvents
	err := d.Subscribe(ctx, pubsub.Subscription{Topic: "t", Group: "g"}, func(_ context.Context, x *cloudevents.Delivery) error {
		x.Settle(cloudevents.Acked())
		if left--; left == 0 {
			cancel()
		}
		return nil
	})
	if err != nil {
		b.Error(err)
	}
}

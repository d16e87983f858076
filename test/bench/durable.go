package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/penstock-io/penstock/all"
	"github.com/penstock-io/penstock/client/sqlite"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/pubsub"
)

const (
	clients      = 64
	rounds       = 6
	roundTime    = 1200 * time.Millisecond
	durableLimit = 5000.0 // publishes in a second
	ratioLimit   = 10.0
	fsyncLimit   = 200.0 // µs, the disk that durableLimit is about
)

// durable compares publishes that share commits with one commit for each event,
// in the same folder.
func (b *bench) durable(ctx context.Context) error {
	dir, err := os.MkdirTemp(b.dir, "durable")
	if err != nil {
		return err
	}
	bus, stopBus, err := openBus(ctx, dir)
	if err != nil {
		return err
	}
	defer stopBus()
	alone, stopAlone, err := openAlone(ctx, dir)
	if err != nil {
		return err
	}
	defer stopAlone()
	arms := []func() error{bus, alone}
	rates := make([][]float64, len(arms))
	var fsyncs []float64
	for n := range rounds {
		us, err := fsync(dir)
		if err != nil {
			return err
		}
		fsyncs = append(fsyncs, us)
		for i := range arms {
			if n%2 == 1 {
				i = len(arms) - 1 - i
			}
			rate, err := together(arms[i])
			if err != nil {
				return err
			}
			rates[i] = append(rates[i], rate)
		}
	}
	b.judgeDurable(rates[0], rates[1], fsyncs)
	return b.durableHTTP(ctx)
}

func (b *bench) judgeDurable(shared, alone, fsyncs []float64) {
	ratios := make([]float64, len(shared))
	for i := range ratios {
		ratios[i] = shared[i] / alone[i]
	}
	us, rate := median(fsyncs), median(shared)
	limit, text := durableLimit, "≥ 5,000/s"
	if us > fsyncLimit {
		limit = durableLimit * fsyncLimit / us
		text = fmt.Sprintf("≥ 5,000/s at 0.2 ms fsync: %.0f/s here", limit)
	}
	b.table.judged(rate >= limit, row{
		what: "durable publishes, pubsub.sqlite, 64 clients", limit: text,
		reached: fmt.Sprintf("%.0f/s", rate), raw: each("%.0f", shared) + "/s",
	})
	b.table.judged(median(ratios) >= ratioLimit, row{
		what: "… against one commit for each event", limit: "≥ 10 ×",
		reached: fmt.Sprintf("%.1f ×", median(ratios)), raw: each("%.1f", ratios),
	})
	b.table.told(row{what: "… one commit for each event", reached: fmt.Sprintf("%.0f/s", median(alone)), raw: each("%.0f", alone) + "/s"})
	b.table.told(row{what: "… append 1 KB and fsync", reached: fmt.Sprintf("%.0f µs", us), raw: "medians of 200: " + each("%.0f", fsyncs) + " µs"})
}

// together calls f from all clients at once for a while and returns the calls
// in a second.
func together(f func() error) (float64, error) {
	began := time.Now()
	end := began.Add(roundTime)
	var n atomic.Int64
	errs := make([]error, clients)
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			for time.Now().Before(end) && errs[i] == nil {
				if errs[i] = f(); errs[i] == nil {
					n.Add(1)
				}
			}
		})
	}
	wg.Wait()
	return float64(n.Load()) / time.Since(began).Seconds(), errors.Join(errs...)
}

// openBus opens the driver of pubsub.sqlite, with a group that everything is
// kept for, and returns what publishes one event.
func openBus(ctx context.Context, dir string) (publish func() error, stop func(), err error) {
	def, err := all.Components().Find("pubsub.sqlite", "v1")
	if err != nil {
		return nil, nil, err
	}
	env := component.Env{AppID: "bench", Name: "bus", DataDir: dir, Logger: slog.New(slog.DiscardHandler), Shared: &component.Shared{}}
	opened, err := def.Open(ctx, env, []config.Item{{Name: "connectionString", Value: filepath.Join(dir, "bus.db")}, {Name: "maxBacklog", Value: "10000000"}})
	if err != nil {
		return nil, nil, err
	}
	d := opened.(pubsub.Driver)
	if err := d.(pubsub.Preparer).Prepare(ctx, pubsub.Subscription{Topic: "events", Group: "bench"}); err != nil {
		return nil, nil, errors.Join(err, d.Close(ctx))
	}
	body := payload(0)
	var n atomic.Int64
	publish = func() error {
		key := strconv.FormatInt(n.Add(1)%1000, 10)
		return d.Publish(ctx, "events", []pubsub.Message{{Data: body, Key: key}})
	}
	return publish, func() { _ = d.Close(ctx) }, nil
}

// openAlone opens a file of the same kind, with the same settings and one
// table, and returns what inserts one event in a transaction of its own.
func openAlone(ctx context.Context, dir string) (insert func() error, stop func(), err error) {
	env := component.Env{Name: "alone", DataDir: dir, Logger: slog.New(slog.DiscardHandler), Shared: &component.Shared{}}
	db, err := sqlite.Open(ctx, env, filepath.Join(dir, "alone.db"))
	if err != nil {
		return nil, nil, err
	}
	if err := db.Migrate(ctx, "alone", "CREATE TABLE event (seq INTEGER PRIMARY KEY, key TEXT NOT NULL, body BLOB NOT NULL)"); err != nil {
		return nil, nil, errors.Join(err, db.Close())
	}
	body := payload(0)
	var one sync.Mutex // commits do not meet: nothing is shared
	insert = func() error {
		one.Lock()
		defer one.Unlock()
		return db.Write(ctx, func(tx *sql.Tx) error {
			stmt, err := db.Stmt(tx, "INSERT INTO event (key, body) VALUES (?, ?)")
			if err == nil {
				_, err = stmt.ExecContext(ctx, "k", body)
			}
			return err
		})
	}
	return insert, func() { _ = db.Close() }, nil
}

// fsync is the median time, in µs, to append 1 KB to a file and have it on the
// disk.
func fsync(dir string) (float64, error) {
	f, err := os.CreateTemp(dir, "fsync")
	if err != nil {
		return 0, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	times := make([]float64, 200)
	kb := make([]byte, 1024)
	for i := range times {
		began := time.Now()
		if _, err := f.Write(kb); err != nil {
			return 0, err
		}
		if err := f.Sync(); err != nil {
			return 0, err
		}
		times[i] = float64(time.Since(began).Nanoseconds()) / 1000
	}
	return median(times), nil
}

// durableHTTP is the same over HTTP, with a subscriber, for information.
func (b *bench) durableHTTP(ctx context.Context) error {
	a, err := newReceiver(clients)
	if err != nil {
		return err
	}
	defer a.close()
	a.subscriptions = []map[string]any{{"pubsubname": "pubsub", "topic": "events", "route": "/events"}}
	dir, err := os.MkdirTemp(b.dir, "durable")
	if err != nil {
		return err
	}
	p, err := b.serve(dir, "--app-port", a.port())
	if err != nil {
		return err
	}
	defer p.stop()
	if _, err := p.ready(ctx); err != nil {
		return err
	}
	publishers := make([]*publisher, clients)
	for i := range publishers {
		if publishers[i], err = dialPublisher(p.address, "/v1.0/publish/pubsub/events", payload(i)); err != nil {
			return err
		}
	}
	began := time.Now()
	n, err := a.flow(ctx, publishers, 3*time.Second)
	b.table.told(row{
		what:    "… over HTTP, and delivered to an app",
		reached: fmt.Sprintf("%.0f/s", float64(n)/time.Since(began).Seconds()), raw: "64 clients, each waits for its delivery",
	})
	return err
}

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

const (
	manyStarts  = 3
	manySegment = 2 * time.Second
	// growthLimit is how much more a tenfold number may cost than ten times:
	// what is quadratic costs ten times more.
	growthLimit = 1.5
	// keptLimit is the share of the rate that 10 subscriptions have which 10,000
	// must still have.
	keptLimit = 0.7
)

// many is what a number of subscriptions costs.
type many struct {
	start float64 // ms until ready, without those of one subscription
	rss   float64 // MB, likewise
	rate  float64 // events in a second
	cpu   float64 // µs for each event
}

// subscriptions measures how start, memory and deliveries grow with the number
// of subscriptions.
func (b *bench) subscriptions(ctx context.Context) error {
	counts := []int{1, 10, 1_000, 10_000}
	found := map[int]many{}
	for _, n := range counts {
		m, err := b.manySubscriptions(ctx, n)
		if err != nil {
			return fmt.Errorf("%d subscriptions: %w", n, err)
		}
		found[n] = m
		b.table.told(row{
			what: fmt.Sprintf("%d subscriptions", n), reached: fmt.Sprintf("ready in %.0f ms, %.0f MB", m.start, m.rss),
			raw: fmt.Sprintf("%.0f events/s delivered over all of them, %.0f µs CPU each", m.rate, m.cpu),
		})
	}
	one, thousand, all := found[1], found[1_000], found[10_000]
	grown := func(what string, one, thousand, all float64, unit string) {
		ratio := (all - one) / (10 * max(thousand-one, 1))
		b.table.judged(ratio <= growthLimit, row{
			what: "… " + what + " of 10,000 against ten times that of 1,000", limit: "≤ 1.5 ×", reached: fmt.Sprintf("%.2f ×", ratio),
			raw: fmt.Sprintf("%.1f %s for each subscription", (all-one)/10, unit),
		})
	}
	grown("start", one.start, thousand.start, all.start, "µs")
	grown("memory", one.rss, thousand.rss, all.rss, "KB")
	kept := all.rate / found[10].rate
	b.table.judged(kept >= keptLimit, row{
		what: "… delivery rate with 10,000 against that with 10", limit: "≥ 70 %", reached: fmt.Sprintf("%.0f %%", 100*kept),
		raw: fmt.Sprintf("%.0f/s, %.0f/s", all.rate, found[10].rate),
	})
	return nil
}

func (b *bench) manySubscriptions(ctx context.Context, n int) (m many, err error) {
	a, err := newReceiver(lanesWide)
	if err != nil {
		return m, err
	}
	defer a.close()
	for i := range n {
		a.subscriptions = append(a.subscriptions, map[string]any{
			"pubsubname": "bus", "topic": fmt.Sprintf("topic-%d", i), "route": "/events",
		})
	}
	var starts []float64
	for range manyStarts {
		took, err := b.withSubscriptions(ctx, a, nil)
		if err != nil {
			return m, err
		}
		starts = append(starts, float64(took.Microseconds())/1000)
	}
	m.start = median(starts)
	_, err = b.withSubscriptions(ctx, a, func(p *process) error { return m.load(ctx, a, p, n) })
	return m, err
}

// withSubscriptions starts penstock for the app, waits until all of its
// subscriptions are there, and hands it to use.
func (b *bench) withSubscriptions(ctx context.Context, a *receiver, use func(*process) error) (time.Duration, error) {
	dir, err := os.MkdirTemp(b.dir, "many")
	if err != nil {
		return 0, err
	}
	if err := writeResources(dir, inMemoryBus); err != nil {
		return 0, err
	}
	p, err := b.serve(dir, "--resources-path", dir+"/resources", "--app-port", a.port())
	if err != nil {
		return 0, err
	}
	defer p.stop()
	took, err := p.ready(ctx)
	if err != nil || use == nil {
		return took, err
	}
	return took, use(p)
}

// load delivers over all topics in turn and charges the process for that.
func (m *many) load(ctx context.Context, a *receiver, p *process, n int) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(quiet):
	}
	var err error
	if m.rss, err = p.memory(); err != nil {
		return err
	}
	var rates, costs []float64
	for range 5 {
		rate, cost, err := segmentOver(ctx, a, p, n)
		if err != nil {
			return err
		}
		rates, costs = append(rates, rate), append(costs, cost)
	}
	m.rate, m.cpu = median(rates), median(costs)
	return nil
}

func segmentOver(ctx context.Context, a *receiver, p *process, n int) (rate, cost float64, err error) {
	publishers := make([]*publisher, lanesWide)
	for i := range publishers {
		if publishers[i], err = dialPublisher(p.address, "", payload(i)); err != nil {
			return 0, 0, err
		}
		defer publishers[i].conn.Close()
		publishers[i].over(i, n, p.address)
	}
	before, err := p.cpu()
	if err != nil {
		return 0, 0, err
	}
	began := time.Now()
	done, err := a.flow(ctx, publishers, manySegment)
	if err != nil {
		return 0, 0, err
	}
	took := time.Since(began)
	after, err := p.cpu()
	if err == nil && done == 0 {
		err = errors.New("nothing was delivered")
	}
	return float64(done) / took.Seconds(), float64((after - before).Nanoseconds()) / 1000 / float64(max(done, 1)), err
}

// over makes the publisher go from topic to topic: the k-th of all takes every
// topic with the number k, k+16, k+32 and so on, of n, beginning again behind
// the last.
func (p *publisher) over(k, n int, address string) {
	body := payload(k)
	for topic := k % n; len(p.turns) < max(1, n/lanesWide); topic = (topic + lanesWide) % n {
		head := fmt.Sprintf("POST /v1.0/publish/bus/topic-%d HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n",
			topic, address, len(body))
		p.turns = append(p.turns, append([]byte(head), body...))
	}
}

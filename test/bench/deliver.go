package main

import (
	"context"
	"fmt"
	"os"
	"time"
)

const (
	segments     = 10
	segmentTime  = 1500 * time.Millisecond
	deliverLimit = 1.3
)

// arm is one of the two programs compared.
type arm struct {
	process    *process
	publishers []*publisher
	cost       []float64 // µs of CPU for each event, by segment
	rate       []float64 // events in a second
}

// deliver compares the CPU time that penstock takes for an event that is
// published and delivered with what the floor takes.
func (b *bench) deliver(ctx context.Context) error {
	a, err := newReceiver(lanesWide)
	if err != nil {
		return err
	}
	defer a.close()
	a.subscriptions = []map[string]any{{"pubsubname": "bus", "topic": "events", "route": "/events"}}
	penstock, err := b.penstockArm(ctx, a)
	if err != nil {
		return err
	}
	defer penstock.process.stop()
	floor, err := b.floorArm(ctx, a)
	if err != nil {
		return err
	}
	defer floor.process.stop()
	for _, one := range []*arm{penstock, floor} {
		if _, err := a.flow(ctx, one.publishers, 2*time.Second); err != nil {
			return fmt.Errorf("warm up: %w\n%s", err, one.process.log.tail())
		}
	}
	for n := range segments { // A B, B A, ...
		pair := []*arm{penstock, floor}
		if n%2 == 1 {
			pair = []*arm{floor, penstock}
		}
		for _, one := range pair {
			if err := one.segment(ctx, a); err != nil {
				return err
			}
		}
	}
	return b.compare(penstock, floor)
}

// segment loads one arm for a while and charges it for that.
func (one *arm) segment(ctx context.Context, a *receiver) error {
	before, err := one.process.cpu()
	if err != nil {
		return err
	}
	began := time.Now()
	n, err := a.flow(ctx, one.publishers, segmentTime)
	if err != nil {
		return err
	}
	took := time.Since(began)
	after, err := one.process.cpu()
	if err != nil {
		return err
	}
	one.cost = append(one.cost, float64((after-before).Nanoseconds())/1000/float64(n))
	one.rate = append(one.rate, float64(n)/took.Seconds())
	return nil
}

func (b *bench) compare(penstock, floor *arm) error {
	ratios := make([]float64, segments)
	for i := range ratios {
		ratios[i] = penstock.cost[i] / floor.cost[i]
	}
	raw := each("%.2f", ratios)
	ratio := median(ratios)
	b.table.judged(ratio <= deliverLimit, row{
		what: "CPU of publish → deliver in memory, 256 B", limit: "≤ 1.3 × bare net/http",
		reached: fmt.Sprintf("%.2f ×", ratio), raw: raw,
	})
	b.table.told(row{
		what: "… penstock", reached: fmt.Sprintf("%.0f µs/event", median(penstock.cost)),
		raw: fmt.Sprintf("%s µs; %.0f events/s", each("%.0f", penstock.cost), median(penstock.rate)),
	})
	b.table.told(row{
		what: "… bare net/http handler and client call", reached: fmt.Sprintf("%.0f µs/event", median(floor.cost)),
		raw: fmt.Sprintf("%s µs; %.0f events/s", each("%.0f", floor.cost), median(floor.rate)),
	})
	mb, err := penstock.process.memory()
	b.table.told(row{what: "… memory of penstock under that load", reached: fmt.Sprintf("%.0f MB", mb), raw: "VmRSS"})
	return err
}

const inMemoryBus = `apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: bus}
spec: {type: pubsub.in-memory, version: v1}
`

func (b *bench) penstockArm(ctx context.Context, a *receiver) (*arm, error) {
	dir, err := os.MkdirTemp(b.dir, "deliver")
	if err != nil {
		return nil, err
	}
	if err := writeResources(dir, inMemoryBus); err != nil {
		return nil, err
	}
	p, err := b.serve(dir, "--resources-path", dir+"/resources", "--app-port", a.port())
	if err != nil {
		return nil, err
	}
	return newArm(ctx, p, "/v1.0/publish/bus/events")
}

func (b *bench) floorArm(ctx context.Context, a *receiver) (*arm, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p, err := run(b.dir, address, self, "-floor", address, "-to", "http://"+a.address+"/events")
	if err != nil {
		return nil, err
	}
	return newArm(ctx, p, "/publish")
}

// newArm waits for the process and connects to it; it stops the process when
// that fails.
func newArm(ctx context.Context, p *process, path string) (*arm, error) {
	one := &arm{process: p}
	_, err := p.ready(ctx)
	for i := 0; i < lanesWide && err == nil; i++ {
		var pub *publisher
		pub, err = dialPublisher(p.address, path, payload(i))
		one.publishers = append(one.publishers, pub)
	}
	if err != nil {
		p.stop()
		return nil, err
	}
	return one, nil
}

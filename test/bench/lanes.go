package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	manyKeys    = 128
	phases      = 6
	phaseTime   = 2 * time.Second
	answerTime  = 10 * time.Millisecond
	lanesLimit  = 0.9
	hangingKey  = 0
	hangingMost = 500 // events of the hanging key in a phase
)

// slowApp answers after a while, so that the number of lanes is what bounds the
// rate; deliveries of the hanging key it does not answer until let go.
type slowApp struct {
	hang   atomic.Pointer[chan struct{}]
	clear  atomic.Bool // what piled up is answered at once
	others atomic.Int64
}

func (s *slowApp) handle(body []byte) {
	if number(body, "worker") != hangingKey {
		time.Sleep(answerTime)
		s.others.Add(1)
		return
	}
	if hang := s.hang.Load(); hang != nil {
		<-*hang
		return
	}
	if !s.clear.Load() {
		time.Sleep(answerTime)
	}
}

const lanesPipeline = `---
apiVersion: penstock.dev/v1
kind: Pipeline
metadata: {name: lanes}
spec:
  from: {pubsub: bus, topic: events}
  orderingKey: string(event.data.worker)
  concurrency: 64
  to:
    - app: {route: /events}
`

// lanes measures what a hanging key costs the others.
func (b *bench) lanes(ctx context.Context) error {
	slow := &slowApp{}
	a, err := newReceiver(manyKeys)
	if err != nil {
		return err
	}
	defer a.close()
	a.handle = slow.handle
	dir, err := os.MkdirTemp(b.dir, "lanes")
	if err != nil {
		return err
	}
	if err := writeResources(dir, inMemoryBus+lanesPipeline); err != nil {
		return err
	}
	p, err := b.serve(dir, "--resources-path", dir+"/resources", "--app-port", a.port())
	if err != nil {
		return err
	}
	defer p.stop()
	if _, err := p.ready(ctx); err != nil {
		return err
	}
	publishers, err := dialKeys(p.address)
	if err != nil {
		return err
	}
	if _, err := phase(ctx, a, slow, publishers, false); err != nil {
		return fmt.Errorf("warm up: %w\n%s", err, p.log.tail())
	}
	var with, without []float64
	for n := range phases {
		for _, hanging := range []bool{n%2 == 0, n%2 == 1} {
			rate, err := phase(ctx, a, slow, publishers, hanging)
			if err != nil {
				return err
			}
			if hanging {
				with = append(with, rate)
			} else {
				without = append(without, rate)
			}
		}
	}
	b.judgeLanes(with, without)
	return nil
}

func (b *bench) judgeLanes(with, without []float64) {
	shares := make([]float64, len(with))
	for i := range shares {
		shares[i] = 100 * with[i] / without[i]
	}
	share := median(shares)
	b.table.judged(share >= 100*lanesLimit, row{
		what: "64 lanes, one hanging key: rate of the others", limit: "≥ 90 %",
		reached: fmt.Sprintf("%.0f %%", share), raw: each("%.0f", shares) + " %",
	})
	b.table.told(row{
		what: "… with it, and without", reached: fmt.Sprintf("%.0f/s, %.0f/s", median(with), median(without)),
		raw: fmt.Sprintf("128 keys, app answers after %v", answerTime),
	})
}

func dialKeys(address string) ([]*publisher, error) {
	publishers := make([]*publisher, manyKeys)
	var err error
	for i := range publishers {
		if publishers[i], err = dialPublisher(address, "/v1.0/publish/bus/events", payload(i)); err != nil {
			return nil, err
		}
	}
	return publishers, nil
}

// phase publishes with all keys for a while and returns the rate of the others.
// While the key hangs, its events go on coming, up to a bound, and pile up.
func phase(ctx context.Context, a *receiver, slow *slowApp, publishers []*publisher, hanging bool) (float64, error) {
	gate := make(chan struct{})
	if hanging {
		slow.hang.Store(&gate)
	}
	var wg sync.WaitGroup
	var piled int
	var pileErr error
	stuck, others := publishers[hangingKey:hangingKey+1], publishers
	if hanging {
		others = publishers[hangingKey+1:]
		end := time.Now().Add(phaseTime)
		wg.Go(func() {
			for ; piled < hangingMost && time.Now().Before(end) && pileErr == nil; piled++ {
				pileErr = stuck[0].publish()
			}
		})
	}
	before, began := slow.others.Load(), time.Now()
	_, err := a.flowFrom(ctx, len(publishers)-len(others), others, phaseTime)
	rate := float64(slow.others.Load()-before) / time.Since(began).Seconds()
	slow.clear.Store(true)
	defer slow.clear.Store(false)
	slow.hang.Store(nil)
	close(gate)
	wg.Wait()
	// What piled up is let through before the next phase.
	for range piled {
		select {
		case <-a.arrived[hangingKey]:
		case <-time.After(20 * time.Second):
			return 0, errors.New("what the hanging key held did not arrive")
		}
	}
	return rate, errors.Join(err, pileErr)
}

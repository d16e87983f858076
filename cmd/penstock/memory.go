package main

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"
)

const (
	// collectorRoom is how much garbage may pile up before the collector runs.
	// What is alive is a few MB, and the default, as much again, would make it
	// run hundreds of times a second under load.
	collectorRoom = 16 << 20
	// usualHeap is what is alive when nothing much is configured.
	usualHeap = 4 << 20
	// leastPercent is the default of Go; heaps beyond collectorRoom get it.
	leastPercent = 100
	mostPercent  = 1600

	// settleTime is when a start is over; quietTime is how long nothing much
	// must have happened for memory to be given back again.
	settleTime = 2 * time.Second
	quietTime  = 30 * time.Second
)

// tendMemory paces the collector and gives memory back that is not in use:
// what the start needed, and later what a load needed that is over. GOGC and
// GOMEMLIMIT, where set, are left to rule.
func tendMemory(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	if os.Getenv("GOGC") == "" && os.Getenv("GOMEMLIMIT") == "" {
		p := &pacer{ctx: ctx, percent: leastPercent}
		p.set(usualHeap) // no collection while starting
		p.watch()
	}
	var wg sync.WaitGroup
	wg.Go(func() { giveBack(ctx) })
	return func() {
		cancel()
		wg.Wait()
	}
}

// giveBack gives memory back when the start is over, and after that whenever
// the collector did not have to run for quietTime: then next to nothing
// happens, and the next collection could be long in coming.
func giveBack(ctx context.Context) {
	timer := time.NewTimer(settleTime)
	defer timer.Stop()
	for begun, last := false, uint64(0); ; begun = true {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		if !begun || collections() == last {
			debug.FreeOSMemory()
			releaseCode()
		}
		last = collections()
		timer.Reset(quietTime)
	}
}

// pacer sets the collector's percentage after each collection.
type pacer struct {
	ctx     context.Context
	percent int
}

// watch calls back after the next collection: when the sentinel, which nobody
// holds, was found dead.
func (p *pacer) watch() {
	runtime.AddCleanup(&sentinel{}, (*pacer).collected, p)
}

func (p *pacer) collected() {
	if p.ctx.Err() == nil {
		p.set(alive())
		p.watch()
	}
}

// sentinel is too large to share a block with other small objects, which would
// keep it.
type sentinel struct{ _ [64]byte }

// set changes the percentage when it is off by more than a quarter: changing it
// stops the world for a moment.
func (p *pacer) set(live uint64) {
	want := percentFor(live)
	if want*4 > p.percent*5 || want*5 < p.percent*4 {
		p.percent = want
		debug.SetGCPercent(want)
	}
}

// percentFor is the percentage that lets collectorRoom pile up.
func percentFor(live uint64) int {
	return int(min(max(collectorRoom*100/max(live, 1), leastPercent), mostPercent))
}

// alive is the size of what the last collection found in use, in bytes.
func alive() uint64 { return metric("/gc/heap/live:bytes") }

// collections is how often the collector has run.
func collections() uint64 { return metric("/gc/cycles/total:gc-cycles") }

func metric(name string) uint64 {
	sample := []metrics.Sample{{Name: name}}
	metrics.Read(sample)
	if sample[0].Value.Kind() != metrics.KindUint64 {
		return 0
	}
	return sample[0].Value.Uint64()
}

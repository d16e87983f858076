package main

import (
	"context"
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

func TestPercentFor(t *testing.T) {
	t.Parallel()
	rows := []struct {
		name string
		live uint64
		want int
	}{
		{"nothing known", 0, mostPercent},
		{"tiny", 1 << 20, mostPercent},
		{"usual", 4 << 20, 400},
		{"half the room", 8 << 20, 200},
		{"the room", collectorRoom, leastPercent},
		{"much", 1 << 30, leastPercent},
	}
	for _, r := range rows {
		if got := percentFor(r.live); got != r.want {
			t.Errorf("%s: %d %%, want %d %%", r.name, got, r.want)
		}
	}
}

// TestPacer has the collector run and wants its percentage changed by that,
// again and again, and no more once the context has ended.
func TestPacer(t *testing.T) {
	before := debug.SetGCPercent(leastPercent)
	defer debug.SetGCPercent(before)
	ctx, cancel := context.WithCancel(t.Context())
	p := &pacer{ctx: ctx, percent: leastPercent}
	p.watch()
	for range 2 {
		await(t, func() bool {
			runtime.GC()
			return percent() > leastPercent
		})
		debug.SetGCPercent(leastPercent)
		ballast := make([]byte, collectorRoom) // has the percentage fall, so that it can rise again
		await(t, func() bool {
			runtime.GC()
			runtime.KeepAlive(ballast)
			return percentFor(alive()) == leastPercent
		})
	}
	cancel()
	runtime.GC()
}

func percent() int {
	p := debug.SetGCPercent(leastPercent)
	debug.SetGCPercent(p)
	return p
}

// TestGiveBack wants resident memory to fall when the start is over.
func TestGiveBack(t *testing.T) {
	t.Setenv("GOGC", "100") // nothing else here changes it
	big := make([]byte, 32<<20)
	for i := 0; i < len(big); i += 4096 {
		big[i] = 1
	}
	runtime.KeepAlive(big)
	before := released()
	stop := tendMemory(t.Context())
	defer stop()
	await(t, func() bool { return released() >= before+24<<20 })
}

// released is how much of the heap was given back to the system, in bytes.
func released() uint64 { return metric("/memory/classes/heap/released:bytes") }

func await(t *testing.T, ok func() bool) {
	t.Helper()
	end := time.NewTimer(20 * time.Second)
	defer end.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-end.C:
			t.Fatal("did not happen in time")
		case <-tick.C:
		}
	}
}

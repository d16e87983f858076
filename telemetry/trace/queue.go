package trace

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	sdk "go.opentelemetry.io/otel/sdk/trace"
)

// The bounds of a queue: spans that wait, spans that are sent at once, and how long
// one waits for company.
const (
	queueSize = 2048
	batchSize = 512
	lingering = time.Second
)

// Counts are spans since the start.
type Counts struct {
	// Sent were taken by a collector. Dropped found the queue of one full, because
	// it is slow or away, or ended when spans went there no more. Failed were given up when a collector did not take them.
	Sent, Dropped, Failed int64
}

// tally counts for all queues there were.
type tally struct{ sent, dropped, failed atomic.Int64 }

// Counts returns what became of the spans so far.
func (t *Tracer) Counts() Counts {
	if t == nil {
		return Counts{}
	}
	return Counts{Sent: t.tally.sent.Load(), Dropped: t.tally.dropped.Load(), Failed: t.tally.failed.Load()}
}

// exporter is the SDK's.
type exporter = sdk.SpanExporter

// queue holds what is to go to one collector. It implements the SDK's
// SpanProcessor.
type queue struct {
	name    string
	to      exporter
	timeout time.Duration // of sending a batch
	tally   *tally
	log     *slog.Logger
	spans   chan sdk.ReadOnlySpan
	closing chan struct{} // closed when nothing comes any more
	failing bool          // of the worker: the last batch was not taken
}

// OnStart implements the SDK's SpanProcessor.
func (*queue) OnStart(context.Context, sdk.ReadWriteSpan) {}

// OnEnd implements the SDK's SpanProcessor. It never waits. A span that ends after
// its collector was given up is dropped: nobody would send it.
func (q *queue) OnEnd(s sdk.ReadOnlySpan) {
	select {
	case <-q.closing:
		q.tally.dropped.Add(1)
		return
	default:
	}
	select {
	case q.spans <- s:
	default:
		q.tally.dropped.Add(1)
	}
}

// ForceFlush implements the SDK's SpanProcessor; the worker flushes.
func (*queue) ForceFlush(context.Context) error { return nil }

// Shutdown implements the SDK's SpanProcessor; the worker shuts down.
func (*queue) Shutdown(context.Context) error { return nil }

// run sends until the queue is closed and empty, or ctx ends: then what is left is
// given up.
func (q *queue) run(ctx context.Context) {
	batch := make([]sdk.ReadOnlySpan, 0, batchSize)
	timer := time.NewTimer(lingering)
	defer timer.Stop()
	for open := true; open; {
		select {
		case s := <-q.spans:
			if batch = append(batch, s); len(batch) < batchSize {
				continue
			}
		case <-timer.C:
		case <-q.closing:
			open = false
		}
		batch = q.send(ctx, batch)
		timer.Reset(lingering)
	}
	for more := true; more; batch = q.last(ctx, batch) {
		more = q.fill(&batch)
	}
	// What it holds is freed without a word to anybody.
	_ = q.to.Shutdown(ctx)
}

// last is send at the end: who did not take the batch before gets no other chance,
// so that nobody waits for a collector that is away.
func (q *queue) last(ctx context.Context, batch []sdk.ReadOnlySpan) []sdk.ReadOnlySpan {
	if q.failing {
		q.tally.failed.Add(int64(len(batch)))
		return batch[:0]
	}
	return q.send(ctx, batch)
}

// fill takes what is there into a batch; false when that was all.
func (q *queue) fill(batch *[]sdk.ReadOnlySpan) bool {
	for len(*batch) < batchSize {
		select {
		case s := <-q.spans:
			*batch = append(*batch, s)
		default:
			return false
		}
	}
	return true
}

// send sends a batch and returns the room of it.
func (q *queue) send(ctx context.Context, batch []sdk.ReadOnlySpan) []sdk.ReadOnlySpan {
	if len(batch) == 0 {
		return batch
	}
	limited, cancel := context.WithTimeout(ctx, q.timeout)
	defer cancel()
	err := q.to.ExportSpans(limited, batch)
	n := int64(len(batch))
	if err == nil {
		q.tally.sent.Add(n)
		if q.failing {
			q.log.Info("Traces are taken again", "exporter", q.name)
		}
	} else {
		q.tally.failed.Add(n)
		if !q.failing {
			q.log.Warn("Traces are not taken; spans are dropped until they are", "exporter", q.name, "error", plain(err))
		}
	}
	q.failing = err != nil
	clear(batch) // what was sent is not to be held
	return batch[:0]
}

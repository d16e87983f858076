package rabbitmq

import (
	"context"
	"sync"
	"time"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
)

// leftPause is how long a message of a feed in strict order that was left waits.
const leftPause = 100 * time.Millisecond

// turn is one delivery of a message in strict order.
type turn struct {
	delivery
	mu        sync.Mutex
	outcome   chan cloudevents.Outcome
	abandoned bool // nobody waits for the outcome any more
}

// strictly hands one message out and waits for its end: the next one comes after
// it. A retry stays here, with its delay; when Read ends meanwhile the message
// goes back to its place in the queue.
func (k *consumer) strictly(ctx context.Context, m *delivery, emit cloudevents.EmitFunc) error {
	k.mu.Lock()
	k.open++
	k.mu.Unlock()
	for {
		t := &turn{outcome: make(chan cloudevents.Outcome, 1)}
		t.consumer, t.source, t.Delivery = m.consumer, m.source, m.Delivery
		t.Settle = t.settle
		if err := emit(ctx, &t.Delivery); err != nil {
			m.finish(requeue)
			if ctx.Err() == nil {
				return fault.Wrap(err, "hand over message")
			}
			return nil
		}
		o, ok := t.wait(ctx)
		if !ok {
			return nil
		}
		pause := leftPause
		switch {
		case o.Verdict == cloudevents.Ack || o.Verdict == cloudevents.Drop:
			m.finish(ack)
			return nil
		case o.Verdict == cloudevents.Retry && k.feed.DeadLetter:
			m.finish(reject)
			return nil
		case o.Verdict == cloudevents.Retry:
			pause = retryDelay(o.After, m.Attempt)
			m.Attempt++
		}
		if !k.pause(ctx, pause) {
			m.finish(requeue)
			return nil
		}
	}
}

// pause waits; false when ctx or the channel ends first.
func (k *consumer) pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return !k.ch.IsClosed()
	case <-ctx.Done():
		return false
	}
}

func (t *turn) settle(o cloudevents.Outcome) {
	if t.done.Swap(true) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.abandoned {
		t.outcome <- o
		return
	}
	t.late(o)
}

// wait waits for the outcome. When ctx ends first, the outcome is heeded whenever
// it comes.
func (t *turn) wait(ctx context.Context) (cloudevents.Outcome, bool) {
	select {
	case o := <-t.outcome:
		return o, true
	case <-ctx.Done():
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.abandoned = true
	select {
	case o := <-t.outcome:
		t.late(o)
	default:
	}
	return cloudevents.Outcome{}, false
}

// late is an outcome that comes when Read is ending.
func (t *turn) late(o cloudevents.Outcome) {
	switch {
	case o.Verdict == cloudevents.Ack || o.Verdict == cloudevents.Drop:
		t.finish(ack)
	case o.Verdict == cloudevents.Retry && t.consumer.feed.DeadLetter:
		t.finish(reject)
	default:
		t.finish(requeue)
	}
}

package state

import (
	"context"
	"sync"
	"time"
)

// acks deletes the rows that are published, many at once.
type acks struct {
	q    *OutboxQueue
	wake chan struct{}

	mu   sync.Mutex
	keys []string // under mu
}

func newAcks(q *OutboxQueue) *acks { return &acks{q: q, wake: make(chan struct{}, 1)} }

func (a *acks) add(key string) {
	a.mu.Lock()
	a.keys = append(a.keys, key)
	a.mu.Unlock()
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// ackPause is between two tries to delete.
const ackPause = time.Second

// run deletes until ctx ends, and then what is left, once. A row that cannot be
// deleted now is published again by somebody later: at least once.
func (a *acks) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			_ = a.flush(last)
			return
		case <-a.wake:
		}
		for a.flush(ctx) != nil && ctx.Err() == nil {
			select {
			case <-ctx.Done():
			case <-time.After(ackPause):
			}
		}
	}
}

func (a *acks) flush(ctx context.Context) error {
	for {
		a.mu.Lock()
		keys := a.keys[:min(len(a.keys), ackAtOnce)]
		a.mu.Unlock()
		if len(keys) == 0 {
			return nil
		}
		changes := make([]Change, len(keys))
		for i, key := range keys {
			changes[i] = Change{Key: key, Delete: true}
		}
		if err := a.q.store.Apply(ctx, changes); err != nil {
			return err
		}
		a.q.gone(keys)
		a.mu.Lock()
		a.keys = a.keys[len(keys):]
		a.mu.Unlock()
	}
}

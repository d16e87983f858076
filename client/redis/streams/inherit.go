package streams

import (
	"context"
	"strings"
	"time"

	"github.com/penstock-io/penstock/client/redis"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
)

// inherit waits, before anything new is read, until it is known of every other
// consumer of ours that has entries whether it lives, and until those of the dead
// are here: a process that is started again goes on where the one before it was
// killed, in order. It takes as long as a key of the dead lives, and no time when
// there is nothing to wait for.
func (m *member) inherit(ctx context.Context, emit cloudevents.EmitFunc) error {
	left := map[string]int64{} // how long the keys of the others lived when first seen
	for end := time.Now().Add(2 * lifetime); ctx.Err() == nil && time.Now().Before(end); {
		open, err := m.unclear(ctx, left)
		if err != nil || !open {
			return err
		}
		m.sleep(ctx, lookEvery)
		if err := m.beat(ctx); err != nil {
			return err
		}
		m.mu.Lock()
		full := len(m.again) >= takenMost
		m.mu.Unlock()
		if !full {
			continue
		}
		if _, err := m.feedOnce(ctx, emit); err != nil {
			return err
		}
	}
	return nil
}

// unclear tells whether another consumer of ours has entries and is dead, or has
// not been seen to live.
func (m *member) unclear(ctx context.Context, left map[string]int64) (bool, error) {
	c := m.g.o.Client
	all, err := consumersOf(c.Do(ctx, c.B().XinfoConsumers().Key(m.stream).Group(m.group).Build()))
	if err != nil {
		return false, fault.Wrap(redis.Classify(err), "list consumers of stream %q", m.stream)
	}
	open := false
	for name, other := range all {
		if name == m.name || other.pending == 0 || !strings.HasPrefix(name, prefix) {
			continue
		}
		ms, err := c.Do(ctx, c.B().Pttl().Key(aliveKey+name).Build()).AsInt64()
		if err != nil {
			return false, fault.Wrap(redis.Classify(err), "look for consumer %q", name)
		}
		before, seen := left[name]
		if !seen || ms < before {
			left[name] = ms
		}
		open = open || ms < 0 || !seen || ms <= before // it has not beaten since
	}
	return open, nil
}

package component

import (
	"context"
	"time"
)

// Acquire is Driver for the time of one call: Close waits until Release. It is
// cheap enough for every event.
func (i *Instance[D]) Acquire() (D, error) {
	i.users.Add(1)
	d, err := i.Driver()
	if err != nil {
		i.Release()
	}
	return d, err
}

// Release ends a call that began with an Acquire without error.
func (i *Instance[D]) Release() {
	if i.users.Add(-1) == 0 && i.live.Load() == nil {
		select {
		case i.idle <- struct{}{}:
		default:
		}
	}
}

// awaitIdle waits for the calls under way. New ones are refused already.
func (i *Instance[D]) awaitIdle(ctx context.Context) {
	for i.users.Load() > 0 {
		select {
		case <-i.idle:
		case <-ctx.Done():
			return
		}
	}
}

// awaitPause is how often Await looks again; readiness has no signal of its own
// because nearly everything is ready before anybody waits.
const awaitPause = 20 * time.Millisecond

// Await returns the driver as soon as the component is ready. It fails when the
// component will never open, is closed, or ctx ends.
func (i *Instance[D]) Await(ctx context.Context) (D, error) {
	tick := time.NewTicker(awaitPause)
	defer tick.Stop()
	for {
		d, err := i.Driver()
		if err == nil {
			return d, nil
		}
		if word := i.State().Word; word == Failed || word == Closed {
			return d, err
		}
		select {
		case <-ctx.Done():
			return d, ctx.Err()
		case <-tick.C:
		}
	}
}

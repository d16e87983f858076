package lists

import (
	"context"
	"time"
)

// live beats until Close.
func (r *Reader) live() {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	for {
		select {
		case <-r.ctx.Done():
			return
		case <-tick.C:
		}
		ctx, cancel := context.WithTimeout(r.ctx, lifetime)
		_ = r.beat(ctx) // the read notices by itself that the server is away
		cancel()
	}
}

// beat shows that we live, as long as somebody reads or something is under way,
// and frees what belongs to those who live no more.
func (r *Reader) beat(ctx context.Context) error {
	r.mu.Lock()
	failed := r.failed
	r.failed, r.check = nil, true // a take may have been done after we gave it up
	idle := r.readers == 0 && len(r.under) == 0
	reading, shown := r.readers > 0, r.shown
	r.mu.Unlock()
	for _, n := range failed {
		r.acks.Add(n, nil)
	}
	switch {
	case idle && shown:
		return r.rest(ctx, false)
	case idle:
		return nil
	}
	c, k := r.o.Client, r.keys
	for _, answer := range c.DoMulti(ctx,
		c.B().Set().Key(k.alive+r.name).Value("1").PxMilliseconds(lifetime.Milliseconds()).Build(),
		c.B().Sadd().Key(k.names).Member(r.name).Build()) {
		if err := answer.Error(); err != nil {
			return err
		}
	}
	if !reading {
		return nil
	}
	_, err := r.takeOver(ctx)
	return err
}

// takeOver frees what belongs to readers that do not live and returns the names of
// those that do.
func (r *Reader) takeOver(ctx context.Context) (alive []string, err error) {
	c := r.o.Client
	names, err := c.Do(ctx, c.B().Smembers().Key(r.keys.names).Build()).AsStrSlice()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if name == r.name {
			continue
		}
		n, err := r.release(ctx, name)
		switch {
		case err != nil:
			return nil, err
		case n < 0:
			alive = append(alive, name)
		case n > 0:
			r.o.Logger.Info("Took over entries of a reader that is gone", "list", r.o.List, "entries", n)
		}
	}
	return alive, nil
}

// inherit waits, before anything is taken, until every other reader that has
// entries is dead or was seen to live: a process that is started again goes on
// where the one before it was killed, in order. It takes as long as a key of the
// dead lives, and no time when there is nothing to wait for.
func (r *Reader) inherit(ctx context.Context) error {
	left := map[string]int64{} // how long the keys of the others lived when first seen
	c, k := r.o.Client, r.keys
	for end := time.Now().Add(2 * lifetime); ctx.Err() == nil && time.Now().Before(end); {
		names, err := r.takeOver(ctx)
		if err != nil {
			return err
		}
		open := false
		for _, name := range names {
			answers := c.DoMulti(ctx, c.B().Scard().Key(k.own+name).Build(), c.B().Pttl().Key(k.alive+name).Build())
			has, err := answers[0].AsInt64()
			if err != nil {
				return err
			}
			ms, err := answers[1].AsInt64()
			if err != nil {
				return err
			}
			before, seen := left[name]
			if !seen || ms < before {
				left[name] = ms
			}
			open = open || has > 0 && (ms < 0 || !seen || ms <= before) // it has not beaten since
		}
		if !open {
			return nil
		}
		sleep(ctx, lookEvery)
	}
	return nil
}

// release frees what belongs to a reader that does not live and returns how many
// entries that were.
func (r *Reader) release(ctx context.Context, name string) (int64, error) {
	k := r.keys
	return r.free.Exec(ctx, r.o.Client.Client, []string{k.free, k.names, k.own + name, k.alive + name}, []string{name}).AsInt64()
}

// rest gives what is ours free for all and ends our presence, unless it is not
// the end and somebody has begun to read.
func (r *Reader) rest(ctx context.Context, end bool) error {
	r.taking.Lock()
	defer r.taking.Unlock()
	r.mu.Lock()
	busy := r.readers > 0 || len(r.under) > 0
	r.mu.Unlock()
	if busy && !end {
		return nil
	}
	c := r.o.Client
	if err := c.Do(ctx, c.B().Del().Key(r.keys.alive+r.name).Build()).Error(); err != nil {
		return err
	}
	if _, err := r.release(ctx, r.name); err != nil {
		return err
	}
	r.mu.Lock()
	r.shown = false
	r.mu.Unlock()
	return nil
}

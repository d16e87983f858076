package state

import (
	"context"

	"golang.org/x/sync/errgroup"
)

// Each runs do for every index below n, at most parallel at once, and returns
// when all have ended. It is for drivers whose store takes one key at a time;
// do notes its outcome itself.
func Each(ctx context.Context, n, parallel int, do func(ctx context.Context, i int)) {
	if n == 1 || parallel <= 1 {
		for i := range n {
			do(ctx, i)
		}
		return
	}
	var g errgroup.Group
	g.SetLimit(parallel)
	for i := range n {
		g.Go(func() error {
			do(ctx, i)
			return nil
		})
	}
	_ = g.Wait() // do returns none
}

// ApplyEach runs do for every change, those of one key in their order and at
// most parallel keys at once, and returns what [Driver] says of Apply. It is for
// drivers whose store takes one change at a time.
func ApplyEach(ctx context.Context, changes []Change, parallel int, do func(ctx context.Context, c *Change) error) error {
	var keys []string
	of := make(map[string][]int, len(changes))
	for i := range changes {
		key := changes[i].Key
		if of[key] == nil {
			keys = append(keys, key)
		}
		of[key] = append(of[key], i)
	}
	errs := make([]error, len(changes))
	Each(ctx, len(keys), parallel, func(ctx context.Context, k int) {
		for _, i := range of[keys[k]] {
			errs[i] = do(ctx, &changes[i])
		}
	})
	return Batch(errs)
}

// GetEach reads every key with do, at most r.Parallel at once. It is for drivers
// whose store is asked for one key at a time; an error of do becomes that of the
// item.
func GetEach(ctx context.Context, keys []string, r Read, do func(ctx context.Context, key string) (Item, error)) ([]Item, error) {
	items := make([]Item, len(keys))
	Each(ctx, len(keys), r.Parallel, func(ctx context.Context, i int) {
		it, err := do(ctx, keys[i])
		if err != nil {
			it = Item{Err: err}
		}
		items[i] = it
	})
	return items, nil
}

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

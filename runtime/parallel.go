package runtime

import (
	"context"
	"errors"
	"sync"
)

// inParallel calls do for every name at once and joins what fails. The lists
// it serves are bounded by the number of components.
func inParallel(ctx context.Context, names []string, do func(context.Context, string) error) error {
	errs := make([]error, len(names))
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() { errs[i] = do(ctx, name) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

package runtime

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/penstock-io/penstock/fault"
)

// inParallel calls do for every name at once and joins what fails. The error is
// retriable when any of them is: what can still succeed is not given up for what
// cannot. The lists it serves are bounded by the number of components.
func inParallel(ctx context.Context, names []string, do func(context.Context, string) error) error {
	errs := make([]error, len(names))
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() { errs[i] = do(ctx, name) })
	}
	wg.Wait()
	slices.SortStableFunc(errs, func(a, b error) int {
		switch {
		case fault.Retriable(a) == fault.Retriable(b):
			return 0
		case fault.Retriable(a):
			return -1
		default:
			return 1
		}
	})
	return errors.Join(errs...)
}

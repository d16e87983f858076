package state

import (
	"context"
	"log/slog"
	"regexp"
	"sync"
	"time"

	"github.com/penstock-io/penstock/component"
)

// identifier is what SQL stores take as the name of a table: it needs no
// quoting anywhere and cannot end a quoted name.
var identifier = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// CheckTable returns an error about option when name is not a plain name of a
// table: letters, digits and _, at most 63, no digit first.
func CheckTable(option, name string) error {
	if len(name) > 63 || !identifier.MatchString(name) {
		return component.OptionErrorf(option, "%.80q is not a name of a table: 1 to 63 letters, digits and _, and no digit first", name)
	}
	return nil
}

// Sweep calls clean every interval until the function returned is called, which
// waits for a call under way. It is how stores without an expiry of their own get
// rid of what is expired. An interval of 0 or less never cleans. A failure is
// logged once until the next success: what is expired stays invisible, and the
// next call has it again.
func Sweep(ctx context.Context, log *slog.Logger, interval time.Duration, clean func(context.Context) error) (stop func()) {
	if interval <= 0 {
		return func() {}
	}
	// It lives until it is stopped, not as long as opening takes.
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(interval)
		defer tick.Stop()
		failed := false
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			err := clean(ctx)
			if err != nil && !failed && ctx.Err() == nil && log != nil {
				log.Warn("delete expired items", "error", err)
			}
			failed = err != nil
		}
	})
	return func() {
		cancel()
		wg.Wait()
	}
}

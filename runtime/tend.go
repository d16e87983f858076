package runtime

import (
	"context"
	"time"

	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/resilience"
)

// nudge puts one into a channel that holds one, unless it is there already.
func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// watch tells tend when the configuration files change, until ctx ends. set is
// what was read last.
func (r *Runtime) watch(ctx context.Context, set *config.Set) {
	if len(r.o.Resources)+len(r.o.Configs) == 0 {
		return
	}
	o := r.o.reader()
	o.Last = set
	config.Watch(ctx, o, func(*config.Set, config.Problems) { nudge(r.edited) })
}

// tend makes every change of what runs, one after the other, until ctx ends:
// when the configuration was edited, a reload was asked for, a secret changed, a
// component opened late or the app said what it wants. What could not be done because something
// was not reachable is tried again after 1 s, doubling to 15 s. life is the
// lifetime of what it opens.
func (r *Runtime) tend(ctx, life context.Context) {
	pauses := resilience.Retry{Initial: time.Second}
	for tries := 1; ; tries++ {
		var again <-chan time.Time
		if r.unfinished() {
			again = time.After(pauses.Delay(tries, 0))
		} else {
			tries = 0
		}
		select {
		case <-ctx.Done():
			return
		case <-again:
			if r.refused != nil {
				r.reload(ctx, life)
			}
			r.rotate(ctx, life)
		case <-r.turned:
			r.rotate(ctx, life)
			r.turnEndpoints(ctx)
		case <-r.edited:
			r.reload(ctx, life)
		case <-r.o.Reload:
			r.log.Info("Reload asked for")
			r.reload(ctx, life)
			nudge(r.back)
		case a := <-r.met:
			r.hear(a)
		case <-r.opened:
		}
		r.applyRoutes(ctx, life)
		r.heard()
		if r.appSeen && !r.started.Load() {
			r.announce()
		}
	}
}

// unfinished tells whether there is something to try again.
func (r *Runtime) unfinished() bool {
	if r.refused != nil || len(r.unturned) > 0 {
		return true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.unstarted) > 0
}

// announce says that the start is complete.
func (r *Runtime) announce() {
	r.started.Store(true)
	r.log.Info("dapr initialized. Status: Running.")
}

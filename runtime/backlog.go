package runtime

import (
	"context"
	"sync"
	"time"

	"github.com/penstock-io/penstock/pubsub"
)

// Times of asking brokers what waits for routes.
const (
	backlogEvery = 10 * time.Second // not more often, however often somebody looks
	backlogLimit = 5 * time.Second  // for all routes
	backlogFresh = time.Minute      // what is older is not told any more
)

// backlogs know what waits at the brokers for each route. Brokers are only asked
// when somebody looks at the metrics, which are then those of the time before.
type backlogs struct {
	looked chan struct{} // holds one: somebody looks

	mu      sync.Mutex
	sources map[string]*noted // of routes, by name; some may be gone
	known   map[string]pubsub.Backlog
	asked   time.Time
}

func newBacklogs() *backlogs {
	return &backlogs{looked: make(chan struct{}, 1), sources: map[string]*noted{}}
}

// noted is the source of a route, and how often the route was not there when it was
// looked for: one that is just being made is not yet.
type noted struct {
	source *pubsub.Source
	missed int
}

// note takes in the source of a route; nil backlogs take none.
func (b *backlogs) note(route string, s *pubsub.Source) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sources[route] = &noted{source: s}
}

// look returns what is known, and has it asked anew.
func (b *backlogs) look() map[string]pubsub.Backlog {
	nudge(b.looked)
	b.mu.Lock()
	defer b.mu.Unlock()
	if time.Since(b.asked) > backlogFresh {
		return nil
	}
	return b.known
}

// run asks when somebody looks, until ctx ends. Running says which routes there
// are.
func (b *backlogs) run(ctx context.Context, running func() []string) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.looked:
		}
		b.ask(ctx, running())
		pause := time.NewTimer(backlogEvery)
		select {
		case <-ctx.Done():
			pause.Stop()
			return
		case <-pause.C:
		}
	}
}

// ask asks the brokers one after the other. One that does not answer is left out:
// that it is away is told elsewhere.
func (b *backlogs) ask(ctx context.Context, running []string) {
	ctx, cancel := context.WithTimeout(ctx, backlogLimit)
	defer cancel()
	found := map[string]pubsub.Backlog{}
	for name, s := range b.current(running) {
		if log, ok, err := s.Backlog(ctx); ok && err == nil {
			found[name] = log
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.known, b.asked = found, time.Now()
}

// current are the sources of the routes that run; those that were missed twice are
// forgotten.
func (b *backlogs) current(running []string) map[string]*pubsub.Source {
	b.mu.Lock()
	defer b.mu.Unlock()
	runs := make(map[string]bool, len(running))
	for _, name := range running {
		runs[name] = true
	}
	kept := make(map[string]*pubsub.Source, len(running))
	for name, n := range b.sources {
		switch {
		case runs[name]:
			kept[name] = n.source
		case n.missed > 0:
			delete(b.sources, name)
		default:
			n.missed++
		}
	}
	return kept
}

// addBacklogs adds what is known to the readings of the gauges.
func (r *Runtime) addBacklogs(add func(gauge int, v float64, labels ...string)) {
	for name, b := range r.routes.backlogs.look() {
		add(routeBacklog, float64(b.Messages), name)
		switch {
		case !b.Oldest.IsZero():
			add(routeOldest, max(0, time.Since(b.Oldest).Seconds()), name)
		case b.Messages == 0:
			add(routeOldest, 0, name)
		}
	}
}

// routeNames are those of the routes that run.
func (r *Runtime) routeNames() (names []string) {
	for _, s := range r.router.Routes() {
		names = append(names, s.Name)
	}
	return names
}

package runtime

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/router"
)

// Times of asking brokers what waits for routes.
const (
	backlogEvery = 10 * time.Second // not more often, however often somebody looks
	backlogLimit = 5 * time.Second  // for all routes
	backlogFresh = time.Minute      // what is older is not told any more
	// backlogPatience is how long somebody waits who looks once.
	backlogPatience = 2 * time.Second
)

// backlogged is a source that may know what waits for it; ok is false when it does
// not.
type backlogged interface {
	Backlog(ctx context.Context) (b cloudevents.Backlog, ok bool, err error)
}

// backlogs know what waits at the brokers for each route. Brokers are only asked
// when somebody looks, who then gets what is known of the time before.
type backlogs struct {
	looked chan struct{} // holds one: somebody looks

	mu      sync.Mutex
	sources map[string]*noted // of routes, by name; some may be gone
	known   map[string]cloudevents.Backlog
	asked   time.Time
	told    chan struct{} // closed, and made anew, when they have been asked
}

func newBacklogs() *backlogs {
	return &backlogs{looked: make(chan struct{}, 1), sources: map[string]*noted{}, told: make(chan struct{})}
}

// noted is the source of a route, and how often the route was not there when it was
// looked for: one that is just being made is not yet.
type noted struct {
	source backlogged
	from   string // the component, which is asked one thing at a time
	missed int
}

// note takes in the source of a route, where it may know.
func (b *backlogs) note(r *router.Route) {
	s, ok := r.Source.(backlogged)
	if !ok {
		return
	}
	from, _, _ := strings.Cut(r.From, "/")
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sources[r.Name] = &noted{source: s, from: from}
}

// look returns what is known, and has it asked anew.
func (b *backlogs) look() map[string]cloudevents.Backlog {
	nudge(b.looked)
	b.mu.Lock()
	defer b.mu.Unlock()
	if time.Since(b.asked) > backlogFresh {
		return nil
	}
	return b.known
}

// await is look for somebody who looks once: when nothing is known yet it waits a
// little for those that are asked.
func (b *backlogs) await() map[string]cloudevents.Backlog {
	b.mu.Lock()
	told, none := b.told, len(b.sources) == 0
	b.mu.Unlock()
	if known := b.look(); known != nil || none {
		return known
	}
	late := time.NewTimer(backlogPatience)
	defer late.Stop()
	select {
	case <-told:
	case <-late.C:
	}
	return b.look()
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

// ask asks the components side by side, each for one route after the other. One that
// does not answer is left out: that it is away is told elsewhere.
func (b *backlogs) ask(ctx context.Context, running []string) {
	ctx, cancel := context.WithTimeout(ctx, backlogLimit)
	defer cancel()
	found := map[string]cloudevents.Backlog{}
	var wg sync.WaitGroup
	for _, sources := range b.current(running) {
		wg.Go(func() {
			for name, s := range sources {
				log, ok, err := s.Backlog(ctx)
				if !ok || err != nil {
					continue
				}
				b.mu.Lock()
				found[name] = log
				b.mu.Unlock()
			}
		})
	}
	wg.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.known, b.asked = found, time.Now()
	close(b.told)
	b.told = make(chan struct{})
}

// current are the sources of the routes that run, by component; those that were
// missed twice are forgotten.
func (b *backlogs) current(running []string) map[string]map[string]backlogged {
	b.mu.Lock()
	defer b.mu.Unlock()
	runs := make(map[string]bool, len(running))
	for _, name := range running {
		runs[name] = true
	}
	kept := map[string]map[string]backlogged{}
	for name, n := range b.sources {
		switch {
		case runs[name]:
			if kept[n.from] == nil {
				kept[n.from] = map[string]backlogged{}
			}
			kept[n.from][name] = n.source
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
	for name, b := range r.backlogs.look() {
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

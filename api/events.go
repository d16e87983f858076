package api

import (
	"time"

	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/telemetry/journal"
)

// Bounds of what is listed at once.
const (
	DefaultEvents = 100
	MaxEvents     = 1000
)

// Events returns what happened to events lately, the newest limit that f means,
// the oldest first; behind them is what is under way, as many again at most. Zero
// is [DefaultEvents], and [MaxEvents] is the most.
func (a *API) Events(f journal.Filter, limit int) ([]journal.Entry, error) {
	if limit == 0 {
		limit = DefaultEvents
	}
	if limit < 0 || limit > MaxEvents {
		return nil, Errorf(EventSelection, "list events: limit %d is not between 1 and %d", limit, MaxEvents)
	}
	j := a.rt.Journal()
	return append(list(j.Find(f, limit)), j.UnderWay(f, limit)...), nil
}

// WatchEvents follows what happens to events from now on; the caller closes the
// result.
func (a *API) WatchEvents(o journal.Watching) (*journal.Watcher, error) {
	if o.Rate < 0 || o.Rate > journal.MaxRate {
		return nil, Errorf(EventSelection, "watch events: a rate of %d is not between 1 and %d", o.Rate, journal.MaxRate)
	}
	w, err := a.rt.Journal().Watch(o)
	switch {
	case err == nil:
		return w, nil
	case fault.KindOf(err) == fault.Exhausted:
		return nil, wrap(LimitReached, err)
	}
	return nil, wrap(Internal, err)
}

// maxWindow is how far back [API.RecentRoutes] looks at most.
const maxWindow = time.Hour

// RecentRoutes is Routes with what each did within the window that ends now.
func (a *API) RecentRoutes(window time.Duration) ([]Route, error) {
	if window <= 0 || window > maxWindow {
		return nil, Errorf(EventSelection, "list routes: a window of %s is not between 1ms and %s", window, maxWindow)
	}
	all := a.Routes()
	recent := a.rt.Journal().Recent(window)
	for i := range all {
		r := recent[all[i].Name]
		if r.Window == 0 {
			r.Window = journal.Millis(window)
		}
		all[i].Recent = &r
	}
	return all, nil
}

package runtime

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/penstock-io/penstock/api"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/router"
	"github.com/penstock-io/penstock/telemetry/journal"
)

// Routes implements api.Routes.
func (r *Runtime) Routes() []api.Route {
	list := r.router.Routes()
	out := make([]api.Route, 0, len(list))
	backlogs := r.backlogs.await()
	for _, s := range list {
		info := routeInfo(s)
		if b, ok := backlogs[s.Name]; ok {
			info.Backlog = &api.Backlog{Messages: b.Messages}
			if !b.Oldest.IsZero() {
				info.Backlog.Oldest = journal.Millis(max(0, time.Since(b.Oldest)))
			}
		}
		out = append(out, info)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range out {
		if l := r.running[out[i].Name].letters; l != (topic{}) {
			out[i].DeadLetter = fromTopic(l.pubsub, l.name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.unstarted)) {
		out = append(out, api.Route{Name: name, State: "waiting", SourceError: r.unstarted[name].Error()})
	}
	slices.SortFunc(out, func(a, b api.Route) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func routeInfo(s router.Status) api.Route {
	out := api.Route{
		Name: s.Name, From: s.From, State: "running", Concurrency: s.Lanes, InFlight: s.InFlight, Waiting: s.Waiting,
		Held: s.Held, MaxInFlight: s.Window, HeldBytes: s.HeldBytes,
		Delivered: s.Counts.Acked, Dropped: s.Counts.Dropped, DeadLettered: s.Counts.DeadLettered,
		Retried: s.Counts.Retried, GivenBack: s.Counts.GivenBack, Left: s.Counts.Left, Duplicates: s.Counts.Duplicates,
		SourceError: s.SourceError, LastError: s.LastError,
	}
	for _, step := range s.Steps {
		out.Steps = append(out.Steps, api.RouteStep(step))
	}
	for _, t := range s.Targets {
		out.Targets = append(out.Targets, api.RouteTarget(t))
	}
	switch {
	case s.Stopping:
		out.State = "stopping"
	case s.Paused:
		out.State = "paused"
	case s.SourceError != "":
		out.State = "failing"
	}
	if !s.LastErrorAt.IsZero() {
		out.LastErrorAt = s.LastErrorAt.UTC().Format(time.RFC3339)
	}
	return out
}

// PauseRoute implements api.Routes. A paused route stays so when a reload
// replaces it, and until somebody resumes it or the process ends.
func (r *Runtime) PauseRoute(name string) error { return r.setPaused(name, true) }

// ResumeRoute implements api.Routes.
func (r *Runtime) ResumeRoute(name string) error { return r.setPaused(name, false) }

func (r *Runtime) setPaused(name string, paused bool) error {
	r.pausing.Lock()
	defer r.pausing.Unlock()
	if !r.hasRoute(name) {
		return fault.New(fault.NotFound, "find route %q: there is none", name)
	}
	r.mu.Lock()
	was := r.paused[name]
	if paused {
		r.paused[name] = true
	} else {
		delete(r.paused, name)
	}
	r.mu.Unlock()
	do, word := r.router.Resume, "Route resumed"
	if paused {
		do, word = r.router.Pause, "Route paused"
	}
	// One that is being replaced takes it over when it starts.
	if err := do(name); err != nil && fault.KindOf(err) != fault.NotFound {
		return err
	}
	if was != paused {
		r.log.Info(word, "route", name)
	}
	return nil
}

// hasRoute tells whether a route runs or should.
func (r *Runtime) hasRoute(name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, runs := r.running[name]
	_, waits := r.unstarted[name]
	return runs || waits || r.streams.has(name)
}

// add starts routes, paused where somebody said so. Nobody can say so, or take
// it back, in between.
func (r *Runtime) add(routes ...router.Route) error {
	r.pausing.Lock()
	defer r.pausing.Unlock()
	for i := range routes {
		routes[i].Paused = r.isPaused(routes[i].Name)
		r.backlogs.note(&routes[i])
	}
	return r.router.Add(routes...)
}

func (r *Runtime) isPaused(name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.paused[name]
}

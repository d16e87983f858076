package api

import (
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/telemetry/journal"
)

// Routes is what the API needs to show and hold up routes.
type Routes interface {
	// Routes lists every route by name, those that should run and do not
	// included.
	Routes() []Route
	// PauseRoute stops handing over a route's events; what is under way goes
	// on, and the source is held up. Kind NotFound.
	PauseRoute(name string) error
	// ResumeRoute ends a pause. Kind NotFound.
	ResumeRoute(name string) error
}

// Route is what one route is doing at one moment. Counts are those since it was
// started.
type Route struct {
	// Name is kind and what it reads: "subscription/bus/orders",
	// "binding/github", "pipeline/archive".
	Name string `json:"name"`
	// State is running, paused, failing (its source is broken), stopping or
	// waiting (not started yet, SourceError says why).
	State string `json:"state"`
	// Concurrency is how many events may be under way, InFlight how many are.
	Concurrency int `json:"concurrency"`
	InFlight    int `json:"inFlight"`
	// Waiting is how many wait for their next try.
	Waiting int `json:"waiting"`
	// Held is how many were taken from the source and not settled, of at most
	// MaxInFlight; HeldBytes is their size.
	Held        int   `json:"held"`
	MaxInFlight int   `json:"maxInFlight"`
	HeldBytes   int64 `json:"heldBytes"`

	Delivered    uint64 `json:"delivered"`
	Dropped      uint64 `json:"dropped"`
	DeadLettered uint64 `json:"deadLettered"`
	Retried      uint64 `json:"retried"`
	GivenBack    uint64 `json:"givenBack"`
	Left         uint64 `json:"left"`
	Duplicates   uint64 `json:"duplicates"`

	// From is where its events come from: "pubsub:bus/orders", "binding:github";
	// empty when it was not started. DeadLetter is where they are given up to,
	// when that is a topic.
	From       string `json:"from,omitempty"`
	DeadLetter string `json:"deadLetter,omitempty"`
	// Steps and Targets are its way, in order.
	Steps   []RouteStep   `json:"steps,omitempty"`
	Targets []RouteTarget `json:"targets,omitempty"`

	SourceError string `json:"sourceError,omitempty"`
	LastError   string `json:"lastError,omitempty"`
	LastErrorAt string `json:"lastErrorAt,omitempty"` // RFC 3339

	// Backlog is what waits at its source, where that knows; as of some ten seconds
	// ago.
	Backlog *Backlog `json:"backlog,omitempty"`

	// Recent is what it did lately, where that was asked for.
	Recent *journal.Recent `json:"recent,omitempty"`
}

// Backlog is how many Messages wait for a route at its source, those that are held
// among them, and the age of the oldest, where the source says it.
type Backlog struct {
	Messages int64          `json:"messages"`
	Oldest   journal.Millis `json:"oldestMs,omitempty"`
}

// RouteStep counts events in one step: those that Passed, those whose way Ended
// there, and those that are to come again.
type RouteStep struct {
	Name    string `json:"name"`
	Passed  uint64 `json:"passed"`
	Ended   uint64 `json:"ended"`
	Retried uint64 `json:"retried"`
}

// RouteTarget counts the calls of one target, such as "app", "app:/orders",
// "binding:archive" or "pubsub:bus/builds": Tries, of which Taken were taken.
type RouteTarget struct {
	Name  string `json:"name"`
	Tries uint64 `json:"tries"`
	Taken uint64 `json:"taken"`
}

// Routes lists every route by name. The caller owns the result.
func (a *API) Routes() []Route { return list(a.rt.Routes()) }

// PauseRoute holds up a route until [API.ResumeRoute] or the end of the
// process; nothing that it has taken is lost or tried meanwhile.
func (a *API) PauseRoute(name string) error { return a.route(name, a.rt.PauseRoute) }

// ResumeRoute ends a pause.
func (a *API) ResumeRoute(name string) error { return a.route(name, a.rt.ResumeRoute) }

func (a *API) route(name string, do func(string) error) error {
	err := do(name)
	switch {
	case err == nil:
		return nil
	case fault.KindOf(err) == fault.NotFound:
		return Errorf(RouteNotFound, "%w; penstock routes, or GET /v1.0-penstock/routes, lists them", err).on("route", name)
	default:
		return wrap(Internal, err).on("route", name)
	}
}

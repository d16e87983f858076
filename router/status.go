package router

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/penstock-io/penstock/cloudevents"
)

// Status is what a route is doing, at one moment.
type Status struct {
	Name string
	// From is where the events come from, as in Route.
	From string
	// Steps and Targets are those of the route, in order.
	Steps   []StepStatus
	Targets []TargetStatus
	// Lanes is how many deliveries may be under way, InFlight how many are.
	Lanes, InFlight int
	// Waiting is how many wait for their back-off to pass.
	Waiting int
	// Held is how many deliveries, and HeldBytes how many bytes of bodies, were
	// taken from the source and not settled, of at most Window and WindowBytes.
	Held, Window           int
	HeldBytes, WindowBytes int64
	// Counts are those since the route was added.
	Counts Counts
	// Paused tells that nothing is handed over until Resume.
	Paused bool
	// Stopping tells that the route is being removed.
	Stopping bool
	// SourceError is why the source does not run at the moment; empty when it
	// does.
	SourceError string
	// LastError is the last failure of a delivery, and LastErrorAt its time;
	// empty when there was none.
	LastError   string
	LastErrorAt time.Time
}

// StepStatus counts what became of events in one step.
type StepStatus struct {
	Name string
	// Passed went on, Ended were dropped or acked there, Retried are to come
	// again.
	Passed, Ended, Retried uint64
}

// TargetStatus counts the calls of one target: Tries, of which Taken were taken.
type TargetStatus struct {
	Name         string
	Tries, Taken uint64
}

// Counts says how deliveries ended.
type Counts struct {
	Acked, Dropped, Left uint64
	// GivenBack were handed back to the source to be delivered again.
	GivenBack uint64
	// DeadLettered are those of Dropped that a dead letter was written for.
	DeadLettered uint64
	// Retried counts rounds, not deliveries: those that a wait and another
	// round followed.
	Retried uint64
	// Duplicates are those of Acked that were delivered before; see [Once].
	Duplicates uint64
}

// troublePause is the shortest time between two log lines about deliveries that
// fail and will be tried again.
const troublePause = 10 * time.Second

// stepTally counts what a step does.
type stepTally struct{ passed, ended, retried atomic.Uint64 }

func (t *stepTally) count(o *cloudevents.Outcome) {
	switch {
	case o == nil:
		t.passed.Add(1)
	case o.Verdict == cloudevents.Retry:
		t.retried.Add(1)
	default:
		t.ended.Add(1)
	}
}

// targetTally counts the calls of a target.
type targetTally struct{ tries, taken atomic.Uint64 }

// count counts calls and how many of them were taken.
func (t *targetTally) count(v cloudevents.Verdict) {
	t.tries.Add(1)
	if v == cloudevents.Ack {
		t.taken.Add(1)
	}
}

// tally counts what a route does.
type tally struct {
	acked, dropped, left, givenBack, buried, retried, duplicates atomic.Uint64

	mu        sync.Mutex
	source    string
	lastError string
	lastAt    time.Time
	loggedAt  time.Time
	muted     int
}

func (t *tally) count(v cloudevents.Verdict) {
	switch v {
	case cloudevents.Ack:
		t.acked.Add(1)
	case cloudevents.Drop:
		t.dropped.Add(1)
	case cloudevents.Retry:
		t.givenBack.Add(1)
	default:
		t.left.Add(1)
	}
}

func (t *tally) counts() Counts {
	return Counts{
		Acked: t.acked.Load(), Dropped: t.dropped.Load(), Left: t.left.Load(),
		GivenBack: t.givenBack.Load(), DeadLettered: t.buried.Load(), Retried: t.retried.Load(),
		Duplicates: t.duplicates.Load(),
	}
}

// fail notes a failure and tells whether to log it, and how many were not
// logged since the last time.
func (t *tally) fail(reason string) (log bool, muted int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	t.lastError, t.lastAt = reason, now
	if !t.loggedAt.IsZero() && now.Sub(t.loggedAt) < troublePause {
		t.muted++
		return false, 0
	}
	muted, t.muted, t.loggedAt = t.muted, 0, now
	return true, muted
}

// setSource notes why the source does not run; empty when it does.
func (t *tally) setSource(text string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.source = text
}

// status reads everything.
func (in *incarnation) status() Status {
	f, t := in.flow, in.flow.tally
	s := Status{
		Name: in.route.Name, From: in.route.From, Lanes: in.route.Lanes,
		Window: in.route.Window, WindowBytes: in.route.WindowBytes, Counts: t.counts(),
	}
	for i := range in.steps {
		c := &in.steps[i]
		s.Steps = append(s.Steps, StepStatus{in.route.Steps[i].Name, c.passed.Load(), c.ended.Load(), c.retried.Load()})
	}
	for i := range in.targets {
		c := &in.targets[i]
		s.Targets = append(s.Targets, TargetStatus{in.route.Targets[i].Name, c.tries.Load(), c.taken.Load()})
	}
	s.Held, s.HeldBytes = f.window.use()
	f.mu.Lock()
	s.InFlight, s.Paused, s.Stopping = f.running, f.paused, f.stopping
	for _, p := range f.held {
		if p.state == parked {
			s.Waiting++
		}
	}
	f.mu.Unlock()
	t.mu.Lock()
	s.SourceError, s.LastError, s.LastErrorAt = t.source, t.lastError, t.lastAt
	t.mu.Unlock()
	return s
}

// trouble notes that a round failed and logs it, not more often than bearable.
func (in *incarnation) trouble(what string, p *passage, reason string) {
	if log, muted := in.flow.tally.fail(reason); log {
		in.log.Warn(what, "id", p.id(), told("trace", p.traceID()), "origin", p.d.Origin, told("target", in.targetName(p)),
			"attempt", p.d.Attempt, "reason", reason, told("not_logged", muted))
	}
}

// told is an attribute of a log line, left out when its value says nothing.
func told[T comparable](key string, value T) slog.Attr {
	var nothing T
	if value == nothing {
		return slog.Attr{}
	}
	return slog.Any(key, value)
}

package api

import (
	"context"
	"time"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
)

// Sources is what the API needs of where events come from.
type Sources interface {
	Routes
	// Triggers lists the input bindings that fire by a schedule, by name.
	Triggers() []Trigger
	// RunTrigger fires one once and returns when that is settled, with a Retry when
	// ctx ends before. Kinds NotFound, Unavailable, Conflict, Exhausted.
	RunTrigger(ctx context.Context, name string) (id string, o cloudevents.Outcome, err error)
	// Webhooks lists the input bindings that take requests, by name.
	Webhooks() []Webhook
}

// Trigger is an input binding that fires by a schedule. Times are RFC 3339.
type Trigger struct {
	Name string `json:"name"`
	// Route is what reads it; empty when nothing does.
	Route    string `json:"route,omitempty"`
	Schedule string `json:"schedule"`
	TimeZone string `json:"timeZone"`
	// NextRun is empty while nobody reads it here.
	NextRun string `json:"nextRun,omitempty"`
	// LastRun is when a tick was settled last, LastID its event, LastOutcome ack,
	// drop or leave, and LastReason why.
	LastRun     string `json:"lastRun,omitempty"`
	LastID      string `json:"lastId,omitempty"`
	LastOutcome string `json:"lastOutcome,omitempty"`
	LastReason  string `json:"lastReason,omitempty"`
	UnderWay    int    `json:"underway"`
	Paused      bool   `json:"paused"`
}

// Webhook is an input binding that takes requests.
type Webhook struct {
	Name  string `json:"name"`
	Route string `json:"route,omitempty"`
	// URL is where it listens; a proxy in front of it has another.
	URL  string `json:"url"`
	Path string `json:"path"`
	// Signature is the scheme that requests are checked by, none when they are not.
	Signature string `json:"signature"`
	// Taking tells whether requests are taken now.
	Taking bool `json:"taking"`
	Paused bool `json:"paused"`
	// Deliveries are the last requests, the newest first.
	Deliveries []WebhookDelivery `json:"deliveries"`
}

// WebhookDelivery is a request that was answered.
type WebhookDelivery struct {
	Time       string   `json:"time"` // RFC 3339
	Method     string   `json:"method"`
	Status     int      `json:"status"`
	Bytes      int64    `json:"bytes"`
	DurationMs float64  `json:"durationMs"`
	Remote     string   `json:"remote"`
	Answer     string   `json:"answer"`
	Events     []string `json:"events,omitempty"` // the ids of the first few
}

// Triggers lists what fires by a schedule, by name. The caller owns the result.
func (a *API) Triggers() []Trigger { return list(a.rt.Triggers()) }

// Webhooks lists what takes requests, by name. The caller owns the result.
func (a *API) Webhooks() []Webhook { return list(a.rt.Webhooks()) }

// TriggerRun is what became of one run that was asked for.
type TriggerRun struct {
	// ID is that of the event.
	ID string `json:"id"`
	// Outcome is ack, drop, leave or underway; Reason is why.
	Outcome string `json:"outcome"`
	Reason  string `json:"reason,omitempty"`
}

// UnderWay is the outcome of a run that had not ended when it was waited for long
// enough.
const UnderWay = "underway"

// runTime is how long RunTrigger waits.
const runTime = 10 * time.Second

// RunTrigger fires a trigger once, now, and waits 10 s at most for what becomes of
// it.
func (a *API) RunTrigger(ctx context.Context, name string) (*TriggerRun, error) {
	ctx, cancel := context.WithTimeout(ctx, runTime)
	defer cancel()
	id, o, err := a.rt.RunTrigger(ctx, name)
	if err != nil {
		problem := TriggerNotRead
		switch fault.KindOf(err) {
		case fault.NotFound:
			problem = TriggerNotFound
		case fault.Conflict:
			problem = TriggerBusy
		case fault.Exhausted:
			problem = LimitReached
		}
		return nil, wrap(problem, err).on("trigger", name)
	}
	run := &TriggerRun{ID: id, Reason: o.Reason, Outcome: OutcomeWord(o)}
	if o.Verdict == cloudevents.Retry {
		run.Outcome, run.Reason = UnderWay, ""
	}
	return run, nil
}

// OutcomeWord is how an outcome that a source was told looks from outside: what was
// given up is an Ack with a reason there.
func OutcomeWord(o cloudevents.Outcome) string {
	if o.Verdict == cloudevents.Ack && o.Reason != "" {
		return cloudevents.Drop.String()
	}
	return o.Verdict.String()
}

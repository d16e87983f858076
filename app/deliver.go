package app

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/resilience"
)

// eventType is the content type of a pub/sub delivery.
const eventType = "application/cloudevents+json"

// Options are what an [App] is made of.
type Options struct {
	Channel Channel
	// MaxConcurrency bounds the calls under way; zero or less: no bound.
	MaxConcurrency int
	Health         HealthOptions
	// Timeout bounds a call whose context has no deadline; default 60 s.
	Timeout time.Duration
	Logger  *slog.Logger
}

// App is the user's program. It is safe for concurrent use.
type App struct {
	channel Channel
	slots   *semaphore.Weighted // nil without a bound
	timeout time.Duration
	health  HealthOptions
	log     *slog.Logger

	gate
	// lost is told that a call found nothing listening.
	lost chan struct{}
}

// New makes the App in front of a channel. With health probing it begins as
// unhealthy, else as healthy.
func New(o Options) *App {
	a := &App{
		channel: o.Channel,
		timeout: orElse(o.Timeout, time.Minute),
		health: HealthOptions{
			Enabled:   o.Health.Enabled,
			Interval:  orElse(o.Health.Interval, 5*time.Second),
			Timeout:   orElse(o.Health.Timeout, 500*time.Millisecond),
			Threshold: orElse(o.Health.Threshold, 3),
		},
		log:  o.Logger,
		lost: make(chan struct{}, 1),
	}
	if a.log == nil {
		a.log = slog.New(slog.DiscardHandler)
	}
	if o.MaxConcurrency > 0 {
		a.slots = semaphore.NewWeighted(int64(o.MaxConcurrency))
	}
	a.gate.init(!o.Health.Enabled)
	return a
}

func orElse[T int | time.Duration](v, other T) T {
	if v <= 0 {
		return other
	}
	return v
}

// errUnreached is in the chain of every [Unreachable] error.
var errUnreached = errors.New("app not reached")

// Unreachable makes the error of a call that never got to the app: nothing
// listens there, or no slot became free. Its kind is unavailable, and it is
// [resilience.ErrOpen], so that a route does not count it as a try.
func Unreachable(err error) error {
	return fault.As(fault.Unavailable, &unreached{err})
}

type unreached struct{ cause error }

func (u *unreached) Error() string { return u.cause.Error() }

func (u *unreached) Unwrap() []error { return []error{u.cause, errUnreached, resilience.ErrOpen} }

// Call sends one request to the app when one of its slots is free; callers are
// served in order. See [Channel] for the answer. A call that did not reach the
// app returns an [Unreachable] error and closes the gate until it can be
// reached again. Without a deadline in ctx or a Timeout in r it sets r's.
func (a *App) Call(ctx context.Context, r *Request) (*Answer, error) {
	if _, ok := ctx.Deadline(); !ok && r.Timeout <= 0 {
		r.Timeout = a.timeout
	}
	if a.slots != nil {
		if r.Timeout > 0 { // the wait counts
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, r.Timeout)
			defer cancel()
		}
		if err := a.slots.Acquire(ctx, 1); err != nil {
			return nil, Unreachable(fault.Wrap(err, "wait for one of the app's slots"))
		}
		defer a.slots.Release(1)
	}
	answer, err := a.channel.Call(ctx, r)
	if err != nil && ctx.Err() == nil && errors.Is(err, errUnreached) {
		a.noteLost()
	}
	return answer, err
}

// Event delivers a pub/sub event to a path of the app, as structured JSON with
// the delivery's metadata and a traceparent as headers, and returns what the
// app made of it:
//
//   - 2xx without a status, or with SUCCESS: ack; with RETRY or a word nobody
//     knows: retry, not before "retryAfter" ("30s", or seconds) where the app
//     says so; with DROP: drop
//   - 404: drop
//   - any other status: retry, not before Retry-After; the error is a
//     [*StatusError] of the kind the status stands for
//   - no answer: retry. When the app was not reached at all, the error is
//     [resilience.ErrOpen], which a route does not count, and the gate closes
//   - ctx cancelled: leave
func (a *App) Event(ctx context.Context, path string, d *cloudevents.Delivery) cloudevents.Outcome {
	if d.Event == nil {
		err := fault.New(fault.Invalid, "deliver to %s: the delivery has no event", path)
		return cloudevents.Dropped(err.Error(), err)
	}
	answer, err := a.Call(ctx, &Request{
		Path:        path,
		ContentType: eventType,
		Header:      headerFor(d.Event),
		Metadata:    d.Metadata,
		Body:        d.Event.JSON(),
	})
	if err != nil {
		return unanswered(ctx, path, err)
	}
	return eventOutcome(path, answer, time.Now())
}

// Binding delivers an input binding's event to a path of the app: the payload
// alone, with the delivery's metadata as headers. Any 2xx is an ack; any other
// status is a retry, not before Retry-After. The reply is nil unless the app's
// answer is a JSON object with "to" or "state".
func (a *App) Binding(ctx context.Context, path string, d *cloudevents.Delivery) (*Reply, cloudevents.Outcome) {
	r := &Request{Path: path, ContentType: "application/json", Metadata: d.Metadata, Body: d.Body}
	if e := d.Event; e != nil {
		r.Header = headerFor(e)
		r.Body = e.Data()
		if ct := e.DataContentType(); ct != "" {
			r.ContentType = ct
		}
	}
	answer, err := a.Call(ctx, r)
	if err != nil {
		return nil, unanswered(ctx, path, err)
	}
	if answer.Status/100 != 2 {
		return nil, retried(statusError(path, answer, time.Now()))
	}
	return readReply(answer.Body), cloudevents.Acked()
}

// headerFor makes the headers that do not come from the metadata. Deliveries
// are made at least once, so the transport may repeat one on a fresh connection
// when an old one turns out to be dead: the empty Idempotency-Key, which is
// never sent, tells it so.
func headerFor(e *cloudevents.Event) http.Header {
	h := make(http.Header, 8)
	h["Idempotency-Key"] = nil
	if parent, _ := e.Attr("traceparent"); cloudevents.ValidTraceParent(parent) {
		h["Traceparent"] = []string{cloudevents.ChildTraceParent(parent)}
		if state, ok := e.Attr("tracestate"); ok {
			h["Tracestate"] = []string{state}
		}
	}
	return h
}

// unanswered is the outcome of a call without an answer.
func unanswered(ctx context.Context, path string, err error) cloudevents.Outcome {
	if errors.Is(ctx.Err(), context.Canceled) {
		return cloudevents.Left("stopped while calling the app at " + path)
	}
	return retried(err)
}

// noteLost closes the gate and wakes RunHealth.
func (a *App) noteLost() {
	a.set(&a.reachable, false)
	select {
	case a.lost <- struct{}{}:
	default:
	}
}

// gate is whether the app may be called: it is reachable and says it is well.
type gate struct {
	mu        sync.Mutex
	reachable bool
	healthy   bool
	open      chan struct{} // closed while both are true
	watchers  map[*func(bool)]struct{}

	// telling keeps the watchers' calls in order.
	telling sync.Mutex
}

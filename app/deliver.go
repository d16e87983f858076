package app

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/resilience"
	"github.com/penstock-io/penstock/telemetry/trace"
)

// Options are what an [App] is made of.
type Options struct {
	Channel Channel
	// MaxConcurrency bounds the calls under way; zero or less: no bound.
	MaxConcurrency int
	Health         HealthOptions
	// Timeout bounds a call whose context has no deadline; default 60 s.
	Timeout time.Duration
	// Tracer makes spans of calls with several events; nil: none.
	Tracer *trace.Tracer
	Logger *slog.Logger
}

// App is the user's program. It is safe for concurrent use.
type App struct {
	channel Channel
	slots   *slots // nil without a bound
	timeout time.Duration
	health  HealthOptions
	tracer  *trace.Tracer
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
		slots:  newSlots(o.MaxConcurrency),
		tracer: o.Tracer, log: o.Logger,
		lost: make(chan struct{}, 1),
	}
	if a.log == nil {
		a.log = slog.New(slog.DiscardHandler)
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

// Untried makes the error of an event that there was no time left to send. Its
// kind is unavailable, and it is [resilience.ErrOpen], so that a route does not
// count it as a try; it does not close the gate, since the app is there.
func Untried(err error) error { return fault.As(fault.Unavailable, &untried{err}) }

type untried struct{ cause error }

func (u *untried) Error() string { return u.cause.Error() }

func (u *untried) Unwrap() []error { return []error{u.cause, resilience.ErrOpen} }

// enter waits for one of the app's slots; events are served in order. The limit
// that it returns is what is left to the channel. Without an error, leave must
// follow.
func (a *App) enter(ctx context.Context) (_ context.Context, limit time.Duration, cancel func(), err error) {
	if _, ok := ctx.Deadline(); !ok {
		limit = a.timeout
	}
	if a.slots == nil {
		return ctx, limit, nil, nil
	}
	if limit > 0 { // the wait counts
		ctx, cancel = context.WithTimeout(ctx, limit)
	}
	if err := a.slots.event(ctx); err != nil {
		if cancel != nil {
			cancel()
		}
		return ctx, limit, nil, Unreachable(fault.Wrap(err, "wait for one of the app's slots"))
	}
	return ctx, limit, cancel, nil
}

func (a *App) leave(cancel func()) {
	a.slots.release()
	if cancel != nil {
		cancel()
	}
}

// note closes the gate when an outcome says that the app was not reached, until
// it can be reached again.
func (a *App) note(ctx context.Context, o *cloudevents.Outcome) {
	if o.Verdict == cloudevents.Retry && ctx.Err() == nil && errors.Is(o.Err, errUnreached) {
		a.noteLost()
	}
}

// Event delivers a topic's event to the app, with the delivery's metadata and a
// traceparent, and returns what the app made of it:
//
//   - a success without a word, or with SUCCESS: ack; with RETRY or a word nobody
//     knows: retry, not before the pause that the app asks for; with DROP: drop
//   - no such route: drop; over gRPC, where it means that the app has no
//     handlers at all, one without a dead letter
//   - any other failure: retry, not before the pause that the app asks for; the
//     error is of the kind that the failure stands for
//   - no answer: retry. When the app was not reached at all, the error is
//     [resilience.ErrOpen], which a route does not count, and the gate closes
//   - ctx cancelled: leave
func (a *App) Event(ctx context.Context, to *Address, d *cloudevents.Delivery) cloudevents.Outcome {
	if d.Event == nil {
		err := fault.New(fault.Invalid, "deliver to %s: the delivery has no event", to.Path)
		return cloudevents.Dropped(err.Error(), err)
	}
	inner, limit, cancel, err := a.enter(ctx)
	if err != nil {
		return Unanswered(ctx, to.Path, err)
	}
	defer a.leave(cancel)
	o := a.channel.Event(inner, to, d, limit)
	a.note(inner, &o)
	return o
}

// Binding delivers an input binding's event to the app: the payload alone, with
// the delivery's metadata. Any success is an ack; anything else is a retry, not
// before the pause that the app asks for. The reply is nil unless the app's
// answer asks for something.
func (a *App) Binding(ctx context.Context, to *Address, d *cloudevents.Delivery) (*Reply, cloudevents.Outcome) {
	inner, limit, cancel, err := a.enter(ctx)
	if err != nil {
		return nil, Unanswered(ctx, to.Path, err)
	}
	defer a.leave(cancel)
	reply, o := a.channel.Binding(inner, to, d, limit)
	a.note(inner, &o)
	return reply, o
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

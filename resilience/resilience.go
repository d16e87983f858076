// Package resilience is retry, time-out and breaker as one chain around a call.
//
// A [Policy] is a value made once per target. Do runs an operation under all of
// it: retry( breaker( time-out( operation ))). A caller that must not sit still
// between tries runs them one by one with Try and asks Next what follows; when
// the breaker refused, it may wait with [Breaker.Wait] until that lets through.
//
// Nothing here starts a goroutine, every wait ends with its context, and a call
// that the caller itself gave up is never counted against the other side.
package resilience

import (
	"context"
	"errors"
	"time"

	"github.com/penstock-io/penstock/fault"
)

// errSlow is the cause of a context that a policy's time-out ended.
var errSlow = fault.New(fault.Timeout, "wait for the result: time is up")

// Policy is the chain: retry( breaker( timeout( operation ))).
type Policy struct {
	// Timeout bounds one try; zero is no bound.
	Timeout time.Duration
	Retry   Retry
	// Breaker is nil when there is none.
	Breaker *Breaker
	// Observer hears what the parts do, but for the breaker's changes, of which
	// [BreakerConfig.Changed] hears; nil: nobody does.
	Observer Observer
}

// The parts of a policy, as an [Observer] hears of them.
const (
	TimeoutPart = "timeout"
	RetryPart   = "retry"
	BreakerPart = "circuitbreaker"
)

// Observer hears what the parts of a policy do.
type Observer interface {
	// Applied tells that a try is under a part; state is that of a breaker.
	Applied(part, state string)
	// Acted tells that a part did something: a try ran out of time, or a call is tried
	// again for the first time.
	Acted(part, state string)
}

// Do runs op until it succeeds, its error is not to be tried again (see
// [Retry.Again]), the breaker refuses, the retries or those of its budget are used
// up, or ctx ends. The error is op's last one; when op was never called it says why: the breaker's or ctx's.
func (p Policy) Do(ctx context.Context, op func(context.Context) error) error {
	var last error
	p.Retry.Budget.Called()
	for n := 1; ; n++ {
		err := p.Try(ctx, op)
		if err == nil {
			return nil
		}
		if last == nil || !errors.Is(err, ErrOpen) {
			last = err
		}
		pause, again := p.Next(n, err)
		if !again || ctx.Err() != nil || !p.Retry.Budget.Spend() || Sleep(ctx, pause) != nil {
			return last
		}
	}
}

// Try runs op once, under breaker and time-out. A try that ran out of time
// returns an error of kind [fault.Timeout]; one that the breaker refused
// returns one that is [ErrOpen], and op was not called.
func (p Policy) Try(ctx context.Context, op func(context.Context) error) error {
	if p.Observer != nil {
		p.applied()
	}
	if p.Breaker == nil {
		return p.timed(ctx, op)
	}
	return p.Breaker.run(ctx, func() error { return p.timed(ctx, op) })
}

func (p Policy) applied() {
	if p.Timeout > 0 {
		p.Observer.Applied(TimeoutPart, "")
	}
	if p.Retry.Limit != 0 {
		p.Observer.Applied(RetryPart, "")
	}
	if p.Breaker != nil {
		p.Observer.Applied(BreakerPart, p.Breaker.State())
	}
}

// Next tells whether another try may follow the n-th failed one, which ended
// with err, and after which pause.
func (p Policy) Next(n int, err error) (pause time.Duration, again bool) {
	if errors.Is(err, ErrOpen) || errors.Is(err, errFinal) || !p.Retry.Again(n, err) {
		return 0, false
	}
	if n == 1 && p.Observer != nil {
		p.Observer.Acted(RetryPart, "")
	}
	return p.Retry.Delay(n, fault.RetryAfter(err)), true
}

func (p Policy) timed(ctx context.Context, op func(context.Context) error) error {
	if p.Timeout <= 0 {
		return op(ctx)
	}
	timed, cancel := context.WithTimeoutCause(ctx, p.Timeout, errSlow)
	defer cancel()
	err := op(timed)
	// Only an error that speaks of the ended context is about time: an answer
	// that came in with the bell is still an answer.
	if err == nil || ctx.Err() != nil || timed.Err() == nil || !aboutContext(err) {
		return err
	}
	if p.Observer != nil {
		p.Observer.Acted(TimeoutPart, "")
	}
	return fault.New(fault.Timeout, "no result within %s: %w", p.Timeout, err)
}

func aboutContext(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) || errors.Is(err, errSlow)
}

var errFinal = errors.New("final")

// Final marks an error that is not tried again, of whatever kind it is; text and
// kind stay. It returns nil when err is nil.
func Final(err error) error {
	if err == nil {
		return nil
	}
	return &final{err}
}

type final struct{ cause error }

func (f *final) Error() string { return f.cause.Error() }

func (f *final) Unwrap() []error { return []error{f.cause, errFinal} }

// Sleep waits for d or until ctx ends; then it returns the cause.
func Sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return context.Cause(ctx)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

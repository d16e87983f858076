package resilience

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"

	"github.com/penstock-io/penstock/fault"
)

// ErrOpen is in the chain of the error of a call that a breaker refused: the
// operation was not run. Its kind is [fault.Unavailable]; its RetryAfter is
// what is left until the breaker lets a call through again, where that is known.
var ErrOpen = fault.New(fault.Unavailable, "call: circuit breaker is open")

// errFailed and errUncounted are how a call is told to gobreaker.
var (
	errFailed    = errors.New("failed")
	errUncounted = errors.New("not counted")
)

// Counts is what a breaker has seen since it last changed its state, or since
// the interval began.
type Counts struct {
	Requests, TotalSuccesses, TotalFailures, ConsecutiveSuccesses, ConsecutiveFailures uint32
}

// BreakerConfig says when a breaker opens and when it closes again.
type BreakerConfig struct {
	// MaxRequests is how many calls are let through half-open; default 1. That
	// many successes close the breaker.
	MaxRequests uint32
	// Interval clears the counts of a closed breaker; zero never does.
	Interval time.Duration
	// Timeout is how long it stays open; default 60 s.
	Timeout time.Duration
	// Trip is asked after each failure of a closed breaker whether to open;
	// nil opens after more than 5 failures in a row. It must be quick.
	Trip func(Counts) bool
	// Changed hears of each new state; nil is nobody. It must be quick.
	Changed func(state string)
}

// Breaker opens after failures and refuses calls for a while. Only errors of a
// retriable kind are failures: an answer, even a refusal, shows that the other
// side is there. It is safe for concurrent use.
type Breaker struct {
	machine *gobreaker.CircuitBreaker[error]
	born    time.Time
	timeout time.Duration
	most    uint32 // calls let through half-open
	// until is when an open breaker lets a call through, counted from born.
	until atomic.Int64
	heard func(string) // nil: nobody listens

	waiting atomic.Int32 // calls of Wait under way
	mu      sync.Mutex
	news    chan struct{} // closed when a call has ended; nil when nobody waits
}

// NewBreaker makes a closed breaker.
func NewBreaker(c BreakerConfig) *Breaker {
	b := &Breaker{born: time.Now(), timeout: c.Timeout, most: max(c.MaxRequests, 1), heard: c.Changed}
	if b.timeout <= 0 {
		b.timeout = time.Minute
	}
	settings := gobreaker.Settings{
		MaxRequests:   c.MaxRequests,
		Interval:      c.Interval,
		Timeout:       b.timeout,
		IsExcluded:    func(err error) bool { return err == errUncounted },
		OnStateChange: b.changed,
	}
	if c.Trip != nil {
		settings.ReadyToTrip = func(n gobreaker.Counts) bool {
			return c.Trip(Counts{
				n.Requests, n.TotalSuccesses, n.TotalFailures,
				n.ConsecutiveSuccesses, n.ConsecutiveFailures,
			})
		}
	}
	b.machine = gobreaker.NewCircuitBreaker[error](settings)
	return b
}

// State returns "closed", "half-open" or "open".
func (b *Breaker) State() string { return b.machine.State().String() }

func (b *Breaker) changed(_ string, _, to gobreaker.State) {
	until := int64(0)
	if to == gobreaker.StateOpen {
		// The machine is still open at the very instant; one millisecond later
		// it is not.
		until = int64(time.Since(b.born) + b.timeout + time.Millisecond)
	}
	b.until.Store(until)
	b.tell()
	if b.heard != nil {
		b.heard(to.String())
	}
}

// run calls op unless the breaker is open. The error of op goes round the
// machine, which only learns whether and how to count it.
func (b *Breaker) run(ctx context.Context, op func() error) error {
	result, err := b.machine.Execute(func() (error, error) {
		err := op()
		return err, verdict(ctx, err)
	})
	if errors.Is(err, gobreaker.ErrOpenState) || errors.Is(err, gobreaker.ErrTooManyRequests) {
		return fault.WithRetryAfter(ErrOpen, b.remaining())
	}
	b.tell()
	return result
}

// Wait waits until the breaker may let a call through: it is closed, or
// half-open with a probe to spare. Another caller may be quicker, so the call
// may still be refused; then wait again. It returns the cause of ctx when that
// ends first.
func (b *Breaker) Wait(ctx context.Context) error {
	b.waiting.Add(1)
	defer b.waiting.Add(-1)
	for {
		news := b.listen() // before looking: what changes after that is heard
		pause, open := b.look()
		if !open {
			return nil
		}
		var due <-chan time.Time
		if pause > 0 {
			due = time.After(pause)
		}
		select {
		case <-news:
		case <-due:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// look tells whether a call would be refused, and for how long; zero means
// until a probe under way has ended.
func (b *Breaker) look() (pause time.Duration, refuses bool) {
	switch b.machine.State() {
	case gobreaker.StateOpen:
		return max(b.remaining(), time.Millisecond), true
	case gobreaker.StateHalfOpen:
		n := b.machine.Counts()
		return 0, n.Requests-n.TotalExclusions >= b.most
	}
	return 0, false
}

// listen returns what is closed when the next call has ended.
func (b *Breaker) listen() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.news == nil {
		b.news = make(chan struct{})
	}
	return b.news
}

// tell wakes those who wait. It costs a look when there are none.
func (b *Breaker) tell() {
	if b.waiting.Load() == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.news != nil {
		close(b.news)
		b.news = nil
	}
}

func (b *Breaker) remaining() time.Duration {
	return max(0, time.Duration(b.until.Load())-time.Since(b.born))
}

// verdict says how a call counts: one that its caller gave up tells nothing of
// the other side. One that took too long does, whatever it says of that itself.
func verdict(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil, errors.Is(err, context.Canceled) && fault.KindOf(err) != fault.Timeout:
		return errUncounted
	case fault.Retriable(err):
		return errFailed
	default:
		return nil
	}
}

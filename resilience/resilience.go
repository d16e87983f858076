// Package resilience is retry, time-out, breaker and limits as one chain around
// a call.
//
// A [Policy] is a value made once per target; Do runs an operation under it.
// Nothing here starts a goroutine.
package resilience

import (
	"context"
	"time"
)

// Retry says how often and how fast to try again.
type Retry struct {
	// Constant keeps the pause at Initial; otherwise it doubles (with jitter)
	// up to Max.
	Constant bool
	Initial  time.Duration // default 200 ms
	Max      time.Duration // default 15 s
	// Limit is how many times to try again after the first try; 0 is not at
	// all, -1 for ever.
	Limit int
}

// Delay returns the pause after the n-th failed try, n from 1. It is at least
// what the other side asked for (asked), and never negative.
func (r Retry) Delay(n int, asked time.Duration) time.Duration { panic("being written") }

// Allows tells whether another try may follow the n-th failed one.
func (r Retry) Allows(n int) bool { return r.Limit < 0 || n <= r.Limit }

// Policy is the chain: retry( breaker( timeout( operation ))).
type Policy struct {
	// Timeout bounds one try; zero is no bound.
	Timeout time.Duration
	Retry   Retry
	// Breaker is nil when there is none.
	Breaker *Breaker
}

// Breaker opens after failures and refuses calls for a while.
type Breaker struct{}

// Do runs op until it succeeds, its error is not retriable (by fault kind), the
// retries are used up or ctx ends. The error is op's last one.
func (p Policy) Do(ctx context.Context, op func(context.Context) error) error {
	panic("being written")
}

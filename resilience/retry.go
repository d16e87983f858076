package resilience

import (
	"math/rand/v2"
	"time"
)

const (
	defaultInitial = 200 * time.Millisecond
	defaultMax     = 15 * time.Second
	// askedMax bounds what the other side may ask us to wait.
	askedMax = time.Hour
	// jitter is the share by which a doubling pause is moved up or down, so
	// that callers that failed together do not come back together.
	jitter = 0.2
)

// Retry says how often and how fast to try again. The zero value never does;
// its pauses are those of the defaults.
type Retry struct {
	// Constant keeps the pause at Initial; otherwise it doubles (with a jitter
	// of a fifth up or down) up to Max.
	Constant bool
	Initial  time.Duration // default 200 ms
	Max      time.Duration // default 15 s
	// Limit is how many times to try again after the first try; 0 is not at
	// all, -1 for ever.
	Limit int
}

// Delay returns the pause after the n-th failed try, n from 1. It is never
// negative, at most Max, and at least what the other side asked for (asked, of
// which one hour is believed).
func (r Retry) Delay(n int, asked time.Duration) time.Duration {
	return max(r.pause(n), min(asked, askedMax))
}

// Allows tells whether another try may follow the n-th failed one.
func (r Retry) Allows(n int) bool { return r.Limit < 0 || n <= r.Limit }

func (r Retry) pause(n int) time.Duration {
	pause := r.Initial
	if pause <= 0 {
		pause = defaultInitial
	}
	if r.Constant {
		return pause
	}
	limit := r.Max
	if limit <= 0 {
		limit = defaultMax
	}
	for i := 1; i < n && pause < limit; i++ {
		// Halving the limit instead of doubling the pause cannot overflow.
		if pause > limit/2 {
			pause = limit
			break
		}
		pause *= 2
	}
	pause = min(pause, limit)
	moved := pause + time.Duration(float64(pause)*jitter*(2*rand.Float64()-1))
	return min(moved, limit)
}

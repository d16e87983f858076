package resilience

import (
	"cmp"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/penstock-io/penstock/fault"
)

const (
	defaultInitial = 200 * time.Millisecond
	defaultMax     = 15 * time.Second
	defaultFactor  = 2
	defaultJitter  = 0.2
	// askedMax bounds what the other side may ask us to wait.
	askedMax = time.Hour
)

// Retry says how often and how fast to try again. The zero value never does;
// its pauses are those of the defaults.
type Retry struct {
	// Constant keeps the pause at Initial; otherwise it grows by Factor, up to
	// Max.
	Constant bool
	Initial  time.Duration // default 200 ms
	Max      time.Duration // default 15 s
	Factor   float64       // default 2
	// Jitter is the share by which a growing pause is moved up or down, so that
	// callers that failed together do not come back together; default 0.2.
	Jitter float64
	// Limit is how many times to try again after the first try; 0 is not at
	// all, -1 for ever.
	Limit int
	// Codes narrows what is tried again; nil does not.
	Codes *Codes
	// Budget bounds the tries of all calls together; nil does not. [Policy.Do]
	// keeps to it; whoever counts tries alone must.
	Budget *Budget
}

// Delay returns the pause after the n-th failed try, n from 1. It is never
// negative, at most Max, and at least what the other side asked for (asked, of
// which one hour is believed).
func (r Retry) Delay(n int, asked time.Duration) time.Duration {
	return max(r.pause(n), min(asked, askedMax))
}

// Allows tells whether another try may follow the n-th failed one.
func (r Retry) Allows(n int) bool { return r.Limit < 0 || n <= r.Limit }

// Again tells whether another try may follow the n-th failed one, which ended
// with err: when Codes names its code, or says nothing of it and its kind is
// retriable.
func (r Retry) Again(n int, err error) bool {
	if !r.Allows(n) {
		return false
	}
	if match, known := r.Codes.match(err); known {
		return match
	}
	return fault.Retriable(err)
}

// Refuses tells whether Codes leaves the code of err out, so that it is not
// tried again.
func (r Retry) Refuses(err error) bool {
	match, known := r.Codes.match(err)
	return known && !match
}

// pause grows in floating point, which cannot overflow.
func (r Retry) pause(n int) time.Duration {
	first := r.Initial
	if first <= 0 {
		first = defaultInitial
	}
	if r.Constant {
		return first
	}
	limit := r.Max
	if limit <= 0 {
		limit = defaultMax
	}
	factor := cmp.Or(r.Factor, defaultFactor)
	pause := min(float64(first), float64(limit))
	for i := 1; i < n && factor > 1 && pause < float64(limit); i++ {
		pause = min(pause*factor, float64(limit))
	}
	pause += pause * cmp.Or(r.Jitter, defaultJitter) * (2*rand.Float64() - 1)
	return min(time.Duration(pause), limit)
}

// Codes are the only status codes that are tried again. An error tells its code
// by a method HTTPStatus() int or GRPCCode() uint32 somewhere in its chain; one
// that has no code is not judged by it. Of a protocol without a range all codes
// are judged by their kind.
type Codes struct{ HTTP, GRPC []Range }

// Range is a range of codes, both ends in it.
type Range struct{ From, To int }

// match tells whether the code of err is one of those, when it has one.
func (c *Codes) match(err error) (match, known bool) {
	if c == nil || err == nil {
		return false, false
	}
	var web interface{ HTTPStatus() int }
	if len(c.HTTP) > 0 && errors.As(err, &web) {
		return within(c.HTTP, web.HTTPStatus()), true
	}
	var rpc interface{ GRPCCode() uint32 }
	if len(c.GRPC) > 0 && errors.As(err, &rpc) {
		return within(c.GRPC, int(rpc.GRPCCode())), true
	}
	return false, false
}

func within(list []Range, code int) bool {
	return slices.ContainsFunc(list, func(r Range) bool { return r.From <= code && code <= r.To })
}

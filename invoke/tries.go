package invoke

import (
	"context"
	"errors"
	"time"

	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/resilience"
)

// call is one request on its way, with all its tries. A is a pointer to what its
// answer is made of; nil is no answer.
type call[A comparable] struct {
	// send makes one try with an instance whose address is not among those of not;
	// without one it returns errNoOther.
	send func(ctx context.Context, not []string) (A, error)
	// failure is what an answer is to a policy; nil when it is none.
	failure func(answer A) error
	// over makes end be called when the answer was read.
	over func(answer A, end func())
	// again tells whether the call can be made once more after a try that ended so,
	// and lets go of what that one holds.
	again func(answer A, err error) bool
}

// tried is how a try ended.
type tried[A comparable] struct {
	answer A
	err    error
}

// run tries until there is an answer, or no more try. The time-out of the policy
// bounds each try, the reading of its answer included. Judged tells that an
// answer may be a failure.
func (c *call[A]) run(ctx context.Context, p resilience.Policy, judged bool) (A, error) {
	limit := p.Timeout
	p.Timeout = 0
	p.Retry.Budget.Called()
	var before *tried[A]
	for n := 1; ; n++ {
		var now tried[A]
		failed := p.Try(ctx, func(ctx context.Context) error {
			if now.answer, now.err = c.once(ctx, limit, p.Observer); now.err == nil && judged {
				return c.failure(now.answer)
			}
			return now.err
		})
		switch {
		case failed == nil:
			return now.answer, nil
		case !errors.Is(failed, resilience.ErrOpen):
		case before != nil:
			return before.answer, before.err // what opened the breaker says more
		default:
			now.err = failed
		}
		pause, again := p.Next(n, failed)
		if !again || ctx.Err() != nil || !c.again(now.answer, now.err) || !p.Retry.Budget.Spend() || resilience.Sleep(ctx, pause) != nil {
			return now.answer, now.err
		}
		before = &now
	}
}

// errSlow is the cause of a context that a policy's time-out ended.
var errSlow = fault.New(fault.Timeout, "wait for the answer: time is up")

// isSlow tells whether a policy's time-out ended ctx.
func isSlow(ctx context.Context) bool { return errors.Is(context.Cause(ctx), errSlow) }

// once makes one try. Its context lives on until the answer was read.
func (c *call[A]) once(ctx context.Context, limit time.Duration, told resilience.Observer) (A, error) {
	cancel := func() {}
	outer := ctx
	if limit > 0 {
		ctx, cancel = context.WithTimeoutCause(ctx, limit, errSlow)
		if told != nil {
			told.Applied(resilience.TimeoutPart, "")
		}
	}
	answer, err := c.reach(ctx)
	if err != nil {
		if outer.Err() == nil && isSlow(ctx) {
			err = fault.New(fault.Timeout, "no answer within %s: %w", limit, err)
			if told != nil {
				told.Acted(resilience.TimeoutPart, "")
			}
		}
		cancel()
		return answer, err
	}
	c.over(answer, cancel)
	return answer, nil
}

// mostOthers is how many instances one try may find out of reach and go on.
const mostOthers = 3

// errNoOther tells that there is no instance that was not tried.
var errNoOther = errors.New("no other instance")

// unreached is the error of an instance that got nothing.
type unreached struct {
	error
	address string
}

func (u *unreached) Unwrap() error { return u.error }

// reach sends to an instance that can be reached: one that cannot got nothing, so
// another one is asked at once, and the policy hears nothing of it.
func (c *call[A]) reach(ctx context.Context) (A, error) {
	var not []string
	var last error
	for {
		answer, err := c.send(ctx, not)
		if errors.Is(err, errNoOther) && last != nil {
			return answer, last
		}
		u, ok := errors.AsType[*unreached](err)
		if !ok || len(not) == mostOthers || ctx.Err() != nil {
			return answer, err
		}
		not, last = append(not, u.address), err
	}
}

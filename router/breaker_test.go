package router

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/resilience"
)

// opensAfter is a breaker that n failures in a row open for ten seconds.
func opensAfter(n uint32) *resilience.Breaker {
	return resilience.NewBreaker(resilience.BreakerConfig{
		Timeout: 10 * time.Second,
		Trip:    func(c resilience.Counts) bool { return c.ConsecutiveFailures >= n },
	})
}

// TestOpenBreakerPausesTheIntake holds that a target whose breaker is open is
// called by probes only, and that its source is neither drained into a circle of
// refusals nor told anything.
func TestOpenBreakerPausesTheIntake(t *testing.T) {
	t.Parallel()
	for _, shared := range []bool{false, true} {
		t.Run(fmt.Sprintf("shared by two routes %v", shared), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { pausesTheIntake(t, shared) })
		})
	}
}

func pausesTheIntake(t *testing.T, shared bool) {
	const events, window, lanes = 100, 8, 4
	b, start := newBook(t), time.Now()
	var down atomic.Bool
	var calls atomic.Int32
	down.Store(true)
	breaker, r := opensAfter(3), running(t, Options{})
	send := func(context.Context, *cloudevents.Delivery) cloudevents.Outcome {
		calls.Add(1)
		<-time.After(10 * time.Millisecond)
		if down.Load() {
			return nope
		}
		return ack
	}
	routes := 1
	if shared {
		routes = 2
	}
	for i := range routes {
		mustAdd(t, r, Route{
			Name: fmt.Sprintf("r%d", i), Source: b, GiveBack: true, Lanes: lanes, Window: window,
			Targets: []Target{{Name: "target", Send: send, Policy: resilience.Policy{Breaker: breaker, Retry: everySecond(-1)}}},
		})
	}
	go func() {
		for i := range events {
			b.put(fmt.Sprint(i))
		}
	}()
	pass(65 * time.Second)
	// What was under way when the third failure opened it, the two
	// failures before that, and a probe every ten seconds.
	if n := int(calls.Load()); n > routes*lanes+2+6 {
		t.Errorf("%d calls while the target was down for %s", n, time.Since(start))
	}
	if b.settled() > 0 {
		t.Errorf("the source was told %v", b.order)
	}
	held := 0
	for _, route := range r.Routes() {
		held += route.Held
	}
	if held > routes*window {
		t.Errorf("%d deliveries are held", held)
	}
	down.Store(false)
	pass(30 * time.Second)
	if b.settled() != events || breaker.State() != "closed" {
		t.Errorf("%d settled, breaker %s", b.settled(), breaker.State())
	}
	for i := range events {
		b.want(fmt.Sprint(i), "ack")
	}
}

func TestStopWhileTheBreakerIsOpen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, s, c := newBook(t), newScript(nope), &cemetery{}
		r := running(t, Options{})
		mustAdd(t, r, Route{
			Name: "r", Source: b, GiveBack: true, DeadLetter: c.bury,
			Targets: []Target{{Name: "target", Send: s.send, Policy: resilience.Policy{Breaker: opensAfter(1), Retry: everySecond(5)}}},
		})
		b.put("1", "2")
		pass(3 * time.Second)
		start := time.Now()
		if err := r.Remove(t.Context(), "r"); err != nil || time.Since(start) > time.Second {
			t.Errorf("%v after %s", err, time.Since(start))
		}
		b.want("1", "leave")
		b.want("2", "leave")
		if c.count() > 0 || s.count() != 1 {
			t.Errorf("%d letters, %d calls", c.count(), s.count())
		}
	})
}

// TestBreakerBehindTheTarget is about an output whose own breaker is open: it
// is neither an attempt nor a reason to give the event back.
func TestBreakerBehindTheTarget(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, c := newBook(t), &cemetery{}
		inner := resilience.Policy{Breaker: opensAfter(1)}
		s := newScript(nope, ack)
		mustAdd(t, running(t, Options{}), Route{
			Name: "r", Source: b, GiveBack: true, DeadLetter: c.bury,
			Targets: []Target{{Name: "target", Policy: resilience.Policy{Retry: everySecond(2)}, Send: func(ctx context.Context, d *cloudevents.Delivery) cloudevents.Outcome {
				var o cloudevents.Outcome
				err := inner.Try(ctx, func(ctx context.Context) error { o = s.send(ctx, d); return o.Err })
				if o.Verdict == cloudevents.Leave {
					return cloudevents.Retried(err, fault.RetryAfter(err))
				}
				return o
			}}},
		})
		b.put("1", "2", "3")
		pass(time.Minute)
		b.want("1", "ack")
		b.want("2", "ack")
		b.want("3", "ack")
		if c.count() > 0 || s.count() != 4 {
			t.Errorf("%d letters, calls %v", c.count(), s.calls)
		}
	})
}

// answered is an error with a status.
type answered int

func (e answered) Error() string   { return fmt.Sprintf("answered %d", int(e)) }
func (e answered) HTTPStatus() int { return int(e) }

func TestOnlyListedCodesAreTriedAgain(t *testing.T) {
	t.Parallel()
	status := func(n int) cloudevents.Outcome {
		return cloudevents.Retried(fault.As(fault.FromHTTPStatus(n), answered(n)), 0)
	}
	rows := []struct {
		name   string
		say    []cloudevents.Outcome
		calls  []string
		buried int
	}{
		{name: "listed", say: []cloudevents.Outcome{status(429), ack}, calls: []string{"1@1", "1@2"}},
		{name: "not listed", say: []cloudevents.Outcome{status(500)}, calls: []string{"1@1"}, buried: 1},
		{name: "not listed after a listed one", say: []cloudevents.Outcome{status(429), status(500)}, calls: []string{"1@1", "1@2"}, buried: 1},
		{name: "without a code", say: []cloudevents.Outcome{nope, cloudevents.Retried(nil, 0), ack}, calls: []string{"1@1", "1@2", "1@3"}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b, s, c := newBook(t), newScript(row.say...), &cemetery{}
				retry := everySecond(5)
				retry.Codes = &resilience.Codes{HTTP: []resilience.Range{{From: 429, To: 429}}}
				mustAdd(t, running(t, Options{}), Route{
					Name: "r", Source: b, DeadLetter: c.bury,
					Targets: []Target{{Name: "target", Send: s.send, Policy: resilience.Policy{Retry: retry}}},
				})
				b.put("1")
				pass(time.Minute)
				b.want("1", "ack")
				if !cmp.Equal(s.calls, row.calls) || c.count() != row.buried {
					t.Errorf("calls %v, %d letters", s.calls, c.count())
				}
			})
		})
	}
}

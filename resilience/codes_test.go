package resilience

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-io/penstock/fault"
)

// webError and rpcError are errors with a code, of a kind of their own.
type webError int

func (e webError) Error() string   { return fmt.Sprintf("answered %d", int(e)) }
func (e webError) HTTPStatus() int { return int(e) }

type rpcError uint32

func (e rpcError) Error() string    { return fmt.Sprintf("code %d", uint32(e)) }
func (e rpcError) GRPCCode() uint32 { return uint32(e) }

func TestOnlyListedCodesAreTriedAgain(t *testing.T) {
	t.Parallel()
	http := &Codes{HTTP: []Range{{429, 429}, {500, 599}}}
	grpc := &Codes{GRPC: []Range{{1, 1}, {8, 14}}}
	both := &Codes{HTTP: http.HTTP, GRPC: grpc.GRPC}
	wrapped := func(k fault.Kind, err error) error { return fault.Wrap(fault.As(k, err), "call") }
	rows := []struct {
		name           string
		codes          *Codes
		err            error
		again, refuses bool
	}{
		{"no codes, retriable", nil, wrapped(fault.Unavailable, webError(503)), true, false},
		{"no codes, not retriable", nil, wrapped(fault.Invalid, webError(400)), false, false},
		{"listed", http, wrapped(fault.Exhausted, webError(429)), true, false},
		{"first of a range", http, webError(500), true, false},
		{"last of a range", http, webError(599), true, false},
		{"listed although its kind is not retriable", &Codes{HTTP: []Range{{404, 404}}}, wrapped(fault.NotFound, webError(404)), true, false},
		{"not listed", http, wrapped(fault.Timeout, webError(408)), false, true},
		{"listed for gRPC", both, wrapped(fault.Unavailable, rpcError(14)), true, false},
		{"not listed for gRPC", both, wrapped(fault.Internal, rpcError(2)), false, true},
		{"a protocol without a list, retriable", http, wrapped(fault.Unavailable, rpcError(2)), true, false},
		{"a protocol without a list, not retriable", grpc, wrapped(fault.Invalid, webError(400)), false, false},
		{"no code, retriable", both, down(), true, false},
		{"no code, not retriable", both, fault.New(fault.Invalid, "no"), false, false},
		{"no error", both, nil, false, false},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			r := Retry{Limit: 1, Codes: row.codes}
			if got := r.Again(1, row.err); got != row.again {
				t.Errorf("again %v", got)
			}
			if r.Again(2, row.err) {
				t.Error("again beyond the limit")
			}
			if got := r.Refuses(row.err); got != row.refuses {
				t.Errorf("refuses %v", got)
			}
			calls := 0
			synctest.Test(t, func(t *testing.T) {
				_ = Policy{Retry: r}.Do(t.Context(), func(context.Context) error { calls++; return row.err })
			})
			if want := 1 + map[bool]int{true: 1}[row.again]; calls != want {
				t.Errorf("%d calls, want %d", calls, want)
			}
		})
	}
}

func TestDelayWithFactorAndJitter(t *testing.T) {
	t.Parallel()
	r := Retry{Initial: 500 * time.Millisecond, Max: 2 * time.Second, Factor: 1.5, Jitter: 0.5}
	for n, middle := range []time.Duration{500, 750, 1125, 1687, 2000, 2000} {
		low, top := middle*time.Millisecond/2, min(2*time.Second, middle*time.Millisecond*3/2+time.Millisecond)
		for range 200 {
			if got := r.Delay(n+1, 0); got < low || got > top {
				t.Fatalf("after %d: %s, want %s..%s", n+1, got, low, top)
			}
		}
	}
	if got := (Retry{Initial: time.Second, Factor: 0.5, Jitter: 0.1}).Delay(1000, 0); got < 900*time.Millisecond || got > 1100*time.Millisecond {
		t.Errorf("a factor below one shrinks the pause to %s", got)
	}
}

// atOnce opens a breaker for ten seconds after one failure.
func atOnce() BreakerConfig {
	return BreakerConfig{Timeout: 10 * time.Second, Trip: func(c Counts) bool { return c.TotalFailures >= 1 }}
}

func fail(context.Context) error { return down() }

func TestWaitForABreaker(t *testing.T) {
	t.Parallel()
	t.Run("closed", func(t *testing.T) {
		t.Parallel()
		if err := NewBreaker(atOnce()).Wait(t.Context()); err != nil {
			t.Error(err)
		}
	})
	t.Run("until the time is over", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			p := Policy{Breaker: NewBreaker(atOnce())}
			_ = p.Try(t.Context(), fail)
			start := time.Now()
			if err := p.Breaker.Wait(t.Context()); err != nil || p.Breaker.State() != "half-open" {
				t.Errorf("%v, %s", err, p.Breaker.State())
			}
			if took := time.Since(start); took < 10*time.Second || took > 10*time.Second+5*time.Millisecond {
				t.Errorf("took %s", took)
			}
		})
	})
	t.Run("until the caller gives up", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			p := Policy{Breaker: NewBreaker(atOnce())}
			_ = p.Try(t.Context(), fail)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if err := p.Breaker.Wait(ctx); err != context.DeadlineExceeded {
				t.Errorf("got %v", err)
			}
		})
	})
}

func TestWaitForAProbe(t *testing.T) {
	t.Parallel()
	rows := []struct {
		name   string
		err    error
		cancel bool
		state  string
		after  time.Duration // when Wait returns, counted from the end of the probe
	}{
		{name: "a good probe lets all through", state: "closed"},
		{name: "a failed probe opens it again", err: down(), state: "half-open", after: 10*time.Second + time.Millisecond},
		{name: "a probe that was given up makes room", err: context.Canceled, cancel: true, state: "half-open"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p := Policy{Breaker: NewBreaker(atOnce())}
				_ = p.Try(t.Context(), fail)
				_ = p.Breaker.Wait(t.Context())
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				var ended time.Time
				go func() {
					_ = p.Try(ctx, func(context.Context) error {
						<-time.After(3 * time.Second)
						if row.cancel {
							cancel()
						}
						ended = time.Now()
						return row.err
					})
				}()
				synctest.Wait()
				done := make(chan time.Time)
				for range 5 {
					go func() { _ = p.Breaker.Wait(t.Context()); done <- time.Now() }()
				}
				for range 5 {
					if at := <-done; at.Sub(ended) != row.after {
						t.Errorf("waited until %s after the probe, want %s", at.Sub(ended), row.after)
					}
				}
				if p.Breaker.State() != row.state {
					t.Errorf("state %s", p.Breaker.State())
				}
			})
		})
	}
}

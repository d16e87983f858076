package resilience

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-io/penstock/fault"
)

func TestDelay(t *testing.T) {
	t.Parallel()
	fifth := func(d time.Duration) (time.Duration, time.Duration) { return d * 4 / 5, d * 6 / 5 }
	rows := []struct {
		name     string
		retry    Retry
		n        int
		asked    time.Duration
		low, top time.Duration
	}{
		{name: "constant", retry: Retry{Constant: true, Initial: 3 * time.Second}, n: 9, low: 3 * time.Second, top: 3 * time.Second},
		{name: "constant is not capped by the default", retry: Retry{Constant: true, Initial: time.Minute}, n: 1, low: time.Minute, top: time.Minute},
		{name: "constant default", retry: Retry{Constant: true}, n: 1, low: 200 * time.Millisecond, top: 200 * time.Millisecond},
		{name: "defaults at first", n: 1, low: 160 * time.Millisecond, top: 240 * time.Millisecond},
		{name: "defaults doubled twice", n: 3, low: 640 * time.Millisecond, top: 960 * time.Millisecond},
		{name: "defaults at the cap", n: 1000, low: 12 * time.Second, top: 15 * time.Second},
		{name: "own cap", retry: Retry{Initial: time.Second, Max: 3 * time.Second}, n: 5, low: 2400 * time.Millisecond, top: 3 * time.Second},
		{name: "cap below the first", retry: Retry{Initial: time.Minute, Max: time.Second}, n: 1, low: 800 * time.Millisecond, top: time.Second},
		{name: "asked for more", n: 1, asked: 30 * time.Second, low: 30 * time.Second, top: 30 * time.Second},
		{name: "asked for less", retry: Retry{Constant: true, Initial: time.Second}, n: 1, asked: time.Millisecond, low: time.Second, top: time.Second},
		{name: "asked for a year", n: 1, asked: 8760 * time.Hour, low: time.Hour, top: time.Hour},
		{name: "n of zero", n: 0, low: 160 * time.Millisecond, top: 240 * time.Millisecond},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			for range 200 {
				if got := row.retry.Delay(row.n, row.asked); got < row.low || got > row.top {
					t.Fatalf("got %s, want %s..%s", got, row.low, row.top)
				}
			}
		})
	}
	t.Run("jitter moves both ways", func(t *testing.T) {
		t.Parallel()
		low, top := fifth(time.Second)
		var below, above bool
		for range 500 {
			d := Retry{Initial: time.Second}.Delay(1, 0)
			below, above = below || d < time.Second && d >= low, above || d > time.Second && d <= top
		}
		if !below || !above {
			t.Errorf("below %v, above %v: want both", below, above)
		}
	})
}

func TestAllows(t *testing.T) {
	t.Parallel()
	rows := []struct {
		limit, n int
		want     bool
	}{
		{0, 1, false},
		{1, 1, true},
		{1, 2, false},
		{3, 3, true},
		{-1, 1 << 30, true},
	}
	for _, row := range rows {
		if got := (Retry{Limit: row.limit}).Allows(row.n); got != row.want {
			t.Errorf("limit %d, n %d: got %v", row.limit, row.n, got)
		}
	}
}

func TestDo(t *testing.T) {
	t.Parallel()
	second := Retry{Constant: true, Initial: time.Second, Limit: 3}
	rows := []struct {
		name   string
		policy Policy
		errs   []error // what the tries return; the last one repeats
		calls  int
		took   time.Duration
		kind   fault.Kind
		ok     bool
	}{
		{name: "success at once", policy: Policy{Retry: second}, errs: []error{nil}, calls: 1, ok: true},
		{name: "success at the third", policy: Policy{Retry: second}, errs: []error{down(), down(), nil}, calls: 3, took: 2 * time.Second, ok: true},
		{name: "retries used up", policy: Policy{Retry: second}, errs: []error{down()}, calls: 4, took: 3 * time.Second, kind: fault.Unavailable},
		{name: "no retries", errs: []error{down()}, calls: 1, kind: fault.Unavailable},
		{name: "not retriable", policy: Policy{Retry: second}, errs: []error{fault.New(fault.Invalid, "no")}, calls: 1, kind: fault.Invalid},
		{
			name: "retry after is kept to", policy: Policy{Retry: second},
			errs: []error{fault.WithRetryAfter(down(), 7*time.Second), nil}, calls: 2, took: 7 * time.Second, ok: true,
		},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				calls, start := 0, time.Now()
				err := row.policy.Do(t.Context(), func(context.Context) error {
					calls++
					return row.errs[min(calls, len(row.errs))-1]
				})
				if calls != row.calls || time.Since(start) != row.took {
					t.Errorf("%d calls in %s, want %d in %s", calls, time.Since(start), row.calls, row.took)
				}
				if row.ok != (err == nil) {
					t.Fatalf("error %v", err)
				}
				if err != nil && fault.KindOf(err) != row.kind {
					t.Errorf("kind %s, want %s", fault.KindOf(err), row.kind)
				}
			})
		})
	}
}

func down() error { return fault.New(fault.Unavailable, "refused") }

func TestTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := Policy{Timeout: time.Second}
		hang := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		cause := func(ctx context.Context) error { <-ctx.Done(); return fault.Wrap(context.Cause(ctx), "call") }
		for _, op := range []func(context.Context) error{hang, cause} {
			start := time.Now()
			err := p.Do(t.Context(), op)
			if fault.KindOf(err) != fault.Timeout || time.Since(start) != time.Second {
				t.Errorf("got %v (%s) after %s", err, fault.KindOf(err), time.Since(start))
			}
		}
		late := fault.New(fault.Invalid, "late answer")
		if err := p.Do(t.Context(), func(ctx context.Context) error { <-ctx.Done(); return late }); err != late {
			t.Errorf("an answer at the bell became %v", err)
		}
		if err := p.Do(t.Context(), func(ctx context.Context) error { <-ctx.Done(); return nil }); err != nil {
			t.Errorf("a success at the bell became %v", err)
		}
	})
}

func TestTimeoutBoundsEachTry(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := Policy{Timeout: time.Second, Retry: Retry{Constant: true, Initial: time.Second, Limit: 2}}
		start := time.Now()
		err := p.Do(t.Context(), func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
		if fault.KindOf(err) != fault.Timeout || time.Since(start) != 5*time.Second {
			t.Errorf("got %v after %s", err, time.Since(start))
		}
	})
}

func TestCallerGivesUp(t *testing.T) {
	t.Parallel()
	gone := errors.New("caller left")
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(1500*time.Millisecond, func() { cancel(gone) })
		p := Policy{Retry: Retry{Constant: true, Initial: time.Second, Limit: -1}}
		start, want := time.Now(), down()
		if err := p.Do(ctx, func(context.Context) error { return want }); err != want {
			t.Errorf("got %v, want the last error of the operation", err)
		}
		if time.Since(start) != 1500*time.Millisecond {
			t.Errorf("took %s: the pause did not end with the context", time.Since(start))
		}
		if err := Sleep(ctx, time.Hour); err != gone {
			t.Errorf("sleep returned %v, want the cause", err)
		}
	})
}

func TestBreaker(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := Policy{
			Retry:   Retry{Constant: true, Initial: time.Second, Limit: 100},
			Breaker: NewBreaker(BreakerConfig{Timeout: 10 * time.Second}),
		}
		calls := 0
		fail := func(context.Context) error { calls++; return down() }
		err := p.Do(t.Context(), fail)
		if calls != 6 || err == nil || errors.Is(err, ErrOpen) || p.Breaker.State() != "open" {
			t.Fatalf("%d calls, %v, %s: want 6, op's last error, open", calls, err, p.Breaker.State())
		}
		err = p.Do(t.Context(), fail)
		if calls != 6 || !errors.Is(err, ErrOpen) || fault.KindOf(err) != fault.Unavailable {
			t.Fatalf("open: %d calls, %v", calls, err)
		}
		wait := fault.RetryAfter(err)
		if wait < 8*time.Second || wait > 11*time.Second {
			t.Fatalf("retry after %s", wait)
		}
		<-time.After(wait)
		if err := p.Try(t.Context(), fail); errors.Is(err, ErrOpen) || p.Breaker.State() != "open" {
			t.Fatalf("a failed probe: %v, %s", err, p.Breaker.State())
		}
		<-time.After(11 * time.Second)
		if err := p.Try(t.Context(), func(context.Context) error { return nil }); err != nil || p.Breaker.State() != "closed" {
			t.Fatalf("a good probe: %v, %s", err, p.Breaker.State())
		}
	})
}

func TestBreakerHalfOpenLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := NewBreaker(BreakerConfig{MaxRequests: 1, Timeout: time.Second, Trip: func(c Counts) bool { return c.TotalFailures >= 1 }})
		p := Policy{Breaker: b}
		_ = p.Try(t.Context(), func(context.Context) error { return down() })
		<-time.After(2 * time.Second)
		release, done := make(chan struct{}), make(chan error, 1)
		go func() { done <- p.Try(t.Context(), func(context.Context) error { <-release; return nil }) }()
		synctest.Wait()
		if err := p.Try(t.Context(), func(context.Context) error { return nil }); !errors.Is(err, ErrOpen) {
			t.Errorf("a second probe: %v", err)
		}
		close(release)
		if err := <-done; err != nil || b.State() != "closed" {
			t.Errorf("%v, %s", err, b.State())
		}
	})
}

func TestBreakerCountsOnlyFailures(t *testing.T) {
	t.Parallel()
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	rows := []struct {
		name string
		ctx  context.Context
		err  error
		open bool
	}{
		{"retriable", t.Context(), down(), true},
		{"an answer", t.Context(), fault.New(fault.NotFound, "no such path"), false},
		{"the caller's context", cancelled, fault.Wrap(context.Canceled, "call"), false},
		{"another's cancellation", t.Context(), context.Canceled, false},
		{"unknown", t.Context(), fmt.Errorf("boom"), true},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			p := Policy{Breaker: NewBreaker(BreakerConfig{})}
			for range 20 {
				_ = p.Try(row.ctx, func(context.Context) error { return row.err })
			}
			if got := p.Breaker.State() == "open"; got != row.open {
				t.Errorf("state %s", p.Breaker.State())
			}
		})
	}
}

func TestBreakerSeesTimeoutsAndPanics(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		trip := func(c Counts) bool { return c.ConsecutiveFailures >= 2 }
		p := Policy{Timeout: time.Second, Breaker: NewBreaker(BreakerConfig{Trip: trip})}
		_ = p.Try(t.Context(), func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
		func() {
			defer func() {
				if recover() == nil {
					t.Error("the panic was swallowed")
				}
			}()
			_ = p.Try(t.Context(), func(context.Context) error { panic("boom") })
		}()
		if p.Breaker.State() != "open" {
			t.Error("want open")
		}
	})
}

func TestAllocations(t *testing.T) {
	ctx := t.Context()
	op := func(context.Context) error { return nil }
	rows := []struct {
		name   string
		policy Policy
		limit  float64
	}{
		{"bare", Policy{}, 0},
		{"retry", Policy{Retry: Retry{Limit: 3}}, 0},
		{"breaker", Policy{Breaker: NewBreaker(BreakerConfig{})}, 3},
		{"timeout", Policy{Timeout: time.Minute}, 5},
	}
	for _, row := range rows {
		got := testing.AllocsPerRun(200, func() { _ = row.policy.Do(ctx, op) })
		t.Logf("%s: %.0f allocations", row.name, got)
		if got > row.limit {
			t.Errorf("%s: %.0f allocations, limit %.0f", row.name, got, row.limit)
		}
	}
}

func BenchmarkDo(b *testing.B) {
	p := Policy{Timeout: time.Minute, Retry: Retry{Limit: 3}, Breaker: NewBreaker(BreakerConfig{})}
	op := func(context.Context) error { return nil }
	b.ReportAllocs()
	for b.Loop() {
		_ = p.Do(b.Context(), op)
	}
}

// TestTimeoutIsCountedWhateverTheOperationSays has an operation that takes the
// end of its time for the end of its caller.
func TestTimeoutIsCountedWhateverTheOperationSays(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := NewBreaker(BreakerConfig{Trip: func(n Counts) bool { return n.ConsecutiveFailures >= 2 }})
		p := Policy{Timeout: time.Second, Breaker: b}
		for range 2 {
			_ = p.Try(t.Context(), func(ctx context.Context) error { <-ctx.Done(); return context.Canceled })
		}
		if s := b.State(); s != "open" {
			t.Errorf("the breaker is %s", s)
		}
	})
}

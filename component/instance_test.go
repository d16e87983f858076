package component

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
)

// pump is a driver that notes whether it was closed.
type pump struct {
	mu     sync.Mutex
	closed int
}

func (p *pump) Close(context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed++
	return errors.New("valve stuck")
}

func (p *pump) closes() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closed
}

type nothing struct{}

// opens makes an instance whose tries are answered by open, which is given the
// number of the try.
func opens(open func(ctx context.Context, try int) (Driver, error)) *Instance[*pump] {
	try := 0
	def := Define("bindings.pump", About{}, nil, func(ctx context.Context, _ Env, _ nothing) (Driver, error) {
		try++
		return open(ctx, try)
	})
	return NewInstance[*pump](def, Env{Name: "p"}, nil, 0)
}

// running starts Run and returns what waits for its end.
func running(t *testing.T, i *Instance[*pump]) (result func() error) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- i.Run(t.Context()) }()
	return func() error { return <-done }
}

func TestInstanceOpens(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &pump{}
		i := opens(func(context.Context, int) (Driver, error) { <-time.After(time.Second); return p, nil })
		if _, err := i.Driver(); fault.KindOf(err) != fault.Unavailable || err.Error() != "component p is still opening" {
			t.Error(err)
		}
		result := running(t, i)
		if err := i.Wait(t.Context()); err != nil {
			t.Error(err)
		}
		if err := result(); err != nil {
			t.Error(err)
		}
		if d, err := i.Driver(); d != p || err != nil {
			t.Error(d, err)
		}
		if s := i.State(); s.Word != Ready || !s.Since.Equal(time.Now()) || s.LastError != "" {
			t.Errorf("%+v", s)
		}
		for range 2 {
			if err := i.Close(t.Context()); err == nil || err.Error() != "close component p: valve stuck" {
				t.Error(err)
			}
		}
		if _, err := i.Driver(); p.closes() != 1 || fault.KindOf(err) != fault.Unavailable || i.State().Word != Closed {
			t.Error(p.closes(), err, i.State())
		}
	})
}

func TestInstanceTriesAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var tries []time.Duration
		i := opens(func(_ context.Context, try int) (Driver, error) {
			tries = append(tries, time.Since(began))
			switch try {
			case 10:
				return &pump{}, nil
			case 9:
				return nil, fault.WithRetryAfter(fault.New(fault.Exhausted, "log in: busy"), time.Minute)
			}
			return nil, fault.New(fault.Unavailable, "dial broker: refused")
		})
		result := running(t, i)
		err := i.Wait(t.Context())
		if !fault.Retriable(err) || err.Error() != "open component p: dial broker: refused" {
			t.Error(err)
		}
		if s := i.State(); s.Word != Failing || s.LastError != err.Error() {
			t.Errorf("%+v", s)
		}
		if _, err := i.Driver(); fault.KindOf(err) != fault.Unavailable || !strings.Contains(err.Error(), "dial broker: refused") {
			t.Error(err)
		}
		if err := result(); err != nil {
			t.Error(err)
		}
		ms := time.Millisecond
		for n, pause := range []time.Duration{200 * ms, 400 * ms, 800 * ms, 1600 * ms, 3200 * ms, 6400 * ms, 12800 * ms, 15000 * ms, time.Minute} {
			if got := tries[n+1] - tries[n]; got != pause {
				t.Errorf("pause %d is %v, want %v", n, got, pause)
			}
		}
		if err := i.Wait(t.Context()); err != nil || i.State().LastError != "" {
			t.Error(err, i.State())
		}
		_ = i.Close(t.Context())
	})
}

func TestInstanceFailsForGood(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		open func(context.Context, int) (Driver, error)
		want string
	}{
		"invalid": {
			func(context.Context, int) (Driver, error) { return nil, fault.New(fault.Invalid, "parse url: no host") },
			"open component p: parse url: no host",
		},
		"denied": {
			func(context.Context, int) (Driver, error) {
				return nil, fault.New(fault.Denied, "log in: wrong password")
			},
			"open component p: log in: wrong password",
		},
		"wrong driver": {
			func(context.Context, int) (Driver, error) { return other{}, nil },
			"open component p: component.other is not what a bindings.pump must be",
		},
		"no driver": {
			func(context.Context, int) (Driver, error) { return nil, nil },
			"open component p: <nil> is not what a bindings.pump must be",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				i := opens(tc.open)
				err := running(t, i)()
				if err == nil || err.Error() != tc.want || fault.Retriable(err) {
					t.Error(err)
				}
				if werr := i.Wait(t.Context()); !errors.Is(werr, err) || i.State().Word != Failed {
					t.Error(werr, i.State())
				}
				if _, derr := i.Driver(); !errors.Is(derr, err) {
					t.Error(derr)
				}
				if err := i.Close(t.Context()); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// other is a driver of another kind.
type other struct{}

func (other) Close(context.Context) error { return nil }

func TestInstanceTimesOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		i := opens(func(ctx context.Context, try int) (Driver, error) {
			if try == 1 {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return &pump{}, nil
		})
		result := running(t, i)
		if err := i.Wait(t.Context()); fault.KindOf(err) != fault.Timeout || time.Since(began) != 5*time.Second {
			t.Error(err, time.Since(began))
		}
		if err := result(); err != nil {
			t.Error(err)
		}
		_ = i.Close(t.Context())
	})
}

func TestInstancePanics(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := opens(func(context.Context, int) (Driver, error) { panic("no water") })
		result := running(t, i)
		if err := i.Wait(t.Context()); fault.KindOf(err) != fault.Internal || err.Error() != "open component p: panic: no water" {
			t.Error(err)
		}
		if err := i.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if err := result(); err != nil {
			t.Error(err)
		}
	})
}

func TestInstanceClosedWhileOpening(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &pump{}
		i := opens(func(context.Context, int) (Driver, error) { // deaf to its context
			<-time.After(time.Minute)
			return p, nil
		})
		result := running(t, i)
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := i.Close(ctx); fault.KindOf(err) != fault.Timeout {
			t.Error(err)
		}
		if err := i.Wait(t.Context()); fault.KindOf(err) != fault.Unavailable {
			t.Error(err)
		}
		if err := result(); err == nil || p.closes() != 1 || i.State().Word != Closed {
			t.Error(err, p.closes(), i.State())
		}
	})
}

func TestInstanceClosedBeforeRun(t *testing.T) {
	t.Parallel()
	i := opens(func(context.Context, int) (Driver, error) { return &pump{}, nil })
	if err := i.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if err := i.Run(t.Context()); err != nil || i.State().Word != Closed {
		t.Error(err, i.State())
	}
	if err := i.Wait(t.Context()); fault.KindOf(err) != fault.Unavailable {
		t.Error(err)
	}
}

func TestInstanceContextEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		i := opens(func(ctx context.Context, _ int) (Driver, error) { <-ctx.Done(); return nil, ctx.Err() })
		done := make(chan error, 1)
		go func() { done <- i.Run(ctx) }()
		synctest.Wait()
		waiting, end := context.WithTimeout(t.Context(), time.Second)
		defer end()
		if err := i.Wait(waiting); fault.KindOf(err) != fault.Timeout {
			t.Error(err)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := i.Wait(t.Context()); fault.KindOf(err) != fault.Unavailable {
			t.Error(err)
		}
	})
}

func TestInstanceBadItems(t *testing.T) {
	t.Parallel()
	def := Define("bindings.pump", About{}, nil, func(context.Context, Env, strict) (Driver, error) { return &pump{}, nil })
	i := NewInstance[*pump](def, Env{Name: "p"}, items("low", "x"), time.Second)
	err := i.Run(t.Context())
	if _, ok := errors.AsType[config.Problems](err); !ok || i.State().Word != Failed {
		t.Error(err, i.State())
	}
}

func TestDriverDoesNotAllocate(t *testing.T) {
	i := opens(func(context.Context, int) (Driver, error) { return &pump{}, nil })
	if err := i.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() { _, _ = i.Driver() }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

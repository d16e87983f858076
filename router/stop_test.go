package router

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/resilience"
)

// removing removes route "r" in the background and returns how it went.
func removing(r *Router, ctx context.Context) <-chan error {
	done := make(chan error, 1)
	go func() { done <- r.Remove(ctx, "r") }()
	synctest.Wait()
	return done
}

func TestStopLetsWhatIsHeldFinish(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, c := newBook(t), newCrowd(t, takes(time.Second))
		r := running(t, Options{})
		mustAdd(t, r, Route{Name: "r", Source: b, Lanes: 2, Targets: to(c.send)})
		b.put("1", "2", "a/1", "a/2")
		synctest.Wait()
		done := removing(r, t.Context())
		if err := <-done; err != nil {
			t.Error(err)
		}
		for _, name := range []string{"1", "2", "a/1", "a/2"} {
			b.want(name, "ack")
		}
	})
}

// leaveRow is a place where a stop can find a delivery.
type leaveRow struct {
	name  string
	build func(*Route)
	took  time.Duration // how long the stop takes; the drain timeout is 10 s
}

func leaveRows() []leaveRow {
	hang := func(after cloudevents.Outcome) func(context.Context, *cloudevents.Delivery) cloudevents.Outcome {
		return func(ctx context.Context, _ *cloudevents.Delivery) cloudevents.Outcome {
			<-ctx.Done()
			return after
		}
	}
	return []leaveRow{
		{name: "waiting under the policy", build: func(r *Route) {
			r.Targets = []Target{{Name: "target", Send: newScript(nope).send, Policy: resilience.Policy{Retry: everySecond(-1)}}}
		}},
		{name: "failed while stopping", took: time.Second, build: func(r *Route) {
			r.Targets = to(func(ctx context.Context, _ *cloudevents.Delivery) cloudevents.Outcome {
				_ = resilience.Sleep(ctx, time.Second) // it ends after the stop began
				return nope
			})
		}},
		{name: "waiting for redelivery", build: func(r *Route) { r.Targets = to(newScript(nope).send); r.DeadLetter = nil }},
		{name: "waiting to be decoded", build: func(r *Route) {
			r.Decode = func(*cloudevents.Delivery) error { return errors.New("no") }
			r.DeadLetter = nil
		}},
		{name: "waiting to be buried", build: func(r *Route) {
			r.Targets = to(newScript(drop).send)
			r.DeadLetter = func(context.Context, *DeadLetter) error { return errors.New("no") }
		}},
		{name: "at the gate", build: func(r *Route) {
			r.Gate = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		}},
		{name: "cut, retry", took: 10 * time.Second, build: func(r *Route) { r.Targets = to(hang(nope)) }},
		{name: "cut, drop", took: 10 * time.Second, build: func(r *Route) { r.Targets = to(hang(drop)) }},
		{name: "cut, leave", took: 10 * time.Second, build: func(r *Route) { r.Targets = to(hang(cloudevents.Left("cut"))) }},
		{name: "cut in a panic", took: 10 * time.Second, build: func(r *Route) {
			r.Targets = to(func(ctx context.Context, _ *cloudevents.Delivery) cloudevents.Outcome { <-ctx.Done(); panic("cut") })
		}},
		{name: "cut under a time-out", took: 10 * time.Second, build: func(r *Route) {
			r.Targets = []Target{{Name: "target", Send: hang(nope), Policy: resilience.Policy{Timeout: time.Minute}}}
		}},
		{name: "cut while burying", took: 10 * time.Second, build: func(r *Route) {
			r.Targets = to(newScript(drop).send)
			r.DeadLetter = func(ctx context.Context, _ *DeadLetter) error { <-ctx.Done(); return ctx.Err() }
		}},
	}
}

// TestStopLeaves has a delivery in each place where a stop can find it.
func TestStopLeaves(t *testing.T) {
	t.Parallel()
	for _, row := range leaveRows() {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { row.run(t) })
		})
	}
}

func (row leaveRow) run(t *testing.T) {
	b, c := newBook(t), &cemetery{}
	route := Route{Name: "r", Source: b, Lanes: 1, GiveBack: true, Targets: to(ackAll), DeadLetter: c.bury}
	row.build(&route)
	r := running(t, Options{})
	mustAdd(t, r, route)
	b.put("a/1", "a/2", "a/3")
	synctest.Wait()
	start := time.Now()
	if err := <-removing(r, t.Context()); err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took != row.took {
		t.Errorf("the stop took %s, want %s", took, row.took)
	}
	for _, name := range []string{"a/1", "a/2", "a/3"} {
		b.want(name, "leave")
	}
	if c.count() != 0 {
		t.Errorf("%d dead letters", c.count())
	}
}

func TestStopOfAPausedRoute(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, c := newBook(t), newCrowd(t, takes(time.Second))
		r := running(t, Options{})
		mustAdd(t, r, Route{Name: "r", Source: b, Lanes: 4, Targets: to(c.send)})
		b.put("a/1", "a/2")
		synctest.Wait()
		if err := r.Pause("r"); err != nil {
			t.Fatal(err)
		}
		b.put("b/1", "b/2")
		if err := <-removing(r, t.Context()); err != nil {
			t.Error(err)
		}
		for name, want := range map[string]string{"a/1": "ack", "a/2": "ack", "b/1": "leave", "b/2": "leave"} {
			b.want(name, want)
		}
	})
}

// TestFailureDuringAStopIsLeft has an app that ends together with us: what it had
// under way fails, which is no reason for a dead letter.
func TestFailureDuringAStopIsLeft(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, dead := newBook(t), &cemetery{}
		r := running(t, Options{})
		mustAdd(t, r, Route{Name: "r", Source: b, Lanes: 4, DeadLetter: dead.bury, Targets: to(func(_ context.Context, d *cloudevents.Delivery) cloudevents.Outcome {
			<-time.After(time.Second)
			if string(d.Body) == "2" {
				return drop
			}
			return nope
		})})
		b.put("1", "2")
		synctest.Wait()
		if err := <-removing(r, t.Context()); err != nil {
			t.Error(err)
		}
		b.want("1", "leave")
		b.want("2", "ack") // the app said so
		if dead.count() != 1 {
			t.Errorf("%d dead letters", dead.count())
		}
	})
}

func TestPauseAndResume(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, s := newBook(t), newScript(ack)
		r := running(t, Options{})
		mustAdd(t, r, Route{Name: "r", Source: b, Targets: to(s.send)})
		if err := errors.Join(r.Pause("r"), r.Pause("r")); err != nil {
			t.Fatal(err)
		}
		b.put("1", "2")
		synctest.Wait()
		if st := r.Routes()[0]; !st.Paused || st.Held != 2 || s.count() != 0 {
			t.Errorf("status %+v, %d sends", st, s.count())
		}
		if err := r.Resume("r"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if b.settled() != 2 || r.Routes()[0].Paused {
			t.Errorf("%d settled", b.settled())
		}
		for _, err := range []error{r.Pause("x"), r.Resume("x"), r.Remove(t.Context(), "x")} {
			if fault.KindOf(err) != fault.NotFound {
				t.Error(err)
			}
		}
	})
}

// TestTargetThatIgnoresItsContext is abandoned: the source gets its delivery
// back, once, and the late outcome goes nowhere.
func TestTargetThatIgnoresItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, c, release := newBook(t), &cemetery{}, make(chan struct{})
		r := running(t, Options{DrainTimeout: 5 * time.Second})
		mustAdd(t, r, Route{Name: "r", Source: b, DeadLetter: c.bury, Targets: to(func(context.Context, *cloudevents.Delivery) cloudevents.Outcome {
			<-release
			return drop
		})})
		b.put("a/1", "a/2", "3")
		synctest.Wait()
		start := time.Now()
		err := <-removing(r, t.Context())
		if fault.KindOf(err) != fault.Timeout || time.Since(start) != 6*time.Second {
			t.Errorf("got %v after %s", err, time.Since(start))
		}
		close(release)
		synctest.Wait()
		for _, name := range []string{"a/1", "a/2", "3"} {
			b.want(name, "leave")
		}
		if c.count() != 0 {
			t.Errorf("%d dead letters", c.count())
		}
	})
}

func TestSourceThatIgnoresItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var emitErr error
		r := running(t, Options{})
		mustAdd(t, r, Route{Name: "r", Targets: to(ackAll), Source: SourceFunc(func(_ context.Context, emit cloudevents.EmitFunc) error {
			<-release
			emitErr = emit(context.Background(), newBook(t).delivery("1"))
			return nil
		})})
		synctest.Wait()
		if err := <-removing(r, t.Context()); fault.KindOf(err) != fault.Timeout {
			t.Errorf("got %v", err)
		}
		close(release)
		synctest.Wait()
		if !errors.Is(emitErr, errStopped) {
			t.Errorf("emit after the stop: %v", emitErr)
		}
	})
}

func TestRemoveCutsWhenItsContextEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBook(t)
		r := running(t, Options{DrainTimeout: time.Hour})
		mustAdd(t, r, Route{Name: "r", Source: b, Targets: to(func(ctx context.Context, _ *cloudevents.Delivery) cloudevents.Outcome {
			<-ctx.Done()
			return nope
		})})
		b.put("1")
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		if err := <-removing(r, ctx); err != nil || time.Since(start) != time.Second {
			t.Errorf("got %v after %s", err, time.Since(start))
		}
		b.want("1", "leave")
	})
}

func TestBrokenSource(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBook(t)
		var runs atomic.Int32
		r := running(t, Options{})
		mustAdd(t, r, Route{Name: "r", Targets: to(ackAll), Source: SourceFunc(func(ctx context.Context, emit cloudevents.EmitFunc) error {
			switch n := runs.Add(1); n {
			case 1:
				if err := emit(ctx, b.delivery("1")); err != nil {
					return err
				}
				return errors.New("connection lost")
			case 2:
				panic("boom")
			case 3:
				return nil // ended by itself
			default:
				if err := emit(ctx, b.delivery("2")); err != nil {
					return err
				}
				<-ctx.Done()
				return nil
			}
		})})
		synctest.Wait()
		if got := r.Routes()[0].SourceError; got != "connection lost" {
			t.Errorf("source error %q", got)
		}
		b.want("1", "ack")
		pass(100 * time.Millisecond)
		if runs.Load() != 1 {
			t.Errorf("%d runs without a back-off", runs.Load())
		}
		pass(5 * time.Second)
		if runs.Load() != 4 || r.Routes()[0].SourceError != "" {
			t.Errorf("%d runs, source error %q", runs.Load(), r.Routes()[0].SourceError)
		}
		b.want("2", "ack")
	})
}

func TestDeliveriesOutliveTheirSourcesRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, runs := newBook(t), 0
		mustAdd(t, running(t, Options{}), Route{Name: "r", Targets: to(takes(time.Minute)), Source: SourceFunc(func(ctx context.Context, emit cloudevents.EmitFunc) error {
			if runs++; runs == 1 {
				if err := emit(ctx, b.delivery("1")); err != nil {
					return err
				}
				return errors.New("connection lost")
			}
			<-ctx.Done()
			return nil
		})})
		pass(2 * time.Minute)
		b.want("1", "ack")
	})
}

func TestDrain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := running(t, Options{})
		books := map[string]*book{}
		for _, name := range []string{"x", "y", "z"} {
			books[name] = newBook(t)
			mustAdd(t, r, Route{Name: name, Source: books[name], Targets: to(takes(3 * time.Second))})
			books[name].put("1")
		}
		synctest.Wait()
		go func() { _ = r.Remove(t.Context(), "x") }()
		synctest.Wait()
		var names []string
		for _, s := range r.Routes() {
			names = append(names, s.Name)
			if s.Stopping != (s.Name == "x") || s.InFlight != 1 {
				t.Errorf("status %+v", s)
			}
		}
		if !cmp.Equal(names, []string{"x", "y", "z"}) {
			t.Errorf("routes %v", names)
		}
		start := time.Now()
		if err := r.Drain(t.Context()); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took != 3*time.Second || len(r.Routes()) != 0 {
			t.Errorf("drained in %s, %d routes left", took, len(r.Routes()))
		}
		for _, b := range books {
			b.want("1", "ack")
		}
		if err := r.Add(Route{Name: "late", Source: newBook(t), Targets: to(ackAll)}); fault.KindOf(err) != fault.Unavailable {
			t.Errorf("add after drain: %v", err)
		}
		if err := r.Drain(t.Context()); err != nil {
			t.Errorf("second drain: %v", err)
		}
	})
}

package router

import (
	"context"
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/resilience"
)

// The tests here show that what Watermill would do to events is kept from
// them: one test for each trap, in the order in which they were found.

// Trap 1: closing the router cancels the contexts of what is in flight.
func TestTrapCloseCancelsInFlight(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBook(t)
		r, err := New(Options{Logger: silent()})
		if err != nil {
			t.Fatal(err)
		}
		mustAdd(t, r, Route{Name: "r", Source: b, Targets: to(func(ctx context.Context, _ *cloudevents.Delivery) cloudevents.Outcome {
			select {
			case <-ctx.Done():
				return cloudevents.Left("cut")
			case <-time.After(5 * time.Second):
				return ack
			}
		})})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- r.Run(ctx) }()
		b.put("1")
		synctest.Wait()
		start := time.Now()
		cancel()
		if err := <-done; err != nil || time.Since(start) != 5*time.Second {
			t.Errorf("run ended with %v after %s", err, time.Since(start))
		}
		b.want("1", "ack")
	})
}

// Trap 2: a poison queue dead-letters what a shutdown cut short.
func TestTrapPoisonOnShutdown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, c := newBook(t), &cemetery{}
		r := running(t, Options{DrainTimeout: time.Second})
		mustAdd(t, r, Route{Name: "r", Source: b, DeadLetter: c.bury, Lanes: 4, Targets: to(func(ctx context.Context, _ *cloudevents.Delivery) cloudevents.Outcome {
			<-ctx.Done()
			return cloudevents.Retried(ctx.Err(), 0)
		})})
		b.put("1", "2", "3", "4", "5")
		synctest.Wait()
		if err := r.Drain(t.Context()); err != nil {
			t.Error(err)
		}
		for _, name := range []string{"1", "2", "3", "4", "5"} {
			b.want(name, "leave")
		}
		if c.tried != 0 {
			t.Errorf("%d dead letters tried", c.tried)
		}
	})
}

// Trap 3: a stopped handler closes its publisher though others share it. Ours
// have none, and what targets share goes on working.
func TestTrapStoppedHandlerClosesSharedPublisher(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		published := 0
		shared := NewPublisher(func(string, []byte, map[string]string) error { published++; return nil })
		publish := func(_ context.Context, d *cloudevents.Delivery) cloudevents.Outcome {
			if err := shared.Publish("topic", message.NewMessage("1", d.Body)); err != nil {
				return cloudevents.Retried(err, 0)
			}
			return ack
		}
		r := running(t, Options{})
		first, second := newBook(t), newBook(t)
		mustAdd(t, r, Route{Name: "first", Source: first, Targets: to(publish)})
		mustAdd(t, r, Route{Name: "second", Source: second, Targets: to(publish)})
		first.put("1")
		synctest.Wait()
		if err := r.Remove(t.Context(), "first"); err != nil {
			t.Fatal(err)
		}
		second.put("2")
		synctest.Wait()
		second.want("2", "ack")
		if published != 2 {
			t.Errorf("%d published", published)
		}
	})
}

// Trap 4: the router closes itself when its last handler is gone, and later
// ones are added to a dead router without a word.
func TestTrapLastHandlerClosesRouter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := running(t, Options{})
		for i := range 3 {
			b := newBook(t)
			mustAdd(t, r, Route{Name: "r", Source: b, Targets: to(ackAll)})
			b.put("1")
			synctest.Wait()
			b.want("1", "ack")
			if err := r.Remove(t.Context(), "r"); err != nil {
				t.Fatal(err)
			}
			pass(time.Hour)
			if r.inner.IsClosed() {
				t.Fatalf("closed after round %d", i)
			}
		}
	})
}

// Trap 5: middlewares are kept by handler name, so the third handler of a name
// runs its middleware three times. Ours are composed, and names are not reused.
func TestTrapMiddlewaresPileUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		steps, observed := 0, 0
		r := running(t, Options{Observer: observe(func(Start) { observed++ })})
		names := map[string]bool{}
		for range 3 {
			b := newBook(t)
			mustAdd(t, r, Route{Name: "r", Source: b, Targets: to(ackAll), Steps: []Step{{Do: func(context.Context, *cloudevents.Event) (*cloudevents.Event, *cloudevents.Outcome) {
				steps++
				return nil, nil
			}}}})
			d := b.delivery("1")
			d.Event = event(t)
			b.in <- d
			synctest.Wait()
			b.want("1", "ack")
			for name := range r.inner.Handlers() {
				names[name] = true
			}
			if err := r.Remove(t.Context(), "r"); err != nil {
				t.Fatal(err)
			}
		}
		if steps != 3 || observed != 3 {
			t.Errorf("3 events: %d steps, %d observed", steps, observed)
		}
		if want := map[string]bool{"keep-alive": true, "r@1": true, "r@2": true, "r@3": true}; !cmp.Equal(names, want) {
			t.Errorf("handler names %v", names)
		}
	})
}

// Trap 6: with more than one message in flight handlers start in any order.
func TestTrapStartOrderIsLost(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	c := newCrowd(t, ackWork)
	r := running(t, Options{})
	mustAdd(t, r, Route{Name: "r", Source: b, Lanes: 64, Targets: to(c.send)})
	const keys, each = 16, 200
	for i := range each {
		for k := range keys {
			b.put(fmt.Sprintf("k%d/%d", k, i))
		}
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(30 * time.Second); b.settled() < keys*each; <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d settled", b.settled(), keys*each)
		}
	}
	for k := range keys {
		key := fmt.Sprintf("k%d", k)
		if want := numbered(key, each); !cmp.Equal(c.order[key], want) {
			t.Errorf("order of %s: %s", key, cmp.Diff(want, c.order[key]))
		}
	}
}

func ackWork(context.Context, *cloudevents.Delivery) cloudevents.Outcome { return ack }

// Trap 7: a nack has no back-off: 32,654 redeliveries in 100 ms.
func TestTrapNackWithoutBackoff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, s := newBook(t), newScript(nope)
		mustAdd(t, running(t, Options{}), Route{Name: "r", Source: b, Targets: to(s.send)})
		b.put("1")
		pass(time.Hour)
		// 200 ms doubling to 15 s, with a fifth of jitter: about 250 in an hour.
		if n := s.count(); n < 200 || n > 320 {
			t.Errorf("%d tries in an hour", n)
		}
	})
}

// Trap 8: the deduplicator marks a message before it is handled, so a failed
// one is a duplicate when it comes back, and acked. No middleware of Watermill
// is used here, and a retry after a failure is delivered.
func TestTrapDedupeLosesMessages(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, s := newBook(t), newScript(nope, ack)
		mustAdd(t, running(t, Options{}), Route{Name: "r", Source: b, Targets: to(s.send)})
		d := b.delivery("1")
		d.Event = event(t)
		b.in <- d
		pass(time.Minute)
		b.want("1", "ack")
		if s.count() != 2 {
			t.Errorf("%d tries", s.count())
		}
	})
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) == 0 {
		t.Fatal(err)
	}
	for _, file := range files {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, imp := range f.Imports {
			if strings.Contains(imp.Path.Value, "watermill/message/router") {
				t.Errorf("%s imports %s", file, imp.Path.Value)
			}
		}
	}
}

// Trap 9: Throttle and Retry wait without looking at the context, DelayOnError
// cuts its factor down to a whole number, and Retry's delays jump ahead.
func TestTrapWaitsIgnoreContexts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, s := newBook(t), newScript(nope)
		r := running(t, Options{})
		mustAdd(t, r, Route{Name: "r", Source: b, Targets: []Target{{
			Name: "target", Send: s.send,
			Policy: resilience.Policy{Retry: resilience.Retry{Initial: time.Second, Max: 8 * time.Second, Limit: -1}},
		}}})
		b.put("1")
		pass(40 * time.Second)
		for i, low := range []time.Duration{800, 1600, 3200, 6400, 6400} {
			low *= time.Millisecond
			if pause := s.at[i+1] - s.at[i]; pause < low || pause > min(low*3/2, 8*time.Second) {
				t.Errorf("pause %d was %s, want from %s to %s", i+1, pause, low, min(low*3/2, 8*time.Second))
			}
		}
		start := time.Now()
		if err := r.Remove(t.Context(), "r"); err != nil || time.Since(start) != 0 {
			t.Errorf("the stop waited %s for a back-off: %v", time.Since(start), err)
		}
		b.want("1", "leave")
	})
}

// A subscription whose channel closes is removed by Watermill and never comes
// back; a source that breaks is our own to restart, and its handler stays.
func TestTrapBrokenSubscriptionIsForgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, r := newBook(t), running(t, Options{})
		var runs atomic.Int32
		mustAdd(t, r, Route{Name: "r", Targets: to(ackAll), Source: SourceFunc(func(ctx context.Context, emit cloudevents.EmitFunc) error {
			if runs.Add(1) < 20 {
				return fault.New(fault.Unavailable, "connection refused")
			}
			if err := emit(ctx, b.delivery("1")); err != nil {
				return err
			}
			<-ctx.Done()
			return nil
		})})
		pass(time.Minute)
		if n := runs.Load(); n < 13 || n > 19 { // 200 ms doubling to 5 s
			t.Errorf("%d runs in a minute", n)
		}
		pass(10 * time.Minute)
		b.want("1", "ack")
		if len(r.inner.Handlers()) != 2 {
			t.Errorf("handlers %v", r.inner.Handlers())
		}
	})
}

// What breaks a source that works, a connection that is cut every second, must
// not keep it away longer each time.
func TestSourceThatWorkedIsTriedAgainSoon(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, r := newBook(t), running(t, Options{})
		var runs atomic.Int32
		mustAdd(t, r, Route{Name: "r", Targets: to(ackAll), Source: SourceFunc(func(ctx context.Context, emit cloudevents.EmitFunc) error {
			if err := emit(ctx, b.delivery(strconv.Itoa(int(runs.Add(1))))); err != nil {
				return err
			}
			select {
			case <-time.After(time.Second):
				return fault.New(fault.Unavailable, "connection reset")
			case <-ctx.Done():
				return nil
			}
		})})
		pass(time.Minute)
		if n := runs.Load(); n < 45 || n > 55 { // a second each, and 200 ms between them
			t.Errorf("%d runs in a minute, want about 50", n)
		}
	})
}

// A round that did not deliver is nacked, for whoever watches Watermill.
func TestRoundsAreAckedAndNacked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, s := newBook(t), newScript(nope, ack)
		var rounds []*round
		mustAdd(t, running(t, Options{}), Route{Name: "r", Source: b, Targets: to(func(ctx context.Context, d *cloudevents.Delivery) cloudevents.Outcome {
			rounds = append(rounds, roundFrom(ctx))
			return s.send(ctx, d)
		})})
		b.put("1")
		pass(time.Minute)
		if len(rounds) != 2 || rounds[0].message.Ack() || rounds[1].message.Nack() {
			t.Errorf("%d rounds, want one nacked and one acked", len(rounds))
		}
	})
}

// A panic in a handler reaches neither Watermill's log nor the process.
func TestTrapPanicIsOnlyANack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, c := newBook(t), &cemetery{}
		mustAdd(t, running(t, Options{}), Route{Name: "r", Source: b, DeadLetter: c.bury, Targets: to(func(context.Context, *cloudevents.Delivery) cloudevents.Outcome {
			panic(errors.New("boom"))
		})})
		b.put("1")
		pass(time.Minute)
		b.want("1", "ack")
		if c.count() != 1 {
			t.Errorf("%d letters", c.count())
		}
	})
}

package router

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/resilience"
)

// observe is an observer of beginnings alone.
type observe func(Start)

func (f observe) Begin(ctx context.Context, s Start) (context.Context, Round) {
	f(s)
	return ctx, nil
}

type spanKey struct{}

// witness writes down what it is told.
type witness struct {
	mu   sync.Mutex
	told []string
}

func (w *witness) say(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.told = append(w.told, fmt.Sprintf(format, args...))
}

func (w *witness) Begin(ctx context.Context, s Start) (context.Context, Round) {
	name := string(s.Delivery.Body)
	w.say("%s begin %s %d attempt %d rest %v", name, s.Route, s.Number, s.Delivery.Attempt, s.Rest)
	return context.WithValue(ctx, spanKey{}, "round "+name), &testimony{w, name}
}

type testimony struct {
	*witness
	name string
}

func (r *testimony) Try(ctx context.Context, target string) context.Context {
	r.say("%s try %s in %v", r.name, target, ctx.Value(spanKey{}))
	return context.WithValue(ctx, spanKey{}, "try "+r.name)
}

func (r *testimony) Tried(o cloudevents.Outcome) {
	r.say("%s tried %s %s", r.name, o.Verdict, whyOf(o))
}

func (r *testimony) End(e End) {
	r.say("%s end %s again %v after %s buried %v", r.name, e.Outcome.Verdict, e.Again, e.Wait, e.Buried)
}

func whyOf(o cloudevents.Outcome) string {
	if o.Verdict == cloudevents.Ack {
		return "-"
	}
	return reason(o)
}

// TestObserver: who observes is told of rounds and of tries, and the target gets
// the context of its try.
func TestObserver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, b, s, c := &witness{}, newBook(t), newScript(nope, drop), &cemetery{fail: 1}
		target := func(ctx context.Context, d *cloudevents.Delivery) cloudevents.Outcome {
			if ctx.Value(spanKey{}) != "try 1" || DeliveryFrom(ctx) != d {
				t.Error("the target got another context")
			}
			return s.send(ctx, d)
		}
		mustAdd(t, running(t, Options{Observer: w}), Route{
			Name: "r", Source: b, DeadLetter: c.bury, Redelivery: everySecond(9),
			Targets: []Target{{Name: "app", Send: target, Policy: resilience.Policy{Retry: everySecond(3)}}},
		})
		b.put("1")
		pass(time.Minute)
		b.want("1", "ack")
		want := []string{
			"1 begin r 1 attempt 1 rest false", "1 try app in round 1", "1 tried retry " + whyOf(nope), "1 end retry again true after 1s buried false",
			"1 begin r 2 attempt 2 rest false", "1 try app in round 1", "1 tried drop " + whyOf(drop), "1 end retry again true after 1s buried false",
			"1 begin r 3 attempt 2 rest true", "1 end drop again false after 0s buried true",
		}
		if diff := cmp.Diff(want, w.told); diff != "" {
			t.Errorf("told (-want +got)\n%s", diff)
		}
	})
}

// TestObserverOfSlowAndPanicking: a call that does not come back as it should ends
// for who observes too.
func TestObserverOfSlowAndPanicking(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, b, calls := &witness{}, newBook(t), 0
		mustAdd(t, running(t, Options{Observer: w}), Route{Name: "r", Source: b, Targets: []Target{{
			Name: "app", Policy: resilience.Policy{Timeout: time.Second, Retry: everySecond(9)},
			Send: func(ctx context.Context, _ *cloudevents.Delivery) cloudevents.Outcome {
				switch calls++; calls {
				case 1:
					<-ctx.Done()
					return cloudevents.Left("cut short")
				case 2:
					panic("boom")
				}
				return cloudevents.Acked()
			},
		}}})
		b.put("1")
		pass(time.Minute)
		tried := slices.DeleteFunc(slices.Clone(w.told), func(s string) bool { return s[:7] != "1 tried" })
		want := []string{"1 tried retry no result within 1s: context canceled", "1 tried retry handle event: panic: boom", "1 tried ack -"}
		if diff := cmp.Diff(want, tried); diff != "" {
			t.Errorf("tried (-want +got)\n%s", diff)
		}
	})
}

// TestObserverOfACarrier: each delivery of a call is told of.
func TestObserverOfACarrier(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, b := &witness{}, newBook(t)
		r := running(t, Options{Observer: w})
		mustAdd(t, r, Route{Name: "r", Source: b, Lanes: 8, Paused: true, Targets: []Target{{
			Name: "topic", Send: ackAll,
			SendAll: func(ctx context.Context, ds []*cloudevents.Delivery) []cloudevents.Outcome {
				w.say("%d in %v", len(ds), ctx.Value(spanKey{}))
				return []cloudevents.Outcome{cloudevents.Acked(), cloudevents.Dropped("no", nil)}
			},
		}}})
		b.put("1", "2")
		synctest.Wait()
		if err := r.Resume("r"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		want := []string{
			"1 begin r 1 attempt 1 rest false", "2 begin r 1 attempt 1 rest false",
			"2 try topic in round 2", "1 try topic in round 1", "2 in try 1", "1 tried ack -", "2 tried drop no",
			"1 end ack again false after 0s buried false", "2 end drop again false after 0s buried false",
		}
		if diff := cmp.Diff(want, w.told); diff != "" {
			t.Errorf("told (-want +got)\n%s", diff)
		}
	})
}

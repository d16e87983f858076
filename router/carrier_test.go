package router

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/resilience"
)

// ferry is a target that serves several at once and writes down which.
type ferry struct {
	mu    sync.Mutex
	calls [][]string
	say   func(name string) cloudevents.Outcome
	takes time.Duration
}

func (f *ferry) sendAll(ctx context.Context, ds []*cloudevents.Delivery) []cloudevents.Outcome {
	outcomes := f.note(ds)
	if resilience.Sleep(ctx, f.takes) != nil {
		clear(outcomes)
	}
	return outcomes
}

func (f *ferry) note(ds []*cloudevents.Delivery) []cloudevents.Outcome {
	f.mu.Lock()
	defer f.mu.Unlock()
	var names []string
	outcomes := make([]cloudevents.Outcome, 0, len(ds))
	for _, d := range ds {
		names = append(names, string(d.Body))
		outcomes = append(outcomes, f.say(string(d.Body)))
	}
	f.calls = append(f.calls, names)
	return outcomes
}

func (f *ferry) send(ctx context.Context, d *cloudevents.Delivery) cloudevents.Outcome {
	return f.sendAll(ctx, []*cloudevents.Delivery{d})[0]
}

func (f *ferry) route(b *book, lanes int) Route {
	return Route{Name: "r", Source: b, Lanes: lanes, Window: 1000, Targets: []Target{{Name: "t", Send: f.send, SendAll: f.sendAll}}}
}

func says(o cloudevents.Outcome) func(string) cloudevents.Outcome {
	return func(string) cloudevents.Outcome { return o }
}

func TestCarrierTakesWhatIsReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &ferry{say: says(ack), takes: time.Second}
		b := newBook(t)
		r := running(t, Options{})
		mustAdd(t, r, f.route(b, 40)) // four calls of ten
		for i := range 30 {
			b.put(fmt.Sprint(i))
		}
		b.put("k/1", "k/2", "k/3")
		pass(10 * time.Second)
		if b.settled() != 33 {
			t.Fatalf("%d settled", b.settled())
		}
		for _, call := range f.calls {
			if len(call) > 10 {
				t.Errorf("a call with %d deliveries", len(call))
			}
			if keyed := strings.Count(strings.Join(call, " "), "k/"); keyed > 1 {
				t.Errorf("a call with %d deliveries of one key: %v", keyed, call)
			}
		}
		if len(f.calls[0]) != 1 || len(f.calls) > 10 {
			t.Errorf("calls %v: the first goes at once, the rest together", f.calls)
		}
	})
}

func TestCarrierSettlesEachByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries := map[string]int{}
		var letters []string
		f := &ferry{takes: time.Second, say: func(name string) cloudevents.Outcome {
			tries[name]++
			switch {
			case strings.HasPrefix(name, "drop"):
				return drop
			case strings.HasPrefix(name, "twice") && tries[name] < 3:
				return cloudevents.Retried(fault.New(fault.Unavailable, "busy"), 0)
			}
			return ack
		}}
		b := newBook(t)
		r := running(t, Options{})
		route := f.route(b, 16)
		route.Targets[0].Policy.Retry = resilience.Retry{Initial: time.Second, Limit: 5}
		route.DeadLetter = func(_ context.Context, l *DeadLetter) error {
			letters = append(letters, string(l.Delivery.Body))
			return nil
		}
		mustAdd(t, r, route)
		b.put("1", "2", "3", "4", "drop", "twice", "5")
		pass(time.Minute)
		if b.settled() != 7 || tries["twice"] != 3 || tries["5"] != 1 || fmt.Sprint(letters) != "[drop]" {
			t.Errorf("settled %d, tries %v, letters %v", b.settled(), tries, letters)
		}
	})
}

func TestCarrierSurvivesAPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		panics := 1
		f := &ferry{say: func(name string) cloudevents.Outcome {
			if name == "bad" && panics > 0 {
				panics--
				panic("boom")
			}
			return ack
		}, takes: time.Second}
		b := newBook(t)
		r := running(t, Options{})
		mustAdd(t, r, f.route(b, 8))
		b.put("1", "2", "3", "4", "bad", "5")
		pass(time.Minute)
		if b.settled() != 6 || panics != 0 {
			t.Errorf("settled %d", b.settled())
		}
	})
}

func TestCarrierIsLeftWhenCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &ferry{say: says(ack), takes: time.Hour}
		b := newBook(t)
		r := running(t, Options{DrainTimeout: time.Second})
		mustAdd(t, r, f.route(b, 8))
		b.put("1", "2", "3", "4", "5", "6")
		pass(time.Second)
		if err := r.Remove(t.Context(), "r"); err != nil {
			t.Error(err)
		}
		for i := range 6 {
			b.want(fmt.Sprint(i+1), "leave")
		}
	})
}

// BenchmarkCarrier is one event through a route whose target serves many at
// once and does nothing.
func BenchmarkCarrier(b *testing.B) {
	all := func(_ context.Context, ds []*cloudevents.Delivery) []cloudevents.Outcome {
		outcomes := make([]cloudevents.Outcome, len(ds))
		for i := range outcomes {
			outcomes[i] = ack
		}
		return outcomes
	}
	benchTarget(b, 0, 1024, Target{Name: "t", Send: ackAll, SendAll: all})
}

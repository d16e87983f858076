package conform

import (
	"context"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/pubsub"
)

func pubSubLife() []pubSubCase {
	return []pubSubCase{
		{name: "a cancelled subscription ends while it waits", run: (*suite).cancelIdle},
		{name: "a cancelled subscription ends while emit blocks", run: (*suite).cancelBlocked},
		{name: "a detached group keeps its messages", run: (*suite).detached},
		{name: "outcomes may come after the subscription", run: (*suite).lateOutcome},
		{name: "settling twice counts once", run: (*suite).settleTwice},
		{name: "close twice", run: (*suite).closeTwice},
		{name: "close while busy", run: (*suite).closeBusy},
		{name: "reopened, what was not settled comes again", can: durable, run: (*suite).reopened},
		{name: "reopened, retries and delays are kept", can: durable, run: (*suite).reopenedDelays},
	}
}

func (s *suite) cancelIdle(t *testing.T) {
	d, done := s.driver(t)
	defer done()
	m := s.subscribe(t, d, pubsub.Subscription{Topic: "t"})
	m.settled(t, d, "t")
	m.stop(t)
}

// cancelBlocked has a router that takes nothing: the message that was offered
// stays with the broker.
func (s *suite) cancelBlocked(t *testing.T) {
	d, done := s.driver(t)
	defer done()
	s.attach(t, d, "t", "group")
	publish(t, d, "t", text("k", "x"))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	offered, ended := make(chan struct{}, 1), make(chan error, 1)
	go func() {
		ended <- d.Subscribe(ctx, pubsub.Subscription{Topic: "t", Group: "group"}, func(ctx context.Context, _ *cloudevents.Delivery) error {
			offered <- struct{}{}
			<-ctx.Done()
			return ctx.Err()
		})
	}()
	<-offered
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("subscribe returned %v", err)
	}
	m := s.subscribe(t, d, pubsub.Subscription{Topic: "t"})
	defer m.stop(t)
	x := m.want(t, "x")
	if x.Attempt != 1 {
		t.Errorf("attempt %d of a message that was never taken", x.Attempt)
	}
	x.Settle(cloudevents.Acked())
}

func (s *suite) detached(t *testing.T) {
	d, done := s.driver(t)
	defer done()
	s.attach(t, d, "t", "group")
	want := map[string]int{}
	for i := range 20 {
		want[strconv.Itoa(i)]++
		publish(t, d, "t", text("k", strconv.Itoa(i)))
	}
	m := s.subscribe(t, d, pubsub.Subscription{Topic: "t"})
	defer m.stop(t)
	if d := cmp.Diff(want, m.collect(t, 20)); d != "" {
		t.Error(d)
	}
}

func (s *suite) lateOutcome(t *testing.T) {
	d, done := s.driver(t)
	defer done()
	m := s.subscribe(t, d, pubsub.Subscription{Topic: "t"})
	m.settled(t, d, "t")
	publish(t, d, "t", text("a", "acked"), text("b", "left"), text("a", "next"))
	got := map[string]*cloudevents.Delivery{}
	for range 2 {
		x := m.next(t)
		got[string(x.Body)] = x
	}
	if s.Unordered {
		x := m.next(t)
		got[string(x.Body)] = x
	}
	m.stop(t)
	m = s.subscribe(t, d, pubsub.Subscription{Topic: "t"})
	defer m.stop(t)
	m.none(t, quiet) // what is under way is not delivered beside it
	for body, x := range got {
		if body == "acked" {
			x.Settle(cloudevents.Acked())
		} else {
			x.Settle(cloudevents.Left("stopping"))
		}
	}
	if d := cmp.Diff(map[string]int{"left": 1, "next": 1}, m.collect(t, 2)); d != "" {
		t.Error(d)
	}
}

func (s *suite) settleTwice(t *testing.T) {
	d, done := s.driver(t)
	defer done()
	m := s.subscribe(t, d, pubsub.Subscription{Topic: "t"})
	defer m.stop(t)
	m.settled(t, d, "t")
	publish(t, d, "t", text("k", "1"), text("k", "2"))
	x := m.want(t, "1")
	x.Settle(cloudevents.Acked())
	x.Settle(cloudevents.Left("late"))
	x.Settle(cloudevents.Acked())
	m.want(t, "2").Settle(cloudevents.Acked())
	m.none(t, quiet)
}

func (s *suite) closeTwice(t *testing.T) {
	d, done := s.driver(t)
	done()
	done()
	err := d.Subscribe(t.Context(), pubsub.Subscription{Topic: "t", Group: "g"}, func(context.Context, *cloudevents.Delivery) error { return nil })
	if err == nil {
		t.Error("subscribe after close returned nil")
	}
}

func (s *suite) closeBusy(t *testing.T) {
	d, done := s.driver(t)
	m := s.subscribe(t, d, pubsub.Subscription{Topic: "t"})
	m.settled(t, d, "t")
	for i := range 8 { // one of each key, before one key alone fills the broker
		publish(t, d, "t", text(strconv.Itoa(i), "x"))
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for d.Publish(t.Context(), "t", []pubsub.Message{text(strconv.Itoa(i), "x")}) == nil {
				// until it is closed
			}
		})
	}
	var held []*cloudevents.Delivery
	for range 8 {
		x := m.next(t)
		if len(held) < 4 {
			held = append(held, x)
			continue
		}
		x.Settle(cloudevents.Acked())
	}
	done()
	for _, x := range held {
		x.Settle(cloudevents.Acked()) // too late, and harmless
	}
	wg.Wait()
	select {
	case <-m.done:
		m.ended = true
	case <-time.After(s.Patience):
		t.Error("subscribe goes on after close")
	}
	m.stop(t)
}

func (s *suite) reopened(t *testing.T) {
	d, done := s.driver(t)
	m := s.subscribe(t, d, pubsub.Subscription{Topic: "t"})
	m.settled(t, d, "t")
	publish(t, d, "t", text("a", "acked"), text("b", "held"), text("b", "waiting"), text("c", "left"))
	for range 3 {
		switch x := m.next(t); string(x.Body) {
		case "acked":
			x.Settle(cloudevents.Acked())
		case "left":
			x.Settle(cloudevents.Left("stopping"))
		}
	}
	m.stop(t)
	done()
	d = s.Reopen(t, d)
	publish(t, d, "t", text("b", "new"))
	m = s.subscribe(t, d, pubsub.Subscription{Topic: "t"})
	if d := cmp.Diff(map[string]int{"held": 1, "waiting": 1, "left": 1, "new": 1}, m.collect(t, 4)); d != "" {
		t.Error(d)
	}
	m.none(t, quiet)
	m.stop(t)
	closeDriver(t, d)
}

func (s *suite) reopenedDelays(t *testing.T) {
	d, done := s.driver(t)
	m := s.subscribe(t, d, pubsub.Subscription{Topic: "t"})
	m.settled(t, d, "t")
	const delay = 300 * time.Millisecond
	publish(t, d, "t", text("k", "retried"), text("k", "behind it"))
	m.want(t, "retried").Settle(cloudevents.Retried(nil, delay))
	due := time.Now().Add(delay)
	if s.features.Delay {
		publish(t, d, "t", pubsub.Message{Data: []byte("delayed"), DeliverAt: due.Add(delay / 2)})
	}
	m.stop(t)
	done()
	d = s.Reopen(t, d)
	m = s.subscribe(t, d, pubsub.Subscription{Topic: "t"})
	rest := map[string]int{"behind it": 1}
	x := m.next(t)
	if s.Unordered && string(x.Body) == "behind it" {
		delete(rest, "behind it")
		x.Settle(cloudevents.Acked())
		x = m.next(t)
	}
	if string(x.Body) != "retried" {
		t.Fatalf("received %q, want what was retried", x.Body)
	}
	if time.Until(due) > 50*time.Millisecond && !s.ForgetsDelay {
		t.Errorf("the retry came %s early", time.Until(due))
	}
	more := s.PollsCount && x.Attempt > 2 // the poll of the driver that was closed
	if x.Attempt != 2 && !more && !s.NoAttempts && !s.ForgetsDelay {
		t.Errorf("attempt %d, want 2", x.Attempt)
	}
	x.Settle(cloudevents.Acked())
	if s.features.Delay {
		rest["delayed"] = 1
	}
	if d := cmp.Diff(rest, m.collect(t, len(rest))); d != "" {
		t.Error(d)
	}
	m.stop(t)
	closeDriver(t, d)
}

package conform

import (
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/pubsub"
)

func pubSubOutcomes() []pubSubCase {
	return []pubSubCase{
		{name: "acknowledged and dropped do not come again", run: (*suite).gone},
		{name: "a retry comes after its delay and is counted", can: counts, run: (*suite).retried},
		{name: "a retry without a delay comes again", can: gives, run: (*suite).retriedSoon},
		{name: "a left message comes again uncounted", run: (*suite).left},
		{name: "one of a key at a time", can: ordered, run: (*suite).oneAtATime},
		{name: "order of a key holds across retries", can: keyRetry, run: (*suite).orderAcrossRetry},
		{name: "order of a key holds across leave", can: ordered, run: (*suite).orderAcrossLeave},
		{name: "a stuck key holds back only itself", can: ordered, run: (*suite).stuckKey},
		{name: "the subscription's key counts", can: keyed, run: (*suite).subscriptionKey},
	}
}

func (s *suite) gone(t *testing.T) {
	d, done := s.driver(t)
	defer done()
	m := s.subscribe(t, d, pubsub.Subscription{Topic: "t"})
	m.settled(t, d, "t")
	publish(t, d, "t", text("", "ack"), text("", "drop"))
	for range 2 {
		x := m.next(t)
		if string(x.Body) == "ack" {
			x.Settle(cloudevents.Acked())
			continue
		}
		x.Settle(cloudevents.Dropped("not wanted", nil))
	}
	m.stop(t)
	m = s.subscribe(t, d, pubsub.Subscription{Topic: "t"})
	defer m.stop(t)
	m.none(t, quiet+s.ReturnAfter)
}

func (s *suite) retried(t *testing.T) {
	d, done := s.driver(t)
	defer done()
	m := s.subscribe(t, d, pubsub.Subscription{Topic: "t"})
	defer m.stop(t)
	m.settled(t, d, "t")
	publish(t, d, "t", text("", "x"))
	const delay = 80 * time.Millisecond
	for attempt := 1; attempt <= 3; attempt++ {
		x := m.want(t, "x")
		if x.Attempt != attempt {
			t.Errorf("attempt %d, want %d", x.Attempt, attempt)
		}
		if attempt == 3 {
			x.Settle(cloudevents.Acked())
			break
		}
		start := time.Now()
		x.Settle(cloudevents.Retried(nil, delay))
		m.none(t, delay-30*time.Millisecond-time.Since(start))
	}
	m.none(t, quiet)
}

func (s *suite) retriedSoon(t *testing.T) {
	d, done := s.driver(t)
	defer done()
	m := s.subscribe(t, d, pubsub.Subscription{Topic: "t"})
	defer m.stop(t)
	m.settled(t, d, "t")
	publish(t, d, "t", text("", "x"))
	m.want(t, "x").Settle(cloudevents.Retried(nil, 0))
	m.want(t, "x").Settle(cloudevents.Acked())
}

func (s *suite) left(t *testing.T) {
	d, done := s.driver(t)
	defer done()
	m := s.subscribe(t, d, pubsub.Subscription{Topic: "t"})
	m.settled(t, d, "t")
	publish(t, d, "t", text("", "x"))
	m.want(t, "x").Settle(cloudevents.Left("stopping"))
	x := m.want(t, "x")
	m.stop(t)
	x.Settle(cloudevents.Left("stopping"))
	m = s.subscribe(t, d, pubsub.Subscription{Topic: "t"})
	defer m.stop(t)
	x = m.want(t, "x")
	if x.Attempt != 1 {
		t.Errorf("attempt %d after leaving twice, want 1", x.Attempt)
	}
	x.Settle(cloudevents.Acked())
}

func (s *suite) oneAtATime(t *testing.T) {
	d, done := s.driver(t)
	defer done()
	m := s.subscribe(t, d, pubsub.Subscription{Topic: "t"})
	defer m.stop(t)
	m.settled(t, d, "t")
	other := s.subscribe(t, d, pubsub.Subscription{Topic: "t"})
	defer other.stop(t)
	publish(t, d, "t", text("k", "1"), text("k", "2"), text("k", "3"))
	for i := 1; i <= 3; i++ {
		var x *cloudevents.Delivery
		select {
		case x = <-m.got:
		case x = <-other.got:
		case <-time.After(s.Patience):
			t.Fatal("no delivery")
		}
		if string(x.Body) != strconv.Itoa(i) {
			t.Fatalf("received %q, want %d", x.Body, i)
		}
		m.none(t, quiet/4)
		other.none(t, 0)
		x.Settle(cloudevents.Acked())
	}
}

func (s *suite) orderAcrossRetry(t *testing.T) {
	d, done := s.driver(t)
	defer done()
	m := s.subscribe(t, d, pubsub.Subscription{Topic: "t"})
	defer m.stop(t)
	m.settled(t, d, "t")
	publish(t, d, "t", text("k", "1"), text("k", "2"), text("k", "3"), text("free", "other"))
	var got []string
	for len(got) < 7 {
		x := m.next(t)
		if string(x.Body) != "other" {
			got = append(got, string(x.Body))
		}
		if x.Key == "k" && x.Attempt < 2 {
			x.Settle(cloudevents.Retried(nil, 20*time.Millisecond))
			continue
		}
		x.Settle(cloudevents.Acked())
		if len(got) == 6 {
			break
		}
	}
	if d := cmp.Diff([]string{"1", "1", "2", "2", "3", "3"}, got); d != "" {
		t.Error(d)
	}
}

func (s *suite) orderAcrossLeave(t *testing.T) {
	d, done := s.driver(t)
	defer done()
	m := s.subscribe(t, d, pubsub.Subscription{Topic: "t"})
	defer m.stop(t)
	m.settled(t, d, "t")
	publish(t, d, "t", text("k", "1"), text("k", "2"))
	m.want(t, "1").Settle(cloudevents.Left("rebalanced"))
	m.want(t, "1").Settle(cloudevents.Acked())
	m.want(t, "2").Settle(cloudevents.Acked())
}

func (s *suite) stuckKey(t *testing.T) {
	d, done := s.driver(t)
	defer done()
	m := s.subscribe(t, d, pubsub.Subscription{Topic: "t"})
	defer m.stop(t)
	m.settled(t, d, "t")
	const behind = 2000
	batch := make([]pubsub.Message, behind)
	for i := range batch {
		batch[i] = text("stuck", strconv.Itoa(i))
	}
	if err := d.Publish(t.Context(), "t", batch); err != nil {
		t.Fatal(err)
	}
	stuck := m.want(t, "0")
	for i := range 100 {
		publish(t, d, "t", text("key "+strconv.Itoa(i%7), "free"))
	}
	for range 100 {
		m.want(t, "free").Settle(cloudevents.Acked())
	}
	stuck.Settle(cloudevents.Acked())
	for i := 1; i < behind; i++ {
		m.want(t, strconv.Itoa(i)).Settle(cloudevents.Acked())
	}
}

func (s *suite) subscriptionKey(t *testing.T) {
	d, done := s.driver(t)
	defer done()
	first := func(d *cloudevents.Delivery) string { return string(d.Body[:1]) }
	m := s.subscribe(t, d, pubsub.Subscription{Topic: "t", Key: first})
	defer m.stop(t)
	m.settled(t, d, "t")
	publish(t, d, "t", text("x", "a1"), text("y", "a2"), text("x", "b1"))
	a := m.want(t, "a1")
	m.want(t, "b1").Settle(cloudevents.Acked())
	m.none(t, quiet)
	a.Settle(cloudevents.Acked())
	m.want(t, "a2").Settle(cloudevents.Acked())
}

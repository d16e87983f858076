package conform

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/pubsub"
)

func wildcards(s *suite) bool { return s.features.Wildcards }

// and is a case's can of several conditions.
func and(list ...func(*suite) bool) func(*suite) bool {
	return func(s *suite) bool {
		for _, can := range list {
			if !can(s) {
				return false
			}
		}
		return true
	}
}

func pubSubWildcards() []pubSubCase {
	return []pubSubCase{
		{name: "a wildcard has every topic it matches", can: wildcards, run: (*suite).wildcard},
		{name: "a plain topic and wildcards each have a message", can: wildcards, run: (*suite).overlap},
		{name: "a detached wildcard keeps its messages", can: wildcards, run: (*suite).detachedWildcard},
		{name: "a wildcard keeps the order of a key", can: and(wildcards, ordered), run: (*suite).wildcardOrder},
		{name: "a wildcard's retry keeps its topic", can: and(wildcards, gives), run: (*suite).wildcardRetry},
		{name: "a wildcard's delay keeps its topic", can: and(wildcards, delays), run: (*suite).wildcardDelay},
		{name: "reopened, a wildcard's messages are kept", can: and(wildcards, durable), run: (*suite).reopenedWildcard},
		{name: "published before the first group, which is a wildcard", can: and(wildcards, early), run: (*suite).beforeWildcard},
	}
}

// wantFrom waits for a delivery with this body from this topic.
func wantFrom(t *testing.T, m *member, topic, body string) *cloudevents.Delivery {
	t.Helper()
	d := m.want(t, body)
	if d.Topic != topic {
		t.Errorf("%q came from topic %q, want %q", body, d.Topic, topic)
	}
	return d
}

func (s *suite) wildcard(t *testing.T) {
	d, done := s.driver(t)
	defer done()
	m := s.subscribe(t, d, pubsub.Subscription{Topic: "a*"})
	defer m.stop(t)
	m.settled(t, d, "a.first")
	for _, topic := range []string{"a", "b", "ba", "A1", "*"} {
		publish(t, d, topic, text("", "not for it"))
	}
	for _, topic := range []string{"a.first", "a2", "aé%_", "a*"} {
		publish(t, d, topic, text("", "to "+topic))
		x := m.want(t, "to "+topic)
		// A topic that is called like the wildcard need not be told.
		if x.Topic != topic && (x.Topic != "" || topic != "a*") {
			t.Errorf("topic %q of a message to %q", x.Topic, topic)
		}
		x.Settle(cloudevents.Acked())
	}
	m.none(t, quiet)
}

// overlap has a group of the same name on a topic and on wildcards: they are
// different subscriptions, and each has the message, whatever becomes of it in
// the others.
func (s *suite) overlap(t *testing.T) {
	d, done := s.driver(t)
	defer done()
	patterns := []string{"ab", "a*", "*", "ab*", "b*"}
	members := make([]*member, len(patterns))
	for i, p := range patterns {
		members[i] = s.subscribe(t, d, pubsub.Subscription{Topic: p})
		defer members[i].stop(t)
	}
	members[3].settled(t, d, "abc")
	members[4].settled(t, d, "bc")
	for _, m := range members[:3] {
		m.settled(t, d, "ab")
	}
	for i := range 3 { // each in turn is the last to be done with it
		body := strconv.Itoa(i)
		publish(t, d, "ab", pubsub.Message{Data: []byte(body), Metadata: map[string]string{"n": body}})
		for j := range 3 {
			x := members[(i+j)%3].want(t, body)
			if x.Metadata["n"] != body {
				t.Errorf("%s: metadata %v", patterns[(i+j)%3], x.Metadata)
			}
			x.Settle(cloudevents.Acked())
		}
	}
	for _, m := range members {
		m.none(t, quiet/3)
	}
}

func (s *suite) detachedWildcard(t *testing.T) {
	d, done := s.driver(t)
	defer done()
	s.attachTo(t, d, "a*", "a1")
	publish(t, d, "a1", text("", "one"))
	publish(t, d, "a2", text("", "two"))
	publish(t, d, "b1", text("", "not for it"))
	m := s.subscribe(t, d, pubsub.Subscription{Topic: "a*"})
	defer m.stop(t)
	got := map[string]string{}
	for range 2 {
		x := m.next(t)
		got[string(x.Body)] = x.Topic
		x.Settle(cloudevents.Acked())
	}
	if d := cmp.Diff(map[string]string{"one": "a1", "two": "a2"}, got); d != "" {
		t.Error(d)
	}
	m.none(t, quiet)
}

// attachTo makes the group of a wildcard that matches topic.
func (s *suite) attachTo(t *testing.T, d pubsub.Driver, wildcard, topic string) {
	t.Helper()
	m := s.subscribe(t, d, pubsub.Subscription{Topic: wildcard})
	m.settled(t, d, topic)
	m.stop(t)
}

func (s *suite) wildcardOrder(t *testing.T) {
	d, done := s.driver(t)
	defer done()
	m := s.subscribe(t, d, pubsub.Subscription{Topic: "a*"})
	defer m.stop(t)
	m.settled(t, d, "a0")
	const n = 50
	for i := range n {
		publish(t, d, fmt.Sprintf("a%d", i%3), text("k", strconv.Itoa(i)))
	}
	for i := range n {
		x := wantFrom(t, m, fmt.Sprintf("a%d", i%3), strconv.Itoa(i))
		if len(m.got) > 0 {
			t.Fatal("two messages of one key are under way at once")
		}
		x.Settle(cloudevents.Acked())
	}
}

func (s *suite) wildcardRetry(t *testing.T) {
	d, done := s.driver(t)
	defer done()
	m := s.subscribe(t, d, pubsub.Subscription{Topic: "a*"})
	defer m.stop(t)
	m.settled(t, d, "a1")
	publish(t, d, "a1", text("k", "x"))
	wantFrom(t, m, "a1", "x").Settle(cloudevents.Retried(nil, time.Millisecond))
	wantFrom(t, m, "a1", "x").Settle(cloudevents.Left("once more"))
	wantFrom(t, m, "a1", "x").Settle(cloudevents.Acked())
	m.none(t, quiet)
}

func (s *suite) wildcardDelay(t *testing.T) {
	d, done := s.driver(t)
	defer done()
	m := s.subscribe(t, d, pubsub.Subscription{Topic: "a*"})
	defer m.stop(t)
	m.settled(t, d, "a1")
	due := time.Now().Add(100 * time.Millisecond)
	publish(t, d, "a2", pubsub.Message{Data: []byte("x"), DeliverAt: due})
	wantFrom(t, m, "a2", "x").Settle(cloudevents.Acked())
	if early := time.Until(due); early > 5*time.Millisecond {
		t.Errorf("it came %s early", early)
	}
}

func (s *suite) reopenedWildcard(t *testing.T) {
	d, done := s.driver(t)
	s.attachTo(t, d, "a*", "a1")
	s.attach(t, d, "a1", "group")
	publish(t, d, "a1", text("k", "one"))
	plain := s.subscribe(t, d, pubsub.Subscription{Topic: "a1"})
	plain.want(t, "one").Settle(cloudevents.Acked())
	plain.stop(t)
	done()
	d = s.Reopen(t, d)
	defer closeDriver(t, d)
	publish(t, d, "a2", text("k", "two"))
	m := s.subscribe(t, d, pubsub.Subscription{Topic: "a*"})
	defer m.stop(t)
	wantFrom(t, m, "a1", "one").Settle(cloudevents.Acked())
	wantFrom(t, m, "a2", "two").Settle(cloudevents.Acked())
}

func (s *suite) beforeWildcard(t *testing.T) {
	d, done := s.driver(t)
	defer done()
	publish(t, d, "a1", text("", "one"))
	publish(t, d, "a2", text("", "two"))
	publish(t, d, "b1", text("", "three"))
	first := s.subscribe(t, d, pubsub.Subscription{Topic: "a*", Group: "first"})
	defer first.stop(t)
	got := map[string]string{}
	for range 2 {
		x := first.next(t)
		got[string(x.Body)] = x.Topic
		x.Settle(cloudevents.Acked())
	}
	if d := cmp.Diff(map[string]string{"one": "a1", "two": "a2"}, got); d != "" {
		t.Error(d)
	}
	second := s.subscribe(t, d, pubsub.Subscription{Topic: "a1", Group: "second"})
	defer second.stop(t)
	second.none(t, quiet)
	third := s.subscribe(t, d, pubsub.Subscription{Topic: "b1", Group: "third"})
	defer third.stop(t)
	third.want(t, "three").Settle(cloudevents.Acked())
}

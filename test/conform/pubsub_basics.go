package conform

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/pubsub"
)

// quiet is how long a case listens to be sure that nothing comes.
const quiet = 60 * time.Millisecond

func pubSubBasics() []pubSubCase {
	return []pubSubCase{
		{name: "bytes and metadata arrive intact", run: (*suite).intact},
		{name: "each group gets every message", run: (*suite).groups},
		{name: "members of a group share its messages", run: (*suite).members},
		{name: "topics are apart", run: (*suite).topics},
		{name: "a batch arrives in order", can: ordered, run: (*suite).batch},
		{name: "a failed batch says which messages", run: (*suite).batchErrors},
		{name: "many publishers at once", run: (*suite).concurrent},
		{name: "a delayed message comes when due", can: delays, run: (*suite).delayed},
		{name: "delayed messages of one key come in order", can: and(delays, ordered), run: (*suite).delayedOrder},
		{name: "an expired message does not come", can: expires, run: (*suite).expired},
		{name: "published before the first group", can: early, run: (*suite).beforeGroup},
	}
}

func (s *suite) intact(t *testing.T) {
	d, done := s.driver(t)
	defer done()
	m := s.subscribe(t, d, pubsub.Subscription{Topic: "t"})
	defer m.stop(t)
	m.settled(t, d, "t")
	bodies := map[string][]byte{
		"empty":    {},
		"text":     []byte(`{"a":1}`),
		"no utf-8": {0, 0xff, 0xfe, 0xc3, 0x28, 0, '\n'},
		"large":    bytes.Repeat([]byte{0, 1, 2, 0xff}, s.Largest/4),
	}
	for name, body := range bodies {
		if s.MaxBody > 0 {
			body = body[:min(len(body), s.MaxBody)]
		}
		metadata := map[string]string{"name": name, "Case-Kept": "Ünïcode, \"quoted\"", "empty": ""}
		publish(t, d, "t", pubsub.Message{Data: body, Metadata: metadata, Key: "k"})
		got := m.next(t)
		if !bytes.Equal(got.Body, body) {
			t.Errorf("%s: %d bytes came as %d", name, len(body), len(got.Body))
		}
		for k, v := range metadata {
			if s.NoMetadata {
				break
			}
			if w, ok := got.Metadata[k]; !ok || w != v {
				t.Errorf("%s: metadata %q is %q, want %q", name, k, w, v)
			}
		}
		if got.Key != "k" && !s.Unordered {
			t.Errorf("%s: key %q", name, got.Key)
		}
		if got.Attempt != 1 {
			t.Errorf("%s: attempt %d of a first delivery", name, got.Attempt)
		}
		got.Settle(cloudevents.Acked())
	}
}

func (s *suite) groups(t *testing.T) {
	d, done := s.driver(t)
	defer done()
	for _, g := range []string{"a", "b"} {
		s.attach(t, d, "t", g)
	}
	publish(t, d, "t", text("", "one"), text("", "two"))
	for _, g := range []string{"a", "b"} {
		m := s.subscribe(t, d, pubsub.Subscription{Topic: "t", Group: g})
		if d := cmp.Diff(map[string]int{"one": 1, "two": 1}, m.collect(t, 2)); d != "" {
			t.Errorf("group %s: %s", g, d)
		}
		m.stop(t)
	}
}

// collect acknowledges n messages other than greetings and counts them.
func (m *member) collect(t *testing.T, n int) map[string]int {
	t.Helper()
	got := map[string]int{}
	for n > 0 {
		d := m.next(t)
		d.Settle(cloudevents.Acked())
		got[string(d.Body)]++
		n--
	}
	return got
}

func (s *suite) members(t *testing.T) {
	d, done := s.driver(t)
	defer done()
	a := s.subscribe(t, d, pubsub.Subscription{Topic: "t"})
	defer a.stop(t)
	a.settled(t, d, "t")
	b := s.subscribe(t, d, pubsub.Subscription{Topic: "t"})
	defer b.stop(t)
	const n = 200
	want, got := map[string]int{}, map[string]int{}
	for i := range n {
		want[strconv.Itoa(i)]++
		publish(t, d, "t", text("", strconv.Itoa(i)))
	}
	for range n {
		var x *cloudevents.Delivery
		select {
		case x = <-a.got:
		case x = <-b.got:
		case <-time.After(s.Patience):
			t.Fatalf("%d of %d messages came", len(got), n)
		}
		got[string(x.Body)]++
		x.Settle(cloudevents.Acked())
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	a.none(t, quiet)
	b.none(t, 0)
}

func (s *suite) topics(t *testing.T) {
	d, done := s.driver(t)
	defer done()
	a, b := s.subscribe(t, d, pubsub.Subscription{Topic: "a"}), s.subscribe(t, d, pubsub.Subscription{Topic: "b"})
	defer a.stop(t)
	defer b.stop(t)
	a.settled(t, d, "a")
	b.settled(t, d, "b")
	publish(t, d, "a", text("", "for a"))
	publish(t, d, "b", text("", "for b"))
	a.want(t, "for a").Settle(cloudevents.Acked())
	b.want(t, "for b").Settle(cloudevents.Acked())
	a.none(t, quiet)
	b.none(t, 0)
}

func (s *suite) batch(t *testing.T) {
	d, done := s.driver(t)
	defer done()
	m := s.subscribe(t, d, pubsub.Subscription{Topic: "t"})
	defer m.stop(t)
	m.settled(t, d, "t")
	batch := make([]pubsub.Message, 100)
	for i := range batch {
		batch[i] = text("k", strconv.Itoa(i))
	}
	if err := d.Publish(t.Context(), "t", batch); err != nil {
		t.Fatal(err)
	}
	for i := range batch {
		m.want(t, strconv.Itoa(i)).Settle(cloudevents.Acked())
	}
	if err := d.Publish(t.Context(), "t", nil); err != nil {
		t.Errorf("empty batch: %v", err)
	}
}

// batchErrors closes the driver, which every broker can do, to make a publish
// fail: either nothing was published or each message has its own error.
func (s *suite) batchErrors(t *testing.T) {
	d, done := s.driver(t)
	done()
	err := d.Publish(t.Context(), "t", []pubsub.Message{text("", "1"), text("", "2")})
	if err == nil {
		t.Fatal("publish after close returned nil")
	}
	if be, ok := errors.AsType[*pubsub.BatchError](err); ok {
		if len(be.Errs) != 2 || be.Errs[0] == nil || be.Errs[1] == nil {
			t.Errorf("errors %v, want one for each message", be.Errs)
		}
	}
}

func (s *suite) concurrent(t *testing.T) {
	d, done := s.driver(t)
	defer done()
	m := s.subscribe(t, d, pubsub.Subscription{Topic: "t"})
	defer m.stop(t)
	m.settled(t, d, "t")
	const publishers, each = 16, 50
	want := map[string]int{}
	var wg sync.WaitGroup
	for p := range publishers {
		for i := range each {
			want[fmt.Sprintf("%d/%d", p, i)]++
		}
		wg.Go(func() {
			for i := range each {
				body := fmt.Sprintf("%d/%d", p, i)
				if err := d.Publish(t.Context(), "t", []pubsub.Message{text(strconv.Itoa(p), body)}); err != nil {
					t.Errorf("publish %s: %v", body, err)
				}
			}
		})
	}
	got, last := map[string]int{}, map[string]int{}
	for range publishers * each {
		x := m.next(t)
		var p, i int
		if _, err := fmt.Sscanf(string(x.Body), "%d/%d", &p, &i); err != nil {
			t.Fatalf("received %q", x.Body)
		}
		if next := last[strconv.Itoa(p)]; i != next && !s.Unordered {
			t.Fatalf("key %d: received %d, want %d", p, i, next)
		}
		last[strconv.Itoa(p)] = i + 1
		got[string(x.Body)]++
		x.Settle(cloudevents.Acked())
	}
	wg.Wait()
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func (s *suite) delayed(t *testing.T) {
	d, done := s.driver(t)
	defer done()
	m := s.subscribe(t, d, pubsub.Subscription{Topic: "t"})
	defer m.stop(t)
	m.settled(t, d, "t")
	// A busy machine may come to the others only when the delay is over, which
	// tells nothing; then it is tried with a longer one.
	for _, delay := range []time.Duration{150 * time.Millisecond, time.Second, 8 * time.Second} {
		if delayedBy(t, d, m, delay) {
			return
		}
	}
	t.Error("messages without a delay waited for the delayed ones")
}

// delayedBy publishes messages with and without a delay. None may come early;
// it reports whether those without came before the others were due.
func delayedBy(t *testing.T, d pubsub.Driver, m *member, delay time.Duration) bool {
	t.Helper()
	start := time.Now()
	due := map[string]time.Time{"past": start.Add(-time.Hour), "now": start, "soon": start.Add(delay), "later": start.Add(2 * delay)}
	publish(t, d, "t",
		pubsub.Message{Data: []byte("later"), DeliverAt: due["later"]},
		pubsub.Message{Data: []byte("soon"), DeliverAt: due["soon"]},
		pubsub.Message{Data: []byte("past"), DeliverAt: due["past"]},
		text("", "now"))
	inTime := true
	for i := range len(due) {
		x := m.next(t)
		at, ok := due[string(x.Body)]
		if early := time.Until(at); !ok || early > 5*time.Millisecond {
			t.Errorf("%q came again, or %s early", x.Body, early)
		}
		if i < 2 && !time.Now().Before(due["soon"]) {
			inTime = false
		}
		delete(due, string(x.Body))
		x.Settle(cloudevents.Acked())
	}
	return inTime
}

func (s *suite) delayedOrder(t *testing.T) {
	d, done := s.driver(t)
	defer done()
	m := s.subscribe(t, d, pubsub.Subscription{Topic: "t"})
	defer m.stop(t)
	m.settled(t, d, "t")
	due := time.Now().Add(200 * time.Millisecond)
	batch := make([]pubsub.Message, 50)
	for i := range batch {
		batch[i] = pubsub.Message{Key: "k", Data: []byte(strconv.Itoa(i)), DeliverAt: due}
	}
	if err := d.Publish(t.Context(), "t", batch); err != nil {
		t.Fatal(err)
	}
	for i := range batch {
		m.want(t, strconv.Itoa(i)).Settle(cloudevents.Acked())
	}
}

func (s *suite) expired(t *testing.T) {
	d, done := s.driver(t)
	defer done()
	s.attach(t, d, "t", "group")
	publish(t, d, "t",
		pubsub.Message{Data: []byte("old"), Expires: time.Now().Add(-time.Second)},
		pubsub.Message{Data: []byte("good"), Expires: time.Now().Add(time.Hour)},
		pubsub.Message{Data: []byte("old with a key"), Key: "k", Expires: time.Now().Add(-time.Second)},
		text("k", "after it"))
	m := s.subscribe(t, d, pubsub.Subscription{Topic: "t"})
	defer m.stop(t)
	if d := cmp.Diff(map[string]int{"good": 1, "after it": 1}, m.collect(t, 2)); d != "" {
		t.Error(d)
	}
	m.none(t, quiet)
}

func (s *suite) beforeGroup(t *testing.T) {
	d, done := s.driver(t)
	defer done()
	publish(t, d, "t", text("", "one"), text("", "two"))
	first := s.subscribe(t, d, pubsub.Subscription{Topic: "t", Group: "first"})
	defer first.stop(t)
	if d := cmp.Diff(map[string]int{"one": 1, "two": 1}, first.collect(t, 2)); d != "" {
		t.Error(d)
	}
	second := s.subscribe(t, d, pubsub.Subscription{Topic: "t", Group: "second"})
	defer second.stop(t)
	second.none(t, quiet)
}

package inmemory

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/pubsub"
	"github.com/penstock-io/penstock/test/conform"
)

func openFresh(t *testing.T) pubsub.Driver {
	t.Helper()
	d, err := Component.Open(t.Context(), component.Env{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return d.(pubsub.Driver)
}

func TestConform(t *testing.T) { conform.PubSub(t, openFresh, conform.PubSubSetup{}) }

func TestWatermillSuite(t *testing.T) {
	t.Parallel()
	conform.Watermill(t, openFresh)
}

func TestOptions(t *testing.T) {
	t.Parallel()
	rows := []struct{ name, option, value, err string }{
		{"no messages", "maxMessages", "0", "must be at least 1"},
		{"no bytes", "maxBytes", "0", "must be at least 1"},
		{"negative retention", "groupRetention", "-1s", "negative"},
		{"sizes", "maxBytes", "1Mi", ""},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			got := fmt.Sprint(Component.Check([]config.Item{{Name: r.option, Value: r.value}}))
			if r.err == "" && got != "[]" && got != "" || !strings.Contains(got, r.err) {
				t.Errorf("problems %s, want %q", got, r.err)
			}
		})
	}
}

func newBroker(t testing.TB, o options) *broker {
	t.Helper()
	d, err := open(t.Context(), component.Env{}, o)
	if err != nil {
		t.Fatal(err)
	}
	b := d.(*handle).broker
	t.Cleanup(func() {
		if err := b.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return b
}

var roomy = options{MaxMessages: 100_000, MaxBytes: 1 << 28}

func message(key, body string) []pubsub.Message {
	return []pubsub.Message{{Key: key, Data: []byte(body)}}
}

// detached makes the group g of topic t.
func detached(t testing.TB, b *broker) *queue {
	t.Helper()
	q, err := b.join(pubsub.Subscription{Topic: "t", Group: "g"})
	if err != nil {
		t.Fatal(err)
	}
	b.leave(q)
	return q
}

func TestBounds(t *testing.T) {
	t.Parallel()
	b := newBroker(t, options{MaxMessages: 2, MaxBytes: 10})
	if err := b.Publish(t.Context(), "t", message("", "nobody listens")); err != nil {
		t.Errorf("topic without groups: %v", err)
	}
	q := detached(t, b)
	publish := func(body string, want fault.Kind) {
		t.Helper()
		err := b.Publish(t.Context(), "t", message("", body))
		if err == nil || fault.KindOf(err) != want || !strings.Contains(err.Error(), `group "g" of topic "t"`) {
			t.Errorf("publish %q: %v, want %s", body, err, want)
		}
	}
	publish("12345678901", fault.Invalid)
	for range 2 {
		if err := b.Publish(t.Context(), "t", message("", "abcd")); err != nil {
			t.Fatal(err)
		}
	}
	publish("x", fault.Exhausted)
	q.next(nil).settle(cloudevents.Acked())
	publish("1234567", fault.Exhausted)
	held := q.next(nil)
	if err := b.Publish(t.Context(), "t", message("", "123456")); err != nil {
		t.Errorf("within bounds: %v", err)
	}
	publish("", fault.Exhausted)
	held.settle(cloudevents.Acked())
	if q.count != 1 || q.bytes != 6 {
		t.Errorf("count %d bytes %d", q.count, q.bytes)
	}
}

func TestFullGroupHoldsBackNoOther(t *testing.T) {
	t.Parallel()
	b := newBroker(t, options{MaxMessages: 1, MaxBytes: 10})
	first := detached(t, b)
	q, err := b.join(pubsub.Subscription{Topic: "t", Group: "second"})
	if err != nil {
		t.Fatal(err)
	}
	b.leave(q)
	if err := b.Publish(t.Context(), "t", message("", "x")); err != nil {
		t.Fatal(err)
	}
	first.next(nil).settle(cloudevents.Acked())
	if err := b.Publish(t.Context(), "t", message("", "y")); fault.KindOf(err) != fault.Exhausted {
		t.Errorf("publish: %v", err)
	}
	if first.count != 0 || first.next(nil) != nil {
		t.Error("a publish that failed left something behind")
	}
}

func TestAbandonedGroupIsForgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, options{MaxMessages: 1, MaxBytes: 10, GroupRetention: time.Minute})
		detached(t, b)
		<-time.After(59 * time.Second)
		if err := b.Publish(t.Context(), "t", message("", "x")); err != nil {
			t.Fatal(err)
		}
		if err := b.Publish(t.Context(), "t", message("", "y")); fault.KindOf(err) != fault.Exhausted {
			t.Errorf("before: %v", err)
		}
		<-time.After(time.Second)
		if err := b.Publish(t.Context(), "t", message("", "y")); err != nil {
			t.Errorf("after: %v", err)
		}
		if n := len(b.topics["t"]); n != 0 {
			t.Errorf("%d groups", n)
		}
	})
}

func TestAbandonedWildcardIsForgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, options{MaxMessages: 1, MaxBytes: 10, GroupRetention: time.Minute})
		for _, pattern := range []string{"a*", "b*"} {
			if err := b.Prepare(t.Context(), pubsub.Subscription{Topic: pattern, Group: "g"}); err != nil {
				t.Fatal(err)
			}
		}
		publish := func(topic string) error { return b.Publish(t.Context(), topic, message("", "x")) }
		if err := publish("a1"); err != nil {
			t.Fatal(err)
		}
		if err := publish("a2"); fault.KindOf(err) != fault.Exhausted {
			t.Errorf("a full wildcard: %v", err)
		}
		<-time.After(time.Minute)
		if err := publish("a2"); err != nil {
			t.Errorf("a forgotten wildcard: %v", err)
		}
		if len(b.wild) != 1 || b.wild[0].topic != "b*" || len(b.topics) != 0 {
			t.Errorf("%d wildcards and %d topics are left", len(b.wild), len(b.topics))
		}
	})
}

func TestExpiredMakesRoom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, options{MaxMessages: 4, MaxBytes: 100})
		q := detached(t, b)
		soon := time.Now().Add(time.Minute)
		for _, m := range []pubsub.Message{
			{Key: "k", Data: []byte("held")},
			{Key: "k", Data: []byte("behind"), Expires: soon},
			{Data: []byte("delayed"), Expires: soon, DeliverAt: soon.Add(time.Hour)},
			{Data: []byte("fresh"), Expires: soon},
		} {
			if err := b.Publish(t.Context(), "t", []pubsub.Message{m}); err != nil {
				t.Fatal(err)
			}
		}
		held := q.next(nil)
		if fresh := q.next(nil); string(fresh.Body) != "fresh" {
			t.Fatalf("received %q", fresh.Body)
		} else {
			fresh.settle(cloudevents.Left(""))
		}
		<-time.After(time.Minute)
		for range 2 {
			if err := b.Publish(t.Context(), "t", message("", "new")); err != nil {
				t.Errorf("no room: %v", err)
			}
		}
		held.settle(cloudevents.Acked())
		for range 2 {
			if d := q.next(nil); d == nil || string(d.Body) != "new" {
				t.Errorf("received %+v", d)
			}
		}
	})
}

func TestBackoff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, roomy)
		q := detached(t, b)
		if err := b.Publish(t.Context(), "t", message("", "x")); err != nil {
			t.Fatal(err)
		}
		var got []time.Duration
		d := q.next(nil)
		for range 10 {
			d.settle(cloudevents.Retried(nil, 0))
			start := time.Now()
			for d = q.next(nil); d == nil; d = q.next(nil) {
				<-q.wake
			}
			got = append(got, time.Since(start))
		}
		ms := time.Millisecond
		want := []time.Duration{
			100 * ms, 200 * ms, 400 * ms, 800 * ms, 1600 * ms, 3200 * ms, 6400 * ms, 12800 * ms, 15000 * ms, 15000 * ms,
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
	})
}

// TestKeyOrderModel settles random deliveries in random ways and checks after
// each step that a key has at most one delivery under way and moves forward
// only.
func TestKeyOrderModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		b, err := open(t.Context(), component.Env{}, roomy)
		if err != nil {
			rt.Fatal(err)
		}
		defer b.Close(t.Context())
		q := detached(t, b.(*handle).broker)
		m := model{rt: rt, b: b, q: q, last: map[string]int{}, sent: map[string]int{}}
		rt.Repeat(map[string]func(*rapid.T){
			"publish": m.publish, "take": m.take, "settle": m.settle,
			"join": func(*rapid.T) { q.join(); q.leave() },
		})
		m.finish()
	})
}

type model struct {
	rt    *rapid.T
	b     pubsub.Driver
	q     *queue
	sent  map[string]int // messages published by key
	last  map[string]int // messages done by key
	under []*delivery
}

func (m *model) publish(rt *rapid.T) {
	key := rapid.SampledFrom([]string{"", "a", "b", "c"}).Draw(rt, "key")
	m.sent[key]++
	msg := pubsub.Message{Key: key, Data: fmt.Appendf(nil, "%d", m.sent[key])}
	if err := m.b.Publish(m.rt.Context(), "t", []pubsub.Message{msg}); err != nil {
		rt.Fatal(err)
	}
}

func (m *model) take(rt *rapid.T) {
	d := m.q.next(nil)
	if d == nil {
		return
	}
	for _, o := range m.under {
		if o.Key == d.Key && d.Key != "" {
			rt.Fatalf("key %q has two deliveries under way: %s and %s", d.Key, o.Body, d.Body)
		}
	}
	if want := fmt.Sprint(m.last[d.Key] + 1); d.Key != "" && string(d.Body) != want {
		rt.Fatalf("key %q: received %s, want %s", d.Key, d.Body, want)
	}
	m.under = append(m.under, d)
}

func (m *model) settle(rt *rapid.T) {
	if len(m.under) == 0 {
		return
	}
	i := rapid.IntRange(0, len(m.under)-1).Draw(rt, "which")
	d := m.under[i]
	m.under = append(m.under[:i], m.under[i+1:]...)
	switch rapid.SampledFrom([]string{"ack", "leave", "retry"}).Draw(rt, "outcome") {
	case "ack":
		m.last[d.Key]++
		d.settle(cloudevents.Acked())
	case "retry":
		d.settle(cloudevents.Retried(nil, time.Nanosecond))
	default:
		d.settle(cloudevents.Left(""))
	}
}

// finish acknowledges everything that is left.
func (m *model) finish() {
	for _, d := range m.under {
		m.last[d.Key]++
		d.settle(cloudevents.Acked())
	}
	m.under = nil
	deadline := time.After(60 * time.Second)
	for m.done() < m.total() {
		m.take(m.rt)
		if len(m.under) == 1 {
			m.last[m.under[0].Key]++
			m.under[0].settle(cloudevents.Acked())
			m.under = nil
			continue
		}
		select {
		case <-m.q.wake:
		case <-deadline:
			m.rt.Fatalf("%d of %d messages came", m.done(), m.total())
		}
	}
	if len(m.q.lanes) != 0 || m.q.count != 0 || m.q.bytes != 0 {
		m.rt.Fatalf("left over: %d lanes, %d messages, %d bytes", len(m.q.lanes), m.q.count, m.q.bytes)
	}
}

func (m *model) done() int  { return sum(m.last) }
func (m *model) total() int { return sum(m.sent) }

func sum(counts map[string]int) (n int) {
	for _, c := range counts {
		n += c
	}
	return n
}

func TestMemoryIsGivenBack(t *testing.T) {
	t.Parallel()
	b := newBroker(t, roomy)
	q := detached(t, b)
	for i := range 5000 {
		if err := b.Publish(t.Context(), "t", message(fmt.Sprint(i%3), "x")); err != nil {
			t.Fatal(err)
		}
	}
	for d := q.next(nil); d != nil; d = q.next(nil) {
		d.settle(cloudevents.Acked())
	}
	if len(q.lanes) != 0 || cap(q.fresh.items) > 1024 || q.count != 0 {
		t.Errorf("%d lanes, room for %d, %d messages", len(q.lanes), cap(q.fresh.items), q.count)
	}
}

func TestAllocs(t *testing.T) {
	b := newBroker(t, roomy)
	q := detached(t, b)
	ctx, batch := t.Context(), message("", "x")
	n := testing.AllocsPerRun(1000, func() {
		if err := b.Publish(ctx, "t", batch); err != nil {
			t.Fatal(err)
		}
		q.next(nil).Settle(cloudevents.Acked())
	})
	if n > 3 {
		t.Errorf("%v allocations for a message, want at most 3", n)
	}
}

func BenchmarkPublishDeliver(b *testing.B) {
	for _, keys := range []int{0, 64} {
		b.Run(fmt.Sprintf("keys=%d", keys), func(b *testing.B) {
			br := newBroker(b, roomy)
			detached(b, br)
			ctx, cancel := context.WithCancel(b.Context())
			defer cancel()
			got := make(chan struct{}, 1024)
			var wg sync.WaitGroup
			wg.Go(func() {
				_ = br.Subscribe(ctx, pubsub.Subscription{Topic: "t", Group: "g"}, func(_ context.Context, d *cloudevents.Delivery) error {
					d.Settle(cloudevents.Acked())
					got <- struct{}{}
					return nil
				})
			})
			names := make([]string, max(keys, 1))
			for i := range keys {
				names[i] = fmt.Sprint(i)
			}
			body := make([]byte, 256)
			b.ReportAllocs()
			i, open := 0, 0
			for b.Loop() {
				if err := br.Publish(ctx, "t", []pubsub.Message{{Key: names[i%len(names)], Data: body}}); err != nil {
					b.Fatal(err)
				}
				i++
				for open++; open > 512; open-- {
					<-got
				}
			}
			for ; open > 0; open-- {
				<-got
			}
			cancel()
			wg.Wait()
		})
	}
}

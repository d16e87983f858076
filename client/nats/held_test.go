package nats

import (
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/test/fake/natsserver"
)

// delivered is a message as a server delivers it.
func delivered(seq, times uint64) *nats.Msg {
	return &nats.Msg{Subject: "orders", Reply: fmt.Sprintf("$JS.ACK.stream.consumer.%d.%d.%d.1.0", times, seq, seq), Sub: &nats.Subscription{}}
}

// A server may deliver what was given back once more as if it were new.
func TestWhatIsHeldIsNotTakenAgain(t *testing.T) {
	t.Parallel()
	h := newHeld(t.Context(), nil, ConsumerOptions{}, func(msg string, args ...any) { t.Log(msg, args) })
	born := time.Unix(1, 0)
	b := &binding{place: h.place("stream", born), born: born}
	for _, row := range []struct {
		seq, times uint64
		taken      bool
	}{
		{1, 1, true},
		{2, 2, true},
		{2, 1, false},
		{1, 1, false},
		{1, 2, true}, // its time was up
		{3, 1, true},
	} {
		if x := h.take(b, &round{}, 0, delivered(row.seq, row.times)); (x != nil) != row.taken {
			t.Errorf("message %d, delivered %d times: taken is %t", row.seq, row.times, x != nil)
		}
	}
	x := h.first.prev
	h.unlink(x)
	if h.take(b, &round{}, 0, delivered(x.seq, 1)) == nil {
		t.Error("a message that is not held any more is not taken")
	}
}

// What was fetched before a process stood still, and what came for it meanwhile,
// may be with another one by now.
func TestAProcessThatStoodStillLetsGo(t *testing.T) {
	t.Parallel()
	s := natsserver.Start(t, natsserver.Options{})
	c := opened(t, component.Env{}, Options{URL: s.URL()})
	r := c.Consumer(t.Context(), ConsumerOptions{}, func(msg string, args ...any) { t.Log(msg, args) })
	t.Cleanup(func() { _ = r.Close(t.Context()) })
	if _, err := c.js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "work", Subjects: []string{"work"}}); err != nil {
		t.Fatal(err)
	}
	b, err := r.bind(t.Context(), "work", "work", "group")
	if err != nil {
		t.Fatal(err)
	}
	p, err := c.puller(b, time.Second, r.held.now)
	if err != nil {
		t.Fatal(err)
	}
	var got []*taken
	pull := func(n int) {
		t.Helper()
		if err := p.pull(t.Context(), n, func(m *nats.Msg) { got = append(got, r.held.take(b, &round{}, p.epoch, m)) }); err != nil {
			t.Fatal(err)
		}
	}
	publish := func(text string) {
		t.Helper()
		if _, err := c.js.Publish(t.Context(), "work", []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	publish("before")
	pull(1)
	if r.held.forgot(got[0]) {
		t.Error("what was fetched just now is given up")
	}
	r.held.lapse.Store(int64(time.Nanosecond)) // as if each moment were long
	publish("meanwhile")
	pull(1)
	r.held.lapse.Store(int64(time.Hour))
	if len(got) != 1 {
		t.Errorf("what came while the process stood still is handed over: %s", got[1].Body)
	}
	if !r.held.forgot(got[0]) {
		t.Error("what was fetched before the process stood still is kept")
	}
	if r.held.first.next != &r.held.first {
		t.Error("what is given up is extended")
	}
	publish("after")
	for len(got) < 4 {
		pull(1)
	}
	texts := map[string]int{}
	for _, x := range got {
		texts[string(x.Body)]++
	}
	if want := map[string]int{"before": 2, "meanwhile": 1, "after": 1}; !maps.Equal(texts, want) {
		t.Errorf("got %v, want %v", texts, want)
	}
}

// A connection that was lost and came back before a request was sent is not the loss
// of that request: it would be sent twice, and twice as much would come.
func TestWhatCameBackBeforeARequestIsNoNewsForIt(t *testing.T) {
	t.Parallel()
	s := natsserver.Start(t, natsserver.Options{})
	c := opened(t, component.Env{}, Options{URL: s.URL()})
	r := c.Consumer(t.Context(), ConsumerOptions{}, func(msg string, args ...any) { t.Log(msg, args) })
	t.Cleanup(func() { _ = r.Close(t.Context()) })
	if _, err := c.js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "news", Subjects: []string{"news"}}); err != nil {
		t.Fatal(err)
	}
	b, err := r.bind(t.Context(), "news", "news", "group")
	if err != nil {
		t.Fatal(err)
	}
	p, err := c.puller(b, time.Second, r.held.now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.js.Publish(t.Context(), "news", []byte("one")); err != nil {
		t.Fatal(err)
	}
	p.back <- nats.CONNECTED
	p.back <- nats.CONNECTED
	got := 0
	if err := p.pull(t.Context(), 1, func(*nats.Msg) { got++ }); err != nil || got != 1 {
		t.Errorf("the first request brought %d messages: %v", got, err)
	}
}

package lists

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"github.com/penstock-io/penstock/client/redis"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
)

func reader(t *testing.T, s *miniredis.Miniredis) *Reader {
	t.Helper()
	c, err := redis.Open(t.Context(), component.Env{}, redis.Options{RedisHost: s.Addr()})
	if err != nil {
		t.Fatal(err)
	}
	r := New(t.Context(), Options{
		Client: c, Logger: slog.New(slog.DiscardHandler), List: "l", Count: 10,
		Decode: func(d *cloudevents.Delivery, _ string, body []byte) { d.Body = body },
	})
	t.Cleanup(func() {
		_ = r.Close(context.WithoutCancel(t.Context())) // a dead one cannot
		_ = c.Close()
	})
	return r
}

// start reads in the background.
func (r *Reader) start(t *testing.T) <-chan *cloudevents.Delivery {
	t.Helper()
	got := make(chan *cloudevents.Delivery, 100)
	go func() {
		_ = r.Read(t.Context(), func(_ context.Context, d *cloudevents.Delivery) error { got <- d; return nil })
	}()
	return got
}

func want(t *testing.T, got <-chan *cloudevents.Delivery, body string) *cloudevents.Delivery {
	t.Helper()
	select {
	case d := <-got:
		if string(d.Body) != body {
			t.Fatalf("received %q, want %q", d.Body, body)
		}
		return d
	case <-time.After(30 * time.Second):
		t.Fatalf("%q does not come", body)
		return nil
	}
}

func server(t *testing.T) *miniredis.Miniredis {
	t.Helper()
	s := miniredis.RunT(t)
	s.ClockTTL(true)
	return s
}

// TestTakeOver stops one reader as a crash would: it gives nothing free. Its late
// outcome is refused.
func TestTakeOver(t *testing.T) {
	t.Parallel()
	s := server(t)
	s.Push("l", "x")
	dead := reader(t, s)
	first := want(t, dead.start(t), "x")
	dead.cancel()
	s.Push("l", "y")
	began := time.Now()
	got := reader(t, s).start(t)
	again := want(t, got, "x")
	want(t, got, "y").Settle(cloudevents.Acked())
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("took over after %s", took)
	}
	first.Settle(cloudevents.Acked())
	await(t, "the late outcome", func() bool {
		dead.mu.Lock()
		defer dead.mu.Unlock()
		for _, h := range dead.under { // which may have y too: it was asked for before the end
			if &h.Delivery == first {
				return false
			}
		}
		return true
	})
	if !s.Exists(dead.keys.body) {
		t.Error("a reader that lost its entry settled it")
	}
	again.Settle(cloudevents.Acked())
	await(t, "the outcome", func() bool { return !s.Exists(dead.keys.body) })
}

// TestAnswerLost gives a reader entries whose answer never reaches it.
func TestAnswerLost(t *testing.T) {
	t.Parallel()
	s := server(t)
	s.Push("l", "a", "b")
	r := reader(t, s)
	if _, _, err := r.more(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.mu.Lock()
	clear(r.under)
	r.check = true
	r.mu.Unlock()
	got := r.start(t)
	want(t, got, "a").Settle(cloudevents.Acked())
	want(t, got, "b").Settle(cloudevents.Acked())
	await(t, "both to be done", func() bool { return !s.Exists(r.keys.body) })
}

// TestServerAway stops the server while outcomes are on their way.
func TestServerAway(t *testing.T) {
	t.Parallel()
	s := server(t)
	s.Push("l", "a", "b")
	r := reader(t, s)
	got := r.start(t)
	one, two := want(t, got, "a"), want(t, got, "b")
	s.SetError("LOADING not now")
	one.Settle(cloudevents.Acked())
	two.Settle(cloudevents.Retried(nil, time.Millisecond))
	await(t, "the failure", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.failed) > 0
	})
	s.SetError("")
	if d := want(t, got, "b"); d.Attempt != 2 {
		t.Errorf("attempt %d, want 2", d.Attempt)
	}
}

// TestMoved has an entry that was waited for and moved by a reader that died
// before it took it.
func TestMoved(t *testing.T) {
	t.Parallel()
	s := server(t)
	r := reader(t, s)
	s.Push(r.keys.moved, "first")
	s.Push("l", "second")
	got := r.start(t)
	want(t, got, "first")
	want(t, got, "second")
}

func TestKeys(t *testing.T) {
	t.Parallel()
	for list, want := range map[string]string{
		"jobs": "penstock:list:{jobs}:moved", "a{b}c": "penstock:list:a{b}c:moved", "a{}": "penstock:list:{a{}}:moved", "a{": "penstock:list:{a{}:moved",
	} {
		if got := keysOf(list).moved; got != want {
			t.Errorf("%s: %s, want %s", list, got, want)
		}
	}
}

func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	end := time.Now().Add(30 * time.Second)
	for !is() {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
		timer := time.NewTimer(5 * time.Millisecond)
		<-timer.C
	}
}

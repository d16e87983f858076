package streams

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

func groups(t *testing.T, addr string) *Groups {
	t.Helper()
	c, err := redis.Open(t.Context(), component.Env{}, redis.Options{RedisHost: addr})
	if err != nil {
		t.Fatal(err)
	}
	g := New(t.Context(), Options{Client: c, Logger: slog.New(slog.DiscardHandler), Timeout: time.Minute, Count: 10})
	t.Cleanup(func() {
		_ = g.Close(context.WithoutCancel(t.Context())) // a dead one cannot
		_ = c.Close()
	})
	return g
}

func body(d *cloudevents.Delivery, e *Entry) { d.Body = []byte(e.Fields[0].Value) }

// next reads one entry and leaves the read running in the background.
func (g *Groups) next(t *testing.T) <-chan *cloudevents.Delivery {
	t.Helper()
	got := make(chan *cloudevents.Delivery, 10)
	go func() {
		_ = g.Read(t.Context(), "s", "g", body,
			func(_ context.Context, d *cloudevents.Delivery) error { got <- d; return nil })
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
	case <-time.After(20 * time.Second):
		t.Fatalf("%q does not come", body)
		return nil
	}
}

func add(t *testing.T, s *miniredis.Miniredis, data string) {
	t.Helper()
	if _, err := s.XAdd("s", "*", []string{"data", data}); err != nil {
		t.Fatal(err)
	}
}

// TestTakeOver stops one reader as a crash would: it gives nothing free. The next
// one has its entry before what came later.
func TestTakeOver(t *testing.T) {
	t.Parallel()
	s := miniredis.RunT(t)
	s.ClockTTL(true)
	add(t, s, "x")
	dead := groups(t, s.Addr())
	want(t, dead.next(t), "x")
	dead.cancel()
	add(t, s, "y")
	began := time.Now()
	got := groups(t, s.Addr()).next(t)
	want(t, got, "x").Settle(cloudevents.Acked())
	want(t, got, "y").Settle(cloudevents.Acked())
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("took over after %s", took)
	}
}

// TestBesideOther reads beside one that lives and has entries.
func TestBesideOther(t *testing.T) {
	t.Parallel()
	s := miniredis.RunT(t)
	s.ClockTTL(true)
	add(t, s, "x")
	other := groups(t, s.Addr())
	ctx, cancel := context.WithCancel(t.Context())
	var x *cloudevents.Delivery
	err := other.Read(ctx, "s", "g", body, func(_ context.Context, d *cloudevents.Delivery) error {
		x = d
		cancel()
		return nil
	})
	if err != nil || x == nil {
		t.Fatal("read", err)
	}
	add(t, s, "y")
	want(t, groups(t, s.Addr()).next(t), "y").Settle(cloudevents.Acked())
	x.Settle(cloudevents.Acked())
}

// TestForeign has an entry that another program read and did not acknowledge: it
// is that program's for as long as the options allow it.
func TestForeign(t *testing.T) {
	t.Parallel()
	s := miniredis.RunT(t)
	s.ClockTTL(true)
	add(t, s, "x")
	g := groups(t, s.Addr())
	g.o.Timeout = 2 * time.Second
	if err := g.Prepare(t.Context(), "s", "g"); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	c := g.o.Client
	if _, err := c.Do(t.Context(), c.B().Xreadgroup().Group("g", "g").Count(1).Streams().Key("s").Id(">").Build()).AsXRead(); err != nil {
		t.Fatal(err)
	}
	got := g.next(t)
	want(t, got, "x").Settle(cloudevents.Acked())
	if took := time.Since(began); took < 1900*time.Millisecond {
		t.Errorf("took an entry over after %s, which was another's for 2s", took)
	}
}

// TestStray has an entry that the server gave to a reader that no longer heard.
func TestStray(t *testing.T) {
	t.Parallel()
	s := miniredis.RunT(t)
	s.ClockTTL(true)
	add(t, s, "x")
	g := groups(t, s.Addr())
	got := g.next(t)
	want(t, got, "x").Settle(cloudevents.Acked())
	g.mu.Lock()
	m := g.members[[2]string{"s", "g"}]
	g.mu.Unlock()
	c, err := redis.Open(t.Context(), component.Env{}, redis.Options{RedisHost: s.Addr()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for stolen := false; !stolen; { // the reader of the test is sooner at times
		add(t, s, "y")
		read := c.B().Xreadgroup().Group("g", m.name).Count(1).Streams().Key("s").Id(">").Build()
		_, err := c.Do(t.Context(), read).AsXRead()
		stolen = err == nil
		if !stolen {
			want(t, got, "y").Settle(cloudevents.Acked())
		}
	}
	want(t, got, "y").Settle(cloudevents.Acked())
}

// TestGroupDeleted deletes all there is under a reader.
func TestGroupDeleted(t *testing.T) {
	t.Parallel()
	s := miniredis.RunT(t)
	s.ClockTTL(true)
	add(t, s, "x")
	got := groups(t, s.Addr()).next(t)
	want(t, got, "x").Settle(cloudevents.Acked())
	s.FlushAll()
	add(t, s, "y")
	want(t, got, "y").Settle(cloudevents.Acked())
}

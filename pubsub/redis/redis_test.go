package redis

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/pubsub"
	"github.com/penstock-io/penstock/test/conform"
	proxy "github.com/penstock-io/penstock/test/fake"
)

// fake is a server in this process.
func fake(t *testing.T) *miniredis.Miniredis {
	t.Helper()
	s := miniredis.RunT(t)
	s.ClockTTL(true)
	return s
}

func openAt(t testing.TB, addr string, more ...config.Item) pubsub.Driver {
	t.Helper()
	items := append(more, config.Item{Name: "redisHost", Value: addr})
	env := component.Env{Name: "bus", AppID: "app", Logger: slog.New(slog.DiscardHandler)}
	d, err := Component.Open(t.Context(), env, items)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close(context.WithoutCancel(t.Context())) }) // most tests have closed it
	return d.(pubsub.Driver)
}

func TestConformance(t *testing.T) {
	s := fake(t)
	conform.PubSub(t, func(t *testing.T) pubsub.Driver {
		s.FlushAll()
		return openAt(t, s.Addr())
	}, conform.PubSubSetup{
		Reopen:    func(t *testing.T, _ pubsub.Driver) pubsub.Driver { return openAt(t, s.Addr()) },
		Unordered: true,
	})
}

func TestWatermill(t *testing.T) {
	s := fake(t)
	conform.Watermill(t, func(t *testing.T) pubsub.Driver { return openAt(t, s.Addr()) })
}

// first returns the first delivery of a topic, not settled.
func first(t *testing.T, d pubsub.Driver, topic string) *cloudevents.Delivery {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var got *cloudevents.Delivery
	err := d.Subscribe(ctx, pubsub.Subscription{Topic: topic, Group: "g"}, func(_ context.Context, x *cloudevents.Delivery) error {
		if got == nil {
			got = x
		}
		cancel()
		return nil
	})
	if err != nil || got == nil {
		t.Fatalf("no delivery: %v", err)
	}
	return got
}

// TestHalfOpen has a server that goes away without a word under a reader that
// waits in it.
func TestHalfOpen(t *testing.T) {
	t.Parallel()
	s := fake(t)
	p, err := proxy.NewProxy(s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	d := openAt(t, p.Addr(), config.Item{Name: "readTimeout", Value: "500ms"})
	ctx, cancel := context.WithCancel(t.Context())
	got, done := make(chan string, 10), make(chan error, 1)
	go func() {
		done <- d.Subscribe(ctx, pubsub.Subscription{Topic: "t", Group: "g"}, func(_ context.Context, x *cloudevents.Delivery) error {
			x.Settle(cloudevents.Acked())
			got <- string(x.Body)
			return nil
		})
	}()
	for _, body := range []string{"a", "b", "c"} {
		if _, err := s.XAdd("t", "*", []string{"data", body}); err != nil {
			t.Fatal(err)
		}
		select {
		case x := <-got:
			if x != body {
				t.Fatalf("received %q, want %q", x, body)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("%q does not come", body)
		}
		p.HalfOpen()
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestErrorKinds has a server that answers with each error.
func TestErrorKinds(t *testing.T) {
	s := fake(t)
	d := openAt(t, s.Addr())
	for text, want := range map[string]fault.Kind{
		"OOM command not allowed when used memory > 'maxmemory'.": fault.Exhausted,
		"LOADING Redis is loading the dataset in memory":          fault.Unavailable,
		"READONLY You can't write against a read only replica.":   fault.Unavailable,
		"MISCONF Redis is configured to save RDB snapshots":       fault.Unavailable,
		"NOAUTH Authentication required.":                         fault.Denied,
		"WRONGPASS invalid username-password pair":                fault.Denied,
		"WRONGTYPE Operation against a key":                       fault.Invalid,
	} {
		s.SetError(text)
		err := d.Publish(t.Context(), "t", []pubsub.Message{{Data: []byte("x")}})
		s.SetError("")
		be, ok := err.(*pubsub.BatchError)
		if !ok || fault.KindOf(be.Errs[0]) != want {
			t.Errorf("%s: %v, want kind %v", text, err, want)
		}
	}
	s.Close()
	err := d.Publish(t.Context(), "t", []pubsub.Message{{Data: []byte("x")}})
	if be, ok := err.(*pubsub.BatchError); !ok || fault.KindOf(be.Errs[0]) != fault.Unavailable {
		t.Errorf("without a server: %v, want kind unavailable", err)
	}
}

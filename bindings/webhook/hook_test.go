package webhook

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
)

func TestHandshake(t *testing.T) {
	t.Parallel()
	open := openWebhook(t, newEnv(t, "in"), "allowedOrigins", "Events.example.com,b", "allowedRate", "120")
	all := openWebhook(t, newEnv(t, "in"), "allowedOrigins", "*")
	closed := openWebhook(t, newEnv(t, "in"))
	for _, row := range []struct {
		name         string
		r            *receiver
		header       []string
		status       int
		origin, rate string
	}{
		{"allowed", open, []string{"WebHook-Request-Origin", "events.example.com", "WebHook-Request-Rate", "10"}, 200, "events.example.com", "120"},
		{"not allowed", open, []string{"WebHook-Request-Origin", "evil.example.com"}, 405, "", ""},
		{"no origin", open, nil, 405, "", ""},
		{"everybody", all, []string{"WebHook-Request-Origin", "x"}, 200, "x", "*"},
		{"too long", all, []string{"WebHook-Request-Origin", strings.Repeat("x", maxText+1)}, 405, "", ""},
		{"nobody", closed, []string{"WebHook-Request-Origin", "x"}, 405, "", ""},
		{"callback is not used", all, []string{"WebHook-Request-Origin", "x", "WebHook-Request-Callback", "http://127.0.0.1:1/"}, 200, "x", "*"},
	} {
		t.Run(row.name, func(t *testing.T) {
			got := send(t, row.r, "OPTIONS", "/in", "", row.header...)
			if got.status != row.status || got.header.Get("WebHook-Allowed-Origin") != row.origin ||
				got.header.Get("WebHook-Allowed-Rate") != row.rate || got.header.Get("Allow") != "POST" {
				t.Errorf("got %d %v", got.status, got.header)
			}
		})
	}
}

func TestConcurrencyLimit(t *testing.T) {
	t.Parallel()
	r := openWebhook(t, newEnv(t, "in"), "maxConcurrency", "2")
	rt := run(t, r, nil)
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() { send(t, r, "POST", "/in", "x").want(t, 200, "ack") })
	}
	a, b := rt.next(t), rt.next(t)
	send(t, r, "POST", "/in", "x").want(t, 429, "too many")
	send(t, r, "POST", "/in", strings.Repeat("x", 2*smallBody)).want(t, 429, "too many")
	a.Settle(cloudevents.Acked())
	b.Settle(cloudevents.Acked())
	wg.Wait()
	wg.Go(func() { send(t, r, "POST", "/in", strings.Repeat("x", 2*smallBody)).want(t, 200, "ack") })
	rt.next(t).Settle(cloudevents.Acked())
	wg.Wait()
}

func TestDrain(t *testing.T) {
	t.Parallel()
	r := openWebhook(t, newEnv(t, "in"))
	send(t, r, "POST", "/in", "x").want(t, 503, "not taking")
	rt := run(t, r, nil)
	var wg sync.WaitGroup
	wg.Go(func() { send(t, r, "POST", "/in", "x").want(t, 200, "ack") })
	held := rt.next(t)
	rt.stop()
	send(t, r, "POST", "/in", "x").want(t, 503, "not taking")

	closed := make(chan error)
	go func() { closed <- r.Close(t.Context()) }()
	select {
	case <-closed:
		t.Fatal("closed while a request was running")
	case <-time.After(20 * time.Millisecond):
	}
	held.Settle(cloudevents.Acked())
	wg.Wait()
	if err := <-closed; err != nil {
		t.Errorf("close: %v", err)
	}
}

func TestCloseCutsWhatDoesNotEnd(t *testing.T) {
	t.Parallel()
	r := openWebhook(t, newEnv(t, "in"))
	rt := run(t, r, nil)
	var wg sync.WaitGroup
	wg.Go(func() { send(t, r, "POST", "/in", "x").want(t, 503, "stopping") })
	held := rt.next(t)
	rt.stop()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := r.Close(ctx); fault.KindOf(err) != fault.Timeout {
		t.Errorf("close: %v", err)
	}
	wg.Wait()
	held.Settle(cloudevents.Acked()) // late, and harmless
	if err := r.Close(t.Context()); err != nil {
		t.Errorf("close again: %v", err)
	}
}

func TestReaderStopsBeforeHandOver(t *testing.T) {
	t.Parallel()
	r := openWebhook(t, newEnv(t, "in"))
	ctx, cancel := context.WithCancel(t.Context())
	emitting, readDone := make(chan struct{}), make(chan error)
	go func() {
		readDone <- r.Read(ctx, func(ctx context.Context, _ *cloudevents.Delivery) error {
			close(emitting)
			<-ctx.Done() // the window is full
			return ctx.Err()
		})
	}()
	waitFor(t, "ready", r.hook.ready)
	var wg sync.WaitGroup
	wg.Go(func() { send(t, r, "POST", "/in", "x").want(t, 503, "send again") })
	<-emitting
	wg.Go(func() { send(t, r, "POST", "/in", "y").want(t, 503, "") })
	cancel()
	if err := <-readDone; err != nil {
		t.Errorf("read: %v", err)
	}
	wg.Wait()
}

func TestSharedListener(t *testing.T) {
	t.Parallel()
	env := newEnv(t, "one")
	one := openWebhook(t, env)
	env.Name = "two"
	two := openWebhook(t, env)
	if one.listener != two.listener {
		t.Fatal("two listeners for one address")
	}
	rt := run(t, two, ack)
	send(t, one, "POST", "/two", "x").want(t, 200, "ack")
	if d := rt.next(t); d.Origin != "two" {
		t.Errorf("went to %s", d.Origin)
	}
	env.Name = "three"
	_, err := Component.Open(t.Context(), env, settings("listen", "127.0.0.1:0", "path", "/two"))
	if fault.KindOf(err) != fault.Conflict || !strings.Contains(err.Error(), `component "two" has it already`) {
		t.Errorf("clash: %v", err)
	}
	if err := one.Close(t.Context()); err != nil {
		t.Errorf("close one: %v", err)
	}
	send(t, two, "POST", "/two", "x").want(t, 200, "ack")
	rt.next(t)
	send(t, two, "POST", "/one", "x").want(t, 404, "")
}

func TestReloadTakesOver(t *testing.T) {
	t.Parallel()
	env := newEnv(t, "in")
	before := openWebhook(t, env)
	old := run(t, before, nil)
	var wg sync.WaitGroup
	wg.Go(func() { send(t, before, "POST", "/in", "x", "Webhook-Id", "held").want(t, 200, "ack") })
	held := old.next(t)

	after := openWebhook(t, env)
	var again sync.WaitGroup
	again.Go(func() { send(t, after, "POST", "/in", "y").want(t, 200, "ack") })
	old.next(t).Settle(cloudevents.Acked()) // the new one does not read yet
	again.Wait()
	rt := run(t, after, ack)
	send(t, after, "POST", "/in", "z").want(t, 200, "ack")
	rt.next(t)
	old.stop()
	held.Settle(cloudevents.Acked())
	if err := before.Close(t.Context()); err != nil {
		t.Errorf("close: %v", err)
	}
	wg.Wait()
	send(t, after, "POST", "/in", "z").want(t, 200, "ack")
	send(t, after, "POST", "/in", "x", "Webhook-Id", "held").want(t, 200, "duplicate")
}

func TestAddressInUse(t *testing.T) {
	t.Parallel()
	first := openWebhook(t, newEnv(t, "in"))
	_, err := Component.Open(t.Context(), newEnv(t, "in"), settings("listen", first.listener.address))
	if fault.KindOf(err) != fault.Unavailable || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("address in use: %v", err)
	}
	_, err = Component.Open(t.Context(), newEnv(t, "in"), settings("listen", "256.0.0.1:1"))
	if fault.KindOf(err) != fault.Invalid {
		t.Errorf("no address: %v", err)
	}
}

func TestPanicIsRecovered(t *testing.T) {
	t.Parallel()
	r := openWebhook(t, newEnv(t, "in"))
	run(t, r, ack)
	r.hook.memory.mu.Lock()
	r.hook.memory.entries = nil // a write to it panics
	r.hook.memory.mu.Unlock()
	if got := send(t, r, "POST", "/in", "x"); got.status != 500 {
		t.Errorf("answer %d, want 500", got.status)
	}
	if got := send(t, r, "GET", "/in", "x"); got.status != 405 {
		t.Errorf("afterwards %d, want 405", got.status)
	}
}

func TestUnsignedOnTheNetworkIsNamed(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name  string
		pairs []string
		warns bool
	}{
		{"unsigned, everywhere", []string{"listen", "0.0.0.0:0"}, true},
		{"signed, everywhere", []string{"listen", "0.0.0.0:0", "secret", "whsec_AAAA"}, false},
		{"unsigned, here", []string{"listen", "127.0.0.1:0"}, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			var log bytes.Buffer
			env := newEnv(t, "in")
			env.Logger = slog.New(slog.NewTextHandler(&log, nil))
			d, err := Component.Open(t.Context(), env, settings(row.pairs...))
			if err != nil {
				t.Fatal(err)
			}
			if err := d.Close(t.Context()); err != nil {
				t.Error(err)
			}
			if got := strings.Contains(log.String(), "unsigned requests"); got != row.warns {
				t.Errorf("log:\n%s", log.String())
			}
			if strings.Contains(log.String(), "whsec_") {
				t.Error("the secret is logged")
			}
		})
	}
}

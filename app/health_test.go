package app_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/app"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/resilience"
	"github.com/penstock-io/penstock/test/port"
)

// run runs the app's health until the test ends.
func run(t *testing.T, a *app.App) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() {
		if err := a.RunHealth(ctx); err != nil {
			t.Errorf("run health: %v", err)
		}
	})
	t.Cleanup(func() {
		cancel()
		group.Wait()
	})
}

// within fails when what has not become true in time.
func within(t *testing.T, d time.Duration, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(d); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", d, what)
		}
	}
}

func TestProbing(t *testing.T) {
	t.Parallel()
	var sick atomic.Bool
	var asked atomic.Int32
	sick.Store(true)
	a := connect(t, serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if r.Method != http.MethodGet || r.URL.Path != "/healthz" {
			t.Errorf("asked with %s %s", r.Method, r.URL)
		}
		if sick.Load() {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}), app.Options{Health: app.HealthOptions{Enabled: true, Interval: 5 * time.Millisecond, Threshold: 4}})
	var mu sync.Mutex
	var changes []bool
	stop := a.Watch(func(healthy bool) {
		mu.Lock()
		defer mu.Unlock()
		changes = append(changes, healthy)
	})
	if a.Healthy() {
		t.Error("healthy before anybody asked")
	}
	run(t, a)
	within(t, time.Minute, "questions", func() bool { return asked.Load() > 5 })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := a.Ready(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("ready while unhealthy = %v, want the end of ctx", err)
	}

	sick.Store(false)
	if err := a.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	asked.Store(0)
	sick.Store(true)
	within(t, time.Minute, "unhealthy", func() bool { return !a.Healthy() })
	if n := asked.Load(); n < 4 {
		t.Errorf("unhealthy after %d questions, want 4", n)
	}
	sick.Store(false)
	within(t, time.Minute, "healthy again", a.Healthy)
	stop()
	mu.Lock()
	defer mu.Unlock()
	if diff := cmp.Diff([]bool{true, false, true}, changes); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
}

// TestAppDown closes the app's port for a while: exactly the deliveries that
// were under way find out, none of them counts as a try, and all go on within
// two seconds after it is back. A busy machine gets some tries for the two
// seconds, and for nothing else.
func TestAppDown(t *testing.T) {
	t.Parallel()
	var took time.Duration
	for range 5 {
		if took = downAndBack(t); took <= 2*time.Second {
			return
		}
	}
	t.Errorf("deliveries went on after %s, want within 2 s", took)
}

// downAndBack delivers to an app that is down and then back; it returns how long
// after that deliveries went on.
func downAndBack(t *testing.T) time.Duration {
	t.Helper()
	p, err := port.Free()
	if err != nil {
		t.Fatal(err)
	}
	address := "127.0.0.1:" + strconv.Itoa(p)
	a := connect(t, "http://"+address, app.Options{})
	run(t, a)

	if o := a.Event(t.Context(), at("/"), delivery(t)); short(o) != "retry (unavailable)" || !errors.Is(o.Err, resilience.ErrOpen) {
		t.Fatalf("outcome = %s: %v", short(o), o.Err)
	}
	if a.Healthy() {
		t.Fatal("the gate is open after a refused connection")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if a.Ready(ctx) == nil {
		t.Fatal("the gate opened while the app was down")
	}

	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	server.Listener.Close()
	if server.Listener, err = net.Listen("tcp", address); err != nil {
		t.Fatal(err)
	}
	back := time.Now()
	server.Start()
	t.Cleanup(server.Close)
	if err := a.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	if o := a.Event(t.Context(), at("/"), delivery(t)); o.Verdict != cloudevents.Ack {
		t.Errorf("outcome = %s: %v", short(o), o.Err)
	}
	return time.Since(back)
}

func TestProbedAppThatIsLost(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	a := connect(t, server.URL, app.Options{Health: app.HealthOptions{Enabled: true, Interval: time.Hour}})
	run(t, a)
	if err := a.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	server.Close()
	// The next question is an hour away; a refused call closes the gate now.
	_ = a.Event(t.Context(), at("/"), delivery(t))
	if a.Healthy() {
		t.Error("the gate is open although nothing listens")
	}
}

func TestWaitPort(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a := connect(t, "http://"+listener.Addr().String(), app.Options{})
	if err := a.WaitPort(t.Context()); err != nil {
		t.Errorf("wait for a port that listens: %v", err)
	}
	listener.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := a.WaitPort(ctx); err == nil {
		t.Error("no error for a port that does not listen")
	}
}

func TestReadyIsCheap(t *testing.T) { // not parallel: counts allocations
	a := connect(t, "http://127.0.0.1:1", app.Options{})
	if n := testing.AllocsPerRun(100, func() { _ = a.Ready(t.Context()) }); n != 0 {
		t.Errorf("ready: %v allocations, want 0", n)
	}
}

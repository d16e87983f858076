package crash

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// downTime is how long the app is away.
func downTime() time.Duration {
	if *full {
		return 30 * time.Second
	}
	return 3 * time.Second
}

// fragile is an app that can go away and hang.
type fragile struct {
	port    int
	server  *http.Server
	well    atomic.Bool
	hang    atomic.Bool
	arrived chan string // attempt numbers as the app sees them: one for each call
	dead    atomic.Int64
}

func newFragile(t *testing.T) *fragile {
	t.Helper()
	f := &fragile{port: freePort(t), arrived: make(chan string, 1000)}
	f.well.Store(true)
	t.Cleanup(f.close)
	f.open(t)
	return f
}

func (f *fragile) open(t *testing.T) {
	t.Helper()
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", f.port))
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /dapr/subscribe", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `[{"pubsubname":"bus","topic":"load","route":"/load","deadLetterTopic":"dead"},{"pubsubname":"bus","topic":"dead","route":"/dead"}]`)
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if !f.well.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("POST /dead", func(http.ResponseWriter, *http.Request) { f.dead.Add(1) })
	mux.HandleFunc("POST /load", func(_ http.ResponseWriter, r *http.Request) {
		f.arrived <- r.Proto
		if f.hang.Load() {
			<-r.Context().Done()
		}
	})
	f.server = &http.Server{Handler: mux}
	go f.server.Serve(l)
}

func (f *fragile) close() { f.server.Close() }

// TestAppDown takes the app away under load: by closing its port, and by an
// unhealthy answer. No event is tried meanwhile, which the dead letter topic
// shows: without a retry policy one failed try would put the event there. When
// the app is back, deliveries go on within two seconds.
func TestAppDown(t *testing.T) {
	for _, row := range []struct {
		name     string
		flags    []string
		down, up func(*testing.T, *fragile)
	}{
		{"port closed", nil, func(_ *testing.T, f *fragile) { f.close() }, func(t *testing.T, f *fragile) { f.open(t) }},
		{
			"unhealthy",
			[]string{"--enable-app-health-check", "--app-health-probe-interval", "1", "--app-health-threshold", "1"},
			func(_ *testing.T, f *fragile) { f.well.Store(false) }, func(_ *testing.T, f *fragile) { f.well.Store(true) },
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			f := newFragile(t)
			s := newSidecar(t, f.port)
			s.start(row.flags...)
			publish(t, s)
			f.wait(t, 1)
			row.down(t, f)
			if row.flags != nil {
				eventually(t, 10*time.Second, "the probe has failed", func() bool { return strings.Contains(s.Log(), "App is unhealthy") })
			}
			const n = 50
			for range n {
				publish(t, s)
			}
			wait(downTime())
			if got := len(f.arrived); got > 0 {
				t.Errorf("%d calls while the app was down", got)
			}
			back := time.Now()
			row.up(t, f)
			f.wait(t, 1)
			resumed := time.Since(back)
			f.wait(t, n-1)
			fmt.Printf("%s: down for %v with %d events waiting: resumed after %v, all delivered after %v, dead letters %d\n",
				t.Name(), downTime(), n, resumed.Round(time.Millisecond), time.Since(back).Round(time.Millisecond), f.dead.Load())
			if resumed > 2*time.Second {
				t.Errorf("deliveries went on after %v, want 2s", resumed)
			}
			s.stop()
			if got := len(f.arrived); got > 0 || f.dead.Load() > 0 {
				t.Errorf("%d deliveries too many, %d dead letters", got, f.dead.Load())
			}
		})
	}
}

// TestAppHangs stops penstock while the app does not answer: the stop does not
// take longer than the grace period, and the event comes again after the next
// start.
func TestAppHangs(t *testing.T) {
	f := newFragile(t)
	s := newSidecar(t, f.port)
	s.start("--dapr-graceful-shutdown-seconds", "2")
	f.hang.Store(true)
	publish(t, s)
	f.wait(t, 1)
	began := time.Now()
	err := s.Stop(time.Minute)
	took := time.Since(began)
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 1 {
		t.Errorf("penstock ended with %v, want exit code 1 after a grace that was not enough", err)
	}
	if limit := 2*time.Second + 2*time.Second; took < 2*time.Second || took > limit {
		t.Errorf("the stop took %v, want the grace of 2s and not much more", took)
	}
	f.hang.Store(false)
	s.start()
	f.wait(t, 1)
	fmt.Printf("%s: SIGTERM with a grace of 2s took %v; the event came again after the start; dead letters %d\n", t.Name(), took.Round(time.Millisecond), f.dead.Load())
	s.stop()
	if f.dead.Load() > 0 {
		t.Error("the event was dead-lettered by a stop")
	}
}

func publish(t *testing.T, s *sidecar) {
	t.Helper()
	resp, err := http.Post(s.API("/publish/bus/load"), "application/json", strings.NewReader(`{"n":1}`))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent {
		t.Fatalf("publish: %s", resp.Status)
	}
}

// wait takes n calls.
func (f *fragile) wait(t *testing.T, n int) {
	t.Helper()
	end := time.NewTimer(time.Minute)
	defer end.Stop()
	for range n {
		select {
		case <-f.arrived:
		case <-end.C:
			t.Fatal("an event did not arrive within a minute")
		}
	}
}

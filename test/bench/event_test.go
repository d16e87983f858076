package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/penstock-io/penstock/all"
	"github.com/penstock-io/penstock/api"
	apihttp "github.com/penstock-io/penstock/api/http"
	"github.com/penstock-io/penstock/app"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/pubsub"
	"github.com/penstock-io/penstock/router"
)

// components is an instance with one broker.
type components struct {
	api.Runtime
	bus *pubsub.Bus
}

func (c components) PubSub(string) (*pubsub.Bus, error) { return c.bus, nil }

// silentApp takes every event at once.
type silentApp struct{ app.Channel }

func (silentApp) Event(context.Context, *app.Address, *cloudevents.Delivery, time.Duration) cloudevents.Outcome {
	return cloudevents.Acked()
}

// path is the way of an event from the HTTP handler through the broker in
// memory and the router to the app's channel: all of our own code, and nothing
// of net/http but the two ends.
type path struct {
	handler http.Handler
	done    chan struct{}
}

func newPath(t testing.TB) *path {
	t.Helper()
	def, err := all.Components().Find("pubsub.in-memory", "v1")
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	env := component.Env{AppID: "bench", Name: "bus", Logger: log, Shared: &component.Shared{}}
	bus, err := pubsub.New(def, env, config.Component{Name: "bus", Type: "pubsub.in-memory", Version: "v1"})
	if err != nil {
		t.Fatal(err)
	}
	if err := bus.Instance().Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	source, err := bus.Source(pubsub.Subscription{Topic: "events"})
	if err != nil {
		t.Fatal(err)
	}
	p := &path{handler: apihttp.New(api.New("bench", components{bus: bus}), apihttp.Options{}), done: make(chan struct{})}
	to := &app.Address{Path: "/events"}
	theApp := app.New(app.Options{Channel: silentApp{}})
	r, err := router.New(router.Options{Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	err = r.Add(router.Route{
		Name: "events", Source: source, Decode: source.Decode, Lanes: 64, Gate: theApp.Ready,
		Targets: []router.Target{{Name: "app", Send: func(ctx context.Context, d *cloudevents.Delivery) cloudevents.Outcome {
			defer func() { p.done <- struct{}{} }()
			return theApp.Event(ctx, to, d)
		}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := source.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-ended, bus.Instance().Close(context.WithoutCancel(ctx))); err != nil {
			t.Error(err)
		}
	})
	return p
}

// requests makes one request that can be served again and again.
func requests(t testing.TB, p *path) (event func()) {
	body := string(payload(0))
	in := strings.NewReader(body)
	r := httptest.NewRequest(http.MethodPost, "/v1.0/publish/bus/events", io.NopCloser(in))
	r.Host, r.ContentLength = "127.0.0.1:3500", int64(len(body))
	r.Header.Set("Content-Type", "application/json")
	w := &status{}
	return func() {
		in.Reset(body)
		p.handler.ServeHTTP(w, r)
		if w.code != http.StatusNoContent {
			t.Fatalf("status %d", w.code)
		}
		<-p.done
	}
}

// status is a ResponseWriter that keeps only the status.
type status struct{ code int }

// Header implements http.ResponseWriter.
func (*status) Header() http.Header { return http.Header{} }

// Write implements http.ResponseWriter.
func (*status) Write(b []byte) (int, error) { return len(b), nil }

// WriteHeader implements http.ResponseWriter.
func (s *status) WriteHeader(code int) { s.code = code }

// TestEventAllocations holds what one event of 256 bytes may allocate between
// the handler that takes it and the channel that delivers it. Sixteen are
// Watermill's.
func TestEventAllocations(t *testing.T) { // not parallel: counts allocations
	const most = 30
	event := requests(t, newPath(t))
	got := testing.AllocsPerRun(2000, event)
	t.Logf("%.0f allocations for one event", got)
	if got > most {
		t.Errorf("%.0f allocations for one event, the limit is %d", got, most)
	}
}

// BenchmarkEvent is the same way as a benchmark.
func BenchmarkEvent(b *testing.B) {
	event := requests(b, newPath(b))
	b.ReportAllocs()
	for b.Loop() {
		event()
	}
}

package runtime_test

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/pubsub"
	"github.com/penstock-io/penstock/runtime"
)

const durable = `
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: bus}
spec: {type: pubsub.sqlite, version: v1, metadata: [{name: connectionString, value: DIR/bus.db}]}
---
`

// hang is an answer that never comes while the test runs.
func hang(t *testing.T) http.HandlerFunc {
	t.Helper()
	over := make(chan struct{})
	t.Cleanup(func() { close(over) })
	return func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-over:
		case <-r.Context().Done():
		}
	}
}

// stopped runs an instance and returns what stops it, and then its error and
// how long that took.
func stopped(t *testing.T, in *instance, o runtime.Options) func(stop func()) (time.Duration, error) {
	t.Helper()
	r, err := runtime.New(o)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- r.Run(t.Context()) }()
	eventually(t, "ready", func() bool { return in.get(t, "/healthz") == http.StatusNoContent })
	return func(stop func()) (time.Duration, error) {
		began := time.Now()
		stop()
		select {
		case err := <-done:
			return time.Since(began), err
		case <-time.After(60 * time.Second):
			t.Fatalf("it did not stop\n%s", in.log)
			return 0, nil
		}
	}
}

// grace is long, so that a stop that takes it twice shows on a busy machine.
const grace = 5 * time.Second

func TestGraceIsKeptWithAnAppThatHangs(t *testing.T) {
	t.Parallel()
	a := newApp(t, `[]`)
	in, o := prepare(t, a, durable+declared)
	a.answer("/one", hang(t))
	o.Grace = grace
	end := stopped(t, in, o)
	in.publish(t, "t", `"kept"`)
	a.next(t, "/one")
	took, err := end(func() { in.post(t, "/shutdown", "") })
	if !errors.Is(err, runtime.ErrGrace) {
		t.Errorf("run ended with %v", err)
	}
	if took < grace || took >= 2*grace {
		t.Errorf("it took %v", took)
	}
	t.Log("the event is there after a restart")
	a.answer("/one", nil)
	again, o := prepare(t, a, strings.ReplaceAll(durable, "DIR", in.dir)+declared)
	again.run(t, o)
	if got := a.next(t, "/one"); !strings.Contains(got.body, "kept") {
		t.Errorf("got %s", got.body)
	}
}

func TestGraceIsKeptWithARequestThatHangs(t *testing.T) {
	t.Parallel()
	a, other := newApp(t, `[]`), newApp(t, `[]`)
	a.answer("/one", hang(t))
	other.answer("/slow", hang(t))
	in, o := prepare(t, a, bus+declared+strings.Replace(hook("out", "/unused", "127.0.0.1:0"), "{name: direction, value: input}",
		`{name: direction, value: output}, {name: url, value: "http://127.0.0.1:`+strconv.Itoa(other.port)+`/slow"}, {name: timeout, value: 60s}`, 1))
	o.Grace = grace
	end := stopped(t, in, o)
	in.publish(t, "t", `1`)
	a.next(t, "/one")
	go http.Post(in.url+"/bindings/out", "application/json", strings.NewReader(`{"operation":"post","data":1}`))
	other.next(t, "/slow")
	took, _ := end(func() { in.post(t, "/shutdown", "") })
	if took >= 2*grace {
		t.Errorf("it took %v", took)
	}
}

func TestForcedShutdownWaitsForNothing(t *testing.T) {
	t.Parallel()
	a := newApp(t, `[]`)
	a.answer("/one", hang(t))
	in, o := prepare(t, a, bus+declared)
	o.BlockShutdown, o.Grace = time.Hour, time.Hour
	end := stopped(t, in, o)
	in.publish(t, "t", `1`)
	a.next(t, "/one")
	if status, text := in.post(t, "/shutdown", ""); status != http.StatusNoContent {
		t.Fatalf("%d %s", status, text)
	}
	in.logged(t, 1, "Blocking shutdown")
	took, err := end(func() {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, in.url+"/shutdown", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Dapr-Force-Shutdown", "true")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	})
	if !errors.Is(err, runtime.ErrForced) || took > 30*time.Second {
		t.Errorf("it took %v and ended with %v", took, err)
	}
}

func TestBlockedShutdownEndsWithTheApp(t *testing.T) {
	t.Parallel()
	a := newApp(t, `[]`)
	in, o := prepare(t, a, bus+declared)
	o.BlockShutdown = time.Hour
	o.App.HealthCheck, o.App.HealthPath, o.App.HealthInterval, o.App.HealthThreshold = true, "/healthz", 20*time.Millisecond, 1
	end := stopped(t, in, o)
	if _, text := in.post(t, "/shutdown", ""); text != "" {
		t.Fatal(text)
	}
	in.logged(t, 1, "Blocking shutdown")
	in.publish(t, "t", `1`)
	a.next(t, "/one") // it goes on meanwhile
	_, err := end(func() {
		a.answer("/healthz", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "", http.StatusServiceUnavailable) })
	})
	if err != nil {
		t.Errorf("run ended with %v", err)
	}
}

func TestAStopDuringAReloadIsClean(t *testing.T) {
	t.Parallel()
	a, at := newApp(t, `[]`), address(t)
	a.answer("/one", hang(t))
	in, o := prepare(t, a, bus+declared+hook("hook", "/1", at))
	o.Grace = time.Second
	end := stopped(t, in, o)
	in.publish(t, "t", `1`)
	a.next(t, "/one")
	in.write(t, "resources.yaml", bus+strings.Replace(declared, "/one", "/two", 1)+hook("hook", "/2", at))
	eventually(t, "the change is under way", func() bool {
		return send(at, "/2")/100 == 2 || send(at, "/1") == http.StatusNotFound || send(at, "/1") == 0
	})
	took, _ := end(func() { in.post(t, "/shutdown", "") })
	if took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
	listen(t, at) // everything is closed
}

func TestAComponentThatHangsWhileItOpensHoldsNothingUp(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	stuck := pubsub.Define("stuck", component.About{}, func(context.Context, component.Env, struct{}) (pubsub.Driver, error) {
		<-release
		return nil, errors.New("too late")
	})
	in, o := prepare(t, nil, strings.Replace(bus, "in-memory", "stuck", 1))
	o.Components = append(o.Components.(component.List), stuck)
	o.Grace = time.Second
	r, err := runtime.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	in.logged(t, 1, "Penstock is up")
	if text := in.text(t, "/healthz"); !strings.Contains(text, "component bus, opening") {
		t.Errorf("readiness says %q", text)
	}
	began := time.Now()
	stop()
	if err := <-done; err != nil || time.Since(began) > 20*time.Second {
		t.Errorf("it took %v and ended with %v", time.Since(began), err)
	}
}

func TestAStopWhileItStartsIsClean(t *testing.T) {
	t.Parallel()
	a := newApp(t, ordersSubscription)
	for i := range 20 {
		in, o := prepare(t, a, durable+store+tick)
		r, err := runtime.New(o)
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithTimeout(t.Context(), time.Duration(i)*time.Millisecond)
		err = r.Run(ctx)
		stop()
		if err != nil {
			t.Fatalf("after %d ms it ended with %v\n%s", i, err, in.log)
		}
	}
}

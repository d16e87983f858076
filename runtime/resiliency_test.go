package runtime_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

const patient = `
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: patient}
spec:
  policies: {retries: {often: {policy: constant, duration: 20ms, maxRetries: 4}}}
  targets: {components: {bus: {inbound: {retry: often}}}}
`

// tries publishes an event that the app fails and returns how often the app was
// called until its dead letter came.
func (in *instance) tries(t *testing.T, a *app, failed *atomic.Int32) int {
	t.Helper()
	failed.Store(0)
	in.publish(t, "t", `1`)
	a.next(t, "/dead")
	return int(failed.Load())
}

func TestReloadOfResiliency(t *testing.T) {
	t.Parallel()
	var failed atomic.Int32
	a := newApp(t, `[{"pubsubname":"bus","topic":"t","route":"/t","deadLetterTopic":"dead"},{"pubsubname":"bus","topic":"dead","route":"/dead"},{"pubsubname":"other","topic":"t","route":"/other"}]`)
	a.answer("/t", func(w http.ResponseWriter, _ *http.Request) {
		failed.Add(1)
		w.WriteHeader(http.StatusInternalServerError)
	})
	in := start(t, a, bus+strings.Replace(bus, "name: bus", "name: other", 1))
	if n := in.tries(t, a, &failed); n != 1 {
		t.Errorf("without a policy: %d tries", n)
	}
	t.Log("create")
	in.write(t, "patient.yaml", patient)
	in.logged(t, 1, taken)
	if n := in.tries(t, a, &failed); n != 5 {
		t.Errorf("created: %d tries", n)
	}
	if text := in.text(t, "/metadata"); !strings.Contains(text, `"resiliencies":[{"name":"patient"}]`) {
		t.Errorf("metadata: %s", text)
	}
	t.Log("update")
	in.write(t, "patient.yaml", strings.Replace(patient, "maxRetries: 4", "maxRetries: 1", 1))
	in.logged(t, 2, taken)
	if n := in.tries(t, a, &failed); n != 2 {
		t.Errorf("updated: %d tries", n)
	}
	t.Log("a broken file changes nothing")
	in.write(t, "patient.yaml", strings.Replace(patient, "duration: 20ms", "duration: soon", 1))
	in.logged(t, 1, "nothing was changed")
	if n := in.tries(t, a, &failed); n != 2 {
		t.Errorf("broken: %d tries", n)
	}
	t.Log("delete")
	if err := os.Remove(filepath.Join(in.dir, "patient.yaml")); err != nil {
		t.Fatal(err)
	}
	in.logged(t, 3, taken)
	if n := in.tries(t, a, &failed); n != 1 {
		t.Errorf("deleted: %d tries", n)
	}
	if text := in.text(t, "/metadata"); !strings.Contains(text, `"resiliencies":[]`) {
		t.Errorf("metadata: %s", text)
	}
	// Each of the three changes started the routes of bus again, and no other;
	// no component was opened again.
	for route, want := range map[string]int{"subscription/bus/t": 4, "subscription/bus/dead": 4, "subscription/other/t": 1} {
		if n := strings.Count(in.log.String(), fmt.Sprintf("msg=\"Route started\" route=%s\n", route)); n != want {
			t.Errorf("route %s was started %d times, want %d", route, n, want)
		}
	}
	if n := strings.Count(in.log.String(), "Component loaded: bus "); n != 1 {
		t.Errorf("bus was opened %d times", n)
	}
}

func TestOutboundPolicyWithoutARestart(t *testing.T) {
	t.Parallel()
	a := newApp(t, `[]`)
	in := start(t, a, bus+declared)
	in.write(t, "out.yaml", strings.Replace(patient, "inbound", "outbound", 1))
	in.logged(t, 1, taken)
	in.publish(t, "t", `1`)
	a.next(t, "/one")
	if n := strings.Count(in.log.String(), "Route started"); n != 1 {
		t.Errorf("a policy of publishing started a route again: %d starts", n)
	}
}

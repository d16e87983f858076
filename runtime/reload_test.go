package runtime_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const declared = `
apiVersion: dapr.io/v1alpha1
kind: Subscription
metadata: {name: s}
spec: {pubsubname: bus, topic: t, route: /one}
---
`

func TestReloadSwapsRoutes(t *testing.T) {
	t.Parallel()
	a := newApp(t, `[]`)
	in := start(t, a, bus+declared)
	in.publish(t, "t", `1`)
	a.next(t, "/one")
	in.write(t, "resources.yaml", bus+strings.Replace(declared, "/one", "/two", 1))
	eventually(t, "the change is taken over", func() bool { return strings.Contains(in.log.String(), "Configuration reloaded") })
	in.publish(t, "t", `2`)
	a.next(t, "/two")
}

func TestReloadKeepsWhatABrokerHolds(t *testing.T) {
	t.Parallel()
	a := newApp(t, `[]`)
	blocked := make(chan struct{})
	a.answer("/one", func(w http.ResponseWriter, _ *http.Request) {
		select {
		case <-blocked:
		default:
			http.Error(w, "not yet", http.StatusServiceUnavailable)
		}
	})
	in := start(t, a, bus+declared)
	in.publish(t, "t", `"held"`)
	a.next(t, "/one")
	in.write(t, "resources.yaml", strings.Replace(bus, "metadata: []", `metadata: [{name: maxMessages, value: "5000"}]`, 1)+declared)
	eventually(t, "the change is taken over", func() bool { return strings.Contains(in.log.String(), "Configuration reloaded") })
	close(blocked)
	eventually(t, "the event is delivered after the reload", func() bool {
		return strings.Contains(a.next(t, "/one").body, "held")
	})
}

func TestBadReloadChangesNothing(t *testing.T) {
	t.Parallel()
	a := newApp(t, `[]`)
	in := start(t, a, bus+declared)
	in.write(t, "resources.yaml", strings.Replace(bus, "in-memory", "in-memroy", 1)+declared)
	eventually(t, "the error is reported", func() bool { return strings.Contains(in.log.String(), "nothing was changed") })
	if !strings.Contains(in.log.String(), "pubsub.in-memory") {
		t.Error("the report has no suggestion")
	}
	in.publish(t, "t", `1`)
	a.next(t, "/one")
}

func TestReloadAddsAndRemovesComponents(t *testing.T) {
	t.Parallel()
	in := start(t, nil, bus)
	in.write(t, "more.yaml", store)
	invoke := func() int {
		status, _ := in.post(t, "/bindings/store", `{"operation":"create","data":"x","metadata":{"fileName":"f"}}`)
		return status
	}
	eventually(t, "the new binding works", func() bool { return invoke()/100 == 2 })
	if err := os.Remove(filepath.Join(in.dir, "more.yaml")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the binding is gone", func() bool { return invoke() == http.StatusInternalServerError })
}

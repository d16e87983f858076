package runtime_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestTracesThatNobodyRecordsGoOn: tracing is off, and what an event came with
// reaches a binding, a topic and the binding of an app's reply all the same.
func TestTracesThatNobodyRecordsGoOn(t *testing.T) {
	t.Parallel()
	const parent, state, bag = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00", "vendor=1", "tenant=blue"
	out := make(chan http.Header, 4)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out <- r.Header.Clone()
		w.WriteHeader(http.StatusNoContent)
	}))
	defer s.Close()
	first, second := address(t), address(t)
	a := newApp(t, `[{"pubsubname":"bus","topic":"kept","route":"/kept"}]`)
	a.answer("/hook", reply(`{"to":["out"],"operation":"create","data":1}`))
	start(t, a, bus+hook("in", "/in", first)+hook("asked", "/asked", second)+strings.ReplaceAll(`
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: out}
spec: {type: bindings.http, version: v1, metadata: [{name: url, value: URL}]}
---
apiVersion: penstock.dev/v1
kind: Pipeline
metadata: {name: on}
spec:
  from: {binding: in}
  to: [{binding: {name: out, operation: create}}, {pubsub: {name: bus, topic: kept}}]
---
`, "URL", s.URL))
	for _, at := range []string{first + "/in", second + "/asked"} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+at, strings.NewReader(`{}`))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Traceparent", parent)
		r.Header.Set("Tracestate", state)
		r.Header.Set("Baggage", bag)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		got := next(t, out)
		if got.Get("Traceparent") != parent || got.Get("Tracestate") != state || got.Get("Baggage") != bag {
			t.Errorf("after %s the binding sent %v", at, got)
		}
	}
	got := a.next(t, "/kept")
	if p := got.header.Get("Traceparent"); !strings.HasPrefix(p, parent[:36]) || got.header.Get("Baggage") != bag {
		t.Errorf("the app got %v", got.header)
	}
}

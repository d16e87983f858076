package runtime_test

import (
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
)

const callPolicies = `
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: calls}
spec:
  policies:
    retries: {thrice: {policy: constant, duration: 10ms, maxRetries: 2, matching: {httpStatusCodes: "500-599"}}}
    circuitBreakers: {quick: {timeout: 1h, trip: consecutiveFailures >= 4}}
  targets:
    apps: {shop: {retry: thrice, circuitBreaker: quick}}
`

// TestPoliciesOfCalls has the app call itself, so that no other sidecar is needed.
func TestPoliciesOfCalls(t *testing.T) {
	t.Parallel()
	var calls atomic.Int32
	a := newApp(t, "[]")
	for _, path := range []string{"/fails", "/missing"} {
		a.answer(path, func(w http.ResponseWriter, _ *http.Request) {
			calls.Add(1)
			w.WriteHeader(map[string]int{"/fails": 503, "/missing": 404}[path])
			_, _ = io.WriteString(w, "said "+path)
		})
	}
	in := start(t, a, callPolicies)
	for _, row := range []struct {
		path   string
		status int
		body   string
		calls  int32
	}{
		{"/fails", 503, "said /fails", 3},       // used up: the last answer
		{"/missing", 404, "said /missing", 1},   // not a code to try again
		{"/fails", 503, "said /fails", 1},       // the fourth failure in a row opens the breaker
		{"/fails", 500, "ERR_DIRECT_INVOKE", 0}, // open
		{"/missing", 404, "said /missing", 1},   // a breaker for each method
	} {
		calls.Store(0)
		resp, err := http.Post(in.url+"/invoke/shop/method"+row.path, "text/plain", strings.NewReader("body"))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != row.status || !strings.Contains(string(body), row.body) || calls.Load() != row.calls {
			t.Errorf("%s: %d %q after %d calls, %v; want %d after %d", row.path, resp.StatusCode, body, calls.Load(), err, row.status, row.calls)
		}
	}
}

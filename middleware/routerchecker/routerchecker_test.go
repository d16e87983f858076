package routerchecker

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/middleware"
	"github.com/penstock-io/penstock/test/conform"
)

func to(target string) func(*testing.T, map[string]string) *http.Request {
	return func(*testing.T, map[string]string) *http.Request { return httptest.NewRequest("POST", target, nil) }
}

func TestConform(t *testing.T) { // not parallel: the suite counts goroutines
	conform.Middleware(t, Component, conform.MiddlewareSetup{
		Options: func(*testing.T) map[string]string { return map[string]string{"rule": "^/v1.0/publish/[a-z/]+$"} },
		Wrong:   map[string]map[string]string{"rule": {"rule": "("}},
		Pass:    to("/v1.0/publish/bus/t"),
		Stop: map[string]conform.StoppedRequest{
			"other path": {Request: to("/v1.0/state/s"), Status: 400}, "query": {Request: to("/v1.0/publish/bus/t?a=b"), Status: 400}, "escape": {Request: to("/v1.0/publish/bus/%74"), Status: 400},
			"dots": {Request: to("/v1.0/publish/../secrets/s/k"), Status: 400}, "empty query": {Request: to("/v1.0/publish/bus/t?"), Status: 400},
		},
	})
}

// The path that the rule is held against is the one that is dispatched, in every
// spelling.
func TestPathsAsTheyWereSent(t *testing.T) {
	t.Parallel()
	for target, row := range map[string]struct {
		rule string
		pass bool
	}{
		"/v1.0/secrets/s/k":          {"^/v1.0/secrets/s/k$", true},
		"/v1.0/secrets/s/%6b":        {"^/v1.0/secrets/s/k$", false},
		"/v1.0/secrets/s/%256b":      {"^/v1.0/secrets/s/[a-z]+$", false},
		"/v1.0/x%2F..%2Fsecrets/s/k": {"^/v1.0/[a-zA-Z0-9%./]+$", true},
		"//v1.0/secrets/s/k":         {"^/v1.0/", false},
		"/v1.0/secrets/../publish/a": {"^/v1.0/publish/", false},
		"/v1.0/publish/a%0d%0ab":     {"^/v1.0/publish/[a-z]+$", false},
		"/v1.0/publish/a?b=/c":       {"^/v1.0/publish/a$", false},
		"/v1.0/publish/a%3Fb":        {"^/v1.0/publish/[a-z?]+$", false},
		"/v1.0/publish/%00":          {"^/v1.0/publish/[a-z]*$", false},
	} {
		t.Run(target, func(t *testing.T) {
			t.Parallel()
			d, err := Component.Open(t.Context(), component.Env{}, []config.Item{{Name: "rule", Value: row.rule}})
			if err != nil {
				t.Fatal(err)
			}
			passed := false
			h := d.(middleware.Driver).Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { passed = true }))
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest("GET", target, nil))
			if passed != row.pass || !row.pass && (w.Code != 400 || w.Body.String() != "invalid router") {
				t.Errorf("passed: %v, answer %d %q", passed, w.Code, w.Body)
			}
		})
	}
}

package http_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/penstock-io/penstock/api"
	apihttp "github.com/penstock-io/penstock/api/http"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/middleware"
)

// mover is a middleware that counts requests and may send them elsewhere.
type mover struct {
	seen []string
	move func(w http.ResponseWriter, r *http.Request, next http.Handler)
}

func (m *mover) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.seen = append(m.seen, middleware.Path(r.URL))
		m.move(w, r, next)
	})
}

func (m *mover) Close(context.Context) error { return nil }

// moved makes a pipeline of one middleware.
func moved(t *testing.T, move func(w http.ResponseWriter, r *http.Request, next http.Handler)) (*middleware.Pipeline, *mover) {
	t.Helper()
	m := &mover{move: move}
	def := middleware.Define("mover", component.About{}, func(context.Context, component.Env, noOptions) (middleware.Driver, error) { return m, nil })
	h, err := middleware.New(def, component.Env{Name: "mover"}, config.Component{Name: "mover"})
	must(t, err)
	run(t, h.Instance())
	p := middleware.NewPipeline(func(string) *middleware.Handler { return h })
	p.Set([]string{"mover"})
	return p, m
}

// to sends every request to another path.
func to(path string) func(w http.ResponseWriter, r *http.Request, next http.Handler) {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		out := r.WithContext(r.Context())
		u := *r.URL
		u.Path, u.RawPath = path, ""
		out.URL = &u
		next.ServeHTTP(w, out)
	}
}

func pass(w http.ResponseWriter, r *http.Request, next http.Handler) { next.ServeHTTP(w, r) }

// Requests that the checks before refuse do not reach the pipeline; all others
// do, health among them.
func TestPipelineIsBehindTheChecks(t *testing.T) {
	t.Parallel()
	p, m := moved(t, pass)
	o := apihttp.Options{Tokens: []string{"token"}, Pipeline: p, AllowedOrigins: []string{"https://app.example"}}
	h := start(t).handler(o)
	for _, row := range []struct {
		method, target string
		header         []string
		status         int
		reached        bool
	}{
		{"POST", "/v1.0/publish/bus/t", []string{"Dapr-Api-Token", "token"}, 204, true},
		{"POST", "/v1.0/publish/bus/t", nil, 401, false},
		{"POST", "/v1.0/publish/bus/t", []string{"Dapr-Api-Token", "token", "Host", "evil.example"}, 403, false},
		{"POST", "/v1.0/publish/bus/t", []string{"Dapr-Api-Token", "token", "Origin", "https://evil.example"}, 403, false},
		{"OPTIONS", "/v1.0/publish/bus/t", []string{"Origin", "https://app.example", "Access-Control-Request-Method", "POST"}, 204, false},
		{"GET", "/v1.0/healthz/outbound", nil, 204, true},
		{"GET", "/v1.0/nothing", []string{"Dapr-Api-Token", "token"}, 404, true},
	} {
		m.seen = nil
		w := ask(h, row.method, row.target, "x", row.header...)
		if w.Code != row.status || (len(m.seen) > 0) != row.reached {
			t.Errorf("%s %s %v: %d %s, reached the pipeline: %v; want %d, %v", row.method, row.target, row.header, w.Code, w.Body, m.seen, row.status, row.reached)
		}
	}
	m.seen = nil
	if w := ask(apihttp.NewPublic(api.New("shop", start(t)), o), "GET", "/v1.0/metadata", ""); w.Code != 200 || m.seen != nil {
		t.Errorf("the public port: %d, pipeline %v", w.Code, m.seen)
	}
}

// A request goes where the pipeline sends it, and is checked for that: a path
// that needs no token does not become one that does.
func TestPipelineSendsElsewhere(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		move   string
		token  string
		target string
		status int
	}{
		"to a topic":                    {"/v1.0/publish/bus/moved", "token", "/short", 204},
		"to nothing":                    {"/nowhere", "token", "/v1.0/publish/bus/t", 404},
		"from health, with the token":   {"/v1.0/secrets/vault/db", "token", "/v1.0/healthz", 200},
		"from health, without":          {"/v1.0/secrets/vault/db", "", "/v1.0/healthz", 401},
		"from health to health":         {"/v1.0/healthz/outbound", "", "/v1.0/healthz", 204},
		"to health, without":            {"/v1.0/healthz", "", "/short", 401},
		"to what the Configuration has": {"/v1.0/metadata", "token", "/short", 404},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, _ := moved(t, to(row.move))
			i := start(t)
			h := i.limited(apihttp.Options{Tokens: []string{"token"}, Pipeline: p},
				api.Surface{Denied: []api.Rule{{Name: "metadata", Version: "v1.0", Protocol: "http"}}})
			w := ask(h, "GET", row.target, "")
			if strings.Contains(row.move, "publish") || strings.Contains(row.target, "publish") {
				w = ask(h, "POST", row.target, "x", "Dapr-Api-Token", row.token)
			} else if row.token != "" {
				w = ask(h, "GET", row.target, "", "Dapr-Api-Token", row.token)
			}
			if w.Code != row.status {
				t.Errorf("%d %s, want %d", w.Code, w.Body, row.status)
			}
		})
	}
}

// A middleware that panics, or hands on a request of its own making, opens
// nothing.
func TestOddMiddlewares(t *testing.T) {
	t.Parallel()
	p, _ := moved(t, func(http.ResponseWriter, *http.Request, http.Handler) { panic("lost its mind") })
	if w := ask(start(t).handler(apihttp.Options{Pipeline: p}), "GET", "/v1.0/metadata", ""); w.Code != 500 || strings.Contains(w.Body.String(), "mind") {
		t.Errorf("after a panic: %d %s", w.Code, w.Body)
	}
	p, _ = moved(t, func(w http.ResponseWriter, _ *http.Request, next http.Handler) {
		r, err := http.NewRequestWithContext(t.Context(), "GET", "/v1.0/secrets/vault/db", nil)
		must(t, err)
		next.ServeHTTP(w, r)
	})
	if w := ask(start(t).handler(apihttp.Options{Pipeline: p, Tokens: []string{"token"}}), "GET", "/v1.0/healthz", ""); w.Code != 401 {
		t.Errorf("a request of its own: %d %s", w.Code, w.Body)
	}
}

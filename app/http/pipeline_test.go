package http

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/middleware"
)

type through func(w http.ResponseWriter, r *http.Request, next http.Handler)

func (f through) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { f(w, r, next) })
}

func (through) Close(context.Context) error { return nil }

// piped makes a pipeline of one middleware.
func piped(t *testing.T, f through) *middleware.Pipeline {
	t.Helper()
	type none struct{}
	def := middleware.Define("through", component.About{}, func(context.Context, component.Env, none) (middleware.Driver, error) { return f, nil })
	h, err := middleware.New(def, component.Env{Name: "through"}, config.Component{Name: "through"})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Instance().Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Instance().Close(context.WithoutCancel(t.Context())) })
	p := middleware.NewPipeline(func(string) *middleware.Handler { return h })
	p.Set([]string{"through"})
	return p
}

// Calls go through the pipeline, with what it changes of them and of the answer;
// the question for health does not.
func TestPipeline(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{"http", "h2c"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			calls := 0
			p := piped(t, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				calls++
				body, err := io.ReadAll(r.Body)
				if err != nil || r.Header.Get("Dapr-Api-Token") != "token" || r.RequestURI != "/a/b%2Fc?x=1" {
					t.Errorf("it sees %s %v, %v", r.RequestURI, r.Header, err)
				}
				out := r.Clone(r.Context())
				out.Header.Set("Added", "yes")
				out.URL.Path, out.URL.RawPath, out.URL.Host, out.URL.Scheme = "/other", "", "evil.example", "https"
				out.Body, out.GetBody, out.ContentLength = io.NopCloser(strings.NewReader(strings.ToUpper(string(body)))), nil, -1
				w.Header().Set("From", "middleware")
				next.ServeHTTP(w, out)
			})
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				w.Header().Set("Got", r.RequestURI+" "+r.Header.Get("Added")+" "+r.Header.Get("Dapr-Api-Token")+" "+string(body))
				w.WriteHeader(http.StatusTeapot)
				io.WriteString(w, "answer")
			}))
			server.Config.Protocols = new(http.Protocols)
			server.Config.Protocols.SetHTTP1(true)
			server.Config.Protocols.SetUnencryptedHTTP2(true)
			server.Start()
			t.Cleanup(server.Close)
			c := channel(t, server.URL, Options{Protocol: protocol, Token: "token", Pipeline: p})
			a, err := c.Call(t.Context(), &Request{Path: "/a/b%2Fc?x=1", Body: []byte("hello")})
			if err != nil {
				t.Fatal(err)
			}
			if a.Status != http.StatusTeapot || string(a.Body) != "answer" || a.Header.Get("From") != "middleware" || a.Header.Get("Got") != "/other?x=1 yes token HELLO" {
				t.Errorf("%d %q %v", a.Status, a.Body, a.Header)
			}
			_ = c.Health(t.Context())
			if calls != 1 {
				t.Errorf("%d calls of the pipeline, want 1", calls)
			}
			p.Set(nil)
			if a, err := c.Call(t.Context(), &Request{Path: "/plain"}); err != nil || calls != 1 || !strings.HasPrefix(a.Header.Get("Got"), "/plain ") {
				t.Errorf("with an empty pipeline: %v, %d calls", err, calls)
			}
		})
	}
}

// A middleware may answer itself, in vain, or too much; errors of the app stay
// what they are.
func TestPipelineAnswers(t *testing.T) {
	t.Parallel()
	url := serve(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, strings.Repeat("x", 900)) })
	for name, row := range map[string]struct {
		f      through
		status int
		body   string
		kind   fault.Kind
	}{
		"itself":  {func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { middleware.Respond(w, 429, "slow down") }, 429, "slow down", 0},
		"nothing": {func(http.ResponseWriter, *http.Request, http.Handler) {}, 200, "", 0},
		"too much": {func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			io.WriteString(w, strings.Repeat("y", 2000))
		}, 0, "", fault.Exhausted},
		"more than may be sent": {func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			r.Body = io.NopCloser(strings.NewReader(strings.Repeat("z", 2000)))
			next.ServeHTTP(w, r)
		}, 0, "", fault.Invalid},
		"another request": {func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			next.ServeHTTP(w, (&http.Request{URL: r.URL}).WithContext(context.WithoutCancel(t.Context())))
		}, 500, "Internal Server Error", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := channel(t, url, Options{MaxBody: 1000, Pipeline: piped(t, row.f)})
			a, err := c.Call(t.Context(), &Request{Path: "/x", Body: []byte("b")})
			if row.status == 0 {
				if err == nil || fault.KindOf(err) != row.kind {
					t.Errorf("%v, want an error of kind %v", err, row.kind)
				}
				return
			}
			if err != nil || a.Status != row.status || string(a.Body) != row.body {
				t.Errorf("%v %+v", err, a)
			}
		})
	}
	pass := piped(t, func(w http.ResponseWriter, r *http.Request, next http.Handler) { next.ServeHTTP(w, r) })
	down := channel(t, "http://127.0.0.1:1", Options{Pipeline: pass})
	if _, err := down.Call(t.Context(), &Request{Path: "/x"}); !fault.Retriable(err) {
		t.Errorf("an app that is down: %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("enough"))
	if _, err := down.Call(ctx, &Request{Path: "/x"}); err == nil || !strings.Contains(err.Error(), "enough") {
		t.Errorf("after the end: %v", err)
	}
}

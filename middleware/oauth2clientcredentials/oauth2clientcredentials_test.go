package oauth2clientcredentials

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	client "github.com/penstock-io/penstock/client/oauth2"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/middleware"
	"github.com/penstock-io/penstock/test/conform"
	"github.com/penstock-io/penstock/test/fake/oauth2server"
)

func optionsOf(s *oauth2server.Server, more map[string]string) map[string]string {
	o := map[string]string{"clientId": oauth2server.ClientID, "clientSecret": oauth2server.Secret, "tokenURL": s.URL + "/token", "scopes": "a,b c"}
	maps.Copy(o, more)
	return o
}

func TestConform(t *testing.T) { // not parallel: the suite counts goroutines
	s := oauth2server.Start(t)
	down := oauth2server.Start(t)
	down.Close()
	wrong := func(name, value string) map[string]string { return optionsOf(s, map[string]string{name: value}) }
	conform.Middleware(t, Component, conform.MiddlewareSetup{
		Options: func(*testing.T) map[string]string { return optionsOf(s, nil) },
		Wrong: map[string]map[string]string{
			"tokenURL": wrong("tokenURL", "login"), "pathFilter": wrong("pathFilter", "("), "authStyle": wrong("authStyle", "3"),
			"headerName": wrong("headerName", "a b"), "endpointParamsQuery": wrong("endpointParamsQuery", "scope=x"),
		},
		Pass: func(*testing.T, map[string]string) *http.Request {
			return httptest.NewRequest("POST", "/v1.0/publish/bus/t", nil)
		},
	})
}

// opened is a middleware, and what it logs.
type opened struct {
	middleware.Driver
	log *bytes.Buffer
}

func open1(t *testing.T, options map[string]string) opened {
	t.Helper()
	var items []config.Item
	for name, value := range options {
		items = append(items, config.Item{Name: name, Value: value})
	}
	log := &bytes.Buffer{}
	env := component.Env{Logger: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	d, err := Component.Open(t.Context(), env, items)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close(context.WithoutCancel(t.Context())) })
	return opened{d.(middleware.Driver), log}
}

// ask returns the answer, and the header that arrived behind the middleware.
func (o opened) ask(r *http.Request, header string) (*httptest.ResponseRecorder, []string) {
	var got []string
	w := httptest.NewRecorder()
	o.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r.Header[header] })).ServeHTTP(w, r)
	return w, got
}

// One token serves all, what a caller sent in its place does not arrive, and the
// server hears what was configured.
func TestToken(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		more map[string]string
		only string
		asks int
	}{
		"as the server takes it": {nil, "", 1},
		"basic":                  {map[string]string{"authStyle": "2"}, "basic", 1},
		"body":                   {map[string]string{"authStyle": "1"}, "body", 1},
		"found out":              {nil, "body", 2}, // the first is refused
		"header and parameters":  {map[string]string{"headerName": "x-token", "endpointParamsQuery": "audience=o&resource=https%3A%2F%2Fr"}, "", 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := oauth2server.Start(t)
			s.Only(row.only)
			d := open1(t, optionsOf(s, row.more))
			header := "Authorization"
			if row.more["headerName"] != "" {
				header = "X-Token"
			}
			var wg sync.WaitGroup
			tokens := make([]string, 20)
			for i := range tokens {
				wg.Go(func() {
					r := httptest.NewRequest("GET", "/x", nil)
					r.Header.Set(header, "Bearer of the caller")
					w, got := d.ask(r, header)
					if w.Code != 200 || len(got) != 1 {
						t.Errorf("answer %d, header %q", w.Code, got)
						return
					}
					tokens[i] = got[0]
				})
			}
			wg.Wait()
			if len(slices.Compact(tokens)) != 1 || s.Asked() != row.asks {
				t.Errorf("%d tokens were asked for, want %d; sent %q", s.Asked(), row.asks, slices.Compact(tokens))
			}
			sent := s.Request(strings.TrimPrefix(tokens[0], "Bearer "))
			if sent == nil || sent.Get("scope") != "a b c" {
				t.Fatalf("token %q was asked for with %v", tokens[0], sent)
			}
			if row.more["endpointParamsQuery"] != "" && (sent.Get("audience") != "o" || sent.Get("resource") != "https://r") {
				t.Errorf("asked with %v", sent)
			}
		})
	}
}

func TestPathFilter(t *testing.T) {
	t.Parallel()
	s := oauth2server.Start(t)
	d := open1(t, optionsOf(s, map[string]string{"pathFilter": "^/orders/"}))
	if w, got := d.ask(httptest.NewRequest("GET", "/other", nil), "Authorization"); w.Code != 200 || got != nil || s.Asked() != 0 {
		t.Errorf("answer %d, header %q, %d tokens asked for, want none", w.Code, got, s.Asked())
	}
	if w, got := d.ask(httptest.NewRequest("GET", "/orders/1", nil), "Authorization"); w.Code != 200 || len(got) != 1 {
		t.Errorf("answer %d, header %q", w.Code, got)
	}
}

func oddAnswers(stranger string) map[string]http.HandlerFunc {
	return map[string]http.HandlerFunc{
		"down":     func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) },
		"busy":     func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(429) },
		"html":     func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>canary</html>") },
		"no token": func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"token":"canary"}`) },
		"no json":  func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"access_token":"canary`) },
		"refused": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(401)
			io.WriteString(w, `{"error":"invalid_client","error_description":"canary"}`)
		},
		"code that is none": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(400)
			io.WriteString(w, `{"error":"canary of 1"}`)
		},
		"fine, and an error": func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, `{"access_token":"canary","error":"invalid_scope"}`)
		},
		"line break": func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, `{"access_token":"canary\r\nX-Admin: yes"}`)
		},
		"huge": func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, `{"access_token":"canary`+strings.Repeat("a", 20<<10)+`"}`)
		},
		"elsewhere": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, stranger+"/token", http.StatusTemporaryRedirect)
		},
		"cut": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			io.WriteString(w, `{"access_token":"canary"`)
			panic(http.ErrAbortHandler)
		},
	}
}

// No token is no request, whatever the server does; and nothing that is secret is
// told to anybody.
func TestOddServers(t *testing.T) {
	t.Parallel()
	stranger := oauth2server.Start(t)
	for name, odd := range oddAnswers(stranger.URL) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := oauth2server.Start(t)
			s.Odd(odd)
			d := open1(t, optionsOf(s, nil))
			for range 3 {
				w, got := d.ask(httptest.NewRequest("GET", "/x", nil), "Authorization")
				if w.Code != 503 || w.Header().Get("Retry-After") != "1" || got != nil {
					t.Errorf("answer %d, Retry-After %q, passed with %q", w.Code, w.Header().Get("Retry-After"), got)
				}
				if strings.Contains(w.Body.String(), "canary") {
					t.Errorf("answered %q", w.Body)
				}
			}
			if n := s.Asked(); n > 2 { // the second in the other style
				t.Errorf("asked %d times within a second", n)
			}
			if err := d.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			if text := d.log.String(); strings.Contains(text, "canary") || strings.Count(text, "\n") != 1 {
				t.Errorf("logged %q, want one line without a secret", text)
			}
		})
	}
	t.Cleanup(func() { // when all have run
		if stranger.Asked() != 0 {
			t.Error("a redirect was followed, with the secret")
		}
	})
}

// A request waits for the server no longer than it lives.
func TestSlowServer(t *testing.T) {
	t.Parallel()
	s := oauth2server.Start(t)
	began, goOn := make(chan struct{}), make(chan struct{})
	defer close(goOn)
	s.Odd(func(http.ResponseWriter, *http.Request) { close(began); <-goOn })
	d := open1(t, optionsOf(s, nil))
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-began; cancel() }()
	if w, got := d.ask(httptest.NewRequest("GET", "/x", nil).WithContext(ctx), "Authorization"); w.Code != 503 || got != nil {
		t.Errorf("answer %d, passed with %q", w.Code, got)
	}
	if s.Asked() != 1 {
		t.Errorf("asked %d times", s.Asked())
	}
}

// A token is fetched again before it ends, while the old one goes on to be sent;
// one that has ended is not sent, and a server that fails is left alone for a
// second.
func TestTokenIsFetchedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var fetches int
		var fail error
		life := 10 * time.Minute
		now := func(change func()) { mu.Lock(); defer mu.Unlock(); change() }
		tok := newToken(t.Context(), func(context.Context) (client.Grant, error) {
			<-time.After(time.Second)
			mu.Lock()
			defer mu.Unlock()
			if fetches++; fail != nil {
				return client.Grant{}, fail
			}
			return client.Grant{Header: "Bearer " + string(rune('0'+fetches)), Ends: time.Now().Add(life)}, nil
		})
		defer tok.close()
		get := func(want string, wantFetches int) {
			t.Helper()
			got, err := tok.get(t.Context())
			if got != want || (err == nil) != (want != "") {
				t.Errorf("got %q, %v, want %q", got, err, want)
			}
			synctest.Wait()
			now(func() {
				if fetches != wantFetches {
					t.Errorf("%d fetches, want %d", fetches, wantFetches)
				}
			})
		}
		get("Bearer 1", 1)
		<-time.After(8*time.Minute + 59*time.Second)
		get("Bearer 1", 1)
		<-time.After(2 * time.Second)
		get("Bearer 1", 1) // the next is on its way
		<-time.After(2 * time.Second)
		get("Bearer 2", 2)

		now(func() { fail = fault.New(fault.Unavailable, "down") })
		<-time.After(9*time.Minute + time.Second)
		get("Bearer 2", 2)
		<-time.After(1500 * time.Millisecond)
		get("Bearer 2", 3) // it failed, and there is a pause
		<-time.After(58 * time.Second)
		get("", 4) // five seconds before its end
		get("", 4)
		now(func() { fail = nil })
		<-time.After(time.Second)
		get("Bearer 5", 5)

		now(func() { life = 3 * time.Second }) // less than what is held back
		<-time.After(time.Hour)
		get("", 6)
	})
}

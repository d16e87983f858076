package contract

import (
	"encoding/json"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// answer is what an app says.
type answer struct {
	status int // 0: 200
	body   string
	header http.Header
}

// call is one request that reached the app.
type call struct {
	method, path string
	header       http.Header
	body         []byte
	proto        string
	at           time.Time
}

// event reads the body as an object of raw values.
func (c call) event(t *testing.T) map[string]json.RawMessage {
	t.Helper()
	var e map[string]json.RawMessage
	if err := json.Unmarshal(c.body, &e); err != nil {
		t.Fatalf("%s got %q: %v", c.path, c.body, err)
	}
	return e
}

// data is the raw data of a delivered event.
func (c call) data(t *testing.T) string { return string(c.event(t)["data"]) }

// app is a web app. Everything it is asked is kept by path.
type app struct {
	port int
	// subscribe is what GET /dapr/subscribe answers; empty: 404.
	subscribe string
	// reply answers everything else; n counts the calls of that path, from 1.
	reply func(c call, n int) answer

	mu    sync.Mutex
	calls map[string][]call
}

// serve starts the app on a port of its own.
func (a *app) serve(t *testing.T) *app {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return a.serveOn(t, l)
}

func (a *app) serveOn(t *testing.T, l net.Listener) *app {
	t.Helper()
	a.calls = map[string][]call{}
	srv := &httptest.Server{Listener: l, Config: &http.Server{Handler: a, Protocols: new(http.Protocols)}}
	srv.Config.Protocols.SetHTTP1(true)
	srv.Config.Protocols.SetUnencryptedHTTP2(true)
	srv.Start()
	t.Cleanup(srv.Close)
	a.port = l.Addr().(*net.TCPAddr).Port
	return a
}

// ServeHTTP answers and keeps what was asked.
func (a *app) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the caller is gone
	}
	c := call{method: r.Method, path: r.URL.Path, header: r.Header, body: body, proto: r.Proto, at: time.Now()}
	key := c.path
	if c.method == http.MethodOptions {
		key = "OPTIONS " + c.path
	}
	a.mu.Lock()
	a.calls[key] = append(a.calls[key], c)
	n := len(a.calls[key])
	a.mu.Unlock()
	said := answer{}
	switch {
	case c.path == "/dapr/subscribe" && a.subscribe != "":
		w.Header().Set("Content-Type", "application/json")
		said.body = a.subscribe
	case c.path == "/dapr/subscribe":
		said.status = http.StatusNotFound
	case a.reply != nil:
		said = a.reply(c, n)
	}
	maps.Copy(w.Header(), said.header)
	w.WriteHeader(max(said.status, http.StatusOK))
	io.WriteString(w, said.body) // a caller that is gone needs no answer
}

// got returns the calls of a path so far.
func (a *app) got(path string) []call {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.calls[path]
}

// wait returns the first n calls of a path, as soon as there are so many.
func (a *app) wait(t *testing.T, path string, n int) []call {
	t.Helper()
	eventually(t, "call of "+path, func() bool { return len(a.got(path)) >= n })
	return a.got(path)
}

// response is a whole answer of the sidecar.
type response struct {
	status int
	header http.Header
	body   string
	proto  string
}

// problem is the errorCode of an error body, and the reason in its details.
func (r response) problem(t *testing.T) (code, reason string) {
	t.Helper()
	var body struct {
		Code    string `json:"errorCode"`
		Message string `json:"message"`
		Details []struct {
			Type   string `json:"@type"`
			Reason string `json:"reason"`
			Domain string `json:"domain"`
		} `json:"details"`
	}
	if err := json.Unmarshal([]byte(r.body), &body); err != nil {
		t.Fatalf("error body %q: %v", r.body, err)
	}
	if r.header.Get("Content-Type") != "application/json" || body.Message == "" {
		t.Errorf("error as %q: %s", r.header.Get("Content-Type"), r.body)
	}
	for _, d := range body.Details {
		if strings.HasSuffix(d.Type, "google.rpc.ErrorInfo") && d.Domain == "dapr.io" {
			reason = d.Reason
		}
	}
	return body.Code, reason
}

// request is one call of the sidecar.
type request struct {
	method, url, contentType, body string
	header                         map[string]string
	client                         *http.Client
}

func send(t *testing.T, r request) response {
	t.Helper()
	resp, err := try(t, r)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func try(t *testing.T, r request) (response, error) {
	t.Helper()
	if r.method == "" {
		r.method = http.MethodPost
	}
	if r.client == nil {
		r.client = http.DefaultClient
	}
	req, err := http.NewRequestWithContext(t.Context(), r.method, r.url, strings.NewReader(r.body))
	if err != nil {
		t.Fatal(err)
	}
	if r.contentType != "" {
		req.Header.Set("Content-Type", r.contentType)
	}
	for name, value := range r.header {
		req.Header.Set(name, value)
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return response{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return response{resp.StatusCode, resp.Header, string(body), resp.Proto}, err
}

func get(t *testing.T, url string) response {
	t.Helper()
	r, err := try(t, request{method: http.MethodGet, url: url})
	if err != nil {
		return response{body: err.Error()}
	}
	return r
}

// publish publishes JSON and expects 204.
func (sc *sidecar) publish(t *testing.T, to, json string) {
	t.Helper()
	sc.publishAs(t, to, "application/json", json)
}

func (sc *sidecar) publishAs(t *testing.T, to, contentType, body string) {
	t.Helper()
	if r := send(t, request{url: sc.api + "/publish/" + to, contentType: contentType, body: body}); r.status != http.StatusNoContent {
		t.Fatalf("publish to %s: %d %s", to, r.status, r.body)
	}
}

// buses are both embedded brokers, as mem and db.
const buses = `
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: mem}
spec: {type: pubsub.in-memory, version: v1}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: db}
spec:
  type: pubsub.sqlite
  version: v1
  metadata: [{name: connectionString, value: DIR/bus.db}]
---
`

// both runs a test for each of them, side by side.
func both(t *testing.T, f func(t *testing.T, bus string)) {
	for _, bus := range []string{"mem", "db"} {
		t.Run(bus, func(t *testing.T) {
			t.Parallel()
			f(t, bus)
		})
	}
}

// serveTLS is serve with a certificate of its own.
func (a *app) serveTLS(t *testing.T) {
	t.Helper()
	a.calls = map[string][]call{}
	srv := httptest.NewUnstartedServer(a)
	// A look whether something listens is a handshake that goes no further.
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	a.port = srv.Listener.Addr().(*net.TCPAddr).Port
}

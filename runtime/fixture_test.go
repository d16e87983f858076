package runtime_test

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/penstock-io/penstock/bindings/cron"
	httpbinding "github.com/penstock-io/penstock/bindings/http"
	"github.com/penstock-io/penstock/bindings/localstorage"
	"github.com/penstock-io/penstock/bindings/webhook"
	"github.com/penstock-io/penstock/component"
	settingsfile "github.com/penstock-io/penstock/configuration/file"
	"github.com/penstock-io/penstock/fault"
	sqlitelock "github.com/penstock-io/penstock/lock/sqlite"
	"github.com/penstock-io/penstock/pubsub"
	"github.com/penstock-io/penstock/pubsub/inmemory"
	"github.com/penstock-io/penstock/pubsub/sqlite"
	"github.com/penstock-io/penstock/runtime"
	"github.com/penstock-io/penstock/secrets"
	secretsfile "github.com/penstock-io/penstock/secrets/file"
	statememory "github.com/penstock-io/penstock/state/inmemory"
)

// components are those the tests use.
func components() component.List {
	return component.List{
		cron.Component, localstorage.Component, webhook.Component, inmemory.Component, sqlite.Component,
		secretsfile.Component, statememory.Component, settingsfile.Component, sqlitelock.Component, httpbinding.Component, farBus, farStore, plainBus, asking,
	}
}

// far has a server, which is all that it needs to be open.
type far struct {
	Address string `meta:"address,required" doc:"Where the server listens."`
}

func (f far) reach(ctx context.Context) error {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", f.Address)
	if err != nil {
		return fault.Wrap(err, "reach server")
	}
	return c.Close()
}

var farBus = pubsub.Define("far", component.About{}, func(ctx context.Context, env component.Env, f far) (pubsub.Driver, error) {
	if err := f.reach(ctx); err != nil {
		return nil, err
	}
	d, err := inmemory.Component.Open(ctx, env, nil)
	if err != nil {
		return nil, err
	}
	return d.(pubsub.Driver), nil
})

var farStore = secrets.Define("far", component.About{}, func(ctx context.Context, env component.Env, f far) (secrets.Driver, error) {
	return oneSecret{}, f.reach(ctx)
})

// oneSecret is a store whose secrets are their own names.
type oneSecret struct{}

func (oneSecret) Get(_ context.Context, key string, _ map[string]string) (map[string]string, error) {
	return map[string]string{key: key}, nil
}

func (oneSecret) Bulk(context.Context, map[string]string) (map[string]map[string]string, error) {
	return nil, nil
}

func (oneSecret) Close(context.Context) error { return nil }

// leaks looks for goroutines that stay. On a busy machine those that are ending
// take their time, and so does a connection until it is idle.
func leaks() (err error) {
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); {
		http.DefaultClient.CloseIdleConnections()
		if err = goleak.Find(); err == nil {
			return nil
		}
	}
	return err
}

func TestMain(m *testing.M) {
	if folder := os.Getenv(childFolder); folder != "" {
		fmt.Fprintln(os.Stderr, child(folder)) // returns only when it cannot run
		os.Exit(1)
	}
	code := m.Run()
	err := leaks()
	if err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// call is one request that the app got.
type call struct {
	path, body string
	header     http.Header
}

// app is a user's program whose answers the test decides.
type app struct {
	port     int
	protocol string // http when it is empty
	calls    chan call

	mu      sync.Mutex
	answers map[string]http.HandlerFunc
	topics  http.HandlerFunc // answers GET /dapr/subscribe
}

// newApp starts an app. Paths without an answer succeed with an empty body.
func newApp(t *testing.T, subscriptions string) *app {
	t.Helper()
	a := &app{calls: make(chan call, 1000), answers: map[string]http.HandlerFunc{}, topics: reply(subscriptions)}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/dapr/subscribe":
			a.mu.Lock()
			topics := a.topics
			a.mu.Unlock()
			topics(w, r)
			return
		case r.Method == http.MethodOptions:
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		a.mu.Lock()
		answer := a.answers[r.URL.Path]
		a.mu.Unlock()
		a.calls <- call{r.URL.Path, string(body), r.Header}
		if answer != nil {
			answer(w, r)
		}
	}))
	t.Cleanup(s.Close)
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	a.port, err = strconv.Atoi(u.Port())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *app) answer(path string, f http.HandlerFunc) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.answers[path] = f
}

// wants changes the app's subscriptions.
func (a *app) wants(f http.HandlerFunc) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.topics = f
}

// next returns the next call to the path; others are thrown away.
func (a *app) next(t *testing.T, path string) call {
	t.Helper()
	limit := time.After(60 * time.Second)
	for {
		select {
		case c := <-a.calls:
			if c.path == path {
				return c
			}
		case <-limit:
			t.Fatalf("the app was not called at %s", path)
		}
	}
}

// instance is a running runtime.
type instance struct {
	dir string // of resources
	url string
	rpc string // address of the gRPC API
	log *logBuffer
	end func() error // stops it and returns what Run returned
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// prepare makes an instance of the documents; a nil app means none.
func prepare(t *testing.T, a *app, documents string) (*instance, runtime.Options) {
	t.Helper()
	in := &instance{dir: t.TempDir(), log: &logBuffer{}}
	in.write(t, "resources.yaml", documents)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	calls, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { calls.Close() })
	in.rpc = calls.Addr().String()
	in.url = fmt.Sprintf("http://%s/v1.0", l.Addr())
	o := runtime.Options{
		AppID: "shop", DataDir: filepath.Join(in.dir, "data"), Resources: []string{in.dir}, Components: components(),
		Listeners: []net.Listener{l}, GRPC: []net.Listener{calls}, Grace: 5 * time.Second, Version: "test", Env: os.LookupEnv,
		Logger: slog.New(slog.NewTextHandler(in.log, nil)),
	}
	if a != nil {
		o.App = runtime.AppOptions{Port: a.port, Protocol: cmp.Or(a.protocol, "http")}
	}
	return in, o
}

// start runs an instance until the test ends and waits until it is ready.
func start(t *testing.T, a *app, documents string) *instance {
	t.Helper()
	in, o := prepare(t, a, documents)
	in.run(t, o)
	return in
}

func (in *instance) run(t *testing.T, o runtime.Options) {
	t.Helper()
	in.begin(t, o)
	eventually(t, "ready", func() bool { return in.get(t, "/healthz") == http.StatusNoContent })
}

// begin is run without waiting until the instance is ready.
func (in *instance) begin(t *testing.T, o runtime.Options) {
	t.Helper()
	r, err := runtime.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	in.end = sync.OnceValue(func() error { stop(); return <-done })
	t.Cleanup(func() {
		if err := in.end(); err != nil {
			t.Errorf("run ended with %v", err)
		}
		if t.Failed() {
			t.Logf("log:\n%s", in.log)
		}
	})
}

// logged waits until the log holds the words n times.
func (in *instance) logged(t *testing.T, n int, words string) {
	t.Helper()
	eventually(t, "the log says "+words, func() bool { return strings.Count(in.log.String(), words) >= n })
}

// text returns the answer to a GET.
func (in *instance) text(t *testing.T, path string) string {
	t.Helper()
	resp, err := http.Get(in.url + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func (in *instance) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(in.dir, name), []byte(strings.ReplaceAll(text, "DIR", in.dir)), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (in *instance) get(t *testing.T, path string) int {
	t.Helper()
	resp, err := http.Get(in.url + path)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

func (in *instance) post(t *testing.T, path, body string) (int, string) {
	t.Helper()
	resp, err := http.Post(in.url+path, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

func (in *instance) publish(t *testing.T, topic, data string) {
	t.Helper()
	if status, text := in.post(t, "/publish/bus/"+topic, data); status != http.StatusNoContent {
		t.Fatalf("publish: %d %s", status, text)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	limit := time.After(60 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-limit:
			t.Fatalf("not in time: %s", what)
		case <-tick.C:
		}
	}
}

const bus = `
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: bus}
spec: {type: pubsub.in-memory, version: v1, metadata: []}
---
`

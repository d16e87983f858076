package attack

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	httpbinding "github.com/penstock-io/penstock/bindings/http"
	"github.com/penstock-io/penstock/component"
	namesfile "github.com/penstock-io/penstock/invoke/names/file"
	"github.com/penstock-io/penstock/pubsub/inmemory"
	"github.com/penstock-io/penstock/runtime"
	secretsfile "github.com/penstock-io/penstock/secrets/file"
	statememory "github.com/penstock-io/penstock/state/inmemory"
)

const (
	apiToken  = "the-token-of-the-api"
	appToken  = "the-token-of-the-app"
	pageToken = "the-token-of-the-console"
	// maxBody bounds bodies, in bytes.
	maxBody = 64 << 10
	// bomb is how long the body is that the app sends packed, in bytes.
	bomb = 50_000_000
)

func TestMain(m *testing.M) {
	net.DefaultResolver = hostileNames()
	goleak.VerifyTestMain(m)
}

// log keeps what is logged.
type log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// take returns what came since it was called last.
func (l *log) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.text.Reset()
	return l.text.String()
}

// app is the app behind the sidecar called callee. It notes what it gets.
type app struct {
	port int

	mu   sync.Mutex
	seen []seen
}

// seen is one request, and all of it as text.
type seen struct{ target, text string }

// ServeHTTP implements http.Handler. It answers with headers that no caller may
// see.
func (a *app) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if hostile(w, r) {
		return
	}
	if r.URL.Path == "/dapr/subscribe" || r.Method == http.MethodOptions || r.URL.Path == "/unsure" {
		return // the sidecar asks, or nobody can tell whether it comes
	}
	body, err := io.ReadAll(r.Body)
	var text bytes.Buffer
	_ = r.Header.Write(&text) // into memory
	fmt.Fprintf(&text, "Host: %s\r\nTransfer-Encoding: %s\r\n\r\n%s", r.Host, r.TransferEncoding, body)
	if err != nil {
		fmt.Fprintf(&text, "\nbroken off: %v", err)
	}
	a.mu.Lock()
	a.seen = append(a.seen, seen{r.Method + " " + r.RequestURI, text.String()})
	a.mu.Unlock()
	switch strings.TrimPrefix(r.URL.Path, "/base") {
	case "/bomb":
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(packed(bomb)) // the caller may be gone
	case "/closing":
		w.Header().Set("Connection", "close")
	case "/redirect":
		http.Redirect(w, r, "http://169.254.169.254/latest/meta-data", http.StatusFound)
	case "/renamed":
		http.Redirect(w, r, "http://meta.test/latest/meta-data", http.StatusFound)
	case "/inside":
		http.Redirect(w, r, fmt.Sprintf("http://127.0.0.1:%d/secret", a.port), http.StatusFound)
	case "/hop":
		for name, value := range map[string]string{
			"Dapr-Api-Token": "sent-by-the-app", "Keep-Alive": "timeout=5", "Proxy-Authenticate": "Basic", "X-Private": "1", "X-Kept": "1",
			"Connection": "X-Private",
		} {
			w.Header().Set(name, value)
		}
	}
}

// take returns what came since it was called last, once it is n.
func (a *app) take(n int) []seen {
	var out []seen
	for end := time.Now().Add(10 * time.Second); ; {
		a.mu.Lock()
		out, a.seen = append(out, a.seen...), nil
		a.mu.Unlock()
		if len(out) >= n || time.Now().After(end) {
			return out
		}
		<-time.After(time.Millisecond)
	}
}

const resources = `
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: bus}
spec:
  type: pubsub.in-memory
  version: v1
  metadata:
  - {name: allowedTopics, value: "orders,closed,orders/closed"}
  - {name: protectedTopics, value: "closed"}
  - {name: publishingScopes, value: "callee=orders"}
---
apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata: {name: orders}
spec: {pubsubname: bus, topic: orders, routes: {default: /on-order}}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: store}
spec: {type: state.in-memory, version: v1, metadata: []}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: vault}
spec: {type: secretstores.local.file, version: v1, metadata: [{name: secretsFile, value: DIR/secrets.json}]}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: web}
spec: {type: bindings.http, version: v1, metadata: [{name: url, value: "http://127.0.0.1:APPPORT/base"}, {name: maxResponseBodySize, value: 64Ki}, {name: responseTimeout, value: 1s}]}
---
apiVersion: dapr.io/v1alpha1
kind: HTTPEndpoint
metadata: {name: away}
spec: {baseUrl: "http://127.0.0.1:APPPORT"}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: fickleweb}
spec: {type: bindings.http, version: v1, metadata: [{name: url, value: "http://c.fickle.test:APPPORT/base"}]}
---
apiVersion: dapr.io/v1alpha1
kind: HTTPEndpoint
metadata: {name: fickle}
spec: {baseUrl: "http://b.fickle.test:APPPORT"}
---
apiVersion: dapr.io/v1alpha1
kind: HTTPEndpoint
metadata: {name: cloud}
spec: {baseUrl: "http://169.254.169.254/latest"}
`

const configuration = `
apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: {name: c}
spec:
  nameResolution: {component: file, configuration: {path: DIR/apps.yaml}}
  logging: {apiLogging: {enabled: true}}
  secrets:
    scopes:
    - {storeName: vault, defaultAccess: deny, allowedSecrets: [open]}
  accessControl:
    defaultAction: allow
    policies:
    - appId: callee
      namespace: default
      operations:
      - {name: /neworder, action: deny}
      - {name: "/admin/**", action: deny}
`

// world is two sidecars and an app.
type world struct {
	log log
	app app
	// at has the address of each server by its name.
	at map[string]string
}

// newWorld starts everything, until the test ends.
func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{at: map[string]string{}}
	web := httptest.NewServer(&w.app)
	t.Cleanup(web.Close)
	w.app.port = web.Listener.Addr().(*net.TCPAddr).Port
	dir := t.TempDir()
	callee := w.prepare(t, "callee", dir)
	callee.Internal = []net.Listener{listen(t)}
	w.at["callee-internal"] = callee.Internal[0].Addr().String()
	w.at["callee-internal-grpc"] = w.at["callee-internal"]
	page := listen(t)
	w.at["console"] = page.Addr().String()
	callee.Console, callee.ConsoleToken = []net.Listener{page}, pageToken
	callee.App = runtime.AppOptions{Port: w.app.port, Protocol: "http", Token: appToken}
	fill := strings.NewReplacer("DIR", dir, "APPPORT", fmt.Sprint(w.app.port)).Replace
	for name, text := range map[string]string{
		"resources/all.yaml": fill(resources), "config.yaml": fill(configuration),
		"secrets.json": `{"open": "1", "closed": "the-closed-secret", "parent": {"closed": "the-closed-secret"}}`,
		"apps.yaml":    "callee: " + callee.Internal[0].Addr().String() + "\n",
	} {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w.run(t, callee)
	w.run(t, w.prepare(t, "shop", dir))
	return w
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func (w *world) prepare(t testing.TB, id, dir string) runtime.Options {
	t.Helper()
	l, rpc := listen(t), listen(t)
	w.at[id], w.at[id+"-grpc"] = l.Addr().String(), rpc.Addr().String()
	return runtime.Options{
		AppID: id, DataDir: filepath.Join(dir, "data-"+id), Resources: []string{filepath.Join(dir, "resources")},
		Configs: []string{filepath.Join(dir, "config.yaml")}, APIToken: apiToken, MaxBody: maxBody, Version: "test",
		Components: component.List{
			inmemory.Component, statememory.Component, secretsfile.Component, httpbinding.Component, namesfile.Component,
		},
		Listeners: []net.Listener{l}, GRPC: []net.Listener{rpc}, Grace: time.Second,
		Logger: slog.New(slog.NewTextHandler(&w.log, nil)),
	}
}

// run runs an instance until the test ends and waits until it is ready.
func (w *world) run(t testing.TB, o runtime.Options) {
	t.Helper()
	r, err := runtime.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("run %s: %v", o.AppID, err)
		}
	})
	for end := time.Now().Add(30 * time.Second); ; <-time.After(10 * time.Millisecond) {
		resp, err := http.Get("http://" + w.at[o.AppID] + "/v1.0/healthz")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusNoContent {
				http.DefaultClient.CloseIdleConnections()
				return
			}
		}
		if time.Now().After(end) {
			t.Fatalf("%s is not ready: %v\n%s", o.AppID, err, w.log.take())
		}
	}
}

// targets are those of requests.
func targets(list []seen) []string {
	out := []string{}
	for _, s := range list {
		out = append(out, s.target)
	}
	return slices.Clip(out)
}

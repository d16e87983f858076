package canary

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/penstock-io/penstock/test/process"
)

// patience is how long anything may take on a busy machine.
const patience = time.Minute

// own are the components that work, and what makes events fail.
const own = `apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: vault}
spec: {type: secretstores.local.file, version: v1, metadata: [{name: secretsFile, value: DIR/vault.json}]}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: mem}
spec: {type: pubsub.in-memory, version: v1}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: cache}
spec: {type: state.in-memory, version: v1}
---
apiVersion: dapr.io/v1alpha1
kind: HTTPEndpoint
metadata: {name: away}
auth: {secretStore: vault}
spec:
  baseUrl: "http://127.0.0.1:1/base"
  headers:
  - {name: Authorization, value: "Bearer ENDPOINTHEADER"}
  - {name: X-Key, secretKeyRef: {name: ENDPOINT_KEY}}
---
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: r}
spec:
  policies:
    retries: {once: {policy: constant, duration: 10ms, maxRetries: 1}}
  targets:
    components:
      mem: {inbound: {retry: once}}
---
`

const configuration = `apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: {name: c}
spec:
  tracing:
    samplingRate: "1"
    stdout: true
    zipkin: {endpointAddress: "http://user:ZIPKIN@COLLECTOR/api/v2/spans?key=ZIPKINQUERY"}
  logging: {apiLogging: {enabled: true}}
  nameResolution:
    component: consul
    configuration:
      client: {address: "127.0.0.1:1", token: CONSULTOKEN, httpAuth: {username: u, password: CONSULPASSWORD}}
`

// instance is a running penstock and what it is told.
type instance struct {
	c       *canaries
	dir     string
	side    process.Sidecar
	planted []planted
	token   string // what callers must send
	grpc    string // address
	scrapes string // address
	console string // address
	pass    string // the token of the console
	spans   *collector
	app     *app
}

// app fails every event, and says the event itself.
type app struct {
	server *httptest.Server
	mu     sync.Mutex
	events int
}

func newApp(t *testing.T) *app {
	a := &app{}
	a.server = httptest.NewServer(a)
	t.Cleanup(a.server.Close)
	return a
}

// ServeHTTP implements http.Handler.
func (a *app) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/dapr/subscribe":
		io.WriteString(w, `[{"pubsubname":"mem","topic":"orders","route":"/order","deadLetterTopic":"dead"}]`)
		return
	case "/order":
		a.mu.Lock()
		a.events++
		a.mu.Unlock()
	}
	body, _ := io.ReadAll(r.Body)
	w.WriteHeader(500)
	w.Write(body)
}

func (a *app) seen() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.events
}

// start writes the configuration and starts the program in the way w, with a
// collector of its traces or with none that answers.
func start(t *testing.T, w way, spans *collector, flags ...string) *instance {
	t.Helper()
	in := &instance{c: &canaries{}, dir: t.TempDir(), app: newApp(t), spans: spans}
	resources := filepath.Join(in.dir, "resources")
	store, env := map[string]string{}, map[string]string{}
	var text strings.Builder
	text.WriteString(in.fill(own))
	in.planted = slices.DeleteFunc(plantAll(in.c, in.dir), func(p planted) bool { return p.wrong != nil })
	for _, p := range in.planted {
		text.WriteString(p.document(w, store, env))
		if strings.HasPrefix(p.def.Type, "pubsub.") {
			fmt.Fprintf(&text, "apiVersion: dapr.io/v2alpha1\nkind: Subscription\nmetadata: {name: s-%s}\nspec: {pubsubname: %s, topic: t, routes: {default: /order}}\n---\n", p.name, p.name)
		}
	}
	store["ENDPOINT_KEY"] = in.c.plant("the header of an endpoint from a store")
	in.token = in.c.plant("the token of the API")
	secrets, err := json.Marshal(store)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(resources, "all.yaml"), text.String())
	write(t, filepath.Join(in.dir, "vault.json"), string(secrets))
	write(t, filepath.Join(in.dir, "secrets.json"), `{"a":"b"}`)
	write(t, filepath.Join(in.dir, "settings.yaml"), "a: b\n")
	write(t, filepath.Join(in.dir, "config.yaml"), in.fill(strings.ReplaceAll(configuration, "COLLECTOR", in.spans.address())))
	os.MkdirAll(filepath.Join(in.dir, "keys"), 0o700)
	in.side.Path = binary
	in.side.Args = append([]string{
		"serve", "--app-id", "shop", "--app-port", fmt.Sprint(in.app.server.Listener.Addr().(*net.TCPAddr).Port), "--dapr-http-port", "0", "--dapr-grpc-port", "0",
		"--metrics-port", "0", "--console-port", "0", "--resources-path", resources, "--data-dir", filepath.Join(in.dir, "data"), "--config", filepath.Join(in.dir, "config.yaml"),
		"--log-level", "debug", "--dapr-graceful-shutdown-seconds", "1",
	}, flags...)
	for k, v := range env {
		in.side.Env = append(in.side.Env, k+"="+v)
	}
	in.pass = in.c.plant("the token of the console")
	in.side.Env = append(in.side.Env, "DAPR_API_TOKEN="+in.token, "APP_API_TOKEN="+in.c.plant("the token of the app"), "PENSTOCK_CONSOLE_TOKEN="+in.pass,
		"OTEL_EXPORTER_OTLP_HEADERS=authorization="+in.c.plant("a header of OTLP"), "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf", "OTEL_EXPORTER_OTLP_ENDPOINT="+in.otlp(),
		"HOME="+in.dir, "XDG_RUNTIME_DIR="+in.dir, "XDG_STATE_HOME="+in.dir, "TMPDIR="+in.dir)
	in.run(t)
	return in
}

// fill puts canaries in the place of words in capitals.
func (in *instance) fill(text string) string {
	return words.ReplaceAllStringFunc(strings.ReplaceAll(text, "DIR", in.dir), func(w string) string {
		if w == "ENDPOINT_KEY" {
			return w
		}
		return in.c.plant("%s", strings.ToLower(w))
	})
}

var words = regexp.MustCompile(`\b[A-Z_]{6,}\b`)

func (in *instance) run(t *testing.T) {
	t.Helper()
	if err := in.side.Run(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.side.Kill()
		if t.Failed() {
			t.Logf("log of penstock:\n%s", in.side.Log())
		}
	})
	address := func(line string) string {
		pattern := regexp.MustCompile(line + `.*?(127\.0\.0\.1:\d+)`)
		var found []string
		eventually(t, line, func() bool {
			found = pattern.FindStringSubmatch(in.side.Log())
			return found != nil
		})
		return found[1]
	}
	_, port, _ := net.SplitHostPort(address(`HTTP server listening`))
	fmt.Sscan(port, &in.side.Port)
	in.grpc, in.scrapes, in.console = address(`gRPC server listening`), address(`Metrics server listening`), address(`Console listening`)
	eventually(t, "the start", func() bool {
		if !in.side.Running() {
			t.Fatal(in.side.Log())
		}
		return strings.Contains(in.side.Log(), "Penstock is up")
	})
}

// eventually polls for a condition.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
		<-time.After(20 * time.Millisecond)
	}
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// call is one request of the HTTP API.
type call struct {
	method, path, body string
	header             map[string]string
}

// do makes a call and returns status, headers and body as one text.
func (in *instance) do(t *testing.T, c call) string {
	req, err := http.NewRequestWithContext(t.Context(), c.method, fmt.Sprintf("http://127.0.0.1:%d%s", in.side.Port, c.path), strings.NewReader(c.body))
	if err != nil {
		t.Error(err)
		return ""
	}
	req.Header.Set("dapr-api-token", in.token)
	for k, v := range c.header {
		req.Header.Set(k, v)
	}
	client := http.Client{Timeout: 2 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	var out bytes.Buffer
	fmt.Fprintln(&out, resp.Status)
	resp.Header.Write(&out)
	io.Copy(&out, resp.Body)
	return out.String()
}

// calls are what an app may ask of the components, each of which fails.
func (in *instance) calls() (list []call) {
	const jsonType = "application/json"
	post := func(path, body string) {
		list = append(list, call{http.MethodPost, path, body, map[string]string{"Content-Type": jsonType}})
	}
	get := func(path string) { list = append(list, call{method: http.MethodGet, path: path}) }
	for _, p := range in.planted {
		switch kind, _, _ := strings.Cut(p.def.Type, "."); kind {
		case "state":
			if works(p) {
				continue // it gives back what was saved
			}
			get("/v1.0/state/" + p.name + "/k")
			post("/v1.0/state/"+p.name, `[{"key":"k","value":"`+in.payload()+`"}]`)
			post("/v1.0/state/"+p.name+"/transaction", `{"operations":[{"operation":"delete","request":{"key":"k"}}]}`)
		case "pubsub":
			post("/v1.0/publish/"+p.name+"/t", `{"order":"`+in.payload()+`"}`)
			post("/v1.0/publish/bulk/"+p.name+"/t", `[{"entryId":"1","event":"`+in.payload()+`","contentType":"text/plain"}]`)
		case "bindings":
			for _, op := range p.def.About.Operations {
				post("/v1.0/bindings/"+p.name, `{"operation":"`+op+`","data":"`+in.payload()+`","metadata":{"key":"k","sql":"select 1","command":"ls"}}`)
			}
		case "secretstores":
			get("/v1.0/secrets/" + p.name + "/k")
			get("/v1.0/secrets/" + p.name + "/bulk")
		case "configuration":
			get("/v1.0/configuration/" + p.name + "?key=a")
			get("/v1.0/configuration/" + p.name + "/subscribe?key=a")
		case "lock":
			post("/v1.0-alpha1/lock/"+p.name, `{"resourceId":"r","lockOwner":"o","expiryInSeconds":5}`)
		case "crypto":
			list = append(list, call{http.MethodPut, "/v1.0-alpha1/crypto/" + p.name + "/encrypt", in.payload(), map[string]string{"dapr-key-name": "k", "dapr-key-wrap-algorithm": "RSA"}})
		}
	}
	post("/v1.0/invoke/away/method/x", in.payload())
	post("/v1.0/invoke/nobody/method/x", in.payload())
	get("/v1.0/healthz")
	for _, path := range []string{"/v1.0/metadata", "/v1.0-penstock/routes", "/v1.0-penstock/deadletters", "/v1.0-penstock/loglevels", "/v1.0-penstock/events", "/v1.0-penstock/triggers", "/v1.0-penstock/webhooks"} {
		get(path)
	}
	return list
}

// works tells whether a state store is one that needs no server.
func works(p planted) bool { return p.def.Type == "state.in-memory" || p.def.Type == "state.sqlite" }

// payload is a canary of an event or a value.
func (in *instance) payload() string { return in.c.plant("a payload") }

// requests carry secrets of their own, which the log must not have.
func (in *instance) requests() []call {
	secret := func(what string) string { return in.c.plant("a request's %s", what) }
	inPath := func(what string) string { return in.c.plant("a request's path: %s", what) }
	return []call{
		{http.MethodGet, "/v1.0/metadata", "", map[string]string{"dapr-api-token": secret("wrong token")}},
		{http.MethodGet, "/v1.0/state/cache/k?metadata.apiKey=" + secret("query"), "", map[string]string{"Authorization": "Bearer " + secret("bearer token"), "Cookie": "id=" + secret("cookie")}},
		{http.MethodPost, "/v1.0/publish/mem/orders", `{"broken": ` + secret("broken JSON"), map[string]string{"Content-Type": "application/cloudevents+json"}},
		{http.MethodPost, "/v1.0/state/cache", `[{"key": "k", "value": ` + secret("broken JSON"), map[string]string{"Content-Type": "application/json"}},
		{http.MethodGet, "/v1.0/state/cache/" + inPath("key"), "", nil},
		{http.MethodDelete, "/v1.0/state/cache/" + inPath("key"), "", nil},
		{http.MethodGet, "/v1.0/secrets/vault/" + inPath("key"), "", nil},
		{http.MethodGet, "/v1.0/none/" + inPath("path that is none"), "", nil},
		{http.MethodPost, "/v1.0/invoke/shop/method/" + inPath("path of a call"), "x", nil},
		{http.MethodPost, "/v1.0/invoke/http://user:" + secret("password of a URL") + "@127.0.0.1:1/method/" + inPath("path of a URL"), "x", nil},
		{http.MethodPost, "/v1.0/invoke/http%3A%2F%2Fuser:" + secret("password of a URL with escapes") + "@127.0.0.1:1/method/" + inPath("path of a URL"), "x", nil},
		{http.MethodPost, "/v1.0/bindings/none", `{"operation": "` + secret("body of a wrong call") + `"`, nil},
		{http.MethodPost, "/v1.0/invoke/shop/method/order?code=" + secret("query of a call"), secret("body of a call"), map[string]string{"Authorization": secret("header of a call")}},
		{http.MethodPost, "/v1.0/publish/mem/orders?metadata.ttlInSeconds=" + secret("metadata"), "x", map[string]string{"Content-Type": "text/plain"}},
		{http.MethodPost, "/v1.0/publish/mem/orders", `{"order":"` + secret("payload of an event that fails") + `"}`, map[string]string{"Content-Type": "application/json"}},
		{http.MethodPost, "/v1.0/publish/mem/orders", secret("payload of an event that fails"), map[string]string{"Content-Type": "text/plain"}},
	}
}

// each runs the calls, some at a time, and looks through the answers.
func (in *instance) each(t *testing.T, calls []call, but ...string) {
	t.Helper()
	some := atOnce(48)
	for _, c := range calls {
		some.run(func() { in.c.search(t, "the answer to "+c.method+" "+c.path, in.do(t, c), but...) })
	}
	some.wait()
}

// crowd runs so many at a time.
type crowd struct {
	places chan struct{}
	wg     sync.WaitGroup
}

func atOnce(n int) *crowd { return &crowd{places: make(chan struct{}, n)} }

func (c *crowd) run(f func()) {
	c.places <- struct{}{}
	c.wg.Go(func() {
		defer func() { <-c.places }()
		f()
	})
}

func (c *crowd) wait() { c.wg.Wait() }

// command runs a command of penstock beside the instance and looks through what it
// prints.
func (in *instance) command(t *testing.T, env []string, words ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), binary, words...)
	cmd.Env = slices.Concat(os.Environ(), in.side.Env, []string{fmt.Sprintf("DAPR_HTTP_PORT=%d", in.side.Port)}, env)
	out, _ := cmd.CombinedOutput() // many of them fail, which is what is looked at
	in.c.search(t, "the output of penstock "+strings.Join(words, " "), string(out))
}

// TestProgram gathers all that instances say, which get their secrets in each way.
func TestProgram(t *testing.T) {
	t.Parallel()
	for name, w := range map[string]struct {
		way   way
		spans *collector
		flags []string
	}{
		"inline and JSON":      {inline, nil, []string{"--log-as-json"}},
		"from a store":         {fromStore, newCollector(t), nil},
		"environment and JSON": {fromEnv, newCollector(t), []string{"--log-as-json"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in := start(t, w.way, w.spans, w.flags...)
			in.each(t, in.calls(), "the token of the app")
			in.each(t, in.requests(), "a request's")
			in.overGRPC(t)
			eventually(t, "events that fail", func() bool { return in.app.seen() >= 4 })
			in.outputs(t)
			in.onConsole(t)
			if err := in.side.Stop(patience); err != nil {
				t.Error(err)
			}
			// The log of calls has paths as they came, unless obfuscateURLs is set.
			in.c.search(t, "the log", in.side.Log(), "a request's path")
			in.traced(t)
			t.Logf("%d canaries in %d components, %d bytes of log", in.c.count(), len(in.planted), len(in.side.Log()))
		})
	}
}

// outputs looks at all that is there beside answers and log.
func (in *instance) outputs(t *testing.T) {
	t.Helper()
	eventually(t, "dead letters", func() bool {
		return strings.Contains(in.do(t, call{method: http.MethodGet, path: "/v1.0-penstock/deadletters"}), `"reason"`)
	})
	in.each(t, []call{
		{method: http.MethodGet, path: "/v1.0/metadata"},
		{method: http.MethodGet, path: "/v1.0-penstock/deadletters"},
		{method: http.MethodGet, path: "/v1.0-penstock/routes"},
		{method: http.MethodGet, path: "/v1.0-penstock/events"},
	})
	resp, err := http.Get("http://" + in.scrapes + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	in.c.search(t, "the metrics", string(text))
	resources := filepath.Join(in.dir, "resources")
	for _, words := range [][]string{
		{"check", resources},
		{"check", "--config", filepath.Join(in.dir, "config.yaml"), resources},
		{"list"},
		{"list", "-o", "json"},
		{"routes"},
		{"routes", "list", "-o", "json"},
		{"deadletters"},
		{"deadletters", "list", "-o", "json"},
		{"describe", "bindings.http"},
		{"logs", "shop"},
	} {
		in.command(t, nil, words...)
	}
	wrong := in.c.plant("a wrong token of the command line")
	in.command(t, []string{"DAPR_API_TOKEN=" + wrong}, "routes")
	in.command(t, []string{"DAPR_HTTP_ENDPOINT=http://user:" + wrong + "@127.0.0.1:1/?key=" + wrong}, "routes")
	in.records(t)
}

// records looks through the files that tell other processes about the instance.
func (in *instance) records(t *testing.T) {
	t.Helper()
	found := 0
	err := filepath.WalkDir(in.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.Contains(path, "penstock") || !strings.Contains(path, "instances") {
			return err
		}
		raw, err := os.ReadFile(path)
		found++
		in.c.search(t, path, string(raw), "the token of the console")
		return err
	})
	if err != nil || found == 0 {
		t.Errorf("%d records of instances below %s: %v", found, in.dir, err)
	}
}

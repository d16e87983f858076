package dashboards

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/penstock-io/penstock/test/process"
)

// binary is the penstock that is tested.
var binary string

func TestMain(m *testing.M) { os.Exit(process.Main(m.Run, &binary)) }

// resources are components of each kind that is counted, a topic whose events fail
// now and then, and a breaker.
const resources = `apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: bus}
spec: {type: pubsub.in-memory, version: v1}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: db}
spec: {type: pubsub.sqlite, version: v1, metadata: [{name: connectionString, value: DIR/bus.db}]}
---
apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata: {name: stored}
spec: {pubsubname: db, topic: stored, routes: {default: /orders}}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: cache}
spec: {type: state.in-memory, version: v1}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: vault}
spec: {type: secretstores.local.file, version: v1, metadata: [{name: secretsFile, value: DIR/secrets.json}]}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: disk}
spec: {type: bindings.localstorage, version: v1, metadata: [{name: rootPath, value: DIR/disk}]}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: tick}
spec: {type: bindings.cron, version: v1, metadata: [{name: schedule, value: "@every 1s"}]}
---
apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata: {name: orders}
spec: {pubsubname: bus, topic: orders, routes: {default: /orders}, deadLetterTopic: dead}
---
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: r}
spec:
  policies:
    retries: {twice: {policy: constant, duration: 10ms, maxRetries: 2}}
    circuitBreakers: {b: {maxRequests: 1, timeout: 1s, trip: consecutiveFailures > 1000}}
  targets:
    components:
      bus: {inbound: {retry: twice}}
      disk: {outbound: {circuitBreaker: b}}
`

// busy is an instance that does something of everything.
type busy struct {
	side          process.Sidecar
	grpc, scrapes string
}

// start runs it, with a round of traffic every 100 ms, until the test ends.
func start(t *testing.T) *busy {
	t.Helper()
	dir := t.TempDir()
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if body, _ := io.ReadAll(r.Body); r.URL.Path == "/orders" && strings.Contains(string(body), "bad") {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	t.Cleanup(app.Close)
	for name, text := range map[string]string{"resources/all.yaml": strings.ReplaceAll(resources, "DIR", dir), "secrets.json": `{"a":"b"}`} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b := &busy{side: process.Sidecar{Path: binary, Args: []string{
		"serve", "--app-id", "shop", "--app-port", fmt.Sprint(app.Listener.Addr().(*net.TCPAddr).Port), "--dapr-http-port", "0", "--dapr-grpc-port", "0",
		"--metrics-port", "0", "--resources-path", filepath.Join(dir, "resources"), "--data-dir", filepath.Join(dir, "data"),
	}}}
	if err := b.side.Run(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.side.Kill)
	eventually(t, "the start", func() error {
		if !strings.Contains(b.side.Log(), "Status: Running") {
			return fmt.Errorf("the log is\n%s", b.side.Log())
		}
		return nil
	})
	address := func(line string) string {
		return regexp.MustCompile(line + `.* address=(\S+)`).FindStringSubmatch(b.side.Log())[1]
	}
	b.grpc, b.scrapes = address("gRPC server listening"), address("Metrics server listening")
	_, port, _ := net.SplitHostPort(address("HTTP server listening"))
	fmt.Sscan(port, &b.side.Port)
	b.work(t)
	return b
}

// work calls everything again and again until the test ends.
func (b *busy) work(t *testing.T) {
	conn, err := grpc.NewClient(b.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	t.Cleanup(func() { cancel(); <-done; conn.Close() })
	dapr := rtv1.NewDaprClient(conn)
	tick := time.NewTicker(100 * time.Millisecond)
	go func() {
		defer close(done)
		defer tick.Stop()
		for ctx.Err() == nil {
			for path, body := range map[string]string{
				"/publish/bus/orders": `{"kind":"good"}`, "/publish/bus/orders?bad": `{"kind":"bad"}`, "/state/cache": `[{"key":"k","value":1}]`,
				"/bindings/disk": `{"operation":"create","data":"x","metadata":{"fileName":"f"}}`, "/invoke/shop/method/x": "x", "/invoke/nobody/method/x": "x",
			} {
				b.call(ctx, http.MethodPost, path, body)
			}
			b.call(ctx, http.MethodGet, "/secrets/vault/a", "")
			_, _ = dapr.GetState(ctx, &rtv1.GetStateRequest{StoreName: "cache", Key: "k"}) // that it is called is what matters
			select {
			case <-ctx.Done():
			case <-tick.C:
			}
		}
	}()
}

// call makes a call whose end is counted, whatever it is.
func (b *busy) call(ctx context.Context, method, path, body string) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, b.side.API(path), strings.NewReader(body))
	if err != nil {
		return
	}
	req.Header.Set("Content-Type", "application/json")
	if resp, err := http.DefaultClient.Do(req); err == nil {
		resp.Body.Close()
	}
}

func (b *busy) scrape() (string, error) {
	resp, err := http.Get("http://" + b.scrapes + "/metrics")
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return string(text), err
}

// eventually tries again until there is no error, for a minute at most.
func eventually(t *testing.T, what string, try func() error) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("not in time: %s: %v", what, err)
		}
		<-time.After(50 * time.Millisecond)
	}
}

// query is one of a dashboard.
type query struct{ board, panel, expr string }

// queries reads all dashboards.
func queries(t *testing.T) (list []query) {
	t.Helper()
	files, err := filepath.Glob("../../docs/dashboards/*.json")
	if err != nil || len(files) < 4 {
		t.Fatalf("dashboards %v, %v", files, err)
	}
	seen := map[string]bool{}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var board struct {
			UID, Title string
			Panels     []struct {
				ID      int
				Title   string
				Targets []struct{ Expr string }
			}
		}
		if err := json.Unmarshal(raw, &board); err != nil || board.UID == "" || seen[board.UID] || len(board.Panels) == 0 {
			t.Fatalf("%s: %v; uid %q, %d panels", file, err, board.UID, len(board.Panels))
		}
		seen[board.UID] = true
		for _, p := range board.Panels {
			if len(p.Targets) == 0 {
				t.Errorf("%s: panel %q asks nothing", file, p.Title)
			}
			for _, target := range p.Targets {
				list = append(list, query{board.Title, p.Title, target.Expr})
			}
		}
	}
	return list
}

// metric finds names of metrics; process_status is a label.
var metric = regexp.MustCompile(`\b(?:(?:dapr|penstock|go)_[a-z0-9_]+|process_[a-z]+_[a-z0-9_]+)`)

// TestEveryMetricExists: a dashboard that names a metric which nobody counts shows
// nothing, and nobody knows why.
func TestEveryMetricExists(t *testing.T) {
	t.Parallel()
	b := start(t)
	all := queries(t)
	eventually(t, "all that is asked for is counted", func() error {
		text, err := b.scrape()
		if err != nil {
			return err
		}
		for _, q := range all {
			for _, name := range metric.FindAllString(q.expr, -1) {
				if !strings.Contains(text, "\n"+name+"{") && !strings.Contains(text, "\n"+name+" ") {
					return fmt.Errorf("%s, panel %q: there is no %s", q.board, q.panel, name)
				}
			}
		}
		return nil
	})
	t.Logf("%d queries", len(all))
}

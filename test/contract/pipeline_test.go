package contract

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
)

const pipelineHead = "apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: c}\nspec:\n"

// pipelineParts are middlewares, one for another app.
const pipelineParts = buses + `
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: paths}
spec:
  type: middleware.http.routerchecker
  version: v1
  metadata: [{name: rule, value: "^/(v1.0/(healthz|metadata|publish/mem/[a-z]+)|short/[a-z]+)$"}]
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: names}
spec:
  type: middleware.http.routeralias
  version: v1
  metadata: [{name: routes, value: "/short/{from}: /v1.0/publish/mem/moved"}]
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: capitals}
spec: {type: middleware.http.uppercase, version: v1}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: elsewhere}
spec: {type: middleware.http.ratelimit, version: v1, metadata: [{name: maxRequestsPerSecond, value: "0.001"}]}
scopes: [another]
`

// movedApp is an app that takes one topic; its port, and what it was sent.
func movedApp(t *testing.T) (port int, bodies <-chan string) {
	read := make(chan string, 100)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch r.URL.Path {
		case "/dapr/subscribe":
			io.WriteString(w, `[{"pubsubname":"mem","topic":"moved","route":"/moved"}]`)
		case "/moved":
			read <- string(body)
		default:
			w.WriteHeader(404)
		}
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().(*net.TCPAddr).Port, read
}

// Both pipelines stand where Dapr has them, and follow the files without a
// restart and without a failed request.
func TestPipelines(t *testing.T) {
	t.Parallel()
	app, bodies := movedApp(t)
	inbound := "  httpPipeline: {handlers: [{name: elsewhere, type: middleware.http.ratelimit}, {name: paths, type: middleware.http.routerchecker}, {name: names, type: middleware.http.routeralias}]}\n"
	toApp := "  appHttpPipeline: {handlers: [{name: capitals, type: middleware.http.uppercase}]}\n"
	sc := start(t, setup{app: app, resources: pipelineParts, config: pipelineHead + inbound + toApp +
		"  logging: {apiLogging: {enabled: true}}\n"})
	root := strings.TrimSuffix(sc.api, "/v1.0")
	publish := func(url string) int {
		return send(t, request{method: "POST", url: url, body: "hello", contentType: "text/plain"}).status
	}
	if got := publish(root + "/short/x"); got != 204 {
		t.Fatalf("by its alias: %d", got)
	}
	if got := <-bodies; !strings.Contains(got, `"DATA":"HELLO"`) {
		t.Errorf("the app got %q", got)
	}
	sc.logged(t, regexp.MustCompile(`method="POST /v1.0/publish/mem/moved"`))
	for path, want := range map[string]int{"/v1.0/publish/mem/m%6Fved": 400, "/v1.0/secrets/s/k": 400, "//v1.0/metadata": 400, "/v1.0/metadata": 200} {
		if got := get(t, root+path).status; got != want {
			t.Errorf("%s: %d, want %d", path, got, want)
		}
	}

	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if got := get(t, root+"/v1.0/metadata").status; got != 200 {
				t.Errorf("while the pipeline changes: %d", got)
				return
			}
		}
	})
	write(t, filepath.Join(sc.dir, "resources", "all.yaml"), strings.NewReplacer("DIR", sc.dir, "publish/mem/[a-z]+", "publish/mem/[a-z]+|secrets/[a-z/]+").Replace(pipelineParts))
	eventually(t, "the changed rule is in use", func() bool { return get(t, root+"/v1.0/secrets/s/k").status != 400 })
	write(t, filepath.Join(sc.dir, "config.yaml"), pipelineHead+toApp)
	eventually(t, "the pipeline is gone", func() bool { return get(t, root+"/short/x").status == 404 })
	write(t, filepath.Join(sc.dir, "config.yaml"), pipelineHead+"  httpPipeline: {handlers: [{name: pahts, type: middleware.http.routerchecker}]}\n")
	sc.logged(t, regexp.MustCompile(`nothing was changed[\s\S]*no middleware is called`))
	close(stop)
	wg.Wait()
	if got := publish(root + "/v1.0/publish/mem/moved"); got != 204 {
		t.Errorf("after a bad Configuration: %d", got)
	}
	if got := <-bodies; !strings.Contains(got, `"DATA":"HELLO"`) {
		t.Errorf("the app got %q", got)
	}
}

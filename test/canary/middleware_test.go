package canary

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestMiddlewares has calls pass each middleware of the build, as one of the API and
// as one of calls to the app.
func TestMiddlewares(t *testing.T) {
	t.Parallel()
	in := start(t, inline, newCollector(t))
	tried := 0
	for _, p := range in.planted {
		if !strings.HasPrefix(p.def.Type, "middleware.") {
			continue
		}
		for _, pipeline := range []string{"httpPipeline", "appHttpPipeline"} {
			in.passThrough(t, pipeline, p)
			// Where the browser is sent to is no secret of the one who sends it.
			in.each(t, in.passing(), "a request's", p.name+": authURL")
			tried++
		}
	}
	if err := in.side.Stop(patience); err != nil {
		t.Error(err)
	}
	in.c.search(t, "the log", in.side.Log())
	for _, path := range []string{"/api/v2/spans", "/v1/traces"} {
		spans := in.spans.got(path)
		if !strings.Contains(spans, "/v1.0/invoke/") {
			t.Errorf("%s has nothing of a call", path)
		}
		in.c.search(t, "the spans at "+path, spans)
	}
	t.Logf("%d pipelines", tried)
}

// passThrough has a pipeline of one middleware, from the next call on.
func (in *instance) passThrough(t *testing.T, pipeline string, p planted) {
	t.Helper()
	file := filepath.Join(in.dir, "config.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, _, _ := strings.Cut(string(text), "  httpPipeline")
	before, _, _ = strings.Cut(before, "  appHttpPipeline")
	reloads := func() int { return strings.Count(in.side.Log(), "Configuration reloaded") }
	had := reloads()
	write(t, file, before+fmt.Sprintf("  %s: {handlers: [{name: %s, type: %s}]}\n", pipeline, p.name, p.def.Type))
	eventually(t, "the pipeline of "+p.name, func() bool { return reloads() > had })
}

// passing are calls that a middleware looks at, with secrets of their own.
func (in *instance) passing() []call {
	secret := func(what string) string { return in.c.plant("a request's %s", what) }
	return []call{
		{http.MethodPost, "/v1.0/invoke/shop/method/order?code=" + secret("query") + "&state=" + secret("query"), "x", map[string]string{
			"Authorization": "Bearer " + secret("bearer token"), "Cookie": "penstock_oauth2_1=" + secret("cookie") + "; penstock_oauth2_login=" + secret("cookie"),
		}},
		{http.MethodGet, "/v1.0/invoke/shop/method/order", "", nil},
		{http.MethodGet, "/v1.0/metadata", "", map[string]string{"Authorization": "Basic " + secret("password")}},
	}
}

package http_test

import (
	"bytes"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/penstock-io/penstock/api"
	apihttp "github.com/penstock-io/penstock/api/http"
)

// A rule takes an API away however it is spelled, on the public port too, and
// from the next request on; what it does not name stays.
func TestDeniedAPIs(t *testing.T) {
	t.Parallel()
	i := start(t)
	a := api.New("shop", i)
	h, public := apihttp.New(a, apihttp.Options{}), apihttp.NewPublic(a, apihttp.Options{})
	httpRule := func(version string, names ...string) (rules []api.Rule) {
		for _, name := range names {
			rules = append(rules, api.Rule{Name: name, Version: version, Protocol: "HTTP"})
		}
		return rules
	}
	for _, row := range []struct {
		name    string
		surface api.Surface
		handler http.Handler
		method  string
		target  string
		status  int
	}{
		{"nothing said", api.Surface{}, h, "POST", "/v1.0/publish/bus/t", 204},
		{"denied", api.Surface{Denied: httpRule("v1.0", "publish")}, h, "POST", "/v1.0/publish/bus/t", 404},
		{"denied, put", api.Surface{Denied: httpRule("v1.0", "publish")}, h, "PUT", "/v1.0/publish/bus/a//b", 404},
		{"denied, no topic", api.Surface{Denied: httpRule("v1.0", "publish")}, h, "POST", "/v1.0/publish/bus", 404},
		{"denied, other version", api.Surface{Denied: httpRule("v1.0", "publish")}, h, "POST", "/v1.0-alpha1/publish/bulk/bus/t", 400},
		{"denied, that version", api.Surface{Denied: httpRule("v1.0-alpha1", "publish")}, h, "POST", "/v1.0-alpha1/publish/bulk/bus/t", 404},
		{"new word for it", api.Surface{Denied: httpRule("v1alpha1", "publish")}, h, "POST", "/v1.0-alpha1/publish/bulk/bus/t", 404},
		{"denied in part", api.Surface{Denied: httpRule("v1.0", "publish/bulk")}, h, "POST", "/v1.0/publish/bulk/bus/t", 404},
		{"denied in part, other part", api.Surface{Denied: httpRule("v1.0", "publish/bulk")}, h, "POST", "/v1.0/publish/bulk/t", 204},
		{"denied, lacking here", api.Surface{Denied: httpRule("v1.0", "state")}, h, "GET", "/v1.0/state/s/k", 404},
		{"denied, over grpc only", api.Surface{Denied: []api.Rule{{Name: "publish", Version: "v1", Protocol: "grpc"}}}, h, "POST", "/v1.0/publish/bus/t", 204},
		{"allowed", api.Surface{Allowed: httpRule("v1.0", "publish")}, h, "POST", "/v1.0/publish/bus/t", 204},
		{"not allowed", api.Surface{Allowed: httpRule("v1.0", "publish")}, h, "GET", "/v1.0/secrets/vault/db", 404},
		{"nothing that exists allowed", api.Surface{Allowed: httpRule("v1.0", "nonsense")}, h, "GET", "/v1.0/secrets/vault/db", 404},
		{"allowed and denied", api.Surface{Allowed: httpRule("v1.0", "secrets"), Denied: httpRule("v1.0", "secrets")}, h, "GET", "/v1.0/secrets/vault/db", 404},
		{"health", api.Surface{Allowed: httpRule("v1.0", "publish"), Denied: httpRule("v1.0", "healthz")}, h, "GET", "/v1.0/healthz", 204},
		{"outbound health", api.Surface{Allowed: httpRule("v1.0", "publish")}, public, "GET", "/v1.0/healthz/outbound", 204},
		{"public metadata", api.Surface{Denied: httpRule("v1.0", "metadata")}, public, "GET", "/v1.0/metadata", 404},
		{"everything of a version", api.Surface{Denied: httpRule("v1.0", "")}, h, "GET", "/v1.0/metadata", 404},
	} {
		a.SetSurface(row.surface)
		i.broker.messages = nil
		w := ask(row.handler, row.method, row.target, "")
		if w.Code != row.status {
			t.Errorf("%s: %d %s, want %d", row.name, w.Code, w.Body, row.status)
		}
		if w.Code == 404 && (code(t, w) != "ERR_API_DENIED" || len(i.broker.messages) > 0) {
			t.Errorf("%s: %s, %d published", row.name, w.Body, len(i.broker.messages))
		}
	}
}

// The log names what was called and nothing of what was sent.
func TestAPILogging(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	i := start(t)
	a := api.New("shop", i)
	h := apihttp.New(a, apihttp.Options{Tokens: []string{"canary"}, Logger: slog.New(slog.NewTextHandler(&out, nil))})
	token := []string{"dapr-api-token", "canary", "User-Agent", "sdk\nlevel=ERROR"}
	ask(h, "POST", "/v1.0/publish/bus/unlogged", "", token...)
	a.SetSurface(api.Surface{Log: api.CallLog{Enabled: true}})
	ask(h, "POST", "/v1.0/publish/bus/t%2Fu?metadata.x=query-canary", "body-canary", token...)
	ask(h, "POST", "/v1.0/publish/bus/panics", "body-canary", token...)
	ask(h, "POST", "/v1.0/publish/bus/"+strings.Repeat("long", 1000), "", "dapr-api-token", "wrong-canary")
	ask(h, "GET", "/v1.0/healthz?appid=canary", "")
	ask(h, "POST", "/v1.0/invoke/http://user:canary@127.0.0.1:1/method/orders", "", token...)
	a.SetSurface(api.Surface{Log: api.CallLog{Enabled: true, Obfuscate: true, OmitHealth: true}})
	ask(h, "GET", "/v1.0/healthz/outbound", "")
	ask(h, "POST", "/v1.0/publish/bus/hidden-canary", "", token...)
	ask(h, "GET", "/v1.0/secrets/vault/canary", "", token...)
	ask(h, "GET", "/canary", "", token...)
	a.SetSurface(api.Surface{Log: api.CallLog{Enabled: true, Obfuscate: true}, Denied: []api.Rule{{Name: "publish", Version: "v1.0", Protocol: "http"}}})
	ask(h, "PUT", "/v1.0/publish/bus/canary", "", token...)
	log := out.String()
	for _, want := range []string{
		`msg="HTTP API Called" method="POST /v1.0/publish/bus/t%2Fu" code=204 size=0 duration=`, `method="POST /v1.0/publish/bus/panics" code=500`,
		`method="POST /v1.0/publish/{bus}/*" code=204`, `method="GET /v1.0/secrets/{store}/{key}" code=500`, `method="GET (no API)" code=404`,
		`method="PUT /v1.0/publish/{bus}/*" code=404`, `method="GET /v1.0/healthz" code=`, `127.0.0.1:1/method/orders" code=`, "broker lost its mind", "code=401", `sdk\nlevel=ERROR`,
	} {
		if !strings.Contains(log, want) {
			t.Errorf("%q is not in the log:\n%s", want, log)
		}
	}
	for _, not := range []string{"canary", "outbound", "unlogged", strings.Repeat("long", 100)} {
		if strings.Contains(log, not) {
			t.Errorf("%q is in the log:\n%s", not, log)
		}
	}
}

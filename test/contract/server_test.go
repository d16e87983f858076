package contract

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMetadata(t *testing.T) {
	t.Parallel()
	a := (&app{}).serve(t)
	sc := start(t, setup{app: a.port, resources: buses + vaults, flags: []string{
		"--app-max-concurrency", "7", "--enable-app-health-check", "--app-health-check-path", "/up",
		"--app-health-probe-interval", "0", "--app-health-threshold", "0",
	}, env: []string{"APP_GROUP=g"}, dir: secretsDir(t)})
	doc := func() (m map[string]json.RawMessage) {
		t.Helper()
		if err := json.Unmarshal([]byte(get(t, sc.api+"/metadata").body), &m); err != nil {
			t.Fatal(err)
		}
		return m
	}
	m := doc()
	for field, want := range map[string]string{
		"id": `"shop"`, "enabledFeatures": `["HotReload"]`, "actors": `[]`, "subscriptions": `[]`, "httpEndpoints": `[]`, "mcpServers": `[]`,
		"resiliencies": `[]`, "circuitBreakers": `[]`, "workflowAccessPolicies": `[]`, "scheduler": `{"connected_addresses":[]}`, "workflows": `{"connectedWorkers":0}`,
		"actorRuntime": `{"runtimeStatus":"DISABLED","activeActors":[],"hostReady":false,"placement":""}`,
		"appConnectionProperties": fmt.Sprintf(`{"port":%d,"protocol":"http","channelAddress":"127.0.0.1","maxConcurrency":7,`+
			`"health":{"healthCheckPath":"/up","healthProbeInterval":"5s","healthProbeTimeout":"500ms","healthThreshold":3}}`, a.port),
	} {
		if diff := cmp.Diff(want, string(m[field])); diff != "" {
			t.Errorf("%s (-want +got):\n%s", field, diff)
		}
	}
	var components []struct{ Name, Type, Version string }
	if err := json.Unmarshal(m["components"], &components); err != nil {
		t.Fatal(err)
	}
	names := make([]string, len(components))
	for i, c := range components {
		names[i] = c.Name + " " + c.Type + "/" + c.Version
	}
	want := []string{
		"closed secretstores.local.file/v1", "db pubsub.sqlite/v1", "env secretstores.local.env/v1", "flat secretstores.local.file/v1",
		"fromsecret pubsub.in-memory/v1", "mem pubsub.in-memory/v1", "multi secretstores.local.file/v1", "open secretstores.local.env/v1",
	}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("components (-want +got):\n%s", diff)
	}
	if r := send(t, request{method: "PUT", url: sc.api + "/metadata/colour", contentType: "text/plain", body: "blue"}); r.status != 204 {
		t.Errorf("set: %d %s", r.status, r.body)
	}
	var extended map[string]string
	if err := json.Unmarshal(doc()["extended"], &extended); err != nil || extended["colour"] != "blue" || extended["daprRuntimeVersion"] == "" {
		t.Errorf("extended %v, %v", extended, err)
	}
}

func secretsDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "secrets.json"), `{"one":"mem"}`)
	return dir
}

// Health before the app's port is open, and when it is.
func TestHealth(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	sc := start(t, setup{app: port, resources: buses, starting: true})
	eventually(t, "outbound health", func() bool { return get(t, sc.api+"/healthz/outbound").status == 204 })
	checkProblem(t, get(t, sc.api+"/healthz"), 500, "ERR_HEALTH_NOT_READY", "")
	sc.publish(t, "mem/a", `1`)
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	(&app{}).serveOn(t, l)
	eventually(t, "health", func() bool { return get(t, sc.api+"/healthz").status == 204 })
	if r := get(t, sc.api+"/healthz?appid=shop"); r.status != 204 {
		t.Errorf("its app id: %d", r.status)
	}
	checkProblem(t, get(t, sc.api+"/healthz?appid=other"), 500, "ERR_HEALTH_APPID_NOT_MATCH", "")
}

func TestTokens(t *testing.T) {
	t.Parallel()
	a := (&app{subscribe: `[{"pubsubname":"mem","topic":"a","route":"/a"}]`}).serve(t)
	port := freePort(t)
	sc := start(t, setup{
		app: a.port, resources: buses, env: []string{"DAPR_API_TOKEN=in", "APP_API_TOKEN=out"},
		flags: []string{"--dapr-public-port", fmt.Sprint(port)},
	})
	for _, row := range []struct {
		name, method, url, token string
		status                   int
	}{
		{"right", "POST", sc.api + "/publish/mem/a", "in", 204},
		{"wrong", "POST", sc.api + "/publish/mem/a", "no", 401},
		{"none", "POST", sc.api + "/publish/mem/a", "", 401},
		{"metadata", "GET", sc.api + "/metadata", "", 401},
		{"health", "GET", sc.api + "/healthz", "", 204},
		{"outbound health", "GET", sc.api + "/healthz/outbound", "", 204},
		{"public health", "GET", fmt.Sprintf("http://127.0.0.1:%d/v1.0/healthz", port), "", 204},
		{"public metadata", "GET", fmt.Sprintf("http://127.0.0.1:%d/v1.0/metadata", port), "", 200},
		{"public publish", "POST", fmt.Sprintf("http://127.0.0.1:%d/v1.0/publish/mem/a", port), "in", 404},
	} {
		r := request{method: row.method, url: row.url}
		if row.token != "" {
			r.header = map[string]string{"dapr-api-token": row.token}
		}
		if got := send(t, r); got.status != row.status {
			t.Errorf("%s: %d %s, want %d", row.name, got.status, got.body, row.status)
		}
	}
	if got := a.wait(t, "/a", 1)[0].header.Values("dapr-api-token"); !slices.Equal(got, []string{"out"}) {
		t.Errorf("the app got token %q", got)
	}
	if got := a.got("/dapr/subscribe")[0].header.Get("dapr-api-token"); got != "out" {
		t.Errorf("the app was asked for subscriptions with token %q", got)
	}
	if strings.Contains(a.got("/a")[0].header.Get("Authorization"), "in") {
		t.Error("the token of the API went to the app")
	}
}

// The HTTP port speaks HTTP/1.1 and HTTP/2, with prior knowledge and after an
// upgrade.
func TestProtocols(t *testing.T) {
	t.Parallel()
	sc := start(t, setup{resources: buses})
	h2 := &http.Transport{Protocols: new(http.Protocols)}
	h2.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(h2.CloseIdleConnections)
	r := send(t, request{url: sc.api + "/publish/mem/a", body: "x", client: &http.Client{Transport: h2}})
	if r.status != 204 || r.proto != "HTTP/2.0" {
		t.Errorf("prior knowledge: %d over %s", r.status, r.proto)
	}
	conn, err := net.Dial("tcp", strings.TrimSuffix(strings.TrimPrefix(sc.api, "http://"), "/v1.0"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET /v1.0/healthz HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 101 || resp.Header.Get("Upgrade") != "h2c" {
		t.Errorf("upgrade: %s", resp.Status)
	}
	if r := send(t, request{url: sc.api + "/publish/mem/a", header: map[string]string{"X-Big": strings.Repeat("x", 16<<10)}}); r.status != 431 {
		t.Errorf("headers of 16 KiB: %d %s", r.status, r.body)
	}
}

func TestUnixSocket(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	sc := launch(t, setup{resources: buses, flags: []string{"--unix-domain-socket", dir}})
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(dir, "dapr-shop-http.socket"))
	}}}
	t.Cleanup(client.CloseIdleConnections)
	eventually(t, "health over the socket", func() bool {
		sc.alive(t)
		r, err := try(t, request{method: "GET", url: "http://anything/v1.0/healthz", client: client})
		return err == nil && r.status == 204
	})
}

func TestLackingAPIs(t *testing.T) {
	t.Parallel()
	sc := start(t, setup{resources: buses})
	for _, path := range []string{"/actors/t/i/method/m", "/jobs/j", "-alpha1/jobs/j", "-beta1/workflows/w/i"} {
		checkProblem(t, get(t, sc.api+path), 501, "ERR_API_UNIMPLEMENTED", "")
	}
	checkProblem(t, get(t, sc.api+"/nope"), 404, "ERR_NOT_FOUND", "")
}

// What nobody has configured says so.
func TestStoresThatAreNotConfigured(t *testing.T) {
	t.Parallel()
	sc := start(t, setup{resources: buses})
	checkProblem(t, get(t, sc.api+"/state/s/k"), 500, "ERR_STATE_STORE_NOT_CONFIGURED", "DAPR_STATE_NOT_CONFIGURED")
	checkProblem(t, get(t, sc.api+"/configuration/c"), 500, "ERR_CONFIGURATION_STORE_NOT_CONFIGURED", "")
	lock := request{method: "POST", url: sc.api + "-alpha1/lock/l", body: `{"resourceId":"r","lockOwner":"o","expiryInSeconds":1}`}
	checkProblem(t, send(t, lock), 500, "ERR_LOCK_STORE_NOT_CONFIGURED", "")
}

// Pages of other origins are refused, unless --allowed-origins names them; then
// they get CORS headers and an answer to their preflight.
func TestOrigins(t *testing.T) {
	t.Parallel()
	sc := start(t, setup{resources: buses, flags: []string{"--allowed-origins", "https://good.example, https://*.fine.example"}})
	for _, row := range []struct {
		method, origin string
		status         int
		allowed        string
	}{
		{"POST", "", 204, ""},
		{"POST", "https://good.example", 204, "https://good.example"},
		{"POST", "https://a.fine.example", 204, "https://a.fine.example"},
		{"POST", "https://evil.example", 403, ""},
		{"OPTIONS", "https://good.example", 204, "https://good.example"},
	} {
		r := request{method: row.method, url: sc.api + "/publish/mem/a", header: map[string]string{"Access-Control-Request-Method": "POST"}}
		if row.origin != "" {
			r.header["Origin"] = row.origin
		}
		if got := send(t, r); got.status != row.status || got.header.Get("Access-Control-Allow-Origin") != row.allowed {
			t.Errorf("%s from %q: %d %v", row.method, row.origin, got.status, got.header)
		}
	}
}

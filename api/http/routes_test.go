package http_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/api"
	apihttp "github.com/penstock-io/penstock/api/http"
)

// routeCase is a request and what must come of it.
type routeCase struct {
	name, method, target, body string
	status                     int
	code                       string
}

var publishRoutes = []routeCase{
	{"publish", "POST", "/v1.0/publish/bus/orders", `{"id":1}`, 204, ""},
	{"publish by put", "PUT", "/v1.0/publish/bus/orders", `{"id":1}`, 204, ""},
	{"publish without body", "POST", "/v1.0/publish/bus/orders", "", 204, ""},
	{"publish with slashes", "POST", "/v1.0/publish/bus/a/b//c", "x", 204, ""},
	{"publish unknown pubsub", "POST", "/v1.0/publish/nope/orders", "x", 404, "ERR_PUBSUB_NOT_FOUND"},
	{"publish empty pubsub", "POST", "/v1.0/publish//orders", "x", 404, "ERR_PUBSUB_EMPTY"},
	{"publish nothing", "POST", "/v1.0/publish/", "x", 404, "ERR_PUBSUB_EMPTY"},
	{"publish empty topic", "POST", "/v1.0/publish/bus/", "x", 404, "ERR_TOPIC_NAME_EMPTY"},
	{"publish no topic", "POST", "/v1.0/publish/bus", "x", 404, "ERR_TOPIC_NAME_EMPTY"},
	{"publish forbidden", "POST", "/v1.0/publish/bus/secret", "x", 403, "ERR_PUBSUB_FORBIDDEN"},
	{"publish bad ttl", "POST", "/v1.0/publish/bus/orders?metadata.ttlInSeconds=soon", "x", 400, "ERR_PUBSUB_REQUEST_METADATA"},
	{"publish bad query", "POST", "/v1.0/publish/bus/orders?metadata.a=%zz", "x", 400, "ERR_PUBSUB_REQUEST_METADATA"},
	{"publish bad baggage key", "POST", "/v1.0/publish/bus/o%0a", "x", 400, "ERR_BAD_REQUEST"},
	{"publish broker down", "POST", "/v1.0/publish/bus/down", "x", 500, "ERR_PUBSUB_PUBLISH_MESSAGE"},
	{"publish panic", "POST", "/v1.0/publish/bus/panics", "x", 500, "ERR_INTERNAL"},
	{"publish by get", "GET", "/v1.0/publish/bus/orders", "", 405, "ERR_METHOD_NOT_ALLOWED"},
	{"publish to a bus called bulk", "POST", "/v1.0/publish/bulk/orders", "x", 204, ""},
	{"bulk", "POST", "/v1.0/publish/bulk/bus/orders", `[]`, 204, ""},
	{"bulk alpha", "PUT", "/v1.0-alpha1/publish/bulk/bus/orders", `[]`, 204, ""},
	{"bulk unknown pubsub", "POST", "/v1.0/publish/bulk/nope/orders", `[]`, 404, "ERR_PUBSUB_NOT_FOUND"},
	{"bulk empty topic", "POST", "/v1.0/publish/bulk/bus/", `[]`, 404, "ERR_TOPIC_NAME_EMPTY"},
	{"bulk empty pubsub", "POST", "/v1.0/publish/bulk//orders", `[]`, 404, "ERR_PUBSUB_EMPTY"},
	{"bulk forbidden", "POST", "/v1.0/publish/bulk/bus/secret", `[{"entryId":"1","event":1}]`, 403, "ERR_PUBSUB_FORBIDDEN"},
	{"single publish alpha", "POST", "/v1.0-alpha1/publish/bus/orders", "x", 404, "ERR_NOT_FOUND"},
}

var otherRoutes = []routeCase{
	{"binding", "POST", "/v1.0/bindings/out", `{"operation":"create","data":1}`, 204, ""},
	{"binding by put", "PUT", "/v1.0/bindings/out", `{"operation":"create"}`, 204, ""},
	{"binding unknown", "POST", "/v1.0/bindings/nope", `{"operation":"create"}`, 500, "ERR_INVOKE_OUTPUT_BINDING"},
	{"binding operation", "POST", "/v1.0/bindings/out", `{"operation":"dance"}`, 500, "ERR_INVOKE_OUTPUT_BINDING"},
	{"binding no operation", "POST", "/v1.0/bindings/out", `{}`, 500, "ERR_INVOKE_OUTPUT_BINDING"},
	{"binding failure", "POST", "/v1.0/bindings/out", `{"operation":"fail"}`, 500, "ERR_INVOKE_OUTPUT_BINDING"},
	{"binding no json", "POST", "/v1.0/bindings/out", `{`, 400, "ERR_MALFORMED_REQUEST"},
	{"binding no body", "POST", "/v1.0/bindings/out", ``, 400, "ERR_MALFORMED_REQUEST"},
	{"binding metadata type", "POST", "/v1.0/bindings/out", `{"operation":"create","metadata":{"a":1}}`, 400, "ERR_MALFORMED_REQUEST"},
	{"binding not utf-8", "POST", "/v1.0/bindings/out", "{\"data\":\"\xff\"}", 400, "ERR_MALFORMED_REQUEST"},
	{"binding half a surrogate", "POST", "/v1.0/bindings/out", `{"operation":"create","data":"\ud800"}`, 400, "ERR_MALFORMED_REQUEST"},
	{"binding replacement character", "POST", "/v1.0/bindings/out", `{"operation":"create","data":"\uFFFD"}`, 204, ""},
	{"binding deep", "POST", "/v1.0/bindings/out", `{"data":` + strings.Repeat("[", 100_000), 400, "ERR_MALFORMED_REQUEST"},
	{"binding path", "POST", "/v1.0/bindings/out/more", `{"operation":"create"}`, 404, "ERR_NOT_FOUND"},
	{"secret", "GET", "/v1.0/secrets/vault/db", "", 200, ""},
	{"secret by post", "POST", "/v1.0/secrets/vault/db", "", 405, "ERR_METHOD_NOT_ALLOWED"},
	{"secret missing", "GET", "/v1.0/secrets/vault/nope", "", 500, "ERR_SECRET_GET"},
	{"secret denied", "GET", "/v1.0/secrets/vault/hidden", "", 403, "ERR_PERMISSION_DENIED"},
	{"secret unknown store", "GET", "/v1.0/secrets/nope/db", "", 401, "ERR_SECRET_STORE_NOT_FOUND"},
	{"secret with a bad query", "GET", "/v1.0/secrets/vault/db?metadata.a=%zz", "", 400, "ERR_BAD_REQUEST"},
	{"secrets", "GET", "/v1.0/secrets/vault/bulk", "", 200, ""},
	{"secrets with a bad query", "GET", "/v1.0/secrets/vault/bulk?metadata.%zz=1", "", 400, "ERR_BAD_REQUEST"},
	{"secrets unknown store", "GET", "/v1.0/secrets/nope/bulk", "", 401, "ERR_SECRET_STORE_NOT_FOUND"},
	{"metadata", "GET", "/v1.0/metadata", "", 200, ""},
	{"set metadata", "PUT", "/v1.0/metadata/cliPID", "42", 204, ""},
	{"set metadata by post", "POST", "/v1.0/metadata/cliPID", "43", 204, ""},
	{"set metadata reserved", "PUT", "/v1.0/metadata/daprRuntimeVersion", "9", 400, "ERR_BAD_REQUEST"},
	{"set metadata no text", "PUT", "/v1.0/metadata/a", "\xff", 400, "ERR_BAD_REQUEST"},
	{"set metadata too large", "PUT", "/v1.0/metadata/a", strings.Repeat("x", 9000), 400, "ERR_BAD_REQUEST"},
	{"health", "GET", "/v1.0/healthz", "", 204, ""},
	{"health of app", "GET", "/v1.0/healthz?appid=shop", "", 204, ""},
	{"health of other", "GET", "/v1.0/healthz?appid=other", "", 500, "ERR_HEALTH_APPID_NOT_MATCH"},
	{"health bad query", "GET", "/v1.0/healthz?appid=%zz", "", 400, "ERR_BAD_REQUEST"},
	{"health by post", "POST", "/v1.0/healthz", "", 405, "ERR_METHOD_NOT_ALLOWED"},
	{"outbound health", "GET", "/v1.0/healthz/outbound", "", 204, ""},
	{"shutdown by get", "GET", "/v1.0/shutdown", "", 405, "ERR_METHOD_NOT_ALLOWED"},
	{"invoke", "PATCH", "/v1.0/invoke/app/method/x", "", 500, "ERR_DIRECT_INVOKE"},
	{"actors", "DELETE", "/v1.0/actors/t/1/timers/x", "", 501, "ERR_API_UNIMPLEMENTED"},
	{"jobs", "POST", "/v1.0-alpha1/jobs/x", "{}", 501, "ERR_API_UNIMPLEMENTED"},
	{"conversation", "POST", "/v1.0-alpha2/conversation/x/converse", "{}", 501, "ERR_API_UNIMPLEMENTED"},
	{"workflow", "GET", "/v1.0-beta1/workflows/dapr/1", "", 501, "ERR_API_UNIMPLEMENTED"},
	{"root", "GET", "/", "", 404, "ERR_NOT_FOUND"},
	{"unknown", "GET", "/v1.0/nope", "", 404, "ERR_NOT_FOUND"},
	{"escaped route", "GET", "/v1%2E0/healthz", "", 404, "ERR_NOT_FOUND"},
	{"double slash", "GET", "/v1.0//healthz", "", 404, "ERR_NOT_FOUND"},
	{"trailing slash", "GET", "/v1.0/healthz/", "", 404, "ERR_NOT_FOUND"},
	{"dots", "GET", "/v1.0/x/../healthz", "", 404, "ERR_NOT_FOUND"},
	{"case", "GET", "/v1.0/Healthz", "", 404, "ERR_NOT_FOUND"},
	{"method of no kind", "BREW", "/v1.0/healthz", "", 405, "ERR_METHOD_NOT_ALLOWED"},
}

func TestRoutes(t *testing.T) {
	t.Parallel()
	i := start(t)
	h := i.handler(apihttp.Options{})
	for _, tt := range slices.Concat(publishRoutes, otherRoutes) {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := ask(h, tt.method, tt.target, tt.body)
			if w.Code != tt.status || code(t, w) != tt.code {
				t.Errorf("%d %s, want %d %s", w.Code, w.Body, tt.status, tt.code)
			}
			if w.Body.Len() > 0 && w.Header().Get("Content-Type") != "application/json" {
				t.Errorf("content type %q", w.Header().Get("Content-Type"))
			}
			if w.Code == 204 && w.Body.Len() > 0 {
				t.Errorf("204 with body %q", w.Body)
			}
		})
	}
}

func TestPublicPort(t *testing.T) {
	t.Parallel()
	i := start(t)
	h := apihttp.NewPublic(api.New("shop", i), apihttp.Options{Tokens: []string{"token"}})
	for _, tt := range []struct {
		method, target string
		status         int
	}{
		{"GET", "/v1.0/healthz", 204},
		{"GET", "/v1.0/healthz/outbound", 204},
		{"GET", "/v1.0/metadata", 200},
		{"PUT", "/v1.0/metadata/a", 404},
		{"POST", "/v1.0/publish/bus/t", 404},
		{"POST", "/v1.0/publish/bulk/bus/t", 404},
		{"POST", "/v1.0/bindings/out", 404},
		{"GET", "/v1.0/secrets/vault/db", 404},
		{"POST", "/v1.0/shutdown", 404},
	} {
		if w := ask(h, tt.method, tt.target, "[]"); w.Code != tt.status {
			t.Errorf("%s %s: %d %s, want %d", tt.method, tt.target, w.Code, w.Body, tt.status)
		}
	}
	if n := len(i.broker.all()); n > 0 {
		t.Errorf("%d events were published", n)
	}
}

func TestAllowHeader(t *testing.T) {
	t.Parallel()
	h := start(t).handler(apihttp.Options{})
	for target, want := range map[string]string{
		"/v1.0/publish/bus/orders": "POST, PUT",
		"/v1.0/secrets/vault/db":   "GET",
		"/v1.0/shutdown":           "POST",
	} {
		if got := ask(h, "DELETE", target, "").Header().Get("Allow"); got != want {
			t.Errorf("%s: Allow %q, want %q", target, got, want)
		}
	}
}

func TestInvocationByHeaderIsNamed(t *testing.T) {
	t.Parallel()
	h := start(t).handler(apihttp.Options{})
	if w := ask(h, "GET", "/orders", "", "dapr-app-id", "other"); w.Code != 500 || !strings.Contains(w.Body.String(), "ERR_DIRECT_INVOKE") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestRichErrors(t *testing.T) {
	t.Parallel()
	i := start(t)
	bare := start(t)
	bare.empty = true
	info := func(reason string, metadata map[string]any) map[string]any {
		return map[string]any{
			"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "dapr.io", "metadata": metadata,
		}
	}
	tests := []struct {
		name     string
		instance *instance
		target   string
		code     string
		reason   string
		metadata map[string]any
		resource string
	}{
		{"not found", i, "/v1.0/publish/nope/t", "ERR_PUBSUB_NOT_FOUND", "DAPR_PUBSUB_NOT_FOUND", map[string]any{}, "-"},
		{"not configured", bare, "/v1.0/publish/bus/t", "ERR_PUBSUB_NOT_CONFIGURED", "DAPR_PUBSUB_NOT_CONFIGURED", map[string]any{}, "-"},
		{"name empty", i, "/v1.0/publish//t", "ERR_PUBSUB_EMPTY", "DAPR_PUBSUB_NAME_EMPTY", map[string]any{}, ""},
		{"topic empty", i, "/v1.0/publish/bus/", "ERR_TOPIC_NAME_EMPTY", "DAPR_PUBSUB_TOPIC_NAME_EMPTY", map[string]any{}, "bus"},
		{"forbidden", i, "/v1.0/publish/bus/secret", "ERR_PUBSUB_FORBIDDEN", "DAPR_PUBSUB_FORBIDDEN", map[string]any{"topic": "secret", "error": "publish to bus/secret: topic is not allowed for app id \"shop\""}, "bus"},
		{"metadata", i, "/v1.0/publish/bus/t?metadata.ttlInSeconds=x", "ERR_PUBSUB_REQUEST_METADATA", "DAPR_PUBSUB_METADATA_DESERIALIZATION", map[string]any{"topic": "t", "appID": "shop", "error": "*"}, "bus"},
		{"publish", i, "/v1.0/publish/bus/down", "ERR_PUBSUB_PUBLISH_MESSAGE", "DAPR_PUBSUB_PUBLISH_MESSAGE", map[string]any{"topic": "down", "appID": "shop", "error": "*"}, "bus"},
		{"bulk", i, "/v1.0/publish/bulk/bus/t", "ERR_PUBSUB_EVENTS_SER", "DAPR_PUBSUB_UNMARSHAL_EVENTS", map[string]any{"topic": "t"}, "bus"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := ask(tt.instance.handler(apihttp.Options{}), "POST", tt.target, "x")
			var got map[string]any
			must(t, json.Unmarshal(w.Body.Bytes(), &got))
			message := got["message"]
			if tt.metadata["error"] == "*" { // the cause, which the message is
				tt.metadata["error"] = message
			}
			details := []any{info(tt.reason, tt.metadata)}
			if tt.resource != "-" {
				details = append(details, map[string]any{
					"@type": "type.googleapis.com/google.rpc.ResourceInfo", "resource_type": "pubsub",
					"resource_name": tt.resource, "owner": "", "description": message,
				})
			}
			want := map[string]any{"errorCode": tt.code, "message": message, "details": details}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestLegacyErrorsHaveNoDetails(t *testing.T) {
	t.Parallel()
	w := ask(start(t).handler(apihttp.Options{}), "POST", "/v1.0/bindings/nope", `{"operation":"create"}`)
	var got map[string]any
	must(t, json.Unmarshal(w.Body.Bytes(), &got))
	delete(got, "message")
	if diff := cmp.Diff(map[string]any{"errorCode": "ERR_INVOKE_OUTPUT_BINDING"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestNothingConfigured(t *testing.T) {
	t.Parallel()
	i := start(t)
	i.empty = true
	h := i.handler(apihttp.Options{})
	if w := ask(h, "GET", "/v1.0/secrets/vault/db", ""); w.Code != 500 || code(t, w) != "ERR_SECRET_STORES_NOT_CONFIGURED" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := ask(h, "POST", "/v1.0/publish/bus/t", ""); w.Code != 400 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestRetryAfterIsPassedOn(t *testing.T) {
	t.Parallel()
	h := start(t).handler(apihttp.Options{})
	if got := ask(h, "POST", "/v1.0/publish/bus/down", "x").Header().Get("Retry-After"); got != "2" {
		t.Errorf("Retry-After %q, want 2", got)
	}
}

func TestHealth(t *testing.T) {
	t.Parallel()
	i := start(t)
	i.missing = []string{"component kafka", "the app"}
	h := i.handler(apihttp.Options{})
	w := ask(h, "GET", "/v1.0/healthz", "")
	if w.Code != 500 || code(t, w) != "ERR_HEALTH_NOT_READY" || !strings.Contains(w.Body.String(), "component kafka; the app") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := ask(h, "GET", "/v1.0/healthz/outbound", ""); w.Code != 204 {
		t.Errorf("outbound before ready: %d %s", w.Code, w.Body)
	}
	i.outbound = []string{"the ports"}
	if w := ask(h, "GET", "/v1.0/healthz/outbound", ""); w.Code != 500 || code(t, w) != "ERR_OUTBOUND_HEALTH_NOT_READY" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestShutdown(t *testing.T) {
	t.Parallel()
	for force, want := range map[string]bool{"": false, "true": true, "True": true, "no": false} {
		i := start(t)
		w := ask(i.handler(apihttp.Options{}), "POST", "/v1.0/shutdown", "", "dapr-force-shutdown", force)
		if w.Code != http.StatusNoContent {
			t.Errorf("%q: %d", force, w.Code)
		}
		if got := <-i.stopped; got != want {
			t.Errorf("%q: forced %v, want %v", force, got, want)
		}
	}
}

func TestSecrets(t *testing.T) {
	t.Parallel()
	h := start(t).handler(apihttp.Options{})
	tests := map[string]string{
		"/v1.0/secrets/vault/db":     `{"db":"s3cret"}`,
		"/v1.0/secrets/vault/a%2Fb":  `{"password":"p","user":"u"}`,
		"/v1.0/secrets/v%61ult/bulk": `{"a/b":{"password":"p","user":"u"},"db":{"db":"s3cret"}}`,

		"/v1.0/secrets/vault/db?metadata.version_id=4%2F2&other=1": `{"db":"s3cret of 4/2"}`,
		"/v1.0/secrets/vault/bulk?metadata.prefix=d":               `{"db":{"db":"s3cret"}}`,
	}
	for target, want := range tests {
		w := ask(h, "GET", target, "")
		if w.Code != 200 || w.Body.String() != want {
			t.Errorf("%s: %d %s, want %s", target, w.Code, w.Body, want)
		}
		if w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%s may be cached", target)
		}
	}
}

// Whatever a denied secret is called, its value does not get out.
func TestDeniedSecretStaysIn(t *testing.T) {
	t.Parallel()
	h := start(t).handler(apihttp.Options{})
	for _, target := range []string{
		"vault/hidden", "vault/HIDDEN", "vault/Hidden", "vault/hidde%6E", "vault/%48idden", "vault/hidden?metadata.version_id=1",
		"vault/hidden.", "vault/hidden%20", "vault/%2568idden", "vault/hidden%2F", "vault/%2e/hidden", "vault//hidden", "vault/hidden/",
		"vault/db%2F..%2Fhidden", "vault/hidden%00", "VAULT/hidden", "vault/%EF%BC%A8idden", "vault/bulk", "vault/bulk?metadata.prefix=h", "vault/bulk%2Fhidden",
	} {
		w := ask(h, "GET", "/v1.0/secrets/"+target, "")
		if strings.Contains(w.Body.String(), "canary") || w.Code == 200 && !strings.Contains(target, "bulk") {
			t.Errorf("%s: %d %s", target, w.Code, w.Body)
		}
	}
	for _, key := range []string{"hidden", "HIDDEN", "hidde%6E"} {
		if w := ask(h, "GET", "/v1.0/secrets/vault/"+key, ""); w.Code != 403 || code(t, w) != "ERR_PERMISSION_DENIED" {
			t.Errorf("%s: %d %s", key, w.Code, w.Body)
		}
	}
}

func TestMetadata(t *testing.T) {
	t.Parallel()
	h := start(t).handler(apihttp.Options{})
	if w := ask(h, "PUT", "/v1.0/metadata/app%2Fcommand", "go run ."); w.Code != 204 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	var got any
	must(t, json.Unmarshal(ask(h, "GET", "/v1.0/metadata", "").Body.Bytes(), &got))
	var want any
	must(t, json.Unmarshal([]byte(`{
		"id": "shop", "runtimeVersion": "1.18.0", "enabledFeatures": [], "actors": [],
		"components": [{"name": "bus", "type": "pubsub.fake", "version": "v1", "capabilities": [], "state": "ready"}],
		"extended": {"daprRuntimeVersion": "1.18.0", "app/command": "go run ."},
		"subscriptions": [{"pubsubname": "bus", "topic": "orders", "metadata": {}, "rules": [{"match": "", "path": "/orders"}],
			"deadLetterTopic": "", "type": "DECLARATIVE"}],
		"httpEndpoints": [], "mcpServers": [], "resiliencies": [], "circuitBreakers": [], "workflowAccessPolicies": [],
		"appConnectionProperties": {"port": 0, "protocol": "", "channelAddress": "", "maxConcurrency": 0},
		"actorRuntime": {"runtimeStatus": "DISABLED", "activeActors": [], "hostReady": false, "placement": ""},
		"scheduler": {"connected_addresses": []}, "workflows": {"connectedWorkers": 0}
	}`), &want))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

package contract

import (
	"net/http"
	"strings"
	"testing"

	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
)

const counted = buses + `apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: cache}
spec: {type: state.in-memory, version: v1}
---
apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata: {name: one}
spec: {pubsubname: mem, topic: one, routes: {default: /one}}
---
`

// TestMetrics: what happened is there under Dapr's names, and nothing that a
// caller made up is a label.
func TestMetrics(t *testing.T) {
	t.Parallel()
	a := (&app{reply: func(_ call, n int) answer {
		if n == 1 {
			return answer{status: 500}
		}
		return answer{status: 200}
	}}).serve(t)
	sc := start(t, setup{app: a.port, resources: counted, flags: []string{"--metrics-port", "0"}})
	scrape := func() string {
		t.Helper()
		r := get(t, "http://"+sc.address(t, "Metrics server listening")+"/metrics")
		if r.status != 200 {
			t.Fatalf("answered %d", r.status)
		}
		return r.body
	}
	for _, r := range []request{
		{method: http.MethodPost, url: sc.api + "/publish/mem/one", body: `{"n":1}`, contentType: "application/json"},
		{method: http.MethodPost, url: sc.api + "/state/cache", body: `[{"key":"k","value":1}]`, contentType: "application/json"},
		{method: http.MethodGet, url: sc.api + "/state/cache/k"},
		{method: http.MethodGet, url: sc.api + "/made-up/by-a-caller"},
		{method: "BREW", url: sc.api + "/state/cache/k"},
	} {
		if _, err := try(t, r); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{
		`dapr_component_pubsub_egress_count{app_id="shop",component="mem",namespace="",success="true",topic="one"} 1`,
		`dapr_component_pubsub_ingress_count{app_id="shop",component="mem",namespace="",process_status="retry",status="retry",topic="one"} 1`,
		`dapr_component_pubsub_ingress_count{app_id="shop",component="mem",namespace="",process_status="success",status="success",topic="one"} 1`,
		`dapr_component_pubsub_ingress_latencies_count{app_id="shop",component="mem",namespace="",process_status="success",status="success",topic="one"} 1`,
		`dapr_component_state_count{app_id="shop",component="cache",namespace="",operation="set",success="true"} 1`,
		`dapr_component_state_count{app_id="shop",component="cache",namespace="",operation="get",success="true"} 1`,
		`dapr_http_server_request_count{app_id="shop",method="POST",path="/v1.0/publish/{bus}/*",status="204"} 1`,
		`dapr_http_server_response_count{app_id="shop",method="GET",path="(no API)",status="404"} 1`,
		`penstock_route_deliveries_total{app_id="shop",outcome="ack",route="subscription/mem/one"} 1`,
		`penstock_route_deliveries_total{app_id="shop",outcome="retry",route="subscription/mem/one"} 1`,
		`penstock_component_open{app_id="shop",component="cache",type="state.in-memory"} 1`,
		`dapr_runtime_component_loaded{app_id="shop",namespace=""} 3`,
	}
	eventually(t, "all is counted", func() bool {
		text := scrape()
		for _, line := range want {
			if !strings.Contains(text, line+"\n") {
				return false
			}
		}
		return true
	})
	text := scrape()
	for _, made := range []string{"made-up", "BREW"} {
		if strings.Contains(text, made) {
			t.Errorf("%q is a label", made)
		}
	}
}

// TestBacklogIsCounted: what waits at the broker shows soon after somebody looks.
func TestBacklogIsCounted(t *testing.T) {
	t.Parallel()
	a := (&app{reply: func(call, int) answer { return answer{status: 500} }}).serve(t)
	sc := start(t, setup{app: a.port, resources: counted + `apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata: {name: two}
spec: {pubsubname: db, topic: two, routes: {default: /two}}
---
`, flags: []string{"--metrics-port", "0"}})
	for range 3 {
		if _, err := try(t, request{method: http.MethodPost, url: sc.api + "/publish/db/two", body: `{"n":1}`, contentType: "application/json"}); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "three events and their age are told", func() bool {
		text := get(t, "http://"+sc.address(t, "Metrics server listening")+"/metrics").body
		return strings.Contains(text, `penstock_route_backlog{app_id="shop",route="subscription/db/two"} 3`+"\n") &&
			strings.Contains(text, `penstock_route_oldest_seconds{app_id="shop",route="subscription/db/two"} `) &&
			strings.Contains(text, `penstock_draining{app_id="shop"} 0`+"\n") &&
			!strings.Contains(text, `penstock_route_backlog{app_id="shop",route="subscription/mem/one"}`)
	})
}

// TestBacklogOfEveryReader: a stream and a pipeline read topics too, and who lists the
// routes is told without looking twice.
func TestBacklogOfEveryReader(t *testing.T) {
	t.Parallel()
	sc, c := startGRPC(t, nil, setup{resources: counted + `apiVersion: penstock.dev/v1
kind: Pipeline
metadata: {name: out}
spec:
  from: {pubsub: db, topic: three}
  to: [{binding: closed, operation: get}]
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: closed}
spec:
  type: bindings.http
  version: v1
  metadata: [{name: url, value: "http://127.0.0.1:1"}]
---
`, flags: []string{"--metrics-port", "0"}})
	s := subscribe(t, c, &rtv1.SubscribeTopicEventsRequestInitialAlpha1{PubsubName: "db", Topic: "three"})
	for range 3 {
		if _, err := try(t, request{method: http.MethodPost, url: sc.api + "/publish/db/three", body: `{"n":1}`, contentType: "application/json"}); err != nil {
			t.Fatal(err)
		}
	}
	s.next(t) // and it is not answered
	eventually(t, "three events wait for both", func() bool {
		text := get(t, "http://"+sc.address(t, "Metrics server listening")+"/metrics").body
		return strings.Contains(text, `penstock_route_backlog{app_id="shop",route="stream/db/three/1"} 3`+"\n") &&
			strings.Contains(text, `penstock_route_backlog{app_id="shop",route="pipeline/out"} 3`+"\n")
	})
	list := get(t, strings.TrimSuffix(sc.api, "/v1.0")+"/v1.0-penstock/routes").body
	if !strings.Contains(list, `"backlog":{"messages":3,"oldestMs":`) {
		t.Errorf("the list says\n%s", list)
	}
}

// TestMetricsOfGRPC: calls by method and status.
func TestMetricsOfGRPC(t *testing.T) {
	t.Parallel()
	sc, c := startGRPC(t, nil, setup{resources: counted, flags: []string{"--metrics-port", "0"}})
	if _, err := c.GetState(t.Context(), &rtv1.GetStateRequest{StoreName: "cache", Key: "k"}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.GetState(t.Context(), &rtv1.GetStateRequest{StoreName: "none", Key: "k"}); err == nil {
		t.Fatal("there is no such store")
	}
	eventually(t, "both are counted", func() bool {
		text := get(t, "http://"+sc.address(t, "Metrics server listening")+"/").body
		const name = `dapr_grpc_io_server_completed_rpcs{app_id="shop",grpc_server_method="/dapr.proto.runtime.v1.Dapr/GetState",grpc_server_status=`
		return strings.Contains(text, name+`"OK"} 1`) && strings.Contains(text, name+`"InvalidArgument"} 1`)
	})
}

// TestMetricsOfAConfiguration: what spec.metric says holds, unless a flag says
// otherwise, and what has no effect is named.
func TestMetricsOfAConfiguration(t *testing.T) {
	t.Parallel()
	const head = "apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: c}\nspec:\n"
	off := start(t, setup{resources: counted, config: head + "  metrics: {enabled: false}\n", flags: []string{"--metrics-port", "0"}})
	if text := off.log.String(); !strings.Contains(text, "No metrics, as spec.metric.enabled says") {
		t.Errorf("it says\n%s", text)
	}
	if _, err := try(t, request{method: http.MethodGet, url: "http://" + off.address(t, "Metrics server listening") + "/metrics"}); err == nil {
		t.Error("the port is still open")
	}
	const rules = `  metric:
    enabled: false
    latencyDistributionBuckets: [7, 70]
    recordErrorCodes: true
    http: {excludeVerbs: true, increasedCardinality: true, pathMatching: [/orders]}
    rules:
    - name: dapr_component_state_count
      labels: [{name: operation, regex: {read: "^(get|bulk_get)$"}}]
`
	on := start(t, setup{resources: counted, config: head + rules, flags: []string{"--enable-metrics", "--metrics-port", "0"}})
	for _, word := range []string{"increasedCardinality", "pathMatching"} {
		if !strings.Contains(on.log.String(), word+" has no effect") {
			t.Errorf("nothing is said of %s:\n%s", word, on.log.String())
		}
	}
	get(t, on.api+"/state/cache/k")
	get(t, on.api+"/state/nowhere/k")
	eventually(t, "it is counted", func() bool {
		text := get(t, "http://"+on.address(t, "Metrics server listening")+"/metrics").body
		return strings.Contains(text, `dapr_error_code_total{app_id="shop",category="state",error_code="ERR_STATE_STORE_NOT_FOUND"} 1`) &&
			strings.Contains(text, `dapr_component_state_count{app_id="shop",component="cache",namespace="",operation="read",success="true"} 1`) &&
			strings.Contains(text, `path="/v1.0/state/{store}/{key}",status="204",le="7"`) && strings.Contains(text, `dapr_http_server_response_count{app_id="shop",method="",`)
	})
}

// TestMetricsCanBeOff: neither a port nor a count.
func TestMetricsCanBeOff(t *testing.T) {
	t.Parallel()
	sc := start(t, setup{resources: counted, flags: []string{"--no-enable-metrics"}})
	if text := sc.log.String(); strings.Contains(text, "Metrics") {
		t.Errorf("it says\n%s", text)
	}
}

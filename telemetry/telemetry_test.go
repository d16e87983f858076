package telemetry_test

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/telemetry"
)

func scrape(t *testing.T, m *telemetry.Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", http.NoBody))
	if w.Code != http.StatusOK {
		t.Fatalf("answered %d %s", w.Code, w.Body)
	}
	return w.Body.String()
}

func wantLine(t *testing.T, text, line string) {
	t.Helper()
	if !strings.Contains(text, line+"\n") {
		t.Errorf("no line %s in\n%s", line, text)
	}
}

func TestCalls(t *testing.T) {
	t.Parallel()
	m := telemetry.NewMetrics(telemetry.Options{AppID: "shop", Namespace: "prod"})
	c := m.Calls(telemetry.Output, "files")
	c.Done("create", time.Now().Add(-3*time.Millisecond), nil)
	c.Done("create", c.Begin(), errors.New("full"))
	m.Calls(telemetry.Input, "files").Done("", time.Now(), nil)
	text := scrape(t, m)
	const labels = `{app_id="shop",component="files",namespace="prod",operation="create",success=`
	wantLine(t, text, "dapr_component_output_binding_count"+labels+`"true"} 1`)
	wantLine(t, text, "dapr_component_output_binding_count"+labels+`"false"} 1`)
	wantLine(t, text, "dapr_component_output_binding_latencies_bucket"+labels+`"true",le="2"} 0`)
	wantLine(t, text, "dapr_component_output_binding_latencies_count"+labels+`"true"} 1`)
	wantLine(t, text, `dapr_component_input_binding_count{app_id="shop",component="files",namespace="prod",success="true"} 1`)
}

// TestWordsAreBounded: whatever topics an app invents, one component has so many
// lines, and none is lost.
func TestWordsAreBounded(t *testing.T) {
	t.Parallel()
	m := telemetry.NewMetrics(telemetry.Options{AppID: "shop"})
	c := m.Calls(telemetry.Publish, "bus")
	for i := range 10_000 {
		c.Done(fmt.Sprint("topic", i), c.Begin(), nil)
	}
	text := scrape(t, m)
	if n := strings.Count(text, "dapr_component_pubsub_egress_count{"); n != 201 {
		t.Errorf("%d lines, want 200 topics and one for all others", n)
	}
	wantLine(t, text, `dapr_component_pubsub_egress_count{app_id="shop",component="bus",namespace="",success="true",topic="(others)"} 9800`)
}

// TestAReloadBeginsNoNewBound: a component that is made anew goes on where the one
// before it was.
func TestAReloadBeginsNoNewBound(t *testing.T) {
	t.Parallel()
	m := telemetry.NewMetrics(telemetry.Options{AppID: "shop"})
	for reload := range 3 {
		c := m.Calls(telemetry.Publish, "bus")
		for i := range 200 {
			c.Done(fmt.Sprint("topic", reload, "-", i), c.Begin(), nil)
		}
	}
	if n := strings.Count(scrape(t, m), "dapr_component_pubsub_egress_count{"); n != 201 {
		t.Errorf("%d lines, want 200 topics and one for all others", n)
	}
}

// TestSettings: buckets, verbs and labels are as a configuration says.
func TestSettings(t *testing.T) {
	t.Parallel()
	m := telemetry.NewMetrics(telemetry.Options{AppID: "shop"})
	is := func(word string) func(string) bool { return func(v string) bool { return strings.HasPrefix(v, word) } }
	m.Apply(telemetry.Settings{Buckets: []float64{5, 50}, ExcludeVerbs: true, Rules: []telemetry.Rule{
		{Metric: "dapr_component_pubsub_egress_count", Label: "topic", Match: is("order"), Value: "orders"},
		{Metric: "dapr_component_pubsub_egress_count", Label: "topic", Match: is("o"), Value: "never, the first counts"},
		{Metric: "dapr_http_server_latency", Label: "path", Match: is("/v1.0/state"), Value: "state"},
		{Metric: "dapr_component_state_count", Label: "operation", Match: is(""), Value: "another metric"},
	}})
	c := m.Calls(telemetry.Publish, "bus")
	for _, topic := range []string{"order-1", "order-2", "bills"} {
		c.Done(topic, c.Begin(), nil)
	}
	m.HTTPRequest(http.MethodGet, "/v1.0/state/{store}/*", 200, time.Now())
	m.HTTPRequest(http.MethodPut, "/v1.0/state/{store}", 200, time.Now())
	text := scrape(t, m)
	wantLine(t, text, `dapr_component_pubsub_egress_count{app_id="shop",component="bus",namespace="",success="true",topic="orders"} 2`)
	wantLine(t, text, `dapr_component_pubsub_egress_count{app_id="shop",component="bus",namespace="",success="true",topic="bills"} 1`)
	wantLine(t, text, `dapr_component_pubsub_egress_latencies_bucket{app_id="shop",component="bus",namespace="",success="true",topic="bills",le="50"} 1`)
	if n := strings.Count(text, `topic="bills",le="`); n != 3 {
		t.Errorf("%d buckets, want two and the rest", n)
	}
	wantLine(t, text, `dapr_http_server_response_count{app_id="shop",method="",path="state",status="200"} 2`)
}

// TestExemplars: who asks for OpenMetrics finds the trace of a call beside its time,
// and every name as it is in the other format, which knows no exemplars.
func TestExemplars(t *testing.T) {
	t.Parallel()
	m := telemetry.NewMetrics(telemetry.Options{AppID: "shop"})
	m.Read([]telemetry.Gauge{{Name: "ended_total", Help: "e", Counter: true}}, func() []telemetry.Sample { return []telemetry.Sample{{Value: 7}} })
	c := m.Calls(telemetry.Deliver, "bus")
	const trace = "0af7651916cd43dd8448eb211c80319c"
	c.EndIn(trace, "orders", 3500*time.Microsecond, "success")
	m.Calls(telemetry.Output, "disk").DoneIn("", "create", time.Now(), nil)
	ask := func(accept string) (kind, text string) {
		w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/metrics", http.NoBody)
		r.Header.Set("Accept", accept)
		m.Handler().ServeHTTP(w, r)
		return w.Header().Get("Content-Type"), w.Body.String()
	}
	// What Prometheus sends.
	kind, open := ask("application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.4,*/*;q=0.1")
	if !strings.HasPrefix(kind, "application/openmetrics-text") || !strings.HasSuffix(open, "# EOF\n") {
		t.Errorf("type %s, and\n%s", kind, open)
	}
	exemplar := regexp.MustCompile(`(?m)^dapr_component_pubsub_ingress_latencies_bucket\{.*,le="([0-9.]+)"\} 1 # \{trace_id="` + trace + `"\} ([0-9.]+) [0-9.e+]+$`)
	found := exemplar.FindAllStringSubmatch(open, -1)
	if len(found) != 1 || strings.Count(open, "# {") != 1 {
		t.Fatalf("%d exemplars, want that of the bucket of 4 ms, in\n%s", len(found), open)
	}
	upTo, _ := strconv.ParseFloat(found[0][1], 64)
	if took, _ := strconv.ParseFloat(found[0][2], 64); took < 3.5 || took > upTo {
		t.Errorf("the exemplar took %v ms, in a bucket up to %v", took, upTo)
	}
	_, plain := ask("text/plain")
	if strings.Contains(plain, "# {") || strings.Contains(plain, "# EOF") {
		t.Errorf("an exemplar in plain text:\n%s", plain)
	}
	names := func(text string) []string {
		all := map[string]bool{}
		for _, line := range regexp.MustCompile(`(?m)^[a-z][a-zA-Z0-9_:]*`).FindAllString(text, -1) {
			all[line] = true
		}
		return slices.Sorted(maps.Keys(all))
	}
	if diff := cmp.Diff(names(plain), names(open)); diff != "" {
		t.Errorf("names differ:\n%s", diff)
	}
}

func TestStopped(t *testing.T) {
	t.Parallel()
	m := telemetry.NewMetrics(telemetry.Options{AppID: "shop"})
	m.Read([]telemetry.Gauge{{Name: "held", Help: "h"}}, func() []telemetry.Sample { return []telemetry.Sample{{Value: 1}} })
	m.Stop()
	c := m.Calls(telemetry.Publish, "bus")
	c.Done("t", c.Begin(), nil)
	m.HTTPRequest(http.MethodGet, "/p", 200, time.Now())
	m.GRPCCall("/s/m", 0, "OK", time.Now())
	if text := scrape(t, m); c != nil || strings.Contains(text, "dapr_") || strings.Contains(text, "held") {
		t.Errorf("it counts:\n%s", text)
	}
}

func TestNilCountsNothing(t *testing.T) { // not parallel: it counts allocations
	var m *telemetry.Metrics
	c := m.Calls(telemetry.State, "s")
	allocs := testing.AllocsPerRun(100, func() { c.Done("get", c.Begin(), nil) })
	if allocs != 0 || !c.Begin().IsZero() {
		t.Errorf("it costs %v allocations, and a look at the clock: %v", allocs, c.Begin())
	}
	m.HTTPRequest(http.MethodGet, "/", 200, time.Now())
	m.GRPCCall("/a/b", 0, "OK", time.Now())
	m.Read(nil, nil)
	m.Apply(telemetry.Settings{})
	m.Stop()
}

func TestRead(t *testing.T) {
	t.Parallel()
	m := telemetry.NewMetrics(telemetry.Options{AppID: "shop"})
	held := 1.0
	m.Read([]telemetry.Gauge{{Name: "held", Help: "h", Labels: []string{"route"}}, {Name: "ended_total", Help: "e", Counter: true}}, func() []telemetry.Sample {
		held++
		return []telemetry.Sample{{Gauge: 0, Value: held, Labels: []string{"r"}}, {Gauge: 1, Value: 7}}
	})
	text := scrape(t, m)
	wantLine(t, text, `held{app_id="shop",route="r"} 2`)
	wantLine(t, text, "# TYPE ended_total counter")
	wantLine(t, text, `ended_total{app_id="shop"} 7`)
	wantLine(t, scrape(t, m), `held{app_id="shop",route="r"} 3`)
}

// TestRequestsAreBounded: a verb is one that is known.
func TestRequestsAreBounded(t *testing.T) {
	t.Parallel()
	m := telemetry.NewMetrics(telemetry.Options{AppID: "shop"})
	m.HTTPRequest("BREW", "/p", 405, time.Now())
	m.HTTPRequest(http.MethodGet, "/p", 200, time.Now())
	m.GRPCCall("/s/m", 0, "OK", time.Now())
	text := scrape(t, m)
	wantLine(t, text, `dapr_http_server_response_count{app_id="shop",method="(others)",path="/p",status="405"} 1`)
	wantLine(t, text, `dapr_http_server_latency_count{app_id="shop",method="GET",path="/p",status="200"} 1`)
	wantLine(t, text, `dapr_grpc_io_server_completed_rpcs{app_id="shop",grpc_server_method="/s/m",grpc_server_status="OK"} 1`)
}

func BenchmarkCall(b *testing.B) {
	c := telemetry.NewMetrics(telemetry.Options{AppID: "shop"}).Calls(telemetry.Publish, "bus")
	b.ReportAllocs()
	for b.Loop() {
		c.Done("topic", c.Begin(), nil)
	}
}

func BenchmarkHTTPRequest(b *testing.B) {
	m := telemetry.NewMetrics(telemetry.Options{AppID: "shop"})
	b.ReportAllocs()
	for b.Loop() {
		m.HTTPRequest(http.MethodPost, "/v1.0/publish/{bus}/*", 204, time.Now())
	}
}

// TestDaprsOtherNames: calls between apps and of the app, codes of errors, and
// components, under the names and labels that Dapr's dashboards ask for; also after
// settings have been applied.
func TestDaprsOtherNames(t *testing.T) {
	t.Parallel()
	m := telemetry.NewMetrics(telemetry.Options{AppID: "shop"})
	m.ErrorCode("ERR_A", "common") // nobody asked for these
	m.Apply(telemetry.Settings{ErrorCodes: true, Buckets: []float64{10}})
	m.CallSent("stock", false)
	m.CallSent("stock", true)
	m.CallAnswered("stock", false, 200, 5*time.Millisecond)
	m.CallAnswered("stock", true, 0, time.Hour)
	m.CallReceived("till")
	m.AnswerSent("till", 404)
	m.AppCalled(http.MethodPost, 200, 5*time.Millisecond)
	m.AppCalled("BREW", 500, 50*time.Millisecond)
	m.Probed(200, time.Millisecond)
	m.AppRPC("/dapr.proto.runtime.v1.AppCallback/OnTopicEvent", false, "OK", time.Millisecond)
	m.AppRPC("/dapr.proto.runtime.v1.AppCallbackHealthCheck/HealthCheck", true, "OK", time.Millisecond)
	m.ErrorCode("ERR_PUBSUB_NOT_FOUND", "pubsub")
	m.Loaded("r")
	bus := telemetry.Resiliency{Name: "r", Direction: "inbound", Target: "Pubsub_bus"}
	m.Applied(bus, "circuitbreaker", "closed")
	m.Acted(bus, "retry", "")
	m.Opened("pubsub.redis", "bus", nil)
	m.Opened("state.redis", "store", errors.New("no"))
	text := scrape(t, m)
	for _, line := range []string{
		`dapr_runtime_service_invocation_req_sent_total{app_id="shop",dst_app_id="stock",type="unary"} 1`,
		`dapr_runtime_service_invocation_req_sent_total{app_id="shop",dst_app_id="stock",type="streaming"} 1`,
		`dapr_runtime_service_invocation_res_recv_total{app_id="shop",src_app_id="stock",status="200",type="unary"} 1`,
		`dapr_runtime_service_invocation_res_recv_total{app_id="shop",src_app_id="stock",status="0",type="streaming"} 1`,
		`dapr_runtime_service_invocation_res_recv_latency_ms_bucket{app_id="shop",src_app_id="stock",status="200",le="10"} 1`,
		`dapr_runtime_service_invocation_req_recv_total{app_id="shop",src_app_id="till"} 1`,
		`dapr_runtime_service_invocation_res_sent_total{app_id="shop",dst_app_id="till",status="404"} 1`,
		`dapr_http_client_completed_count{app_id="shop",method="POST",path="",status="200"} 1`,
		`dapr_http_client_completed_count{app_id="shop",method="(others)",path="",status="500"} 1`,
		`dapr_http_client_roundtrip_latency_bucket{app_id="shop",method="(others)",path="",status="500",le="10"} 0`,
		`dapr_http_healthprobes_completed_count{app_id="shop",status="200"} 1`,
		`dapr_http_healthprobes_roundtrip_latency_count{app_id="shop",status="200"} 1`,
		`dapr_grpc_io_client_completed_rpcs{app_id="shop",grpc_client_method="/dapr.proto.runtime.v1.AppCallback/OnTopicEvent",grpc_client_status="OK"} 1`,
		`dapr_grpc_io_healthprobes_completed_count{app_id="shop",grpc_client_status="OK"} 1`,
		`dapr_resiliency_loaded{app_id="shop",name="r",namespace=""} 1`,
		`dapr_resiliency_count{app_id="shop",flow_direction="inbound",name="r",namespace="",policy="circuitbreaker",status="closed",target="Pubsub_bus"} 1`,
		`dapr_resiliency_activations_total{app_id="shop",flow_direction="inbound",name="r",namespace="",policy="retry",status="",target="Pubsub_bus"} 1`,
		`dapr_error_code_total{app_id="shop",category="pubsub",error_code="ERR_PUBSUB_NOT_FOUND"} 1`,
		`dapr_runtime_component_init_total{app_id="shop",component="pubsub.redis"} 1`,
		`dapr_runtime_component_init_fail_total{app_id="shop",component="state.redis",componentName="store",reason="init"} 1`,
	} {
		wantLine(t, text, line)
	}
	if strings.Contains(text, "ERR_A") {
		t.Error("a code was counted that nobody asked for")
	}
}

// TestManyNames: apps whose names nobody knows before are not told apart without end.
func TestManyNames(t *testing.T) {
	t.Parallel()
	m := telemetry.NewMetrics(telemetry.Options{AppID: "shop"})
	for i := range 1500 {
		m.CallReceived("app-" + strconv.Itoa(i))
	}
	text := scrape(t, m)
	wantLine(t, text, `dapr_runtime_service_invocation_req_recv_total{app_id="shop",src_app_id="(others)"} 500`)
	if n := strings.Count(text, "\ndapr_runtime_service_invocation_req_recv_total{"); n != 1001 {
		t.Errorf("%d series, want 1001", n)
	}
}

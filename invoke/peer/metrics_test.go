package peer_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/penstock-io/penstock/invoke"
	"github.com/penstock-io/penstock/invoke/message"
	"github.com/penstock-io/penstock/invoke/names"
	"github.com/penstock-io/penstock/invoke/peer"
	"github.com/penstock-io/penstock/telemetry"
)

// at finds every app at one address.
type at string

// Pick implements invoke.Finder.
func (a at) Pick(context.Context, names.App) (address string, done func(error), err error) {
	return string(a), func(error) {}, nil
}

// TestCallsAreCounted: both sides count a call and its answer, under Dapr's names.
func TestCallsAreCounted(t *testing.T) { bothWays(t, callsAreCounted) }

func callsAreCounted(t *testing.T, w way) {
	called, calling := telemetry.NewMetrics(telemetry.Options{AppID: "there"}), telemetry.NewMetrics(telemetry.Options{AppID: "here"})
	address := w.serve(t, peer.ServerOptions{AppID: "there", Metrics: called, Drain: 10 * time.Second, App: appFunc(
		func(_ context.Context, r *message.Request) (*message.Response, error) {
			if r.Path == "none" {
				return text(404, "no"), nil
			}
			return text(200, "yes"), nil
		})})
	v := invoke.New(invoke.Options{AppID: "here", Finder: at(address), Peers: w.client(t, address), Metrics: calling})
	t.Cleanup(v.Close)
	for _, path := range []string{"a", "a", "none"} {
		answer, err := v.Do(t.Context(), "there", &message.Request{Verb: "GET", Path: path, Header: http.Header{}})
		if err != nil {
			t.Fatal(err)
		}
		all(t, answer.Body)
	}
	for m, lines := range map[*telemetry.Metrics][]string{
		calling: {
			`dapr_runtime_service_invocation_req_sent_total{app_id="here",dst_app_id="there",type="unary"} 3`,
			`dapr_runtime_service_invocation_res_recv_total{app_id="here",src_app_id="there",status="200",type="unary"} 2`,
			`dapr_runtime_service_invocation_res_recv_total{app_id="here",src_app_id="there",status="404",type="unary"} 1`,
			`dapr_runtime_service_invocation_res_recv_latency_ms_count{app_id="here",src_app_id="there",status="200"} 2`,
		},
		called: {
			`dapr_runtime_service_invocation_req_recv_total{app_id="there",src_app_id="here"} 3`,
			`dapr_runtime_service_invocation_res_sent_total{app_id="there",dst_app_id="here",status="200"} 2`,
			`dapr_runtime_service_invocation_res_sent_total{app_id="there",dst_app_id="here",status="404"} 1`,
		},
	} {
		rec := httptest.NewRecorder()
		m.Handler().ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/metrics", http.NoBody))
		for _, line := range lines {
			if !strings.Contains(rec.Body.String(), "\n"+line+"\n") {
				t.Errorf("no %s", line)
			}
		}
	}
}

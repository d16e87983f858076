package runtime

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/penstock-io/penstock/api"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/router"
	"github.com/penstock-io/penstock/telemetry"
)

// TestWorstBreakers: an app is one target, however many methods are called.
func TestWorstBreakers(t *testing.T) {
	t.Parallel()
	got := worstBreakers([]api.BreakerInfo{
		{Component: "bus", Direction: "outbound", State: "half-open"},
		{Component: "bus", Direction: "inbound", State: "closed"},
		{App: "shop", Method: "a", State: "closed"},
		{App: "shop", Method: "b", State: "open"},
		{App: "shop", Method: "c", State: "half-open"},
	})
	want := map[breakerTarget]float64{{"bus", "outbound"}: 1, {"bus", "inbound"}: 0, {"shop", "app"}: 2}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestInputsAreCounted: what is left with its source at a stop is no success.
func TestInputsAreCounted(t *testing.T) {
	t.Parallel()
	m := telemetry.NewMetrics(telemetry.Options{AppID: "shop"})
	for _, end := range []cloudevents.Verdict{cloudevents.Ack, cloudevents.Leave, cloudevents.Drop} {
		_, r := (&observer{metrics: m}).Begin(t.Context(), router.Start{Delivery: &cloudevents.Delivery{Origin: "files"}})
		r.End(router.End{Outcome: cloudevents.Outcome{Verdict: end}})
	}
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", http.NoBody))
	const line = `dapr_component_input_binding_count{app_id="shop",component="files",namespace="",success=`
	if text := w.Body.String(); !strings.Contains(text, line+`"true"} 1`) || !strings.Contains(text, line+`"false"} 2`) {
		t.Errorf("got\n%s", text)
	}
}

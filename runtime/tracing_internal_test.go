package runtime

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/router"
	"github.com/penstock-io/penstock/telemetry"
	"github.com/penstock-io/penstock/telemetry/journal"
	"github.com/penstock-io/penstock/telemetry/trace"
)

// rounds makes what an observer is told of one round of an event; a nil rate turns
// tracing off.
func rounds(t testing.TB, rate *float64, from string) func() {
	t.Helper()
	return roundsCounted(t, telemetry.NewMetrics(telemetry.Options{AppID: "shop"}), rate, from)
}

func roundsCounted(t testing.TB, m *telemetry.Metrics, rate *float64, from string) func() {
	t.Helper()
	tr := trace.New(nil)
	if rate != nil {
		if _, err := tr.Use(t.Context(), trace.Settings{AppID: "shop", Rate: rate, Stdout: true}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { tr.Close(t.Context()) })
	}
	e, err := cloudevents.Scan([]byte(`{"specversion":"1.0","id":"1","source":"s","type":"t","traceparent":"` + from + `","data":1}`))
	if err != nil {
		t.Fatal(err)
	}
	o := &observer{metrics: m, journal: journal.New(0), tracer: tr, system: func(string) string { return "in-memory" }}
	d := &cloudevents.Delivery{Event: e, Origin: "bus/orders", Attempt: 1}
	ctx := t.Context()
	return func() {
		ctx, r := o.Begin(ctx, router.Start{Route: "r", Delivery: d, Number: 1})
		r.Try(ctx, "app")
		r.Tried(cloudevents.Acked())
		r.End(router.End{Outcome: cloudevents.Acked()})
	}
}

const (
	isRecorded  = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	notRecorded = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
)

// TestTriesCostNothing while tracing is off, nor those of traces that are not
// recorded.
func TestTriesCostNothing(t *testing.T) { // not parallel: it counts allocations
	for name, round := range map[string]func(){"off": rounds(t, nil, isRecorded), "not recorded": rounds(t, new(1.0), notRecorded)} {
		if n := testing.AllocsPerRun(1000, round); n >= 1 { // the pool of rounds may be emptied
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// TestRecordedRoundsAreExemplars: of a round whose trace is recorded the times say
// which that is, of another one nothing.
func TestRecordedRoundsAreExemplars(t *testing.T) {
	t.Parallel()
	m := telemetry.NewMetrics(telemetry.Options{AppID: "shop"})
	scrape := func() string {
		w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/metrics", http.NoBody)
		r.Header.Set("Accept", "application/openmetrics-text")
		m.Handler().ServeHTTP(w, r)
		return w.Body.String()
	}
	roundsCounted(t, m, new(1.0), notRecorded)()
	roundsCounted(t, m, nil, isRecorded)()
	if text := scrape(); strings.Contains(text, "trace_id") {
		t.Errorf("nothing was recorded, and it says\n%s", text)
	}
	roundsCounted(t, m, new(1.0), isRecorded)()
	if text := scrape(); !strings.Contains(text, `# {trace_id="0af7651916cd43dd8448eb211c80319c"} `) {
		t.Errorf("no exemplar in\n%s", text)
	}
}

// BenchmarkTry is of events of which one in a hundred is recorded, where it says so.
func BenchmarkTry(b *testing.B) {
	for _, row := range []struct {
		name  string
		rate  *float64
		every int
	}{{"off", nil, 1}, {"1 percent", new(1.0), 100}, {"all", new(1.0), 1}} {
		b.Run(row.name, func(b *testing.B) {
			recorded, not := rounds(b, row.rate, isRecorded), rounds(b, row.rate, notRecorded)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if i%row.every == 0 {
					recorded()
				} else {
					not()
				}
			}
		})
	}
}

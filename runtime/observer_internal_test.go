package runtime

import (
	"testing"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/router"
	"github.com/penstock-io/penstock/telemetry"
	"github.com/penstock-io/penstock/telemetry/journal"
)

// observed1 has one round with one try observed.
func observed1(tb testing.TB, o *observer) func() {
	tb.Helper()
	e, err := cloudevents.New("application/json", []byte(`{"total":20.5}`),
		cloudevents.Attr{Name: "id", Value: "5f0c8a3e-1d9b-4d6f-9d5b-6a0a5ad6e7f1"}, cloudevents.Attr{Name: "source", Value: "/till/7"},
		cloudevents.Attr{Name: "type", Value: "com.shop.sold"},
		cloudevents.Attr{Name: "traceparent", Value: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"})
	if err != nil {
		tb.Fatal(err)
	}
	d := &cloudevents.Delivery{Event: e, Body: e.JSON(), Origin: "bus/orders", Attempt: 1}
	return func() {
		_, r := o.Begin(tb.Context(), router.Start{Route: "subscription/bus/orders", Delivery: d, Number: 1})
		r.Try(tb.Context(), "app")
		r.Tried(cloudevents.Acked())
		r.End(router.End{Outcome: cloudevents.Acked()})
	}
}

// TestObservingAllocatesNothing once there is room.
func TestObservingAllocatesNothing(t *testing.T) { // not parallel: it counts allocations
	round := observed1(t, &observer{metrics: telemetry.NewMetrics(telemetry.Options{AppID: "shop"}), journal: journal.New(1)})
	for range 2000 {
		round()
	}
	if n := testing.AllocsPerRun(1000, round); n > 0 {
		t.Errorf("%v allocations for a round", n)
	}
}

// BenchmarkObserver is what metrics cost a round, and metrics with the journal.
func BenchmarkObserver(b *testing.B) {
	for name, o := range map[string]*observer{
		"metrics": {metrics: telemetry.NewMetrics(telemetry.Options{AppID: "shop"})},
		"both":    {metrics: telemetry.NewMetrics(telemetry.Options{AppID: "shop"}), journal: journal.New(0)},
	} {
		b.Run(name, func(b *testing.B) {
			round := observed1(b, o)
			b.ReportAllocs()
			for b.Loop() {
				round()
			}
		})
	}
}

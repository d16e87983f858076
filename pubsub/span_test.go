package pubsub_test

import (
	"strings"
	"testing"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/pubsub"
	"github.com/penstock-io/penstock/telemetry/trace"
)

const (
	came  = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	other = "00-11111111111111111111111111111111-2222222222222222-01"
)

// recording is a bus whose publishes are recorded at a rate; nil: tracing is off.
func recording(t testing.TB, s *shelf, rate *float64) *pubsub.Bus {
	t.Helper()
	tr := trace.New(nil)
	if rate != nil {
		if _, err := tr.Use(t.Context(), trace.Settings{AppID: "shop", Rate: rate, Stdout: true}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { tr.Close(t.Context()) })
	}
	return openWith(t, component.Env{AppID: "shop", Tracer: tr}, s)
}

// TestTraceOfAPublish: what goes on with an event is the context of its span, or
// what came when there is none; an event keeps a trace of its own.
func TestTraceOfAPublish(t *testing.T) {
	t.Parallel()
	own, err := cloudevents.Scan([]byte(`{"specversion":"1.0","id":"1","source":"s","type":"t","traceparent":"` + other + `","data":1}`))
	if err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		rate  *float64
		r     pubsub.PublishRequest
		trace string // of the event
		child bool   // it is another span than the one that came
	}{
		"off":                        {nil, pubsub.PublishRequest{Data: []byte(`1`), TraceParent: came}, came, false},
		"on":                         {new(1.0), pubsub.PublishRequest{Data: []byte(`1`), TraceParent: came}, came, true},
		"on, of a pipeline":          {new(1.0), pubsub.PublishRequest{Event: own}, other, true},
		"on, of another trace":       {new(1.0), pubsub.PublishRequest{Event: own, TraceParent: came}, other, false},
		"on, an envelope of its own": {new(1.0), pubsub.PublishRequest{Data: own.JSON(), ContentType: cloudevents.ContentType, TraceParent: came}, other, false},
	} {
		var s shelf
		b := recording(t, &s, row.rate)
		row.r.Topic = "orders"
		if err := b.Publish(t.Context(), &row.r); err != nil {
			t.Fatal(err)
		}
		e, err := cloudevents.Scan(s.topics["orders"][0].Data)
		if err != nil {
			t.Fatal(err)
		}
		parent, _ := e.Attr("traceparent")
		if cloudevents.TraceID(parent) != cloudevents.TraceID(row.trace) || (parent != row.trace) != row.child {
			t.Errorf("%s: %s goes on, of %s", name, parent, row.trace)
		}
	}
}

// TestTraceBesideARawPayload: it has no other place.
func TestTraceBesideARawPayload(t *testing.T) {
	t.Parallel()
	for name, rate := range map[string]*float64{"off": nil, "on": new(1.0)} {
		var s shelf
		b := recording(t, &s, rate)
		r := pubsub.PublishRequest{Topic: "raw", Data: []byte(`1`), Metadata: map[string]string{"rawPayload": "true"}, TraceParent: came, TraceState: "a=b"}
		if err := b.Publish(t.Context(), &r); err != nil {
			t.Fatal(err)
		}
		m := s.topics["raw"][0]
		if parent := m.Metadata["traceparent"]; string(m.Data) != "1" || !strings.HasPrefix(parent, came[:35]) || (parent != came) != (rate != nil) || m.Metadata["tracestate"] != "a=b" {
			t.Errorf("%s: %+v", name, m)
		}
		if len(r.Metadata) != 1 {
			t.Errorf("%s: the caller's metadata is %v", name, r.Metadata)
		}
	}
}

func BenchmarkPublish(b *testing.B) {
	for _, row := range []struct {
		name string
		rate *float64
	}{{"off", nil}, {"1 percent", new(0.01)}, {"all", new(1.0)}} {
		b.Run(row.name, func(b *testing.B) {
			var s shelf
			bus := recording(b, &s, row.rate)
			ctx := b.Context()
			b.ReportAllocs()
			for b.Loop() {
				if err := bus.Publish(ctx, &pubsub.PublishRequest{Topic: "orders", Data: []byte(`{"n":1}`), ContentType: "application/json"}); err != nil {
					b.Fatal(err)
				}
				s.topics["orders"] = s.topics["orders"][:0]
			}
		})
	}
}

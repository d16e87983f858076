package cloudevents_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/penstock-io/penstock/cloudevents"
)

// kilobyte is a structured event of about 1 KB with four extensions.
func kilobyte() []byte {
	return []byte(`{` + required + `,"time":"2026-01-02T03:04:05Z","datacontenttype":"application/json","topic":"orders",` +
		`"pubsubname":"bus","traceid":"` + parentA + `","traceparent":"` + parentA + `","data":{"orderId":12345,"items":[` +
		strings.Repeat(`{"sku":"a-1","quantity":2,"price":10.50,"note":"leave at the door"},`, 8) + `{"sku":"b"}]}}`)
}

func envelope() cloudevents.Envelope {
	return cloudevents.Envelope{
		Source: "checkout", Topic: "orders", PubSub: "bus", ContentType: "application/json", TraceParent: parentA,
	}
}

func quarterKilobyte() []byte {
	return []byte(`{"orderId":12345,"items":[` + strings.Repeat(`{"sku":"a-1","quantity":2,"price":10.50},`, 5) + `{"sku":"b"}]}`)
}

// TestAllocs holds the hot path to its number of allocations. It is not
// parallel: AllocsPerRun counts those of the whole process.
func TestAllocs(t *testing.T) {
	raw, payload := kilobyte(), quarterKilobyte()
	e := mustScan(t, string(raw))
	v := envelope()
	attrs := []cloudevents.Attr{{Name: "topic", Value: "builds"}, {Name: "expiration", Value: "2026-01-02T03:04:05Z"}}
	header := http.Header{}
	e.HTTPBinary(header)
	tests := []struct {
		name string
		most float64
		do   func()
	}{
		{"Scan", 1, func() { _, _ = cloudevents.Scan(raw) }},
		{"getters", 0, func() { _, _, _, _, _ = e.ID(), e.Type(), e.DataContentType(), e.Data(), e.JSON() }},
		{"Attr", 0, func() { _, _ = e.Attr("traceparent") }},
		{"Attrs", 0, func() {
			for range e.Attrs() {
			}
		}},
		{"With", 3, func() { _ = e.With(attrs...) }},
		{"WithData", 3, func() { _ = e.WithData("application/json", payload) }},
		{"Wrap", 2, func() { _, _ = v.Wrap(payload) }},
		{"ValidTraceParent", 0, func() { _ = cloudevents.ValidTraceParent(parentA) }},
		{"FromHTTP", 6, func() { _, _ = cloudevents.FromHTTP(header, payload) }},
	}
	for _, tt := range tests {
		if got := testing.AllocsPerRun(100, tt.do); got > tt.most {
			t.Errorf("%s allocates %v times, want at most %v", tt.name, got, tt.most)
		}
	}
}

func BenchmarkScan(b *testing.B) {
	raw := kilobyte()
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := cloudevents.Scan(raw); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkScanSDK(b *testing.B) {
	raw := kilobyte()
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		var ev event.Event
		if err := ev.UnmarshalJSON(raw); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkWith(b *testing.B) {
	e := mustScan(b, string(kilobyte()))
	attrs := []cloudevents.Attr{{Name: "topic", Value: "builds"}, {Name: "expiration", Value: "2026-01-02T03:04:05Z"}}
	b.ReportAllocs()
	for b.Loop() {
		_ = e.With(attrs...)
	}
}

func BenchmarkWrap(b *testing.B) {
	v, payload := envelope(), quarterKilobyte()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Wrap(payload); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkAdopt wraps what is an event already, for another topic: as bytes, and
// scanned before.
func BenchmarkAdopt(b *testing.B) {
	v, text := envelope(), kilobyte()
	v.Topic, v.ContentType = "others", cloudevents.ContentType
	b.Run("bytes", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := v.Wrap(text); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("scanned", func(b *testing.B) {
		e := mustScan(b, string(text))
		b.ReportAllocs()
		for b.Loop() {
			if _, err := v.Rewrap(e); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkFromHTTP(b *testing.B) {
	h := http.Header{}
	body := mustScan(b, string(kilobyte())).HTTPBinary(h)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := cloudevents.FromHTTP(h, body); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkHTTPBinary(b *testing.B) {
	e := mustScan(b, string(kilobyte()))
	b.ReportAllocs()
	for b.Loop() {
		_ = e.HTTPBinary(http.Header{})
	}
}

func BenchmarkCheck(b *testing.B) {
	e := mustScan(b, string(kilobyte()))
	b.ReportAllocs()
	for b.Loop() {
		if err := cloudevents.Check(e); err != nil {
			b.Fatal(err)
		}
	}
}

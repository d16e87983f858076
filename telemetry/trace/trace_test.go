package trace_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/telemetry/trace"
	"github.com/penstock-io/penstock/test/fake/collector"
)

func TestMain(m *testing.M) {
	code := m.Run()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

const (
	sampled = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	left    = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
	traceID = "0af7651916cd43dd8448eb211c80319c"
)

func vars(list ...string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		for _, v := range list {
			if key, value, _ := strings.Cut(v, "="); key == name {
				return value, true
			}
		}
		return "", false
	}
}

// tracer makes one until the test ends.
func tracer(t testing.TB, s trace.Settings) (*trace.Tracer, []string) {
	t.Helper()
	tr := trace.New(nil)
	s.AppID = "shop"
	warnings, err := tr.Use(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(tr, time.Second) })
	return tr, warnings
}

func end(tr *trace.Tracer, limit time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	tr.Close(ctx)
}

// A span that is under way when the tracer is turned off, or sends elsewhere, is
// counted as dropped: nobody sends it any more.
func TestASpanThatEndsTooLate(t *testing.T) {
	t.Parallel()
	tr, _ := tracer(t, trace.Settings{Rate: new(1.0), Stdout: true})
	begin := func() trace.Span {
		_, s := tr.Start(t.Context(), trace.Begin{Kind: trace.Server, Name: "late", Root: true})
		return s
	}
	first := begin()
	if _, err := tr.Use(t.Context(), trace.Settings{Rate: new(1.0), Stdout: true, AppID: "till"}); err != nil {
		t.Fatal(err)
	}
	second := begin()
	first.End()
	end(tr, 10*time.Second)
	second.End()
	if n := tr.Counts(); n != (trace.Counts{Dropped: 2}) {
		t.Errorf("%+v", n)
	}
}

// tell makes a server span with a client span in it that fails.
func tell(t *testing.T, tr *trace.Tracer) {
	t.Helper()
	ctx, s := tr.Start(t.Context(), trace.Begin{Kind: trace.Server, Group: "publish ", Name: "orders", From: trace.Context{Parent: sampled, State: "a=b"}, Root: true})
	if c := s.Context(); !c.Follows(sampled) || c.Parent == sampled || c.State != "a=b" {
		t.Errorf("%+v goes on", c)
	}
	_, inner := tr.Call(ctx, "state", "store", "get")
	inner.Done(fault.New(fault.NotFound, "get key card-order-key: not there"))
	s.Set(trace.MessagingDestination, "orders")
	s.SetInt(trace.MessagingCount, 2)
	s.End()
}

func TestExporters(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name string
		to   func(*testing.T) *collector.Collector
		set  func(*trace.Settings, *collector.Collector)
	}{
		{"otlp over grpc", collector.GRPC, func(s *trace.Settings, c *collector.Collector) {
			s.OTLP = trace.OTLP{Endpoint: c.Address, Protocol: "grpc", Insecure: true, Headers: []trace.Header{{Name: "X-Key", Value: "k1"}}}
		}},
		{"otlp over http", collector.HTTP, func(s *trace.Settings, c *collector.Collector) {
			s.OTLP = trace.OTLP{Endpoint: c.URL, Protocol: "http", Headers: []trace.Header{{Name: "X-Key", Value: "k1"}}}
		}},
		{"zipkin", collector.Zipkin, func(s *trace.Settings, c *collector.Collector) { s.Zipkin = c.URL + "/api/v2/spans" }},
		{"otlp of the environment", collector.HTTP, func(s *trace.Settings, c *collector.Collector) {
			s.Env = vars("OTEL_EXPORTER_OTLP_ENDPOINT="+c.URL, "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf", "OTEL_EXPORTER_OTLP_HEADERS=x-key=k1")
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			c := row.to(t)
			s := trace.Settings{Rate: new(1.0)}
			row.set(&s, c)
			tr, warnings := tracer(t, s)
			if len(warnings) > 0 {
				t.Error(warnings)
			}
			tell(t, tr)
			end(tr, 10*time.Second)
			wantTold(t, c.Spans())
			if h := c.Headers(); row.name != "zipkin" && (len(h) == 0 || h[0].Get("X-Key") != "k1") {
				t.Errorf("headers %v", h)
			}
			if n := tr.Counts(); n != (trace.Counts{Sent: 2}) {
				t.Errorf("%+v", n)
			}
		})
	}
}

// wantTold checks what tell made.
func wantTold(t *testing.T, spans []collector.Span) {
	t.Helper()
	if len(spans) != 2 {
		t.Fatalf("%d spans: %+v", len(spans), spans)
	}
	inner, outer := spans[0], spans[1]
	if outer.Name != "publish orders" || outer.Kind != "server" || outer.Trace != traceID || outer.Parent != "b7ad6b7169203331" || outer.Service != "shop" || outer.Failed {
		t.Errorf("outer %+v", outer)
	}
	if outer.Attributes[trace.MessagingDestination] != "orders" || outer.Attributes[trace.MessagingCount] != "2" {
		t.Errorf("outer %+v", outer)
	}
	if inner.Name != "state/store" || inner.Kind != "client" || inner.Trace != traceID || inner.Parent != outer.ID || !inner.Failed || inner.Attributes[trace.Operation] != "get" {
		t.Errorf("inner %+v", inner)
	}
	if text := fmt.Sprint(spans); strings.Contains(text, "order-key") {
		t.Errorf("a key is in %s", text)
	}
	if outer.Start > inner.Start || outer.End < inner.End || outer.Start == 0 {
		t.Errorf("times of %+v and %+v", outer, inner)
	}
}

func TestStdout(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	tr, _ := tracer(t, trace.Settings{Rate: new(1.0), Stdout: true, Out: &out})
	tell(t, tr)
	end(tr, time.Second)
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	var span struct{ TraceID, Name, Kind string }
	if err := json.Unmarshal([]byte(lines[1]), &span); err != nil || len(lines) != 2 || span.TraceID != traceID || span.Name != "publish orders" || span.Kind != "SERVER" {
		t.Errorf("%v: %s", err, out.String())
	}
}

// TestOff: what came in goes on, and nothing is made.
func TestOff(t *testing.T) { // not parallel: it counts allocations
	off, _ := tracer(t, trace.Settings{Rate: new(0.0), Zipkin: "http://127.0.0.1:1/"})
	disabled, _ := tracer(t, trace.Settings{Rate: new(1.0), Stdout: true, Env: vars("OTEL_SDK_DISABLED=true")})
	none, _ := tracer(t, trace.Settings{Rate: new(1.0), Stdout: true, Env: vars("OTEL_TRACES_EXPORTER=none")})
	for name, tr := range map[string]*trace.Tracer{"nil": nil, "rate 0": off, "disabled": disabled, "no exporter": none, "nothing said": trace.New(nil)} {
		ctx := t.Context()
		allocs := testing.AllocsPerRun(100, func() {
			ctx, s := tr.Start(ctx, trace.Begin{Kind: trace.Producer, Group: "publish ", Name: "orders", From: trace.Context{Parent: sampled}, Root: true})
			_, inner := tr.Call(ctx, "state", "store", "get")
			if inner.Recording() || s.Context().Parent != sampled {
				t.Error("it is on")
			}
			inner.Done(nil)
			s.Set("a", "b")
			s.End()
		})
		if allocs != 0 || tr.On() {
			t.Errorf("%s: %v allocations, on: %v", name, allocs, tr.On())
		}
	}
}

func TestSampling(t *testing.T) {
	t.Parallel()
	const traces = 20_000
	for _, row := range []struct {
		name            string
		rate            *float64
		env             []string
		on, not         float64 // whether traces that came in sampled are recorded, and those that did not
		fewest, highest int
	}{
		{name: "all", rate: new(1.0), on: 1, fewest: traces, highest: traces},
		{name: "a tenth", rate: new(0.1), on: 1, fewest: 1700, highest: 2300},
		{name: "dapr's default", on: 1, highest: 20},
		{name: "variable", rate: new(0.1), env: []string{"OTEL_TRACES_SAMPLER=parentbased_always_on"}, on: 1, fewest: traces, highest: traces},
		{name: "only what came in", env: []string{"OTEL_TRACES_SAMPLER=parentbased_always_off"}, on: 1},
		{name: "alone", env: []string{"OTEL_TRACES_SAMPLER=always_on"}, on: 1, not: 1, fewest: traces, highest: traces},
		{name: "half", env: []string{"OTEL_TRACES_SAMPLER=parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG=0.5"}, on: 1, fewest: 9500, highest: 10500},
		{name: "no such sampler", rate: new(1.0), env: []string{"OTEL_TRACES_SAMPLER=jaeger_remote"}, on: 1, fewest: traces, highest: traces},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			tr, _ := tracer(t, trace.Settings{Rate: row.rate, Stdout: true, Env: vars(row.env...)})
			recorded := func(from string) bool {
				_, s := tr.Start(t.Context(), trace.Begin{Name: "x", From: trace.Context{Parent: from}, Root: true})
				defer s.End()
				if c := s.Context(); !s.Recording() && (from != "" && c.Parent != from || from == "" && !strings.HasSuffix(c.Parent, "-00")) {
					t.Errorf("%q goes on after %q", c.Parent, from)
				}
				return s.Recording()
			}
			n := 0
			for range traces {
				if recorded("") {
					n++
				}
			}
			if n < row.fewest || n > row.highest {
				t.Errorf("%d of %d traces recorded", n, traces)
			}
			if recorded(sampled) != (row.on == 1) || recorded(left) != (row.not == 1) {
				t.Errorf("sampled %v, not sampled %v", recorded(sampled), recorded(left))
			}
		})
	}
}

// TestPartsOfNothing: a call of a component begins no trace.
func TestPartsOfNothing(t *testing.T) {
	t.Parallel()
	tr, _ := tracer(t, trace.Settings{Rate: new(1.0), Stdout: true})
	if _, s := tr.Call(t.Context(), "state", "store", "get"); s.Recording() {
		t.Error("a call outside of a trace is recorded")
	}
	ctx := trace.Give(t.Context(), trace.Context{Parent: left})
	if _, s := tr.Start(ctx, trace.Begin{Name: "x", Root: true}); s.Recording() || s.Context().Parent != left {
		t.Error("what was not sampled is begun anew")
	}
}

func TestLinks(t *testing.T) {
	t.Parallel()
	c := collector.GRPC(t)
	tr, _ := tracer(t, trace.Settings{Rate: new(1.0), OTLP: trace.OTLP{Endpoint: "http://" + c.Address}})
	links := []trace.Context{{Parent: "nonsense"}, {Parent: sampled}}
	for range 1000 {
		links = append(links, trace.Context{Parent: sampled})
	}
	_, s := tr.Start(t.Context(), trace.Begin{Name: "bulk", Root: true, Links: links})
	s.End()
	end(tr, 10*time.Second)
	if spans := c.Spans(); len(spans) != 1 || len(spans[0].Links) != trace.MaxLinks || spans[0].Links[0] != traceID {
		t.Errorf("%+v", spans)
	}
}

func TestService(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ env, want string }{
		{"", "shop"},
		{"OTEL_RESOURCE_ATTRIBUTES=service.name=till,team=a%20b", "till"},
		{"OTEL_SERVICE_NAME=desk", "desk"},
	} {
		c := collector.GRPC(t)
		tr, _ := tracer(t, trace.Settings{Rate: new(1.0), OTLP: trace.OTLP{Endpoint: "http://" + c.Address}, Env: vars(row.env)})
		tell(t, tr)
		end(tr, 10*time.Second)
		if spans := c.Spans(); len(spans) != 2 || spans[0].Service != row.want {
			t.Errorf("%s: %+v", row.env, spans)
		}
	}
}

func TestWarnings(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ env, want string }{
		{"OTEL_TRACES_SAMPLER=coin", `environment variable OTEL_TRACES_SAMPLER is left out: "coin" is not a sampler that there is here`},
		{"OTEL_TRACES_EXPORTER=jaeger", `environment variable OTEL_TRACES_EXPORTER is left out: "jaeger" is not otlp, zipkin, console or none`},
		{"OTEL_EXPORTER_OTLP_ENDPOINT=ftp://x", "traces: the endpoint ftp://x is neither host:port nor a URL with http:// or https://; no traces go there"},
		{"OTEL_EXPORTER_OTLP_PROTOCOL=udp", "traces: protocol udp is not grpc, http or http/protobuf; no traces go to localhost:4317"},
		{"OTEL_EXPORTER_OTLP_HEADERS=secret-canary", "environment variable OTEL_EXPORTER_OTLP_TRACES_HEADERS: an entry is left out, because it is not name=value"},
		{"OTEL_EXPORTER_OTLP_TIMEOUT=soon", `environment variable OTEL_EXPORTER_OTLP_TIMEOUT is left out: "soon" is not a number of milliseconds`},
	} {
		_, warnings := tracer(t, trace.Settings{OTLP: trace.OTLP{Endpoint: "localhost:4317"}, Env: vars(row.env)})
		if len(warnings) != 1 || warnings[0] != row.want {
			t.Errorf("%s: %q", row.env, warnings)
		}
	}
}

// TestCollectorIsAway: spans are dropped and counted, and nobody waits; neither for
// one that refuses nor for one that takes and says nothing.
func TestCollectorIsAway(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }))
	t.Cleanup(refusing.Close)
	at := "http://" + silent.Addr().String()
	for name, s := range map[string]trace.Settings{
		"nobody, grpc": {OTLP: trace.OTLP{Endpoint: "127.0.0.1:1", Insecure: true}},
		"silent, grpc": {OTLP: trace.OTLP{Endpoint: at}},
		"silent, http": {OTLP: trace.OTLP{Endpoint: at, Protocol: "http"}},
		"refusing":     {OTLP: trace.OTLP{Endpoint: refusing.URL, Protocol: "http"}},
		"silent":       {Zipkin: at},
		"refusing, z":  {Zipkin: refusing.URL},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const spans = 6_000
			s.Rate = new(1.0)
			tr, _ := tracer(t, s)
			began := time.Now()
			for range spans {
				_, span := tr.Start(t.Context(), trace.Begin{Name: "x", Root: true})
				span.End()
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("%d spans took %s", spans, took)
			}
			began = time.Now()
			end(tr, 100*time.Millisecond)
			if took := time.Since(began); took > 3*time.Second {
				t.Errorf("the end took %s", took)
			}
			// One that refuses may do so as fast as spans come.
			n := tr.Counts()
			if n.Sent != 0 || n.Dropped+n.Failed != spans || strings.HasPrefix(name, "silent") && n.Dropped == 0 {
				t.Errorf("%+v of %d", n, spans)
			}
		})
	}
}

// TestUse: what it sent to before gets what is left.
func TestUse(t *testing.T) {
	t.Parallel()
	one, two := collector.GRPC(t), collector.HTTP(t)
	tr, _ := tracer(t, trace.Settings{Rate: new(1.0), OTLP: trace.OTLP{Endpoint: one.URL}})
	tell(t, tr)
	if _, err := tr.Use(t.Context(), trace.Settings{AppID: "shop", Rate: new(1.0), OTLP: trace.OTLP{Endpoint: two.URL, Protocol: "http"}}); err != nil {
		t.Fatal(err)
	}
	tell(t, tr)
	end(tr, 10*time.Second)
	wantTold(t, one.Spans())
	wantTold(t, two.Spans())
	if _, err := tr.Use(t.Context(), trace.Settings{Rate: new(1.0), Stdout: true}); err != nil || tr.On() {
		t.Errorf("%v; it is on again after its end: %v", err, tr.On())
	}
}

func TestDone(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	tr, _ := tracer(t, trace.Settings{Rate: new(1.0), Stdout: true, Out: &out})
	_, s := tr.Start(t.Context(), trace.Begin{Name: "x", Root: true})
	s.Done(errors.New("password=hunter2"))
	end(tr, time.Second)
	if text := out.String(); strings.Contains(text, "hunter2") || !strings.Contains(text, `"error":"internal"`) {
		t.Error(text)
	}
}

func TestLogsOnce(t *testing.T) {
	t.Parallel()
	var text bytes.Buffer
	tr := trace.New(slog.New(slog.NewTextHandler(&text, nil)))
	if _, err := tr.Use(t.Context(), trace.Settings{Rate: new(1.0), Zipkin: "http://127.0.0.1:1/api/v2/spans"}); err != nil {
		t.Fatal(err)
	}
	for range 5000 {
		_, s := tr.Start(t.Context(), trace.Begin{Name: "x", Root: true})
		s.End()
	}
	end(tr, time.Second)
	if n := strings.Count(text.String(), "Traces are not taken"); n != 1 {
		t.Errorf("said %d times: %s", n, text.String())
	}
}

func BenchmarkSpan(b *testing.B) {
	for _, row := range []struct {
		name string
		rate float64
	}{{"off", 0}, {"1 percent", 0.01}, {"all", 1}} {
		b.Run(row.name, func(b *testing.B) {
			tr, _ := tracer(b, trace.Settings{Rate: new(row.rate), Stdout: true})
			ctx := b.Context()
			b.ReportAllocs()
			for b.Loop() {
				_, s := tr.Start(ctx, trace.Begin{Kind: trace.Producer, Group: "publish ", Name: "orders", Root: true})
				s.End()
			}
		})
	}
}

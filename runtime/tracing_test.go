package runtime_test

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	namessqlite "github.com/penstock-io/penstock/invoke/names/sqlite"
	"github.com/penstock-io/penstock/test/fake/collector"
)

const (
	sentTrace = "0af7651916cd43dd8448eb211c80319c"
	sentSpan  = "b7ad6b7169203331"
)

const things = `
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: things}
spec: {type: state.in-memory, version: v1, metadata: []}
---
`

// tracing is a Configuration with what stands below spec.tracing.
func tracing(settings string) string {
	return "apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: c}\nspec:\n  tracing: {" + settings + "}\n"
}

// traced starts an instance that records everything, and finds others in a folder.
func traced(t *testing.T, a *app, id, folder, settings, documents string) *instance {
	t.Helper()
	in, o := prepare(t, a, documents)
	if !strings.Contains(settings, "samplingRate") {
		settings += `, samplingRate: "1"`
	}
	names := fmt.Sprintf("  nameResolution: {component: sqlite, configuration: {connectionString: %q}}\n", filepath.Join(folder, "names.db"))
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, []byte(tracing(settings)+names), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	o.AppID, o.Configs, o.Internal = id, []string{file}, []net.Listener{l}
	o.Components = append(components(), namessqlite.Component)
	in.run(t, o)
	return in
}

// within makes a request as part of the trace that another one came with.
func within(t *testing.T, of http.Header, method, url, body string) {
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Error(err)
		return
	}
	r.Header["Traceparent"], r.Header["Baggage"] = of["Traceparent"], of["Baggage"]
	r.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Error(err)
		return
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		t.Errorf("%s %s: %d", method, url, resp.StatusCode)
	}
}

// find waits for the span of a service with that name and kind.
func find(t *testing.T, c *collector.Collector, service, kind, name string) collector.Span {
	t.Helper()
	return await(t, c, service+" has the span "+kind+" "+name, func(s collector.Span) bool {
		return s.Service == service && s.Kind == kind && s.Name == name
	})
}

// findBelow waits for the span of the same service that is below another.
func findBelow(t *testing.T, c *collector.Collector, parent collector.Span, kind, name string) collector.Span {
	t.Helper()
	return await(t, c, parent.Name+" has the span "+kind+" "+name+" below it", func(s collector.Span) bool {
		return s.Service == parent.Service && s.Trace == parent.Trace && s.Parent == parent.ID && s.Kind == kind && s.Name == name
	})
}

func await(t *testing.T, c *collector.Collector, what string, is func(collector.Span) bool) (found collector.Span) {
	t.Helper()
	eventually(t, what, func() bool {
		spans := c.Spans()
		i := slices.IndexFunc(spans, is)
		if i >= 0 {
			found = spans[i]
		}
		return i >= 0
	})
	return found
}

func below(t *testing.T, child collector.Span, trace, parent string) {
	t.Helper()
	if child.Trace != trace || child.Parent != parent {
		t.Errorf("%s %s is below %s-%s, want %s-%s", child.Service, child.Name, child.Trace, child.Parent, trace, parent)
	}
}

// TestOneTrace: webhook, route, app, publish, broker, the other instance, its app;
// and from the app over both instances to the other app.
func TestOneTrace(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		to       func(*testing.T) *collector.Collector
		settings string
	}{
		"otlp over grpc": {collector.GRPC, `otel: {endpointAddress: "ADDRESS", isSecure: false, protocol: grpc}`},
		"otlp over http": {collector.HTTP, `otel: {endpointAddress: "ADDRESS", isSecure: false, protocol: http}`},
		"zipkin":         {collector.Zipkin, `zipkin: {endpointAddress: "http://ADDRESS/api/v2/spans"}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := row.to(t)
			settings := strings.ReplaceAll(row.settings, "ADDRESS", c.Address)
			folder, at := t.TempDir(), address(t)
			shared := strings.ReplaceAll(durable, "DIR", folder)
			till := newApp(t, `[{"pubsubname":"bus","topic":"orders","route":"/orders"}]`)
			again := make(chan call, 1)
			till.answer("/again", func(_ http.ResponseWriter, r *http.Request) { again <- call{header: r.Header} })
			traced(t, till, "till", folder, settings, shared)
			shop := newApp(t, `[]`)
			locks := strings.Replace(strings.Replace(things, "name: things", "name: locks", 1), "state.in-memory, version: v1, metadata: []", "lock.sqlite, version: v1, metadata: [{name: connectionString, value: DIR/locks.db}]", 1)
			in := traced(t, shop, "shop", folder, settings, shared+things+store+locks+hook("hook", "/h", at))
			shop.answer("/hook", func(_ http.ResponseWriter, r *http.Request) {
				within(t, r.Header, http.MethodPost, in.url+"/publish/bus/orders", `{"n":1}`)
				within(t, r.Header, http.MethodPost, in.url+"/invoke/till/method/price", `1`)
				within(t, r.Header, http.MethodPost, in.url+"/invoke/till/method/again", `1`) // goes another way
				within(t, r.Header, http.MethodPost, in.url+"/state/things", `[{"key":"k-secret-key","value":1}]`)
				within(t, r.Header, http.MethodPost, in.url+"-alpha1/lock/locks", `{"resourceId":"l-secret-key","lockOwner":"o-secret-key","expiryInSeconds":5}`)
				within(t, r.Header, http.MethodPost, in.url+"/bindings/store", `{"operation":"create","data":1,"metadata":{"fileName":"f-secret-key"}}`)
			})
			in.logged(t, 1, "route=binding/hook") // the hook refuses until then
			within(t, http.Header{"Traceparent": {"00-" + sentTrace + "-" + sentSpan + "-01"}, "Baggage": {"tenant=blue"}}, http.MethodPost, "http://"+at+"/h", `{}`)
			wantOneTrace(t, c, till, again)
		})
	}
}

func wantOneTrace(t *testing.T, c *collector.Collector, till *app, again <-chan call) {
	t.Helper()
	hook := find(t, c, "shop", "consumer", "bindings/hook")
	below(t, hook, sentTrace, sentSpan)
	if a := hook.Attributes; a["penstock.attempt"] != "1" || a["penstock.outcome"] != "ack" || a["penstock.route"] != "binding/hook" || a["penstock.target"] != "app:/hook" {
		t.Errorf("attributes %v", a)
	}
	publish := find(t, c, "shop", "server", "/v1.0/publish/{bus}/*")
	below(t, publish, sentTrace, hook.ID)
	if a := publish.Attributes; a["http.request.method"] != "POST" || a["http.response.status_code"] != "204" {
		t.Errorf("attributes %v", a)
	}
	produced := find(t, c, "shop", "producer", "publish orders")
	below(t, produced, sentTrace, publish.ID)
	consumed := find(t, c, "till", "consumer", "pubsub/orders")
	below(t, consumed, sentTrace, produced.ID)
	if a := consumed.Attributes; a["messaging.system"] != "sqlite" || a["messaging.destination.name"] != "orders" || a["messaging.message.id"] == "" {
		t.Errorf("attributes %v", a)
	}
	got := till.next(t, "/orders")
	wantHeader(t, got, consumed)
	if baggage := got.header.Get("Baggage"); baggage != "tenant=blue" {
		t.Errorf("the other app got the baggage %q", baggage)
	}

	served := find(t, c, "shop", "server", "/v1.0/invoke/*") // of two calls any
	below(t, served, sentTrace, hook.ID)
	calling := findBelow(t, c, served, "client", "invoke till")
	await(t, c, "till has a span below the call", func(s collector.Span) bool {
		return s.Service == "till" && s.Kind == "server" && s.Name == "invoke till" && s.Trace == sentTrace && s.Parent == calling.ID
	})

	second := next(t, again)
	eventually(t, "the second call has a span", func() bool {
		return slices.ContainsFunc(c.Spans(), func(s collector.Span) bool {
			return s.Service == "till" && s.Name == "invoke till" && second.header.Get("Traceparent") == "00-"+sentTrace+"-"+s.ID+"-01"
		})
	})

	saved := find(t, c, "shop", "server", "/v1.0/state/{store}")
	below(t, find(t, c, "shop", "client", "state/things"), sentTrace, saved.ID)
	below(t, find(t, c, "shop", "client", "lock/locks"), sentTrace, find(t, c, "shop", "server", "/v1.0-alpha1/lock/{store}").ID)
	below(t, find(t, c, "shop", "client", "bindings/store"), sentTrace, find(t, c, "shop", "server", "/v1.0/bindings/{name}").ID)
	if text := fmt.Sprint(c.Spans()); strings.Contains(text, "secret-key") {
		t.Errorf("a key is in %s", text)
	}
}

func wantHeader(t *testing.T, got call, s collector.Span) {
	t.Helper()
	if parent := got.header.Get("Traceparent"); parent != "00-"+s.Trace+"-"+s.ID+"-01" {
		t.Errorf("%s got %s, want the span %s of %s", got.path, parent, s.ID, s.Trace)
	}
}

// TestAttempts: each try is a span of its own in the event's trace.
func TestAttempts(t *testing.T) {
	t.Parallel()
	c := collector.GRPC(t)
	a := newApp(t, `[{"pubsubname":"bus","topic":"orders","route":"/orders"}]`)
	tries := make(chan int, 2)
	tries <- http.StatusServiceUnavailable
	tries <- http.StatusOK
	a.answer("/orders", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(<-tries) })
	in := traced(t, a, "shop", t.TempDir(), `otel: {endpointAddress: "`+c.URL+`"}`, bus)
	in.publish(t, "orders", `1`)
	var spans []collector.Span
	eventually(t, "two attempts", func() bool {
		spans = slices.DeleteFunc(c.Spans(), func(s collector.Span) bool { return s.Kind != "consumer" })
		return len(spans) == 2
	})
	first, second := spans[0].Attributes, spans[1].Attributes
	if first["penstock.attempt"] != "1" || first["penstock.outcome"] != "retry" || first["error.type"] != "unavailable" || !spans[0].Failed {
		t.Errorf("first %+v", spans[0])
	}
	if second["penstock.attempt"] != "2" || second["penstock.outcome"] != "ack" || spans[1].Failed || spans[0].Parent != spans[1].Parent {
		t.Errorf("second %+v", spans[1])
	}
	wantHeader(t, a.next(t, "/orders"), spans[0])
	wantHeader(t, a.next(t, "/orders"), spans[1])
}

// TestBulkIsLinked: one call with several events has a link to each.
func TestBulkIsLinked(t *testing.T) {
	t.Parallel()
	c := collector.GRPC(t)
	a := newApp(t, `[{"pubsubname":"bus","topic":"orders","route":"/orders","bulkSubscribe":{"enabled":true,"maxMessagesCount":3,"maxAwaitDurationMs":10000}}]`)
	in := traced(t, a, "shop", t.TempDir(), `otel: {endpointAddress: "`+c.URL+`"}`, bus)
	for range 3 {
		in.publish(t, "orders", `1`)
	}
	bulk := find(t, c, "shop", "client", "bulk orders")
	slices.Sort(bulk.Links)
	if len(slices.Compact(bulk.Links)) != 3 || bulk.Attributes["messaging.batch.message_count"] != "3" {
		t.Errorf("%+v", bulk)
	}
	wantHeader(t, a.next(t, "/orders"), bulk)
}

// TestNotSampled: that a trace is not recorded goes on, also where it begins.
func TestNotSampled(t *testing.T) {
	t.Parallel()
	c := collector.GRPC(t)
	a := newApp(t, `[{"pubsubname":"bus","topic":"orders","route":"/orders"}]`)
	in := traced(t, a, "shop", t.TempDir(), `samplingRate: "0.0000001", otel: {endpointAddress: "`+c.URL+`"}`, bus)
	in.publish(t, "orders", `1`)
	if parent := a.next(t, "/orders").header.Get("Traceparent"); !strings.HasSuffix(parent, "-00") {
		t.Errorf("the app got %q", parent)
	}
	of := http.Header{"Traceparent": {"00-" + sentTrace + "-" + sentSpan + "-00"}}
	within(t, of, http.MethodPost, in.url+"/publish/bus/orders", `2`)
	if parent := a.next(t, "/orders").header.Get("Traceparent"); !strings.HasPrefix(parent, "00-"+sentTrace) || !strings.HasSuffix(parent, "-00") {
		t.Errorf("the app got %q", parent)
	}
	if err := in.end(); err != nil || len(c.Spans()) != 0 {
		t.Errorf("%v, spans %+v", err, c.Spans())
	}
}

// TestNoCollector: neither a start nor a delivery nor a stop waits for it.
func TestNoCollector(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	a := newApp(t, `[{"pubsubname":"bus","topic":"orders","route":"/orders"}]`)
	in := traced(t, a, "shop", t.TempDir(), `otel: {endpointAddress: "http://`+silent.Addr().String()+`"}, zipkin: {endpointAddress: "http://127.0.0.1:1/"}`, bus)
	for range 100 {
		in.publish(t, "orders", `1`)
	}
	for range 100 {
		a.next(t, "/orders")
	}
	began := time.Now()
	if err := in.end(); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the stop took %s", took)
	}
}

// TestTracingIsReloaded: it is turned on while events flow.
func TestTracingIsReloaded(t *testing.T) {
	t.Parallel()
	c := collector.HTTP(t)
	in, o := prepare(t, nil, bus)
	in.write(t, "config.yaml", tracing(`samplingRate: "0"`))
	o.Configs = []string{filepath.Join(in.dir, "config.yaml")}
	in.run(t, o)
	in.publish(t, "orders", `1`)
	in.write(t, "config.yaml", tracing(`samplingRate: "1", otel: {endpointAddress: "`+c.URL+`", protocol: http}`))
	in.logged(t, 1, "Traces are recorded")
	in.publish(t, "orders", `2`)
	find(t, c, "shop", "producer", "publish orders")
	if n := len(slices.DeleteFunc(c.Spans(), func(s collector.Span) bool { return s.Kind != "producer" })); n != 1 {
		t.Errorf("%d publishes recorded", n)
	}
}

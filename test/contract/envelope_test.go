package contract

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

const (
	parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	ceType = "application/cloudevents+json"
	full   = `{"specversion":"1.0","id":"e1","source":"mine","type":"t.x","time":"2020-01-02T03:04:05Z","datacontenttype":"application/json","subject":"s","ext":"kept","topic":"other","pubsubname":"other","data":{"n":1.50}}`
)

// envelopes are publishes and the attributes, as raw JSON, of what arrives.
var envelopes = []struct {
	name, query, contentType, body string
	header                         map[string]string
	want                           map[string]string
	absent                         []string
}{
	{
		name: "defaults", contentType: "application/json", body: `{"b":1.0,"a":12345678901234567890123}`,
		want: map[string]string{
			"specversion": `"1.0"`, "source": `"shop"`, "type": `"com.dapr.event.sent"`,
			"datacontenttype": `"application/json"`, "data": `{"b":1.0,"a":12345678901234567890123}`,
		},
		absent: []string{"subject", "data_base64"},
	},
	{name: "json with charset", contentType: "application/json; charset=utf-8", body: `[1]`, want: map[string]string{
		"data": `[1]`, "datacontenttype": `"application/json; charset=utf-8"`,
	}},
	{name: "json text", contentType: "application/json", body: `"x"`, want: map[string]string{"data": `"x"`}},
	{name: "json null", contentType: "application/json", body: `null`, want: map[string]string{"data": `null`}},
	{name: "json suffix", contentType: "application/vnd.acme+json", body: `{"a":1}`, want: map[string]string{
		"data": `{"a":1}`, "datacontenttype": `"application/vnd.acme+json"`,
	}},
	{name: "broken json", contentType: "application/json", body: `{"a":`, want: map[string]string{"data": `"{\"a\":"`}},
	{name: "empty json", contentType: "application/json", body: ``, want: map[string]string{"data": `""`}},
	{name: "text", contentType: "text/plain", body: `hi "you"`, want: map[string]string{
		"data": `"hi \"you\""`, "datacontenttype": `"text/plain"`,
	}},
	{name: "no content type", body: `hi`, want: map[string]string{"data": `"hi"`, "datacontenttype": `"text/plain"`}},
	{name: "xml", contentType: "application/xml", body: `<a/>`, want: map[string]string{"data": `"<a/>"`}},
	{
		name: "bytes", contentType: "application/octet-stream", body: "\x00\xff",
		want:   map[string]string{"data_base64": `"AP8="`, "datacontenttype": `"application/octet-stream"`},
		absent: []string{"data"},
	},
	{
		name: "protobuf event", contentType: "application/cloudevents+protobuf", body: "\x01",
		want: map[string]string{"data_base64": `"AQ=="`}, absent: []string{"data"},
	},
	{name: "cloudevent kept", contentType: ceType + "; charset=utf-8", body: full, want: map[string]string{
		"id": `"e1"`, "source": `"mine"`, "type": `"t.x"`, "time": `"2020-01-02T03:04:05Z"`, "subject": `"s"`,
		"ext": `"kept"`, "data": `{"n":1.50}`,
	}},
	{
		name: "cloudevent with any members", contentType: ceType,
		body: `{"my_attr": 1.50,"Meta":{"a": [1]},"x-y":"z","no_thing":null,"topic":{"a":1},"data":"x"}`,
		want: map[string]string{"my_attr": `1.50`, "Meta": `{"a": [1]}`, "x-y": `"z"`, "no_thing": `null`, "data": `"x"`},
	},
	{name: "cloudevent filled in", contentType: ceType, body: `{"data":"x"}`, want: map[string]string{
		"specversion": `"1.0"`, "source": `"shop"`, "type": `"com.dapr.event.sent"`, "data": `"x"`,
	}},
	{
		name: "overrides", contentType: "text/plain", body: "x",
		query: "metadata.cloudevent.id=i&metadata.cloudevent.source=so&metadata.cloudevent.type=ty&metadata.cloudevent.subject=su" +
			"&metadata.cloudevent.traceparent=" + parent + "&metadata.cloudevent.tracestate=k%3Dv",
		want: map[string]string{
			"id": `"i"`, "source": `"so"`, "type": `"ty"`, "subject": `"su"`, "traceparent": quote(parent), "tracestate": `"k=v"`,
		},
	},
	{
		name: "not overridden", contentType: "text/plain", body: "x",
		query: "metadata.cloudevent.data=d&metadata.cloudevent.datacontenttype=d&metadata.cloudevent.topic=d&metadata.cloudevent.pubsubname=d&metadata.cloudevent.specversion=d",
		want:  map[string]string{"data": `"x"`, "datacontenttype": `"text/plain"`, "specversion": `"1.0"`},
	},
	{
		name: "trace", contentType: "text/plain", body: "x",
		header: map[string]string{"traceparent": parent, "tracestate": "k=v"},
		want:   map[string]string{"traceparent": quote(parent), "traceid": quote(parent), "tracestate": `"k=v"`},
	},
}

func quote(s string) string {
	raw, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(raw)
}

func TestEnvelope(t *testing.T) {
	t.Parallel()
	var subs []string
	for i := range envelopes {
		for _, bus := range []string{"mem", "db"} {
			subs = append(subs, fmt.Sprintf(`{"pubsubname":"%s","topic":"t/%d","route":"/%s/%d"}`, bus, i, bus, i))
		}
	}
	a := (&app{subscribe: "[" + strings.Join(subs, ",") + "]"}).serve(t)
	sc := start(t, setup{app: a.port, resources: buses})
	both(t, func(t *testing.T, bus string) {
		for i, row := range envelopes {
			t.Run(row.name, func(t *testing.T) {
				r := send(t, request{
					url:         fmt.Sprintf("%s/publish/%s/t/%d?%s", sc.api, bus, i, row.query),
					contentType: row.contentType, body: row.body, header: row.header,
				})
				if r.status != 204 || r.body != "" {
					t.Fatalf("publish: %d %q", r.status, r.body)
				}
				c := a.wait(t, fmt.Sprintf("/%s/%d", bus, i), 1)[0]
				if got := c.header.Get("Content-Type"); got != ceType {
					t.Errorf("delivered as %q", got)
				}
				e := c.event(t)
				checkCommon(t, e, bus, fmt.Sprintf("t/%d", i))
				for name, want := range row.want {
					if got := string(e[name]); got != want {
						t.Errorf("%s: got %s, want %s", name, got, want)
					}
				}
				for _, name := range row.absent {
					if e[name] != nil {
						t.Errorf("%s is there: %s", name, e[name])
					}
				}
			})
		}
	})
}

// checkCommon checks what every envelope has.
func checkCommon(t *testing.T, e map[string]json.RawMessage, bus, topic string) {
	t.Helper()
	if got := string(e["topic"]); got != quote(topic) {
		t.Errorf("topic: %s", got)
	}
	if got := string(e["pubsubname"]); got != quote(bus) {
		t.Errorf("pubsubname: %s", got)
	}
	for _, name := range []string{"id", "source", "type", "specversion", "traceid", "traceparent"} {
		if len(e[name]) < 3 {
			t.Errorf("%s is missing", name)
		}
	}
	if string(e["traceid"]) != string(e["traceparent"]) {
		t.Errorf("traceid %s is not traceparent %s", e["traceid"], e["traceparent"])
	}
	var at time.Time
	if err := json.Unmarshal(e["time"], &at); err != nil {
		t.Errorf("time %s: %v", e["time"], err)
	}
}

// The trace of a publish reaches the app: same trace, another span.
func TestTraceHeaders(t *testing.T) {
	t.Parallel()
	a := (&app{subscribe: `[{"pubsubname":"mem","topic":"a","route":"/a"}]`}).serve(t)
	sc := start(t, setup{app: a.port, resources: buses})
	send(t, request{
		url: sc.api + "/publish/mem/a", body: "x",
		header: map[string]string{"traceparent": parent, "tracestate": "k=v", "baggage": "a=b"},
	})
	h := a.wait(t, "/a", 1)[0].header
	if got := h.Get("traceparent"); len(got) != len(parent) || got[:36] != parent[:36] || got == parent {
		t.Errorf("traceparent %q does not carry on %q", got, parent)
	}
	if got := h.Get("tracestate"); got != "k=v" {
		t.Errorf("tracestate %q", got)
	}
	r := send(t, request{url: sc.api + "/publish/mem/a", body: "x", header: map[string]string{"baggage": "===;"}})
	if r.status != 400 {
		t.Errorf("bad baggage: %d %s", r.status, r.body)
	}
}

func TestRawPayload(t *testing.T) {
	t.Parallel()
	const body = `{"plain":true}`
	a := (&app{subscribe: `[
		{"pubsubname":"mem","topic":"raw","route":"/mem/raw","metadata":{"rawPayload":"true"}},
		{"pubsubname":"db","topic":"raw","route":"/db/raw","metadata":{"rawPayload":"true"}},
		{"pubsubname":"mem","topic":"plain","route":"/mem/plain"},
		{"pubsubname":"db","topic":"plain","route":"/db/plain"}]`}).serve(t)
	sc := start(t, setup{app: a.port, resources: buses})
	both(t, func(t *testing.T, bus string) {
		sc.publish(t, bus+"/raw?metadata.rawPayload=true", body)
		e := a.wait(t, "/"+bus+"/raw", 1)[0].event(t)
		for name, want := range map[string]string{
			"data_base64": `"eyJwbGFpbiI6dHJ1ZX0="`, "type": `"com.dapr.event.sent"`, "specversion": `"1.0"`,
			"datacontenttype": `"application/octet-stream"`, "topic": `"raw"`, "pubsubname": quote(bus),
		} {
			if got := string(e[name]); got != want {
				t.Errorf("raw to raw: %s: got %s, want %s", name, got, want)
			}
		}
		sc.publishAs(t, bus+"/raw?metadata.rawPayload=true", ceType, full)
		e = a.wait(t, "/"+bus+"/raw", 2)[1].event(t) // an event is wrapped like anything else
		if got, want := string(e["data_base64"]), quote(base64.StdEncoding.EncodeToString([]byte(full))); got != want {
			t.Errorf("event to raw: data_base64 %s, want %s", got, want)
		}
		sc.publishAs(t, bus+"/plain?metadata.rawPayload=true", ceType, full)
		if got := string(a.wait(t, "/"+bus+"/plain", 1)[0].body); got != full {
			t.Errorf("raw event to plain: %s", got)
		}
		sc.publish(t, bus+"/plain?metadata.rawPayload=true&metadata.ce_specversion=1.0&metadata.ce_id=b1&metadata.ce_type=bin"+
			"&metadata.ce_source=kafka&metadata.ce_tenant=t1&metadata.content-type=application/json", body)
		e = a.wait(t, "/"+bus+"/plain", 2)[1].event(t)
		for name, want := range map[string]string{
			"id": `"b1"`, "type": `"bin"`, "source": `"kafka"`, "tenant": `"t1"`, "data": body, "datacontenttype": `"application/json"`,
		} {
			if got := string(e[name]); got != want {
				t.Errorf("binary mode: %s: got %s, want %s", name, got, want)
			}
		}
	})
}

// An event that outlives its time to live while it waits for another delivery
// is not delivered again.
func TestTimeToLive(t *testing.T) {
	t.Parallel()
	a := &app{subscribe: `[
		{"pubsubname":"mem","topic":"a","route":"/mem"},{"pubsubname":"db","topic":"a","route":"/db"}]`}
	a.reply = func(c call, _ int) answer {
		if strings.Contains(string(c.body), "late") {
			return answer{status: 503, header: map[string][]string{"Retry-After": {"2"}}}
		}
		return answer{}
	}
	a.serve(t)
	sc := start(t, setup{app: a.port, resources: buses})
	both(t, func(t *testing.T, bus string) {
		sc.publish(t, bus+"/a?metadata.ttlInSeconds=1", `"late"`)
		first := a.wait(t, "/"+bus, 1)[0].at
		eventually(t, "time has passed", func() bool { return time.Since(first) > 3*time.Second })
		sc.publish(t, bus+"/a?metadata.ttl=100", `"fresh"`)
		if calls := a.wait(t, "/"+bus, 2); calls[1].data(t) != `"fresh"` {
			t.Errorf("delivered again after its time: %s", calls[1].body)
		}
	})
}

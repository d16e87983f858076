package http_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/api"
	apihttp "github.com/penstock-io/penstock/api/http"
)

// raw asks for no envelope, so that a test sees what was handed over.
const raw = "?metadata.rawPayload=true"

func TestPublishHandsOver(t *testing.T) {
	t.Parallel()
	i := start(t)
	h := i.handler(apihttp.Options{})
	w := ask(h, "POST", "/v1.0/publish/bus/a%2Fb/c%20d%2525?metadata.rawPayload=true&metadata.Key=one&metadata.Key=t%26wo&other=x&metadata.=y",
		"{\"n\": 1.00000000000000000001 }", "Content-Type", "application/json")
	if w.Code != 204 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	m := i.broker.all()[0]
	if m.topic != "a/b/c d%25" {
		t.Errorf("topic %q", m.topic)
	}
	if string(m.Data) != "{\"n\": 1.00000000000000000001 }" || m.ContentType != "application/json" {
		t.Errorf("data %s (%s)", m.Data, m.ContentType)
	}
	if diff := cmp.Diff(map[string]string{"rawPayload": "true", "Key": "t&wo"}, m.Metadata); diff != "" {
		t.Error(diff)
	}
}

func TestPublishEnvelope(t *testing.T) {
	t.Parallel()
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	tests := []struct {
		name          string
		header        []string
		parent, state any
	}{
		{"trace", []string{"traceparent", parent, "tracestate", "a=1"}, parent, "a=1"},
		{"two states", []string{"traceparent", parent, "tracestate", "a=1", "tracestate", "b=2"}, parent, "a=1,b=2"},
		{"state bomb", []string{"traceparent", parent, "tracestate", strings.Repeat("a=1,", 512) + "b=2"}, parent, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			i := start(t)
			if w := ask(i.handler(apihttp.Options{}), "POST", "/v1.0/publish/bus/orders", "hi", tt.header...); w.Code != 204 {
				t.Fatalf("%d %s", w.Code, w.Body)
			}
			var event map[string]any
			must(t, json.Unmarshal(i.broker.all()[0].Data, &event))
			if event["source"] != "shop" || event["topic"] != "orders" || event["pubsubname"] != "bus" || event["data"] != "hi" {
				t.Errorf("%v", event)
			}
			if event["traceparent"] != tt.parent || event["tracestate"] != tt.state && event["tracestate"] != "" {
				t.Errorf("trace %v %v", event["traceparent"], event["tracestate"])
			}
		})
	}
}

func TestTraceHeaders(t *testing.T) {
	t.Parallel()
	const good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	tests := []struct {
		name, parent string
		want         bool
	}{
		{"good", good, true},
		{"later version", "cc" + good[2:] + "-more", true},
		{"too long for version 0", good + "-more", false},
		{"number", "123", false},
		{"upper case", strings.ToUpper(good), false},
		{"version ff", "ff" + good[2:], false},
		{"no trace id", "00-00000000000000000000000000000000-b7ad6b7169203331-01", false},
		{"no span id", "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", false},
		{"very long", "cc" + good[2:] + "-" + strings.Repeat("x", 3000), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			i := start(t)
			w := ask(i.handler(apihttp.Options{}), "POST", "/v1.0/bindings/out", `{"operation":"create"}`, "traceparent", tt.parent)
			if w.Code != 204 {
				t.Fatalf("%d %s", w.Code, w.Body)
			}
			if got := i.output.last().Metadata["traceparent"]; (got == tt.parent) != tt.want {
				t.Errorf("traceparent %q", got)
			}
		})
	}
}

func TestBaggage(t *testing.T) {
	t.Parallel()
	h := start(t).handler(apihttp.Options{})
	tests := []struct {
		name, value string
		status      int
	}{
		{"empty", "", 204},
		{"one", "user=alice", 204},
		{"properties", "user=alice;ttl=5;secure, region = eu%20west", 204},
		{"no value", "user=", 204},
		{"no equals", "user", 400},
		{"no key", "=x", 400},
		{"key with a space", "us er=x", 400},
		{"value with a space", "user=a b", 400},
		{"quote", `user="x"`, 400},
		{"empty member", "a=1,,b=2", 400},
		{"not ascii", "user=\u00e9", 400},
		{"large", "a=" + strings.Repeat("x", 9000), 400},
		{"many", strings.TrimSuffix(strings.Repeat("a=1,", 200), ","), 400},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for _, target := range []string{"/v1.0/publish/bus/t", "/v1.0/publish/bulk/bus/t", "/v1.0/bindings/out"} {
				body := "[]"
				if strings.HasSuffix(target, "out") {
					body = `{"operation":"create"}`
				}
				w := ask(h, "POST", target, body, "baggage", tt.value)
				if w.Code != tt.status {
					t.Errorf("%s: %d %s, want %d", target, w.Code, w.Body, tt.status)
				}
			}
		})
	}
}

func TestBodyLimit(t *testing.T) {
	t.Parallel()
	const limit = 300_000
	for _, size := range []int{0, 1, 4095, 4096, 4097, 65_536, 65_537, limit - 1, limit, limit + 1, 2 * limit} {
		for _, chunked := range []bool{false, true} {
			i := start(t)
			h := i.handler(apihttp.Options{MaxBody: limit})
			body := strings.Repeat("x", size)
			r := httptest.NewRequest("POST", "/v1.0/publish/bus/t"+raw, strings.NewReader(body))
			r.Host = "localhost"
			if chunked {
				r.Body, r.ContentLength = io.NopCloser(iotestOneByOne{strings.NewReader(body)}), -1
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if size > limit {
				if w.Code != 400 || code(t, w) != "ERR_BODY_READ" || !strings.Contains(w.Body.String(), "--max-body-size") ||
					w.Header().Get("Connection") != "close" || len(i.broker.all()) > 0 {
					t.Errorf("size %d, chunked %v: %d %s", size, chunked, w.Code, w.Body)
				}
				continue
			}
			if w.Code != 204 {
				t.Errorf("size %d, chunked %v: %d %s", size, chunked, w.Code, w.Body)
				continue
			}
			m := i.broker.all()[0]
			if string(m.Data) != body {
				t.Errorf("size %d, chunked %v: %d bytes arrived", size, chunked, len(m.Data))
			}
			if spare := cap(m.Data) - len(m.Data); spare > len(m.Data)/2+64 {
				t.Errorf("size %d, chunked %v: %d bytes of the kept buffer are unused", size, chunked, spare)
			}
		}
	}
}

// iotestOneByOne reads at most 1000 bytes at a time.
type iotestOneByOne struct{ r io.Reader }

func (o iotestOneByOne) Read(p []byte) (int, error) { return o.r.Read(p[:min(len(p), 1000)]) }

func TestShortBody(t *testing.T) {
	t.Parallel()
	i := start(t)
	r := httptest.NewRequest("POST", "/v1.0/publish/bus/t", strings.NewReader("half"))
	r.Host, r.ContentLength = "localhost", 8
	w := httptest.NewRecorder()
	i.handler(apihttp.Options{}).ServeHTTP(w, r)
	if w.Code != 400 || code(t, w) != "ERR_BODY_READ" || len(i.broker.all()) > 0 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestBulkPublish(t *testing.T) {
	t.Parallel()
	i := start(t)
	w := ask(i.handler(apihttp.Options{}), "POST", "/v1.0/publish/bulk/bus/a/b"+raw+"&metadata.k=all&metadata.only=x", `[
		{"entryId":"1","event":{ "b":1,"a":1.0e2 },"contentType":"application/json","metadata":{"k":"one"}},
		{"entryId":"2","event":"l\u00edne\n","contentType":"text/plain"},
		{"entryId":"3","event":"AAH/","contentType":"application/octet-stream"},
		{"entryId":"4","event":"quoted","contentType":"application/vnd.x+json; charset=utf-8"},
		{"entryId":"5","event":7},
		{"entryId":"6","event":"plain"}
	]`)
	if w.Code != 204 || w.Body.Len() > 0 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	var got []string
	for _, m := range i.broker.all() {
		got = append(got, m.topic+"|"+m.ContentType+"|"+string(m.Data)+"|"+m.Metadata["k"]+m.Metadata["only"])
	}
	want := []string{
		`a/b|application/json|{ "b":1,"a":1.0e2 }|onex`,
		"a/b|text/plain|l\u00edne\n|allx",
		"a/b|application/octet-stream|\x00\x01\xff|allx",
		`a/b|application/vnd.x+json; charset=utf-8|"quoted"|allx`,
		`a/b||7|allx`,
		`a/b||plain|allx`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestBulkPublishFailures(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, target, body, want string }{
		{
			"some", "/v1.0/publish/bulk/bus/t" + raw, `[{"entryId":"a","event":"ok"},{"entryId":"b","event":"poison"}]`,
			`{"failedEntries":[{"entryId":"b","error":"message is poison"}],"errorCode":"ERR_PUBSUB_PUBLISH_MESSAGE"}`,
		},
		{
			"all", "/v1.0/publish/bulk/bus/down" + raw, `[{"entryId":"a","event":1},{"entryId":"b","event":2}]`,
			`{"failedEntries":[{"entryId":"a","error":"publish to bus/down: broker is down"},` +
				`{"entryId":"b","error":"publish to bus/down: broker is down"}],"errorCode":"ERR_PUBSUB_PUBLISH_MESSAGE"}`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := ask(start(t).handler(apihttp.Options{}), "POST", tt.target, tt.body)
			if w.Code != 500 || w.Body.String() != tt.want {
				t.Errorf("%d %s\nwant %s", w.Code, w.Body, tt.want)
			}
		})
	}
}

// tooMany is a bulk of that many more events than are taken.
func tooMany(more int) string {
	var b strings.Builder
	for i := range api.MaxBulkEntries + more {
		fmt.Fprintf(&b, `,{"entryId":"%d","event":1}`, i)
	}
	return "[" + b.String()[1:] + "]"
}

func TestBulkPublishBadBodies(t *testing.T) {
	t.Parallel()
	i := start(t)
	h := i.handler(apihttp.Options{})
	tests := []struct{ name, body, message string }{
		{"empty", ``, "not a JSON array"},
		{"object", `{}`, "not a JSON array"},
		{"cut", `[{"entryId":"1","event":1}`, "does not end"},
		{"cut inside", `[{"entryId":"1"`, "entry 0"},
		{"more behind", `[] []`, "follows the array"},
		{"number", `[1]`, "entry 0"},
		{"no id", `[{"event":1}]`, "entry 0 has no entryId"},
		{"same id", `[{"entryId":"x","event":1},{"entryId":"x","event":2}]`, "is used twice"},
		{"no event", `[{"entryId":"x"}]`, "event is missing"},
		{"no base64", `[{"entryId":"x","event":"?","contentType":"application/octet-stream"}]`, "is not base64"},
		{"bytes as object", `[{"entryId":"x","event":{},"contentType":"application/octet-stream"}]`, "not a base64 string"},
		{"metadata", `[{"entryId":"x","event":1,"metadata":{"a":1}}]`, "entry 0"},
		{"deep", `[{"entryId":"x","event":` + strings.Repeat("[", 100_000), "entry 0"},
		{"many", `[` + strings.Repeat("0,", 1_000_000) + `0]`, "entry 0"},
		{"half a surrogate", `[{"entryId":"x","event":"\ud800","contentType":"text/plain"}]`, "half a surrogate pair"},
		{"too many", tooMany(1), "more than 10000 events"},
		{"far too many", tooMany(100_000) + "?", "more than 10000 events"},
		{"not utf-8", "[{\"entryId\":\"x\",\"event\":\"\xff\"}]", "not UTF-8"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := ask(h, "POST", "/v1.0/publish/bulk/bus/t", tt.body)
			if w.Code != 400 || code(t, w) != "ERR_PUBSUB_EVENTS_SER" || !strings.Contains(w.Body.String(), tt.message) {
				t.Errorf("%d %s, want %q in it", w.Code, w.Body, tt.message)
			}
		})
	}
	t.Cleanup(func() {
		if n := len(i.broker.all()); n > 0 {
			t.Errorf("%d events of bad bodies were published", n)
		}
	})
}

func TestBindings(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, body, target    string
		data                  string
		status                int
		contentType, response string
		header                http.Header
	}{
		{"json as it is", `{"operation":"echo","data":{ "b": 1.0, "a":[ ] }}`, "", `{ "b": 1.0, "a":[ ] }`, 200, "application/json", `{ "b": 1.0, "a":[ ] }`, http.Header{"Metadata.operation": {"echo"}}},
		{"text", `{"operation":"echo","data":"line\n"}`, "", "line\n", 200, "text/plain; charset=utf-8", "line\n", http.Header{"Metadata.operation": {"echo"}}},
		{"null", `{"operation":"create","data":null}`, "", "", 204, "", "", nil},
		{"nothing", `{"operation":"create"}`, "", "", 204, "", "", nil},
		{"bytes", `{"operation":"bytes"}`, "", "", 200, "application/octet-stream", "\xff\x00", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			i := start(t)
			w := ask(i.handler(apihttp.Options{}), "POST", "/v1.0/bindings/out", tt.body)
			if w.Code != tt.status || w.Body.String() != tt.response || w.Header().Get("Content-Type") != tt.contentType {
				t.Errorf("%d %q (%s)", w.Code, w.Body, w.Header().Get("Content-Type"))
			}
			for k := range tt.header {
				if w.Header().Get(k) != tt.header.Get(k) {
					t.Errorf("header %s: %q", k, w.Header().Get(k))
				}
			}
			if got := string(i.output.last().Data); got != tt.data {
				t.Errorf("data %q, want %q", got, tt.data)
			}
		})
	}
}

func TestBindingMetadata(t *testing.T) {
	t.Parallel()
	i := start(t)
	w := ask(i.handler(apihttp.Options{}), "POST", "/v1.0/bindings/out?metadata.a=query&metadata.b=query",
		`{"operation":"create","metadata":{"a":"body"}}`)
	if w.Code != 204 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if diff := cmp.Diff(map[string]string{"a": "body", "b": "query"}, i.output.last().Metadata); diff != "" {
		t.Error(diff)
	}
}

// A topic arrives as it was meant, whatever is in it.
func FuzzTopic(f *testing.F) {
	for _, s := range []string{"orders", "a/b", "a//b", "/", "../x", "%", "%2F", "a b", "\u00fc", ";", "?", "#", "bulk/x", "a+b", "\x80a"} {
		f.Add(s)
	}
	i := start(f)
	i.broker.messages = make([]stored, 0, 1)
	h := i.handler(apihttp.Options{})
	f.Fuzz(func(t *testing.T, topic string) {
		if topic == "" || topic == "secret" || topic == "down" || topic == "panics" || topic == "hangs" {
			t.Skip()
		}
		i.broker.mu.Lock()
		i.broker.messages = i.broker.messages[:0]
		i.broker.mu.Unlock()
		w := ask(h, "POST", "/v1.0/publish/bus/"+url.PathEscape(topic)+raw, "x")
		bad := !utf8.ValidString(topic) || strings.ContainsFunc(topic, func(r rune) bool { return r < ' ' || r == 0x7f })
		if bad != (w.Code == 400) || !bad && w.Code != 204 {
			t.Fatalf("topic %q: %d %s", topic, w.Code, w.Body)
		}
		if all := i.broker.all(); !bad && (len(all) != 1 || all[0].topic != topic) {
			t.Fatalf("topic %q arrived as %v", topic, all)
		}
	})
}

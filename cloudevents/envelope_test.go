package cloudevents_test

import (
	"encoding/json"
	"maps"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
)

const (
	parentA = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	parentB = "00-11111111111111111111111111111111-2222222222222222-00"
)

var uuid4 = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)

// wrapped wraps data and returns the event's attributes, with "ID" and "NOW"
// where an id was minted or the time was taken.
func wrapped(t *testing.T, v cloudevents.Envelope, data string) (*cloudevents.Event, map[string]string) {
	t.Helper()
	before := time.Now()
	e, err := v.Wrap([]byte(data))
	if err != nil {
		t.Fatal(err)
	}
	again := mustScan(t, string(e.JSON()))
	attrs := attrsOf(e)
	if diff := cmp.Diff(attrsOf(again), attrs); diff != "" {
		t.Errorf("attributes differ from a fresh scan (-scan +wrap):\n%s", diff)
	}
	if string(again.Data()) != string(e.Data()) || (again.Data() == nil) != (e.Data() == nil) {
		t.Errorf("Data() = %q, after a fresh scan %q", e.Data(), again.Data())
	}
	if uuid4.MatchString(attrs["id"]) {
		attrs["id"] = "ID"
	}
	if at, err := time.Parse(time.RFC3339, attrs["time"]); err == nil && !at.Before(before) && !at.After(time.Now()) {
		attrs["time"] = "NOW"
	}
	return e, attrs
}

func TestWrap(t *testing.T) {
	t.Parallel()
	base := cloudevents.Envelope{Source: "app", Topic: "orders", PubSub: "bus", TraceParent: parentA, TraceState: "k=v"}
	attrs := map[string]string{
		"specversion": "1.0", "id": "ID", "source": "app", "type": "com.dapr.event.sent", "datacontenttype": "text/plain",
		"time": "NOW", "topic": "orders", "pubsubname": "bus", "traceid": parentA, "traceparent": parentA, "tracestate": "k=v",
	}
	tests := []struct {
		name        string
		contentType string
		metadata    map[string]string
		data        string
		wantAttrs   map[string]string // changes to attrs
		wantEnd     string
	}{
		{"text by default", "", nil, "a\"b", nil, `,"data":"a\"b"}`},
		{"json", "application/json", nil, `{"n":12345678901234567890.10, "a":1}`, map[string]string{"datacontenttype": "application/json"}, `,"data":{"n":12345678901234567890.10, "a":1}}`},
		{"json with parameter", "application/json; charset=utf-8", nil, ` [1] `, map[string]string{"datacontenttype": "application/json; charset=utf-8"}, `,"data": [1] }`},
		{"json suffix", "application/vnd.github+json", nil, `null`, map[string]string{"datacontenttype": "application/vnd.github+json"}, `,"data":null}`},
		{"batch is json", "application/cloudevents-batch+json", nil, `[]`, map[string]string{"datacontenttype": "application/cloudevents-batch+json"}, `,"data":[]}`},
		{"json that does not parse", "application/json", nil, `{"a":`, map[string]string{"datacontenttype": "application/json"}, `,"data":"{\"a\":"}`},
		{"json empty", "application/json", nil, ``, map[string]string{"datacontenttype": "application/json"}, `,"data":""}`},
		{"octets", "Application/Octet-Stream", nil, "\x00\xff", map[string]string{"datacontenttype": "Application/Octet-Stream"}, `,"data_base64":"AP8="}`},
		{"protobuf event", "application/cloudevents+protobuf", nil, "abc", map[string]string{"datacontenttype": "application/cloudevents+protobuf"}, `,"data_base64":"YWJj"}`},
		{"xml", "application/xml", nil, "<a/>", map[string]string{"datacontenttype": "application/xml"}, `,"data":"<a/>"}`},
		{"not UTF-8", "text/plain", nil, "\xff", nil, `,"data_base64":"/w=="}`},
		{"overrides", "", map[string]string{
			"cloudevent.id": "my", "CloudEvent.Source": "s", "cloudevent.TYPE": "t", "cloudevent.subject": "sub",
			"cloudevent.traceparent": parentB, "cloudevent.tracestate": "x=y",
			"cloudevent.datacontenttype": "no", "cloudevent.topic": "no", "cloudevent.pubsubname": "no", "cloudevent.data": "no", "other": "no",
		}, "", map[string]string{"id": "my", "source": "s", "type": "t", "subject": "sub", "traceparent": parentB, "traceid": parentB, "tracestate": "x=y"}, `,"data":""}`},
		{"exact key wins", "", map[string]string{"Cloudevent.type": "a", "cloudevent.type": "b"}, "", map[string]string{"type": "b"}, `,"data":""}`},
		{"first of other keys wins", "", map[string]string{"cloudevent.TYPE": "a", "cloudEvent.type": "b"}, "", map[string]string{"type": "b"}, `,"data":""}`},
		{"empty override", "", map[string]string{"cloudevent.type": "", "cloudevent.id": ""}, "", nil, `,"data":""}`},
		{"trace id is a traceparent", "", map[string]string{"cloudevent.traceid": parentB}, "", map[string]string{"traceid": parentB, "traceparent": parentB}, `,"data":""}`},
		{"trace id is not a traceparent", "", map[string]string{"cloudevent.traceid": "mine"}, "", map[string]string{"traceid": "mine"}, `,"data":""}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			v := base
			v.ContentType, v.Metadata = tt.contentType, tt.metadata
			e, got := wrapped(t, v, tt.data)
			want := maps.Clone(attrs)
			maps.Copy(want, tt.wantAttrs)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("attributes differ (-want +got):\n%s", diff)
			}
			if !strings.HasSuffix(string(e.JSON()), tt.wantEnd) {
				t.Errorf("JSON() = %s, want %s at the end", e.JSON(), tt.wantEnd)
			}
		})
	}
}

func TestWrapLeavesOutWhatIsEmpty(t *testing.T) {
	t.Parallel()
	_, got := wrapped(t, cloudevents.Envelope{}, "")
	want := map[string]string{
		"specversion": "1.0", "id": "ID", "source": "penstock", "type": "com.dapr.event.sent",
		"datacontenttype": "text/plain", "time": "NOW",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("attributes differ (-want +got):\n%s", diff)
	}
}

func TestWrapRaw(t *testing.T) {
	t.Parallel()
	e, err := cloudevents.Envelope{Source: "app", Topic: "t", PubSub: "b", ContentType: "application/cloudevents+json"}.WrapRaw([]byte(`{"a":1}`))
	if err != nil {
		t.Fatal(err)
	}
	if got := string(e.JSON()); !strings.HasSuffix(got, `,"data_base64":"eyJhIjoxfQ=="}`) {
		t.Errorf("JSON() = %s", got)
	}
	if e.DataContentType() != "application/octet-stream" || string(e.Data()) != `{"a":1}` {
		t.Errorf("content type %q, data %q", e.DataContentType(), e.Data())
	}
}

func TestWrapKeepsCallersEvent(t *testing.T) {
	t.Parallel()
	base := cloudevents.Envelope{
		Source: "app", Topic: "orders", PubSub: "bus", ContentType: "application/CloudEvents+json; charset=utf-8",
		TraceParent: parentA, TraceState: "k=v",
	}
	const full = `"specversion":"1.0","id":"1","source":"/s","type":"t","time":"x"`
	const filled = `,"topic":"orders","pubsubname":"bus","traceparent":"` + parentA + `","tracestate":"k=v","traceid":"` + parentA + `"}`
	tests := []struct {
		name, text, want string
		metadata         map[string]string
	}{
		{"everything missing", `{ }`, `{"specversion":"1.0","id":"ID","source":"app","type":"com.dapr.event.sent","time":"NOW"` + filled[:len(filled)-1] + ` }`, nil},
		{"empty counts as missing", `{"id":"","specversion":null,"source":" ","type":"t","time":"x"}`, `{"id":"ID","specversion":"1.0","source":"app","type":"t","time":"x"` + filled, nil},
		{"data kept, topic replaced", `{` + full + `,"topic":"mine","data":{"a": 1.0} , "pubsubname":7}`, `{` + full + `,"topic":"orders","data":{"a": 1.0} , "pubsubname":"bus","traceparent":"` + parentA + `","tracestate":"k=v","traceid":"` + parentA + `"}`, nil},
		{
			"members kept, topic replaced", `{` + full + `,"my_attr": 1.50,"x-y":"z","topic":{"a":[1]},"Topic":[ 2 ]}`,
			`{` + full + `,"my_attr": 1.50,"x-y":"z","topic":"orders","Topic":[ 2 ],"pubsubname":"bus","traceparent":"` + parentA + `","tracestate":"k=v","traceid":"` + parentA + `"}`, nil,
		},
		{"trace kept", `{` + full + `,"traceparent":"` + parentB + `","tracestate":"z=1"}`, `{` + full + `,"traceparent":"` + parentB + `","tracestate":"z=1","topic":"orders","pubsubname":"bus","traceid":"` + parentB + `"}`, nil},
		{"trace of traceid kept", `{` + full + `,"traceid":"` + parentB + `"}`, `{` + full + `,"traceid":"` + parentB + `","topic":"orders","pubsubname":"bus","traceparent":"` + parentB + `"}`, nil},
		{"traceparent number", `{` + full + `,"traceparent":123}`, `{` + full + `,"traceparent":"` + parentA + `","topic":"orders","pubsubname":"bus","tracestate":"k=v","traceid":"` + parentA + `"}`, nil},
		{"traceparent junk, own traceid", `{` + full + `,"traceparent":"junk","traceid":"mine"}`, `{` + full + `,"traceparent":"` + parentA + `","traceid":"mine","topic":"orders","pubsubname":"bus","tracestate":"k=v"}`, nil},
		{"overrides fill in", `{"type":"t","time":"x"}`, `{"type":"t","time":"x","specversion":"1.0","id":"my","source":"app","subject":"sub"` + filled, map[string]string{"cloudevent.id": "my", "cloudevent.type": "no", "cloudevent.subject": "sub"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			v := base
			v.Metadata = tt.metadata
			e, attrs := wrapped(t, v, tt.text)
			got := string(e.JSON())
			if attrs["id"] == "ID" {
				got = strings.Replace(got, e.ID(), "ID", 1)
			}
			if attrs["time"] == "NOW" {
				got = strings.Replace(got, e.Time(), "NOW", 1)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("JSON differs (-want +got):\n%s", diff)
			}
			scanned, err := cloudevents.Scan([]byte(tt.text))
			if err != nil {
				return // it lacks something, so nobody has it as an event
			}
			again, err := v.Rewrap(scanned)
			if err != nil || string(again.JSON()) != tt.want {
				t.Errorf("scanned before: %s (%v)", again.JSON(), err)
			}
		})
	}
}

func TestRewrapLeavesWhatIsComplete(t *testing.T) {
	t.Parallel()
	e := mustScan(t, string(kilobyte()))
	v := envelope()
	if got, err := v.Rewrap(e); got != e || err != nil {
		t.Errorf("a complete event became %s (%v)", got.JSON(), err)
	}
	v.Topic = "others"
	got, err := v.Rewrap(e)
	if err != nil {
		t.Fatal(err)
	}
	if topic, _ := got.Attr("topic"); topic != "others" || got.ID() != e.ID() {
		t.Errorf("for another topic: %s", got.JSON())
	}
	v.Topic = strings.Repeat("x", cloudevents.MaxValueLen+1)
	if _, err := v.Rewrap(e); fault.KindOf(err) != fault.Invalid || err == nil {
		t.Errorf("a topic that is too long: %v", err)
	}
}

func TestWrapRefuses(t *testing.T) {
	t.Parallel()
	const ce = "application/cloudevents+json"
	long := strings.Repeat("a", cloudevents.MaxValueLen+1)
	var many strings.Builder
	many.WriteString(`{"a":1`)
	for i := range 120 {
		many.WriteString(`,"a` + strconv.Itoa(i) + `":1`)
	}
	many.WriteString(`}`)
	tests := []struct {
		name string
		v    cloudevents.Envelope
		data string
		want string
	}{
		{"event that is not JSON", cloudevents.Envelope{ContentType: ce}, "x", "wrap event: byte 0: expected an object"},
		{"event that is empty", cloudevents.Envelope{ContentType: ce}, "", "the text ends too early"},
		{"event with wrong id", cloudevents.Envelope{ContentType: ce}, `{"id":1}`, `attribute "id": must be a string`},
		{"event of another version", cloudevents.Envelope{ContentType: ce}, `{"specversion":"0.3"}`, `must be "1.0"`},
		{"event with both data", cloudevents.Envelope{ContentType: ce}, `{"data":1,"data_base64":""}`, "exclude each other"},
		{"event with too many attributes", cloudevents.Envelope{ContentType: ce, Topic: "t", TraceParent: parentA}, many.String(), "attributes"},
		{"deep JSON", cloudevents.Envelope{ContentType: "application/json"}, strings.Repeat("[", 64) + strings.Repeat("]", 64), "data: byte 63: nested deeper than 64 levels"},
		{"long number", cloudevents.Envelope{ContentType: "application/json"}, strings.Repeat("1", 5000), "data: byte 0: number longer than 4096 bytes"},
		{"long topic", cloudevents.Envelope{Topic: long}, "", `attribute "topic": longer than 65536 bytes`},
		{"source not UTF-8", cloudevents.Envelope{Source: "\xff"}, "", `attribute "source": not UTF-8`},
		{"blank type", cloudevents.Envelope{Metadata: map[string]string{"cloudevent.type": " "}}, "", `attribute "type": must not be blank`},
		{"long id", cloudevents.Envelope{Metadata: map[string]string{"cloudevent.id": long}}, "", `attribute "id": longer`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := tt.v.Wrap([]byte(tt.data))
			wantInvalid(t, err, tt.want)
		})
	}
}

func TestTTL(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		metadata map[string]string
		want     time.Duration
		ok       bool
		err      string
	}{
		{"none", nil, 0, false, ""},
		{"empty", map[string]string{"ttlInSeconds": ""}, 0, false, ""},
		{"seconds", map[string]string{"ttlInSeconds": "60"}, time.Minute, true, ""},
		{"any case", map[string]string{"TTLINSECONDS": " 1 "}, time.Second, true, ""},
		{"short name", map[string]string{"ttl": "5"}, 5 * time.Second, true, ""},
		{"long name first", map[string]string{"ttl": "5", "ttlInSeconds": "6"}, 6 * time.Second, true, ""},
		{"most", map[string]string{"ttl": "9223372036"}, 9223372036 * time.Second, true, ""},
		{"zero", map[string]string{"ttlInSeconds": "0"}, 0, false, `read metadata ttlInSeconds: "0" is not a time to live`},
		{"negative", map[string]string{"ttl": "-1"}, 0, false, `read metadata ttl: "-1"`},
		{"junk", map[string]string{"ttl": "10s"}, 0, false, "use whole seconds"},
		{"fraction", map[string]string{"ttl": "1.5"}, 0, false, "use whole seconds"},
		{"overflow", map[string]string{"ttl": "9223372037"}, 0, false, "use whole seconds"},
		{"2^63", map[string]string{"ttl": "9223372036854775808"}, 0, false, "use whole seconds"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, ok, err := cloudevents.TTL(tt.metadata)
			if tt.err != "" {
				wantInvalid(t, err, tt.err)
				return
			}
			if err != nil || got != tt.want || ok != tt.ok {
				t.Errorf("TTL() = %v, %v, %v, want %v, %v", got, ok, err, tt.want, tt.ok)
			}
		})
	}
}

func TestExpired(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 5, 6, 7, 8, 9, 500, time.FixedZone("x", 3600))
	e := mustScan(t, `{`+required+`}`)
	if e.Expired(at) {
		t.Error("expired without an expiration")
	}
	late := e.WithExpiration(at)
	if got, _ := late.Attr("expiration"); got != "2026-05-06T06:08:09.0000005Z" {
		t.Errorf("expiration is %q", got)
	}
	if late.Expired(at.Add(-1)) || !late.Expired(at) || !late.Expired(at.Add(1)) {
		t.Error("the event does not expire at its expiration")
	}
	if mustScan(t, `{`+required+`,"expiration":"2026-05-06T07:08:09+01:00"}`).Expired(at) != true {
		t.Error("an expiration with an offset is not read")
	}
	for _, junk := range []string{`"soon"`, `1`, `null`, `true`} {
		if mustScan(t, `{`+required+`,"expiration":`+junk+`}`).Expired(at) {
			t.Errorf("expired by an expiration of %s", junk)
		}
	}
}

func FuzzWrap(f *testing.F) {
	f.Add("application/json", []byte(`{"a":1}`), "topic", "id")
	f.Add("text/plain", []byte("a\xff"), "", "")
	f.Add("application/cloudevents+json", []byte(`{"id":"1","data":1,"traceparent":5}`), "t", "x")
	f.Add("application/octet-stream", []byte{0}, "t", "x")
	f.Fuzz(func(t *testing.T, contentType string, data []byte, topic, id string) {
		v := cloudevents.Envelope{
			ContentType: contentType, Topic: topic, PubSub: "p", TraceParent: parentA,
			Metadata: map[string]string{"cloudevent.id": id},
		}
		e, err := v.Wrap(data)
		if err != nil {
			wantInvalid(t, err, "wrap event: ")
			return
		}
		if !json.Valid(e.JSON()) {
			t.Fatalf("not JSON: %q", e.JSON())
		}
		again, err := cloudevents.Scan(e.JSON())
		if err != nil {
			t.Fatalf("scan %q: %v", e.JSON(), err)
		}
		if diff := cmp.Diff(attrsOf(again), attrsOf(e)); diff != "" {
			t.Fatalf("attributes differ from a fresh scan (-scan +wrap):\n%s", diff)
		}
		if string(again.Data()) != string(e.Data()) {
			t.Fatalf("Data() = %q, after a fresh scan %q", e.Data(), again.Data())
		}
		if got, _ := e.Attr("topic"); topic != "" && got != topic {
			t.Fatalf("topic is %q, want %q", got, topic)
		}
	})
}

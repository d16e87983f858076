package cloudevents_test

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/cloudevents/sdk-go/v2/binding"
	"github.com/cloudevents/sdk-go/v2/event"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
	"github.com/cloudevents/sdk-go/v2/types"
	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/cloudevents"
)

// exceptions are the words of the errors with which Scan refuses what the SDK
// takes: ambiguous or beyond our limits.
func exceptions() []string {
	return []string{
		"is there twice", "exclude each other", "nested deeper", "number longer", "longer than",
		"more than 128", "half a surrogate pair", "must be written",
		`must be "1.0"`, `attribute "source" is blank`,
	}
}

// sdkAttrs returns the attributes of an SDK event as ours are: empty optional
// ones are absent.
func sdkAttrs(t *testing.T, ev event.Event) map[string]string {
	t.Helper()
	attrs := map[string]string{
		"specversion": ev.SpecVersion(), "id": ev.ID(), "source": ev.Source(), "type": ev.Type(),
		"subject": ev.Subject(), "datacontenttype": ev.DataContentType(), "dataschema": ev.DataSchema(),
	}
	if !ev.Time().IsZero() {
		attrs["time"] = types.FormatTime(ev.Time())
	}
	for name, v := range ev.Extensions() {
		text, err := types.Format(v)
		if err != nil {
			t.Fatal(err)
		}
		attrs[name] = text
	}
	maps.DeleteFunc(attrs, func(name, v string) bool { return v == "" && isOptional(name) })
	return attrs
}

func isOptional(name string) bool {
	return name == "subject" || name == "datacontenttype" || name == "dataschema" || name == "time"
}

// ourAttrs returns the attributes of e with time and URIs written as the SDK
// writes them.
func ourAttrs(e *cloudevents.Event) map[string]string {
	attrs := attrsOf(e)
	maps.DeleteFunc(attrs, func(name, v string) bool { return v == "" && isOptional(name) })
	if at, err := types.ParseTime(attrs["time"]); err == nil {
		if attrs["time"] = types.FormatTime(at); at.IsZero() {
			delete(attrs, "time")
		}
	}
	if u := types.ParseURIRef(attrs["source"]); u != nil {
		attrs["source"] = u.String()
	}
	if u := types.ParseURI(attrs["dataschema"]); u != nil {
		attrs["dataschema"] = u.String()
	}
	return attrs
}

// sdkScan reads raw with the SDK; false when it refuses or panics.
func sdkScan(raw []byte) (ev event.Event, ok bool) {
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	ev = event.New()
	if err := ev.UnmarshalJSON(bytes.Clone(raw)); err != nil {
		return ev, false
	}
	return ev, ev.Validate() == nil
}

// sameMode tells whether the SDK and we agree that data of that type is JSON:
// it takes +json for text.
func sameMode(contentType string) bool {
	media, _, _ := strings.Cut(contentType, ";")
	return !strings.HasSuffix(strings.ToLower(strings.TrimSpace(media)), "+json")
}

func seeds(f *testing.F) {
	f.Helper()
	for _, member := range []string{
		`"data":{"a":[1,2.50,"x"]}`, `"data":"x\n","datacontenttype":"text/plain"`, `"data_base64":"AAE="`,
		`"time":"2026-01-02T03:04:05.678+01:00","subject":"s","dataschema":"http://x/y","ext":"v","n":5,"b":true,"z":null`,
		`"dataschema":"%"`, `"datacontenttype":"0 ","data":"x"`, `"time":"junk"`, `"a":1.0`, `"a":99999999999`, `"A":1`, `"data":null`, `"\u0061":"\ud83d\ude00\ud800"`, `"a":{"b":1}`, `"":1`,
		`"a":1.5`, `"Meta": {"a":[1]} ,"meta":"m"`, `"x-y":"z","x_y":null`, `"aB":1,"ab":[1e400]`, `"a":"\ud800"`,
		`"id":"2"`, `"data":1,"data_base64":""`, `"data_base64":5`, `"datacontenttype":"application/x+json","data":{}`, `"a":"` + "\xff" + `"`,
	} {
		f.Add([]byte(`{` + required + `,` + member + `}`))
		f.Add([]byte(`{` + member + ` , ` + required + `}`))
	}
	f.Add([]byte(`[]`))
}

func FuzzScan(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, raw []byte) {
		e, err := cloudevents.Scan(raw)
		strict := json.Valid(raw) && utf8.Valid(raw)
		ev, ok := sdkScan(raw)
		if err != nil {
			wantInvalid(t, err, "scan event: ")
			documented := false
			for _, words := range exceptions() {
				documented = documented || strings.Contains(err.Error(), words)
			}
			if strict && ok && !documented {
				t.Fatalf("the SDK takes it, Scan says %v", err)
			}
			return
		}
		if !strict {
			t.Fatal("Scan takes what is not JSON in UTF-8")
		}
		if !bytes.Equal(e.JSON(), raw) {
			t.Fatalf("JSON() = %q", e.JSON())
		}
		if len(membersOf(e)) > 0 {
			if cloudevents.Check(e) == nil {
				t.Fatal("Check takes members that are no attributes")
			}
			e = withoutMembers(t, e)
			ev, ok = sdkScan(e.JSON())
		}
		strictErr := cloudevents.Check(e)
		if ok {
			// The SDK leaves out a dataschema that it cannot parse.
			if strictErr != nil && !strings.Contains(strictErr.Error(), `"dataschema"`) {
				t.Fatalf("the SDK takes it, Check says %v", strictErr)
			}
			if strictErr == nil {
				compareSDK(t, e, ev)
			}
			return
		}
		if strictErr == nil && sdkReadsData(e) && !bytes.Contains(e.JSON(), []byte(`"data_base64"`)) {
			t.Fatalf("Scan and Check take it, the SDK does not")
		}
	})
}

// withoutMembers returns the event without what CloudEvents does not allow, for
// the SDK, which refuses most of that. It fails the test unless the rest is as
// it was and the members are what encoding/json reads.
func withoutMembers(t *testing.T, e *cloudevents.Event) *cloudevents.Event {
	t.Helper()
	var all map[string]json.RawMessage
	if err := json.Unmarshal(e.JSON(), &all); err != nil {
		t.Fatal(err)
	}
	for name, value := range e.Members() {
		if !bytes.Equal(all[name], value) {
			t.Fatalf("member %q is %q, want %q", name, value, all[name])
		}
		delete(all, name)
	}
	text := []byte(`{`)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		key, err := json.Marshal(name)
		if err != nil {
			t.Fatal(err)
		}
		if len(text) > 1 {
			text = append(text, ',')
		}
		text = append(append(append(text, key...), ':'), all[name]...)
	}
	rest, err := cloudevents.Scan(append(text, '}'))
	if err != nil {
		t.Fatalf("without its members: %v", err)
	}
	if diff := cmp.Diff(attrsOf(rest), attrsOf(e)); diff != "" || len(membersOf(rest)) > 0 {
		t.Fatalf("attributes differ without the members (-without +with):\n%s", diff)
	}
	if !bytes.Equal(rest.Data(), e.Data()) {
		t.Fatalf("Data() = %q without the members, %q with them", rest.Data(), e.Data())
	}
	return rest
}

// sdkReadsData tells whether the SDK can read the data of e: a string where it
// takes the content type for text. Nor can it read integers of more than 32
// bits, and empty optional attributes only in places.
func sdkReadsData(e *cloudevents.Event) bool {
	for name, value := range e.Attrs() {
		if value == "" && isOptional(name) {
			return false
		}
		if len(value) > 9 && !isOptional(name) && strings.Trim(value, "-0123456789") == "" {
			return false
		}
	}
	ct, _, _ := strings.Cut(e.DataContentType(), ";")
	ct = strings.ToLower(strings.TrimSpace(ct))
	return ct == "" || ct == "application/json" || ct == "text/json"
}

// compareSDK compares e with the SDK's reading of the same bytes, and what each
// becomes when converted to the other.
func compareSDK(t *testing.T, e *cloudevents.Event, ev event.Event) {
	t.Helper()
	if diff := cmp.Diff(sdkAttrs(t, ev), ourAttrs(e)); diff != "" {
		t.Fatalf("attributes differ (-sdk +ours):\n%s", diff)
	}
	if sameMode(e.DataContentType()) && !bytes.Equal(bytes.TrimSpace(ev.Data()), bytes.TrimSpace(e.Data())) {
		t.Fatalf("Data() = %q, the SDK says %q", e.Data(), ev.Data())
	}
	to, err := cloudevents.ToSDK(e)
	if err != nil {
		t.Fatal(err)
	}
	if err := to.Validate(); err != nil {
		t.Fatalf("ToSDK makes an event that is not valid: %v", err)
	}
	if diff := cmp.Diff(ourAttrs(e), sdkAttrs(t, to)); diff != "" {
		t.Fatalf("ToSDK changes attributes (-ours +sdk):\n%s", diff)
	}
	back, err := cloudevents.FromSDK(to)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(ourAttrs(e), ourAttrs(back)); diff != "" {
		t.Fatalf("FromSDK changes attributes (-before +after):\n%s", diff)
	}
	if !bytes.Equal(back.Data(), e.Data()) {
		t.Fatalf("FromSDK changes data from %q to %q", e.Data(), back.Data())
	}
}

func FuzzWith(f *testing.F) {
	f.Add([]byte(`{`+required+`,"data":{"a":1},"z":1}`), "ext", "v\"", "application/json", []byte("1"))
	f.Add([]byte(" { "+required+`,"Z":"\u0041","n":null,"data_base64":"AA=="} `), "n", "", "", []byte("{"))
	f.Add([]byte(`{`+required+`,"x-y": {"a":[1]},"topic":1.5,"data":2}`), "topic", "v", "", []byte("1"))
	f.Add([]byte(`{`+required+`,"aB":1,"ab":[1],"AB":null}`), "ab", "v", "", []byte("1"))
	f.Add([]byte(`{`+required+`,"datacontenttype":"text/plain","data":"x"}`), "datacontenttype", "application/json", "text/plain", []byte(nil))
	f.Fuzz(func(t *testing.T, raw []byte, name, value, contentType string, data []byte) {
		e, err := cloudevents.Scan(raw)
		if err != nil {
			return
		}
		attr := cloudevents.Attr{Name: name, Value: value}
		before := attrsOf(e)
		n := e.With(attr)
		if n == e {
			if cloudevents.CheckAttr(attr) == nil {
				t.Fatal("With left a good attribute out")
			}
		} else {
			want := maps.Clone(before)
			if _, had := e.Attr(name); had || len(before)+len(membersOf(e)) < cloudevents.MaxAttrs {
				want[name] = value
			}
			sameAsScan(t, n, want)
		}
		sameMembers(t, e, n, name)
		if !bytes.Equal(e.JSON(), raw) {
			t.Fatal("With changed the event it was called on")
		}
		if name != "datacontenttype" && !bytes.Equal(n.Data(), e.Data()) {
			t.Fatalf("With changed the data from %q to %q", e.Data(), n.Data())
		}
		d := n.WithData(contentType, data)
		want := attrsOf(n)
		delete(want, "datacontenttype")
		if ct := d.DataContentType(); ct != "" {
			want["datacontenttype"] = contentType
		}
		sameAsScan(t, d, want)
		sameMembers(t, n, d, "")
		if !bytes.Equal(d.Data(), data) {
			t.Fatalf("Data() = %q after WithData(%q)", d.Data(), data)
		}
		sameAsScan(t, d.With(cloudevents.Attr{Name: "zz", Value: value}), attrsOf(d.With(cloudevents.Attr{Name: "zz", Value: value})))
	})
}

// sameMembers fails the test unless both have the same opaque members; after
// may lack the one of that name where it has an attribute instead.
func sameMembers(t *testing.T, before, after *cloudevents.Event, name string) {
	t.Helper()
	want := membersOf(before)
	if _, ok := after.Member(name); !ok {
		if _, ok := after.Attr(name); ok {
			delete(want, name)
		}
	}
	if diff := cmp.Diff(want, membersOf(after)); diff != "" {
		t.Fatalf("members differ (-before +after):\n%s", diff)
	}
}

// sameAsScan fails the test unless e and a scan of its bytes both have the
// attributes, and the same members.
func sameAsScan(t *testing.T, e *cloudevents.Event, want map[string]string) {
	t.Helper()
	if diff := cmp.Diff(want, attrsOf(e)); diff != "" {
		t.Fatalf("attributes differ (-want +got):\n%s", diff)
	}
	again, err := cloudevents.Scan(e.JSON())
	if err != nil {
		t.Fatalf("scan %q: %v", e.JSON(), err)
	}
	if diff := cmp.Diff(want, attrsOf(again)); diff != "" {
		t.Fatalf("attributes differ in a fresh scan (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(membersOf(e), membersOf(again)); diff != "" {
		t.Fatalf("members differ in a fresh scan (-want +got):\n%s", diff)
	}
	for name, value := range want {
		if got, ok := e.Attr(name); !ok || got != value {
			t.Fatalf("Attr(%q) = %q, %v, want %q", name, got, ok, value)
		}
	}
}

func FuzzHTTPBinary(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, raw []byte) {
		e, err := cloudevents.Scan(raw)
		if err != nil {
			return
		}
		h := http.Header{}
		body := e.HTTPBinary(h)
		plain := true
		for _, values := range h {
			for _, ch := range []byte(values[0]) {
				if ch < ' ' || ch > '~' {
					t.Fatalf("header %q is not safe", values[0])
				}
			}
			plain = plain && !strings.ContainsAny(values[0], "%")
		}
		want := attrsOf(e)
		if _, said := want["datacontenttype"]; h.Get("Content-Type") != "" && !said {
			want["datacontenttype"] = "application/json"
		}
		if ct := want["datacontenttype"]; ct != h.Get("Content-Type") || ct == "" {
			return // none, or one that no header can hold
		}
		if strings.HasPrefix(strings.ToLower(want["datacontenttype"]), "application/cloudevents") {
			return // it would say that the body is an event
		}
		events, err := cloudevents.FromHTTP(h, body)
		if err != nil {
			t.Fatalf("FromHTTP(%v): %v", h, err)
		}
		if diff := cmp.Diff(want, attrsOf(events[0])); diff != "" {
			t.Fatalf("attributes differ (-sent +received):\n%s", diff)
		}
		if !bytes.Equal(events[0].Data(), e.Data()) {
			t.Fatalf("Data() = %q, sent %q", events[0].Data(), e.Data())
		}
		if plain && cloudevents.Check(e) == nil {
			compareHTTP(t, h, body, events[0])
		}
	})
}

// compareHTTP compares e with the SDK's reading of the same message. The SDK
// does not decode percent signs.
func compareHTTP(t *testing.T, h http.Header, body []byte, e *cloudevents.Event) {
	t.Helper()
	ev, err := binding.ToEvent(t.Context(), cehttp.NewMessage(h, io.NopCloser(bytes.NewReader(body))))
	if err != nil {
		t.Fatalf("the SDK refuses %v: %v", h, err)
	}
	if diff := cmp.Diff(ourAttrs(e), sdkAttrs(t, *ev)); diff != "" {
		t.Fatalf("attributes differ (-ours +sdk):\n%s", diff)
	}
	if !bytes.Equal(ev.Data(), e.Data()) {
		t.Fatalf("Data() = %q, the SDK says %q", e.Data(), ev.Data())
	}
}

func FuzzFromHTTP(f *testing.F) {
	f.Add("1.0", "1", "/s", "t", "ext", "v", "application/json", []byte("{}"))
	f.Add("1.0", "%41", "\"a\"", "t", "", "", "application/cloudevents-batch+json", []byte(`[{`+required+`}]`))
	f.Fuzz(func(t *testing.T, version, id, source, typ, name, value, contentType string, body []byte) {
		h := http.Header{
			"Ce-Specversion": {version}, "Ce-Id": {id}, "Ce-Source": {source}, "Ce-Type": {typ},
			"Ce-" + name: {value}, "Content-Type": {contentType},
		}
		events, err := cloudevents.FromHTTP(h, body)
		if err != nil {
			wantInvalid(t, err, ": ")
			return
		}
		for _, e := range events {
			sameAsScan(t, e, attrsOf(e))
		}
	})
}

func TestToSDK(t *testing.T) {
	t.Parallel()
	e := mustScan(t, `{`+required+`,"time":"2026-01-02T03:04:05+01:00","subject":"","n":5,"b":true,"long":99999999999,"f":1e1,"none":null,"x-y":1,"half":0.5,"data":{"a": 1.0}}`)
	got, err := cloudevents.ToSDK(e)
	if err != nil {
		t.Fatal(err)
	}
	want := event.New()
	want.SetID("1")
	want.SetSource("/s")
	want.SetType("t")
	want.SetTime(time.Date(2026, 1, 2, 2, 4, 5, 0, time.UTC))
	want.SetExtension("n", 5)
	want.SetExtension("b", true)
	want.SetExtension("long", "99999999999")
	want.SetExtension("f", 10)
	want.DataEncoded = []byte(`{"a": 1.0}`)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("event differs (-want +got):\n%s", diff)
	}
	back, err := cloudevents.FromSDK(got)
	if err != nil {
		t.Fatal(err)
	}
	const text = `{"specversion":"1.0","id":"1","source":"/s","type":"t","time":"2026-01-02T02:04:05Z",` +
		`"long":"99999999999","b":true,"f":10,"n":5,"data":{"a": 1.0}}`
	if diff := cmp.Diff(text, string(back.JSON())); diff != "" {
		t.Errorf("event converted back differs (-want +got):\n%s", diff)
	}
	bin := got.Clone()
	if err := bin.SetData("application/json", []byte(`1`)); err != nil {
		t.Fatal(err)
	}
	if back, err = cloudevents.FromSDK(bin); err != nil || !strings.HasSuffix(string(back.JSON()), `,"data_base64":"MQ=="}`) {
		t.Errorf("FromSDK of base64 data = %s, %v", back.JSON(), err)
	}
	junk, err := cloudevents.New("application/json", []byte("{"), cloudevents.Attr{Name: "id", Value: "1"},
		cloudevents.Attr{Name: "source", Value: "/s"}, cloudevents.Attr{Name: "type", Value: "t"})
	if err != nil {
		t.Fatal(err)
	}
	if got, err = cloudevents.ToSDK(junk); err != nil || string(got.Data()) != `"{"` {
		t.Errorf("ToSDK of data that claims to be JSON = %q, %v", got.Data(), err)
	}
}

func TestFromSDKRefuses(t *testing.T) {
	t.Parallel()
	old := event.New("0.3")
	old.SetID("1")
	old.SetSource("/s")
	old.SetType("t")
	_, err := cloudevents.FromSDK(old)
	wantInvalid(t, err, `specversion "0.3" is not supported`)
	_, err = cloudevents.FromSDK(event.New())
	wantInvalid(t, err, "convert event: ")
	_, err = cloudevents.FromSDK(event.Event{})
	wantInvalid(t, err, "convert event: ")
}

func TestCheck(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, text, want string }{
		{"good", `{` + required + `,"time":"2026-01-02T03:04:05Z","dataschema":"http://x/y","datacontenttype":"a/b; c=d","n":1}`, ""},
		{"time", `{` + required + `,"time":"yesterday"}`, `check event: attribute "time": "yesterday" is not an RFC 3339 time`},
		{"source", `{"specversion":"1.0","id":"1","source":"http://[","type":"t"}`, `attribute "source": "http://[" is not a URI reference`},
		{"dataschema relative", `{` + required + `,"dataschema":"x"}`, `attribute "dataschema"`},
		{"dataschema", `{` + required + `,"dataschema":"%zz"}`, `attribute "dataschema": "%zz" is not a URI`},
		{"name", `{` + required + `,"x-y":1}`, `check event: attribute "x-y": the name may only have lower-case letters and digits`},
		{"value", `{` + required + `,"Meta":{}}`, `attribute "Meta": the value must be a string, an integer, true, false or null`},
		{"content type", `{` + required + `,"datacontenttype":"a b c"}`, `attribute "datacontenttype"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e := mustScan(t, tt.text)
			err := cloudevents.Check(e)
			if tt.want != "" {
				wantInvalid(t, err, tt.want)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
	e := mustScan(t, `{`+required+`,"time":"x"}`)
	if _, err := cloudevents.ToSDK(e); err == nil {
		t.Error("ToSDK takes a time that is none")
	}
}

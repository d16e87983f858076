package cloudevents_test

import (
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/cloudevents"
)

// attrsOf returns all attributes of e.
func attrsOf(e *cloudevents.Event) map[string]string {
	return maps.Collect(e.Attrs())
}

// membersOf returns all opaque members of e, by name.
func membersOf(e *cloudevents.Event) map[string]string {
	members := map[string]string{}
	for name, value := range e.Members() {
		members[name] = string(value)
	}
	return members
}

// mustScan scans text and fails the test when it is refused.
func mustScan(tb testing.TB, text string) *cloudevents.Event {
	tb.Helper()
	e, err := cloudevents.Scan([]byte(text))
	if err != nil {
		tb.Fatalf("Scan(%.200q): %v", text, err)
	}
	return e
}

const required = `"specversion":"1.0","id":"1","source":"/s","type":"t"`

func TestGetters(t *testing.T) {
	t.Parallel()
	e := mustScan(t, `{`+required+`,"subject":"x","time":"2026-01-02T03:04:05Z","datacontenttype":"application/json","n":-0,"b":true,"f":1e3,"none":null,"data":{"a":1}}`)
	got := []string{e.ID(), e.Source(), e.Type(), e.Subject(), e.Time(), e.DataContentType(), string(e.Data())}
	want := []string{"1", "/s", "t", "x", "2026-01-02T03:04:05Z", "application/json", `{"a":1}`}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("getters differ (-want +got):\n%s", diff)
	}
	for name, want := range map[string]string{"n": "0", "b": "true", "f": "1000", "specversion": "1.0"} {
		if v, ok := e.Attr(name); !ok || v != want {
			t.Errorf("Attr(%q) = %q, %v, want %q", name, v, ok, want)
		}
	}
	for _, name := range []string{"none", "data", "absent", "", "ID"} {
		if v, ok := e.Attr(name); ok {
			t.Errorf("Attr(%q) = %q, want none", name, v)
		}
	}
	if !e.Structured() {
		t.Error("Structured() = false after Scan")
	}
}

func TestWith(t *testing.T) {
	t.Parallel()
	base := "\n{ " + required + ", \"seq\" : 5 ,\"data\": {\"b\":1.50, \"a\":1} , \"Ext\":\"e\" }\n"
	tests := []struct {
		name  string
		attrs []cloudevents.Attr
		want  string
	}{
		{"nothing", nil, base},
		{"add", []cloudevents.Attr{{"topic", `a"b`}}, strings.Replace(base, `"e"`, `"e","topic":"a\"b"`, 1)},
		{"replace before data", []cloudevents.Attr{{"id", "longer id"}}, strings.Replace(base, `"id":"1"`, `"id":"longer id"`, 1)},
		{"replace number", []cloudevents.Attr{{"seq", ""}}, strings.Replace(base, `5`, `""`, 1)},
		{"replace after data", []cloudevents.Attr{{"ext", "é\n"}}, strings.Replace(base, `"e"`, `"é\n"`, 1)},
		{"last counts", []cloudevents.Attr{{"x", "1"}, {"x", "2"}}, strings.Replace(base, `"e"`, `"e","x":"2"`, 1)},
		{"refused", []cloudevents.Attr{{"id", " "}, {"data", "1"}, {"specversion", "2"}, {"No", "1"}, {"", "1"}, {"x", "\xff"}}, base},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e := mustScan(t, base)
			got := e.With(tt.attrs...)
			if diff := cmp.Diff(tt.want, string(got.JSON())); diff != "" {
				t.Fatalf("JSON differs (-want +got):\n%s", diff)
			}
			if string(e.JSON()) != base {
				t.Errorf("the old event changed: %s", e.JSON())
			}
			again := mustScan(t, string(got.JSON()))
			if diff := cmp.Diff(attrsOf(again), attrsOf(got)); diff != "" {
				t.Errorf("attributes differ from a fresh scan (-scan +with):\n%s", diff)
			}
			if string(got.Data()) != `{"b":1.50, "a":1}` {
				t.Errorf("Data() = %s", got.Data())
			}
		})
	}
}

// TestMembers holds that what CloudEvents does not allow passes through.
func TestMembers(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("n", 65)
	text := `{ "x-y" : "z\n" ,` + required + `, "my_attr": 1.50,"Meta": {"a" :[ 1 ]},"topic":{"b":2},"\u005fq":null,"meta":"m","":1e400,"half":"\ud800","` +
		long + `":true ,"data":{"a":1}, "last":[]}`
	e := mustScan(t, text)
	want := map[string]string{
		"x-y": `"z\n"`, "my_attr": "1.50", "Meta": `{"a" :[ 1 ]}`, "topic": `{"b":2}`, "_q": "null", "": "1e400",
		"half": `"\ud800"`, long: "true", "last": "[]",
	}
	attrs := map[string]string{"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "meta": "m"}
	check := func(e *cloudevents.Event) {
		t.Helper()
		sameAsScan(t, e, attrs)
		if diff := cmp.Diff(want, membersOf(e)); diff != "" {
			t.Errorf("members differ (-want +got):\n%s", diff)
		}
		for name, value := range want {
			if got, ok := e.Member(name); !ok || string(got) != value {
				t.Errorf("Member(%q) = %q, %v, want %q", name, got, ok, value)
			}
			if got, ok := e.Attr(name); ok || e.Literal(name) {
				t.Errorf("Attr(%q) = %q, want none", name, got)
			}
		}
	}
	check(e)
	if got, ok := e.Member("meta"); ok {
		t.Errorf("Member of an attribute is %q", got)
	}
	if string(e.JSON()) != text {
		t.Errorf("JSON() is not what was read: %s", e.JSON())
	}
	attrs["added"] = "v"
	e = e.With(cloudevents.Attr{Name: "added", Value: "v"})
	check(e)
	check(e.WithData("", []byte(`[1]`)))
	attrs["topic"] = "orders"
	delete(want, "topic")
	e = e.With(cloudevents.Attr{Name: "topic", Value: "orders"})
	check(e)
	replaced := strings.Replace(text, `{"b":2}`, `"orders"`, 1)
	if got := string(e.JSON()); got != strings.Replace(replaced, `[]}`, `[],"added":"v"}`, 1) {
		t.Errorf("JSON() = %s", got)
	}
}

func TestNew(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, contentType, data, want string
	}{
		{"json", "application/json", `{ "a":1.0 }`, `,"data":{ "a":1.0 }}`},
		{"json with parameters", "Application/JSON; charset=utf-8", `[1]`, `,"data":[1]}`},
		{"suffix", "application/vnd.x+json;v=1", `1e400`, `,"data":1e400}`},
		{"claims to be json", "application/json", `{"a":`, `,"data":"{\"a\":"}`},
		{"empty json", "application/json", ``, `,"data":""}`},
		{"text", "text/plain", "a\x01\"\u2028", `,"data":"a\u0001\"` + "\u2028" + `"}`},
		{"xml", "application/xml", `<a/>`, `,"data":"<a/>"}`},
		{"bytes", "application/octet-stream", `abc`, `,"data_base64":"YWJj"}`},
		{"protobuf", "application/cloudevents+protobuf", `abc`, `,"data_base64":"YWJj"}`},
		{"text that is not UTF-8", "text/plain", "\xff", `,"data_base64":"/w=="}`},
		{"json that is not UTF-8", "application/json", "\"\xff\"", `,"data_base64":"Iv8i"}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e, err := cloudevents.New(tt.contentType, []byte(tt.data), cloudevents.Attr{"id", "1"},
				cloudevents.Attr{"source", "/s"}, cloudevents.Attr{"type", "t"})
			if err != nil {
				t.Fatal(err)
			}
			want := `{` + required + `,"datacontenttype":"` + tt.contentType + `"` + tt.want
			if diff := cmp.Diff(want, string(e.JSON())); diff != "" {
				t.Fatalf("JSON differs (-want +got):\n%s", diff)
			}
			if string(e.Data()) != tt.data || e.Structured() {
				t.Errorf("Data() = %q, Structured() = %v", e.Data(), e.Structured())
			}
			again := mustScan(t, string(e.JSON()))
			if diff := cmp.Diff(attrsOf(again), attrsOf(e)); diff != "" {
				t.Errorf("attributes differ from a fresh scan (-scan +new):\n%s", diff)
			}
		})
	}
}

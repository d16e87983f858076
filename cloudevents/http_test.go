package cloudevents_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/cloudevents"
)

// binaryHeader returns the header of an event in binary mode, and one more.
func binaryHeader(key string, values ...string) http.Header {
	h := http.Header{
		"Ce-Specversion": {"1.0"}, "Ce-Id": {"1"}, "Ce-Source": {"/s"}, "Ce-Type": {"t"},
		"Content-Type": {"application/json"},
	}
	h[key] = values
	return h
}

func TestFromHTTP(t *testing.T) {
	t.Parallel()
	const text = `{` + required + `,"data":{"a": 1}}`
	binary := binaryHeader("X-Other", "x")
	tests := []struct {
		name   string
		header http.Header
		body   string
		want   []string
	}{
		{"structured", http.Header{"Content-Type": {"application/cloudevents+json"}}, text, []string{text}},
		{"structured with charset", http.Header{"Content-Type": {"Application/CloudEvents+JSON; charset=UTF-8"}}, text, []string{text}},
		{"batch", http.Header{"Content-Type": {"application/cloudevents-batch+json"}}, "[" + text + "," + text + "]", []string{text, text}},
		{"empty batch", http.Header{"Content-Type": {"application/cloudevents-batch+json"}}, "[]", nil},
		{"binary", binary, `{"a": 1}`, []string{`{"specversion":"1.0","id":"1","source":"/s","type":"t","datacontenttype":"application/json","data":{"a": 1}}`}},
		{"binary without data", binary, ``, []string{`{"specversion":"1.0","id":"1","source":"/s","type":"t","datacontenttype":"application/json"}`}},
		{"binary encoded", binaryHeader("Ce-Ext", "%41%e2%82%AC%20 %zz%4"), `1`, []string{`{"specversion":"1.0","ext":"A€  %zz%4","id":"1","source":"/s","type":"t","datacontenttype":"application/json","data":1}`}},
		{"binary quoted", binaryHeader("Ce-Ext", `"a \"b\" \\"`), `1`, []string{`{"specversion":"1.0","ext":"a \"b\" \\","id":"1","source":"/s","type":"t","datacontenttype":"application/json","data":1}`}},
		{"binary, content type said twice", binaryHeader("Ce-Datacontenttype", "text/plain"), `1`, []string{`{"specversion":"1.0","id":"1","source":"/s","type":"t","datacontenttype":"application/json","data":1}`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			events, err := cloudevents.FromHTTP(tt.header, []byte(tt.body))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, e := range events {
				got = append(got, string(e.JSON()))
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("events differ (-want +got):\n%s", diff)
			}
			if !cloudevents.IsHTTP(tt.header) {
				t.Error("IsHTTP() = false")
			}
		})
	}
}

func TestFromHTTPRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		header http.Header
		body   string
		want   string
	}{
		{"no event", http.Header{"Content-Type": {"application/json"}}, "{}", "neither a ce-specversion header nor"},
		{"no header", nil, "", "neither a ce-specversion header nor"},
		{"protobuf", http.Header{"Content-Type": {"application/cloudevents+protobuf"}}, "", `content type "application/cloudevents+protobuf" is not supported`},
		{"structured junk", http.Header{"Content-Type": {"application/cloudevents+json"}}, "{", "scan event: byte 1"},
		{"batch junk", http.Header{"Content-Type": {"application/cloudevents-batch+json"}}, "{}", "scan batch: byte 0"},
		{"old version", binaryHeader("Ce-Specversion", "0.3"), "", `specversion "0.3" is not supported`},
		{"no id", binaryHeader("Ce-Id", ""), "", `attribute "id": must not be blank`},
		{"header twice", binaryHeader("Ce-Id", "1", "2"), "", `header "Ce-Id" is there 2 times`},
		{"header twice by case", binaryHeader("ce-id", "2"), "", `attribute "id" is there twice`},
		{"name with dash", binaryHeader("Ce-A-B", "2"), "", "the name may only have"},
		{"name empty", binaryHeader("Ce-", "2"), "", "the name must have"},
		{"name of data", binaryHeader("Ce-Data", "2"), "", "the event sets it itself"},
		{"not UTF-8", binaryHeader("Ce-Ext", "%ff"), "", `header "Ce-Ext" is not UTF-8 when decoded`},
		{"not UTF-8, plain", binaryHeader("Ce-Ext", "\xff"), "", `header "Ce-Ext" is not UTF-8 when decoded`},
		{"too deep", binaryHeader("X-Other", "x"), strings.Repeat("[", 64) + strings.Repeat("]", 64), "nested deeper than 64 levels"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := cloudevents.FromHTTP(tt.header, []byte(tt.body))
			wantInvalid(t, err, tt.want)
		})
	}
}

func TestIsHTTP(t *testing.T) {
	t.Parallel()
	for want, headers := range map[bool][]http.Header{
		true: {
			{"Content-Type": {"application/cloudevents+avro"}},
			{"Content-Type": {"application/cloudevents-batch+json"}},
			{"Ce-Specversion": {"9"}, "Content-Type": {"text/plain"}},
		},
		false: {nil, {"Content-Type": {"application/json"}}, {"Ce-Id": {"1"}}, {"Content-Type": {"application/cloud"}}},
	} {
		for _, h := range headers {
			if cloudevents.IsHTTP(h) != want {
				t.Errorf("IsHTTP(%v) = %v, want %v", h, !want, want)
			}
		}
	}
}

func TestHTTPBinary(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, member string
		want         http.Header // beside the required
		body         string
	}{
		{"json implied", `"data":{"a": 1}`, http.Header{"Content-Type": {"application/json"}}, `{"a": 1}`},
		{"no data", `"n":1`, http.Header{"Ce-N": {"1"}}, ""},
		{"bytes of no type", `"data_base64":"AA=="`, http.Header{}, "\x00"},
		{"text", `"datacontenttype":"text/plain","data":"a\nb"`, http.Header{"Content-Type": {"text/plain"}}, "a\nb"},
		{
			"unsafe values", `"a":"x y\"%€\r\nSet-Cookie: z","datacontenttype":"text/plain; a=\"b\"\r\nx: y","data":""`,
			http.Header{"Ce-A": {"x%20y%22%25%E2%82%AC%0D%0ASet-Cookie:%20z"}, "Content-Type": {`text/plain; a="b"%0D%0Ax: y`}},
			"",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e := mustScan(t, `{`+required+`,`+tt.member+`}`)
			got := http.Header{"Ce-Old": {"x"}, "Content-Type": {"old"}, "X-Other": {"x"}}
			body := e.HTTPBinary(got)
			want := tt.want
			for k, v := range map[string]string{"Ce-Id": "1", "Ce-Source": "/s", "Ce-Type": "t", "Ce-Specversion": "1.0", "X-Other": "x"} {
				want.Set(k, v)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("headers differ (-want +got):\n%s", diff)
			}
			if string(body) != tt.body {
				t.Errorf("body is %q, want %q", body, tt.body)
			}
		})
	}
}

func TestHTTPStructured(t *testing.T) {
	t.Parallel()
	const text = `{` + required + `}`
	h := http.Header{}
	body := mustScan(t, text).HTTPStructured(h)
	if string(body) != text || h.Get("Content-Type") != "application/cloudevents+json" {
		t.Errorf("body %s, header %v", body, h)
	}
}

func TestTraceParent(t *testing.T) {
	t.Parallel()
	tests := []struct {
		s    string
		want bool
	}{
		{parentA, true},
		{parentB, true},
		{"01" + parentA[2:] + "-more", true},
		{"01" + parentA[2:], true},
		{"01" + parentA[2:] + "more", false},
		{parentA + "-more", false},
		{"ff" + parentA[2:], false},
		{"", false},
		{parentA[:54], false},
		{strings.ToUpper(parentA), false},
		{strings.ReplaceAll(parentA, "-", "_"), false},
		{"00-00000000000000000000000000000000-b7ad6b7169203331-01", false},
		{"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", false},
		{"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0g", false},
	}
	for _, tt := range tests {
		if got := cloudevents.ValidTraceParent(tt.s); got != tt.want {
			t.Errorf("ValidTraceParent(%q) = %v, want %v", tt.s, got, tt.want)
		}
		if (cloudevents.TraceID(tt.s) != "") != tt.want || (cloudevents.SpanID(tt.s) != "") != tt.want {
			t.Errorf("TraceID, SpanID(%q) = %q, %q", tt.s, cloudevents.TraceID(tt.s), cloudevents.SpanID(tt.s))
		}
	}
	fresh := cloudevents.NewTraceParent()
	if !cloudevents.ValidTraceParent(fresh) || fresh == cloudevents.NewTraceParent() {
		t.Errorf("NewTraceParent() = %q", fresh)
	}
	child := cloudevents.ChildTraceParent(parentB)
	if !cloudevents.ValidTraceParent(child) || cloudevents.TraceID(child) != cloudevents.TraceID(parentB) ||
		cloudevents.SpanID(child) == cloudevents.SpanID(parentB) || !strings.HasSuffix(child, "-00") {
		t.Errorf("ChildTraceParent(%q) = %q", parentB, child)
	}
	if orphan := cloudevents.ChildTraceParent("junk"); !cloudevents.ValidTraceParent(orphan) {
		t.Errorf("ChildTraceParent(junk) = %q", orphan)
	}
}

func TestNewID(t *testing.T) {
	t.Parallel()
	seen := make(map[string]bool)
	for range 1000 {
		id := cloudevents.NewID()
		if !uuid4.MatchString(id) || seen[id] {
			t.Fatalf("NewID() = %q", id)
		}
		seen[id] = true
	}
}

package peer

import (
	"bufio"
	"bytes"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	internalv1 "github.com/dapr/dapr/pkg/proto/internals/v1"
	"google.golang.org/protobuf/proto"

	"github.com/penstock-io/penstock/invoke/message"
)

// FuzzRequest: a request that one sidecar writes is read by the other one as the
// same: path, query, verb and headers, or as an error; and its path in plain form,
// which a stock sidecar decides on, is that of the path which the app gets.
func FuzzRequest(f *testing.F) {
	for _, seed := range [][5]string{
		{"orders", "", "GET", "X-A", "1"},
		{"a%2Fb", "q=%zz", "PROPFIND", "x-bin", "\x00"},
		{"%61dmin/", "a=b&c", "", "Connection", "x"},
		{"ä", "#", "post", "dapr-caller-app-id", "me"},
		{"", "", "CONNECT", "content-length", "5"},
		{"a;b", "", "get", "destination-app-id", "x"},
	} {
		f.Add(seed[0], seed[1], seed[2], seed[3], seed[4])
	}
	f.Fuzz(func(t *testing.T, raw, query, verb, name, value string) {
		path, err := message.Path(raw)
		if err != nil {
			return
		}
		r := &message.Request{Verb: verb, Path: path, Query: query, Header: http.Header{http.CanonicalHeaderKey(name): {value}}, Length: -1}
		message.Clean(r.Header)
		want := r.Header.Clone()
		message.ForHTTP(want)
		for _, values := range want {
			for i, v := range values {
				values[i] = strings.ToValidUTF8(v, "\uFFFD") // the protocol has nothing else
			}
		}
		out, md := encode("callee", r)
		wire, err := proto.Marshal(out)
		if err != nil {
			return // not UTF-8, which gRPC does not send
		}
		in := new(internalv1.InternalInvokeRequest)
		if err := proto.Unmarshal(wire, in); err != nil {
			t.Fatal(err)
		}
		if in.Message.Method != message.Plain(path) {
			t.Fatalf("another sidecar decides on %q, the app gets %q", in.Message.Method, path)
		}
		got, err := decode(in, md)
		if err != nil {
			return
		}
		if got.Path != path || got.Query != query {
			t.Fatalf("path %q, query %q arrive as %q, %q", path, query, got.Path, got.Query)
		}
		if goodVerb(verb) && got.Verb != verb {
			t.Fatalf("verb %q arrives as %q", verb, got.Verb)
		}
		message.ForHTTP(got.Header)
		delete(want, "Content-Type")
		delete(got.Header, "Content-Type")
		maps.DeleteFunc(want, func(name string, _ []string) bool { return strings.HasPrefix(name, "Grpc-") })
		maps.DeleteFunc(got.Header, func(name string, _ []string) bool { return strings.HasPrefix(name, "Dapr-Grpc-") })
		if !maps.EqualFunc(want, got.Header, slices.Equal) {
			t.Fatalf("headers %q arrive as %q", want, got.Header)
		}
	})
}

// FuzzDirectPath: the path that one side read is the one that the other side reads,
// and so are the query and the verb; access is decided on nothing else.
func FuzzDirectPath(f *testing.F) {
	for _, seed := range [][3]string{
		{"orders/7", "a=b", "GET"},
		{"a%2Fb/c%20d/", "x=1&y=%20;&&z", "PATCH"},
		{"a b", "", "POST"},
		{"%41/%c3%a4/ä", "?", "X-VERB"},
		{"", "", "HEAD"},
		{"a;b=c/d,e", "a#b", "GET"},
		{"a'(b)*!$&+@:=", "%zz", "GET"},
		{"[x]|^`{}\"<>", "", "GET"},
		{"..", "", "GET"},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	f.Fuzz(func(t *testing.T, raw, query, verb string) {
		path, err := message.Path(raw)
		if err != nil || !goodVerb(verb) || strings.ContainsFunc(query, func(c rune) bool { return c <= ' ' || c >= 0x7f || c == '#' }) {
			return
		}
		w := &way{address: "127.0.0.1:1"}
		out := &http.Request{Method: verb, URL: w.method(&message.Request{Path: path, Query: query}), Host: "x", Header: http.Header{}}
		var wire bytes.Buffer
		if err := out.Write(&wire); err != nil {
			t.Fatal(err)
		}
		in, err := http.ReadRequest(bufio.NewReader(&wire))
		if err != nil {
			t.Fatal(err)
		}
		got, err := message.Path(in.URL.EscapedPath())
		if err != nil || got != path || in.URL.RawQuery != query || in.Method != verb {
			t.Fatalf("%s %q?%q arrives as %s %q?%q: %v", verb, path, query, in.Method, got, in.URL.RawQuery, err)
		}
	})
}

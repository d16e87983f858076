package message

import (
	"maps"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
	"testing"
)

// FuzzHeaders: whatever a header is, on its way to gRPC and back it stays what it
// was or is left out, and what belongs to one hop, a token among it, never gets
// through, by whichever name.
func FuzzHeaders(f *testing.F) {
	for _, seed := range [][3]string{
		{"X-A", "1", ""},
		{"x-a", "ä", "X-A"},
		{"Connection", "x-b, X-C", "x-c"},
		{"dapr-api-token", "secret", ""},
		{"DAPR-API-TOKEN", "secret", ""},
		{"x-bin", "\x00\x01", ""},
		{"grpc-status", "0", ""},
		{"grpc-trace-bin", "\x00", ""},
		{":path", "/x", ""},
		{"Cookie", "a=b", ""},
		{"x", "a\r\nb: c", ""},
		{"Te", "trailers", ""},
		{"dapr-grpc-status", "1", ""},
		{"content-type", "text/plain", ""},
		{"", "1", ""},
		{"x_y", "1", ""},
		{"\u212Aeep-alive", "1", ""},
		{"\u212Aeel-alive", "1", ""},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	f.Fuzz(func(t *testing.T, name, value, hop string) {
		h := http.Header{textproto.CanonicalMIMEHeaderKey(name): {value, "second"}, "X-Kept": {"1"}}
		if hop != "" {
			h["Connection"] = append(h["Connection"], hop)
		}
		Clean(h)
		checkClean(t, h, name, hop)
		again := h.Clone()
		if Clean(again); !maps.EqualFunc(h, again, slices.Equal) {
			t.Fatalf("cleaned twice it is %v, once %v", again, h)
		}
		checkClean(t, FromMetadata(Metadata(h, false)), name, "")
		back := FromMetadata(Metadata(h, true))
		checkClean(t, back, name, hop)
		checkBack(t, h, back)
		ForHTTP(h)
		for name, values := range h {
			if !Good(name, values) {
				t.Fatalf("%q: %q is sent over HTTP", name, values)
			}
		}
	})
}

// checkClean finds what belongs to one hop.
func checkClean(t *testing.T, h http.Header, name, hop string) {
	t.Helper()
	for key := range h {
		canonical := textproto.CanonicalMIMEHeaderKey(key)
		if OneHop(canonical) || strings.EqualFold(key, "dapr-api-token") {
			t.Fatalf("%q gets through as %q", name, key)
		}
		for one := range strings.SplitSeq(hop, ",") {
			if one = strings.TrimSpace(one); Good(one, nil) && strings.EqualFold(key, one) && !strings.EqualFold(one, "Connection") {
				t.Fatalf("%q, which Connection names, gets through as %q", one, key)
			}
		}
	}
}

// checkBack finds values that came back as others.
func checkBack(t *testing.T, h, back http.Header) {
	t.Helper()
	for key, values := range back {
		if was, ok := h[key]; !ok || !slices.Equal(was, values) {
			t.Fatalf("%q came back as %q, it was %q", key, values, was)
		}
	}
}

package http

import (
	"maps"
	"net/http"
	"net/textproto"
	"slices"
	"strings"

	"github.com/penstock-io/penstock/app"
)

// The limits of metadata as headers; what is over them is left out, the names
// in the order of the alphabet. Servers refuse requests with more.
const (
	maxMetaCount = 100
	maxMetaValue = 8 << 10
	maxMetaTotal = 32 << 10
)

// header makes the headers of a request, in the caller's map when there is one.
func (c *Channel) header(r *Request) http.Header {
	h := r.Header
	if h == nil {
		h = make(http.Header, 8)
	}
	addMetadata(h, r.Metadata)
	switch r.ContentType {
	case "":
	case structuredType:
		h["Content-Type"] = c.structured
	default:
		h["Content-Type"] = []string{cleanValue(r.ContentType)}
	}
	if _, set := h["User-Agent"]; !set {
		h["User-Agent"] = c.agent
	}
	if c.token != nil {
		h["Dapr-Api-Token"] = c.token
	}
	return h
}

// addMetadata adds what a header can carry and h does not have.
func addMetadata(h http.Header, metadata map[string]string) {
	if len(metadata) == 0 {
		return
	}
	total := 0
	for name, value := range metadata {
		total += len(name) + len(value)
	}
	values := make([]string, 0, len(metadata))
	if len(metadata) <= maxMetaCount && total <= maxMetaTotal {
		for name, value := range metadata {
			values = addValue(h, values, name, value)
		}
		return
	}
	total = 0
	for _, name := range slices.Sorted(maps.Keys(metadata)) {
		value := metadata[name]
		if total += len(name) + len(value); total > maxMetaTotal || len(values) == maxMetaCount {
			return
		}
		values = addValue(h, values, name, value)
	}
}

// addValue adds one header, whose value lives in values.
func addValue(h http.Header, values []string, name, value string) []string {
	if len(value) > maxMetaValue || !isToken(name) {
		return values
	}
	key := textproto.CanonicalMIMEHeaderKey(name)
	if _, taken := h[key]; taken || isOurs(key) {
		return values
	}
	values = append(values, cleanValue(value))
	n := len(values)
	h[key] = values[n-1 : n : n]
	return values
}

// isOurs tells whether a header belongs to this request or connection, so that
// metadata, which may be another request's headers, cannot set it.
func isOurs(key string) bool {
	switch key {
	case "Host", "Content-Length", "Content-Type", "Content-Encoding", "Transfer-Encoding", "Connection",
		"Keep-Alive", "Upgrade", "Te", "Trailer", "Expect", "Proxy-Connection", "Proxy-Authorization",
		"Http2-Settings", "Accept-Encoding", "Range", "If-None-Match", "If-Modified-Since",
		"Idempotency-Key", "X-Idempotency-Key", "Dapr-Api-Token", "Traceparent", "Tracestate":
		return true
	}
	return false
}

// isToken tells whether name can be the name of a header.
func isToken(name string) bool {
	if name == "" || len(name) > 256 {
		return false
	}
	for i := range len(name) {
		c := name[i]
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
			return false
		}
	}
	return true
}

// cleanValue returns value as a header can carry it.
func cleanValue(value string) string { return app.Escape(value, isPlain) }

func isPlain(c byte) bool { return c >= ' ' && c < 0x7f || c == '\t' }

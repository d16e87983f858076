package message

import (
	"net/http"
	"net/textproto"
	"strings"

	"google.golang.org/grpc/metadata"
)

// The headers that say who calls whom. Only a sidecar sets them.
const (
	CallerID        = "Dapr-Caller-App-Id"
	CallerNamespace = "Dapr-Caller-Namespace"
	CalleeID        = "Dapr-Callee-App-Id"
)

// Clean removes from h what belongs to one connection, by its name or because the
// header Connection names it, what says how long the body is, what is for a
// sidecar alone, and every token. h may be a request's or an answer's.
func Clean(h http.Header) {
	for _, value := range h["Connection"] {
		for name := range strings.SplitSeq(value, ",") {
			delete(h, textproto.CanonicalMIMEHeaderKey(strings.TrimSpace(name)))
		}
	}
	for name := range h {
		if OneHop(name) {
			delete(h, name)
		}
	}
}

// OneHop tells whether a header, in canonical form, goes no further than the next
// hop.
func OneHop(name string) bool {
	switch name {
	case "Connection", "Keep-Alive", "Proxy-Connection", "Transfer-Encoding", "Upgrade", "Http2-Settings", "Te", "Trailer",
		"Proxy-Authorization", "Proxy-Authenticate", "Content-Length", "Host", "Expect",
		"Dapr-Api-Token", "Dapr-App-Id", "Destination-App-Id":
		return true
	}
	return strings.HasPrefix(name, ":")
}

// Good tells whether a header can be written: its name is a token and its values
// hold no control characters.
func Good(name string, values []string) bool {
	if name == "" {
		return false
	}
	for i := range len(name) {
		c := name[i]
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
			return false
		}
	}
	for _, v := range values {
		for i := range len(v) {
			if c := v[i]; c < ' ' && c != '\t' || c == 0x7f {
				return false
			}
		}
	}
	return true
}

// FromMetadata returns the metadata of a call over gRPC as headers. The content
// type is left out: it is that of gRPC. Keys of gRPC itself get dapr- in front.
func FromMetadata(md metadata.MD) http.Header {
	h := make(http.Header, len(md))
	for key, values := range md {
		if len(values) > 0 {
			AddMetadata(h, key, values)
		}
	}
	return h
}

// AddMetadata is FromMetadata for one key, in any case.
func AddMetadata(h http.Header, key string, values []string) {
	switch key = lower(key); {
	case key == "content-type":
		return
	case key == ":authority" || key == ":method" || key == ":path" || key == ":scheme":
		key = "dapr-" + key[1:]
	case strings.HasPrefix(key, "grpc-") && key != traceBin:
		key = "dapr-" + key
	}
	name := textproto.CanonicalMIMEHeaderKey(key)
	if !OneHop(name) {
		h[name] = append(h[name], values...)
	}
}

// traceBin is the trace context of older gRPC clients.
const traceBin = "grpc-trace-bin"

// Metadata returns headers as the metadata of a call over gRPC, of a request that
// came over gRPC or of any other. Headers that HTTP defines get dapr- in front in
// the second case, as under Dapr; what gRPC cannot carry is left out.
func Metadata(h http.Header, rpc bool) metadata.MD {
	md := make(metadata.MD, len(h))
	for name, values := range h {
		key := lower(name)
		binary := strings.HasSuffix(key, "-bin")
		if len(values) == 0 || strings.HasPrefix(key, "grpc-") && key != traceBin || !isKey(key) || !binary && !printable(values) {
			continue
		}
		if !rpc && ofHTTP(name) {
			key = "dapr-" + key
		}
		if key != "content-type" && key != "user-agent" {
			md[key] = values
		}
	}
	return md
}

// lower returns a name in lower case. In one that is not ASCII a letter may fold to
// one that is, which would make another name of it: it stays as it is, and is none.
func lower(name string) string {
	if strings.ContainsFunc(name, func(r rune) bool { return r > 0x7f }) {
		return name
	}
	return strings.ToLower(name)
}

func isKey(key string) bool {
	for i := range len(key) {
		c := key[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.' {
			return false
		}
	}
	return key != ""
}

func printable(values []string) bool {
	for _, v := range values {
		for i := range len(v) {
			if v[i] < ' ' || v[i] > '~' {
				return false
			}
		}
	}
	return true
}

// ofHTTP tells whether a header is one that HTTP gives a meaning.
func ofHTTP(name string) bool {
	switch name {
	case "Accept", "Accept-Charset", "Accept-Language", "Accept-Ranges", "Cache-Control", "Content-Type", "Cookie", "Date", "From",
		"If-Match", "If-Modified-Since", "If-None-Match", "If-Schedule-Tag-Match", "If-Unmodified-Since", "Max-Forwards", "Origin",
		"Pragma", "Referer", "Via", "Warning":
		return true
	}
	return false
}

// ForHTTP removes from the headers of a call that came over gRPC, or goes on over
// HTTP, what HTTP cannot carry.
func ForHTTP(h http.Header) {
	for name, values := range h {
		if strings.HasSuffix(strings.ToLower(name), "-bin") || !Good(name, values) {
			delete(h, name)
		}
	}
}

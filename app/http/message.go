package http

import (
	"net/http"
	"strconv"
)

// append adds the request as it is written.
func (m *message) append(out []byte) []byte {
	out = append(append(out, m.method...), ' ')
	out = append(append(out, m.target...), " HTTP/1.1\r\nHost: "...)
	out = append(append(out, m.host...), '\r', '\n')
	for name, values := range m.header {
		if isFraming(name) || !isToken(name) {
			continue
		}
		for _, v := range values {
			out = append(append(out, name...), ": "...)
			out = append(append(out, cleanValue(v)...), '\r', '\n')
		}
	}
	if len(m.body) > 0 || wantsLength(m.method) {
		out = append(out, "Content-Length: "...)
		out = append(strconv.AppendInt(out, int64(len(m.body)), 10), '\r', '\n')
	}
	return append(append(out, '\r', '\n'), m.body...)
}

// isFraming tells whether a header says where messages begin and end; those
// are ours alone.
func isFraming(name string) bool {
	switch name {
	case "Host", "Content-Length", "Transfer-Encoding", "Trailer", "Connection", "Upgrade":
		return true
	}
	return false
}

// wantsLength tells whether a request says that it has no body.
func wantsLength(method string) bool {
	return method == http.MethodPost || method == http.MethodPut || method == http.MethodPatch
}

// harmless tells whether a request may be made twice, as net/http sees it: by
// its method, or because the caller says so.
func harmless(method string, h http.Header) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	}
	_, key := h["Idempotency-Key"]
	_, old := h["X-Idempotency-Key"]
	return key || old
}

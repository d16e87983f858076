package http

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/penstock-io/penstock/api"
)

// firstRead is how much of a body is made room for before any of it arrived; a
// client that only claims to send a lot ties up no more than this.
const firstRead = 64 << 10

// readBody reads the whole body into a buffer of its own, which is never used
// again for another request: brokers keep it.
func (h *handler) readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	size := r.ContentLength
	if size == 0 {
		return nil, nil
	}
	if size > h.maxBody {
		return nil, h.tooLarge(w)
	}
	var body []byte
	var err error
	if size > 0 {
		body, err = readKnown(r.Body, int(size))
	} else {
		body, err = readUnknown(r.Body, h.maxBody)
	}
	switch {
	case errors.Is(err, errTooLarge):
		return nil, h.tooLarge(w)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, api.Errorf(api.BodyRead, "read request body: it took too long to arrive")
	case err != nil:
		return nil, api.Errorf(api.BodyRead, "read request body: %w", err)
	}
	return body, nil
}

func (h *handler) tooLarge(w http.ResponseWriter) error {
	w.Header().Set("Connection", "close")
	// What is left of the body is read for a moment, so that a client that is
	// still sending gets to see the answer; not for as long as a body may take.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(time.Second))
	return api.Errorf(api.BodyRead, "read request body: it is larger than %d bytes, the limit set by --max-body-size", h.maxBody)
}

var errTooLarge = errors.New("body too large")

// readKnown reads exactly size bytes, making room as they arrive.
func readKnown(r io.Reader, size int) ([]byte, error) {
	buf := make([]byte, min(size, firstRead))
	n := 0
	for {
		m, err := io.ReadFull(r, buf[n:])
		if err != nil {
			return nil, err
		}
		if n += m; n == size {
			return buf, nil
		}
		grown := make([]byte, min(size, 4*len(buf)))
		copy(grown, buf)
		buf = grown
	}
}

// readUnknown reads to the end, at most limit bytes.
func readUnknown(r io.Reader, limit int64) ([]byte, error) {
	buf := make([]byte, 0, 4<<10)
	for {
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if int64(len(buf)) > limit {
			return nil, errTooLarge
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if len(buf) == cap(buf) {
			grown := make([]byte, len(buf), min(int64(2*len(buf)), max(limit, int64(len(buf)))+1))
			copy(grown, buf)
			buf = grown
		}
	}
	if cap(buf)-len(buf) > len(buf)/4 {
		buf = append(make([]byte, 0, len(buf)), buf...)
	}
	return buf, nil
}

// metadataPrefix marks the query parameters that are request metadata.
const metadataPrefix = "metadata."

// queryMetadata reads metadata.<key>=<value>; of a key given twice the last
// counts. Other parameters are not looked at. It returns nil when there is none.
func queryMetadata(query string, p api.Problem) (map[string]string, error) {
	var m map[string]string
	for query != "" {
		var pair string
		pair, query, _ = strings.Cut(query, "&")
		rawKey, rawValue, _ := strings.Cut(pair, "=")
		key, err := url.QueryUnescape(rawKey)
		if err != nil {
			return nil, api.Errorf(p, "read query parameter %q: bad escape", rawKey)
		}
		key, ok := strings.CutPrefix(key, metadataPrefix)
		if !ok || key == "" {
			continue
		}
		value, err := url.QueryUnescape(rawValue)
		if err != nil {
			return nil, api.Errorf(p, "read query parameter %q: bad escape in %q", rawKey, rawValue)
		}
		if m == nil {
			m = map[string]string{}
		}
		m[key] = value
	}
	return m, nil
}

// traceOf reads the trace context of a request.
func traceOf(r *http.Request) (api.Trace, error) {
	return api.TraceHeaders{Parent: r.Header["Traceparent"], State: r.Header["Tracestate"], Baggage: r.Header["Baggage"]}.Trace()
}

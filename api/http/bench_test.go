package http_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	apihttp "github.com/penstock-io/penstock/api/http"
)

// sink is a response nobody reads.
type sink struct{ header http.Header }

func (s *sink) Header() http.Header         { return s.header }
func (s *sink) Write(p []byte) (int, error) { return len(p), nil }
func (s *sink) WriteHeader(int)             {}

// publisher returns a function that publishes one 256-byte event, reusing the
// request.
func publisher(tb testing.TB, query string) func() {
	i := start(tb)
	i.broker.discard = true
	h := i.handler(apihttp.Options{})
	payload := bytes.Repeat([]byte("x"), 256)
	body := bytes.NewReader(payload)
	r := httptest.NewRequest("POST", "/v1.0/publish/bus/orders"+query, io.NopCloser(body))
	r.Host, r.ContentLength = "localhost:3500", int64(len(payload))
	r.Header.Set("Content-Type", "application/octet-stream")
	w := &sink{http.Header{}}
	return func() {
		body.Reset(payload)
		h.ServeHTTP(w, r)
	}
}

func BenchmarkPublish(b *testing.B) {
	for name, query := range map[string]string{"envelope": "", "raw": raw} {
		b.Run(name, func(b *testing.B) {
			publish := publisher(b, query)
			b.ReportAllocs()
			for b.Loop() {
				publish()
			}
		})
	}
}

package http

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/penstock-io/penstock/api"
)

// Until the bus takes over, a publish makes its body and its request, and a map
// when the query has metadata; the checks make nothing.
func TestPublishAllocations(t *testing.T) {
	h := New(api.New("shop", nil), Options{Tokens: []string{"token"}}).(*handler)
	tests := []struct {
		name, target string
		most         float64
	}{
		{"plain", "/v1.0/publish/bus/orders", 2},
		{"metadata", "/v1.0/publish/bus/orders?metadata.ttlInSeconds=60", 4},
		{"escaped", "/v1.0/publish/bus/a%2Fb", 4},
	}
	for _, tt := range tests {
		payload := bytes.Repeat([]byte("x"), 256)
		body := bytes.NewReader(payload)
		r := httptest.NewRequest("POST", tt.target, io.NopCloser(body))
		r.Host, r.ContentLength = "localhost:3500", int64(len(payload))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Dapr-Api-Token", "token")
		r.Header.Set("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
		var w http.ResponseWriter = httptest.NewRecorder()
		got := testing.AllocsPerRun(1000, func() {
			body.Reset(payload)
			path := canonical(r.URL)
			if h.guard(w, r, path) {
				t.Fatal("refused")
			}
			to, ok := publishTarget(r.Method, path)
			if !ok {
				t.Fatal("not on the short way")
			}
			if _, _, err := h.publishRequest(w, r, to); err != nil {
				t.Fatal(err)
			}
		})
		if got > tt.most {
			t.Errorf("%s: %v allocations, want at most %v", tt.name, got, tt.most)
		}
	}
}

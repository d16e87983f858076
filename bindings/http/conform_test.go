package http

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/penstock-io/penstock/bindings"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/test/conform"
)

func TestConform(t *testing.T) { // not parallel: the suite counts goroutines
	conform.Binding(t, Component, conform.BindingSetup{
		Options: func(t *testing.T) map[string]string {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body) // all of it before the answer begins
				if r.URL.Path == "/missing" {
					w.WriteHeader(http.StatusNotFound)
				}
				_, _ = w.Write(body)
			}))
			t.Cleanup(s.Close)
			return map[string]string{"url": s.URL}
		},
		Wrong: map[string]map[string]string{
			"url": {"url": "ftp://example.com"}, "responseTimeout": {"responseTimeout": "0s"}, "MTLSRenegotiation": {"MTLSRenegotiation": "maybe"},
			"errorIfNot2XX": {"errorIfNot2XX": "perhaps"}, "MTLSClientCert": {"MTLSClientCert": "x"},
		},
		Requests: func(map[string]string) (all []bindings.Request) {
			for _, operation := range operations() {
				all = append(all, bindings.Request{Operation: operation, Data: []byte("x"), Metadata: map[string]string{"path": "/a?b=c", "X-Header": "y"}})
			}
			return all
		},
		RoundTrip: func(t *testing.T, out bindings.Invoker, _ map[string]string, data []byte) ([]byte, error) {
			resp, err := out.Invoke(t.Context(), &bindings.Request{Operation: "create", Data: data})
			if err != nil {
				return nil, err
			}
			return resp.Data, nil
		},
		Fails: []conform.BindingFailure{
			{Name: "404", Request: bindings.Request{Operation: "get", Metadata: map[string]string{"path": "/missing"}}, Kind: fault.NotFound},
			{Name: "path", Request: bindings.Request{Operation: "get", Metadata: map[string]string{"path": "//evil"}}, Kind: fault.Invalid},
			{Name: "header", Request: bindings.Request{Operation: "get", Metadata: map[string]string{"X": "a\nb"}}, Kind: fault.Invalid},
		},
	})
}

package http_test

import (
	"compress/gzip"
	"testing"

	apihttp "github.com/penstock-io/penstock/api/http"
)

func TestProfile(t *testing.T) {
	t.Parallel()
	h := apihttp.NewProfile(apihttp.Options{})
	for _, row := range []struct {
		method, target, host, origin string
		status                       int
	}{
		{"GET", "/debug/pprof/", "localhost:7777", "", 200},
		{"GET", "/debug/pprof/heap", "localhost:7777", "", 200},
		{"GET", "/debug/pprof/goroutine?debug=1", "127.0.0.1:7777", "", 200},
		{"POST", "/debug/pprof/symbol", "localhost", "", 200},
		{"POST", "/debug/pprof/heap", "localhost", "", 405},
		{"GET", "/debug/pprof/cmdline", "localhost", "", 404},
		{"GET", "/debug/pprof/cmdlin%65", "localhost", "", 404},
		{"GET", "/debug/pprof//cmdline", "localhost", "", 404},
		{"GET", "/v1.0/metadata", "localhost", "", 404},
		{"GET", "/debug/../v1.0/metadata", "localhost", "", 404},
		{"GET", "/", "localhost", "", 404},
		{"GET", "/debug/pprof/heap", "evil.test", "", 403},
		{"GET", "/debug/pprof/heap", "localhost", "http://evil.test", 403},
	} {
		header := []string{"Host", row.host}
		if row.origin != "" {
			header = append(header, "Origin", row.origin)
		}
		w := ask(h, row.method, row.target, "", header...)
		if w.Code != row.status {
			t.Errorf("%s %s of %s from %q: %d %s, want %d", row.method, row.target, row.host, row.origin, w.Code, w.Body, row.status)
		}
		if row.target == "/debug/pprof/heap" && row.status == 200 {
			if _, err := gzip.NewReader(w.Body); err != nil {
				t.Errorf("the heap profile is none: %v", err)
			}
		}
	}
}

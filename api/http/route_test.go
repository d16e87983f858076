package http_test

import (
	"strings"
	"testing"

	apihttp "github.com/penstock-io/penstock/api/http"
)

func TestRoutesArePausedAndResumed(t *testing.T) {
	t.Parallel()
	h := start(t).handler(apihttp.Options{})
	for _, row := range []struct {
		method, path, body string
		status             int
	}{
		{"GET", "/v1.0-penstock/routes", `"name":"subscription/bus/a/b","state":"running"`, 200},
		{"POST", "/v1.0-penstock/routes/pause/subscription/bus/a/b", "", 204},
		{"GET", "/v1.0-penstock/routes", `"state":"paused"`, 200},
		{"POST", "/v1.0-penstock/routes/resume/subscription/bus/a%2Fb", "", 204},
		{"GET", "/v1.0-penstock/routes", `"state":"running"`, 200},
		{"POST", "/v1.0-penstock/routes/pause/binding/none", `"errorCode":"ERR_ROUTE_NOT_FOUND"`, 404},
		{"GET", "/v1.0-penstock/routes/pause/binding/none", `"errorCode":"ERR_METHOD_NOT_ALLOWED"`, 405},
	} {
		got := ask(h, row.method, row.path, "")
		if got.Code != row.status || !strings.Contains(got.Body.String(), row.body) {
			t.Errorf("%s %s: %d %s, want %d %s", row.method, row.path, got.Code, got.Body, row.status, row.body)
		}
	}
}

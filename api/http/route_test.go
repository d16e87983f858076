package http_test

import (
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/penstock-io/penstock/api"
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

func TestTriggers(t *testing.T) {
	t.Parallel()
	i := &instance{}
	h := i.handler(apihttp.Options{})
	if w := ask(h, http.MethodGet, "/v1.0-penstock/triggers", ""); w.Body.String() != `{"triggers":[]}` {
		t.Errorf("got %s", w.Body)
	}
	i.triggers = []api.Trigger{{Name: "nightly", Schedule: "0 3 * * *", TimeZone: "UTC", NextRun: "2026-12-01T03:00:00Z"}}
	const want = `{"triggers":[{"name":"nightly","schedule":"0 3 * * *","timeZone":"UTC","nextRun":"2026-12-01T03:00:00Z","underway":0,"paused":false}]}`
	if w := ask(h, http.MethodGet, "/v1.0-penstock/triggers", ""); w.Body.String() != want {
		t.Errorf("got  %s\nwant %s", w.Body, want)
	}
	for name, want := range map[string]string{
		"nightly":    `200 {"id":"nightly-1","outcome":"ack"}`,
		"given%2Fup": `200 {"id":"g-1","outcome":"drop","reason":"the app said so"}`,
		"slow":       `202 {"id":"slow-1","outcome":"underway"}`,
		"busy":       `409 {"errorCode":"ERR_TRIGGER_BUSY","message":"a tick is under way"}`,
		"elsewhere":  `503 {"errorCode":"ERR_TRIGGER_NOT_READ","message":"another replica reads it"}`,
		"many":       `429 {"errorCode":"ERR_LIMIT_REACHED","message":"16 wait"}`,
		"none":       `404 {"errorCode":"ERR_TRIGGER_NOT_FOUND","message":"it has no schedule"}`,
	} {
		w := ask(h, http.MethodPost, "/v1.0-penstock/triggers/"+name+"/run", "")
		if got := strconv.Itoa(w.Code) + " " + w.Body.String(); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
	if w := ask(i.handler(apihttp.Options{Tokens: []string{"secret"}}), http.MethodPost, "/v1.0-penstock/triggers/nightly/run", ""); w.Code != http.StatusUnauthorized {
		t.Errorf("without the token it is answered %d", w.Code)
	}
}

func TestWebhooks(t *testing.T) {
	t.Parallel()
	w := ask((&instance{}).handler(apihttp.Options{}), http.MethodGet, "/v1.0-penstock/webhooks", "")
	const want = `{"webhooks":[{"name":"github","url":"","path":"/hooks/github","signature":"","taking":false,"paused":false,` +
		`"deliveries":[{"time":"","method":"","status":401,"bytes":0,"durationMs":0,"remote":"","answer":""}]}]}`
	if w.Body.String() != want {
		t.Errorf("got  %s\nwant %s", w.Body, want)
	}
}

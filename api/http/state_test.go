package http_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	apihttp "github.com/penstock-io/penstock/api/http"
)

func TestState(t *testing.T) {
	t.Parallel()
	h := start(t).handler(apihttp.Options{})
	const s = "/v1.0/state/statestore"
	rows := []call{
		{"POST", s, `[{"key":"a","value":{"n":1}},{"key":"b","value":"text"},{"key":"c"}]`, "204 "},
		{"GET", s + "/a", "", `200 {"n":1}`},
		{"GET", s + "/b", "", `200 "text"`},
		{"GET", s + "/c", "", "200 null"},
		{"GET", s + "/never", "", "204 "},
		{"PUT", s, `[{"key":"with/slash and ✓","value":1}]`, "204 "},
		{"GET", s + "/with%2Fslash%20and%20%E2%9C%93", "", "200 1"},
		{"GET", s + "/a?consistency=strong&metadata.x=y", "", `200 {"n":1}`},
		{"DELETE", s + "/b?concurrency=first-write", "", "204 "},
		{"GET", s + "/b", "", "204 "},
		{"DELETE", s + "/b", "", "204 "},
		{"POST", s, `[]`, "204 "},
		{"POST", s + "/bulk", `{"keys":["a","never"]}`, `200 [{"key":"a","data":{"n":1},"etag":"1"},{"key":"never"}]`},
		{"PUT", s + "/bulk", `{"keys":[]}`, `200 []`},
		{"POST", s + "/transaction", `{"operations":[{"operation":"upsert","request":{"key":"t","value":[1]}},{"operation":"delete","request":{"key":"a"}}]}`, "204 "},
		{"GET", s + "/t", "", "200 [1]"},
		{"GET", s + "/a", "", "204 "},
		{"POST", s + "/transaction", `{"operations":[]}`, "204 "},
		{"GET", "/v1.0-penstock/state/statestore?prefix=t", "", `200 {"keys":["t"]}`},
		{"GET", "/v1.0-penstock/state/statestore?limit=1", "", `200 {"keys":["c"],"token":"shop||c"}`},

		{"GET", "/v1.0/state/other/a", "", "400 ERR_STATE_STORE_NOT_FOUND"},
		{"POST", "/v1.0/state/other", `[{"key":"a"}]`, "400 ERR_STATE_STORE_NOT_FOUND"},
		{"POST", s, `{"key":"a"}`, "400 ERR_MALFORMED_REQUEST"},
		{"POST", s, `[{"value":1}]`, "400 ERR_MALFORMED_REQUEST"},
		{"POST", s, `[{"key":"a||b","value":1}]`, "400 ERR_MALFORMED_REQUEST"},
		{"GET", s + "/a%7C%7Cb", "", "400 ERR_MALFORMED_REQUEST"},
		{"POST", s, `[{"key":"a","value":1,"options":{"concurrency":"first"}}]`, "400 ERR_MALFORMED_REQUEST"},
		{"GET", s + "/a?consistency=weak", "", "400 ERR_MALFORMED_REQUEST"},
		{"POST", s, `[{"key":"a","value":1,"metadata":{"ttlInSeconds":"soon"}}]`, "400 ERR_STATE_SAVE"},
		{"POST", s, `[{"key":"a","value":1,"etag":"not one"}]`, "400 ERR_STATE_SAVE"},
		{"POST", s, `[{"key":"t","value":1,"etag":"99"}]`, "409 ERR_STATE_SAVE"},
		{"POST", s, `[{"key":"t","value":1,"options":{"concurrency":"first-write"}}]`, "409 ERR_STATE_SAVE"},
		{"POST", s, "[{\"key\":\"a\",\"value\":\"\xff\"}]", "400 ERR_MALFORMED_REQUEST"},
		{"POST", s + "/bulk", `[]`, "400 ERR_MALFORMED_REQUEST"},
		{"POST", s + "/transaction", `{"operations":[{"operation":"merge","request":{"key":"a"}}]}`, "400 ERR_NOT_SUPPORTED_STATE_OPERATION"},
		{"POST", s + "/transaction", `{"operations":[{"operation":"upsert","request":{"key":"t","value":9,"etag":"99"}}]}`, "500 ERR_STATE_TRANSACTION"},
		{"GET", "/v1.0-penstock/state/statestore?limit=none", "", "400 ERR_BAD_REQUEST"},
	}
	stateAnswers(t, h, rows)
}

// call is a request, and the status and the body or the error code that are wanted.
type call struct{ method, path, body, want string }

// stateAnswers makes the calls, one after the other.
func stateAnswers(t *testing.T, h http.Handler, rows []call) {
	t.Helper()
	for _, row := range rows {
		w := ask(h, row.method, row.path, row.body)
		got := w.Body.String()
		var e struct {
			Code string `json:"errorCode"`
		}
		if w.Code >= 400 && json.Unmarshal(w.Body.Bytes(), &e) == nil {
			got = e.Code
		}
		if got = itoa(w.Code) + " " + got; got != row.want {
			t.Errorf("%s %s %s\n got %s\nwant %s", row.method, row.path, row.body, got, row.want)
		}
	}
}

func TestStateQuery(t *testing.T) {
	t.Parallel()
	stateAnswers(t, start(t).handler(apihttp.Options{}), []call{
		{"POST", "/v1.0-alpha1/state/searchable/query", `{"filter":{"EQ":{"n":1}},"page":{"limit":2}}`, `200 {"results":[{"key":"a","data":{"n":1},"etag":"7"},{"key":"b","error":"damaged"}],"token":"2"}`},
		{"PUT", "/v1.0-alpha1/state/searchable/query?metadata.x=y", `{}`, "204 "},
		{"POST", "/v1.0-alpha1/state/searchable/query", `{"filter":{"EQ":{"broken":1}}}`, "500 ERR_STATE_QUERY"},
		{"POST", "/v1.0-alpha1/state/searchable/query", `{"filter":{"LIKE":{"n":1}}}`, "400 ERR_MALFORMED_REQUEST"},
		{"POST", "/v1.0-alpha1/state/statestore/query", `{}`, "500 ERR_STATE_STORE_NOT_SUPPORTED"},
		{"POST", "/v1.0-alpha1/state/other/query", `{}`, "400 ERR_STATE_STORE_NOT_FOUND"},
		{"GET", "/v1.0-alpha1/state/searchable/query", "", "405 ERR_METHOD_NOT_ALLOWED"},
	})
}

func itoa(n int) string {
	b, _ := json.Marshal(n)
	return string(b)
}

func TestStateETagAndExpiry(t *testing.T) {
	t.Parallel()
	h := start(t).handler(apihttp.Options{})
	const s = "/v1.0/state/statestore"
	if w := ask(h, "POST", s+"?metadata.ttlInSeconds=100", `[{"key":"a","value":1,"metadata":{"ttlInSeconds":"1"}}]`); w.Code != 204 {
		t.Fatal(w.Code, w.Body)
	}
	w := ask(h, "GET", s+"/a", "")
	etag := w.Header().Get("ETag")
	at, err := time.Parse(time.RFC3339, w.Header().Get("metadata.ttlExpireTime"))
	if left := time.Until(at); err != nil || left < 80*time.Second || left > 110*time.Second || etag == "" || w.Header().Get("Content-Type") != "application/json" {
		t.Errorf("headers: %v", w.Header())
	}
	for _, row := range []struct {
		tag  string
		want int
	}{{"77", 409}, {"no number", 400}, {`"` + etag + `"`, 204}} {
		if w := ask(h, "DELETE", s+"/a", "", "If-Match", row.tag); w.Code != row.want {
			t.Errorf("delete if %q: %d %s, want %d", row.tag, w.Code, w.Body, row.want)
		}
	}
	if w := ask(h, "GET", s+"/a", ""); w.Code != 204 {
		t.Errorf("still there: %d", w.Code)
	}
}

func TestStateIsNotConfigured(t *testing.T) {
	t.Parallel()
	i := start(t)
	i.empty = true
	w := ask(i.handler(apihttp.Options{}), "GET", "/v1.0/state/statestore/a", "")
	if w.Code != 500 || !strings.Contains(w.Body.String(), `"errorCode":"ERR_STATE_STORE_NOT_CONFIGURED"`) || !strings.Contains(w.Body.String(), `"reason":"DAPR_STATE_NOT_CONFIGURED"`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

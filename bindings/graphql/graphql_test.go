package graphql

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/bindings"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/test/conform"
)

// asked is a request as a server understands it.
type asked struct {
	Query         string         `json:"query"`
	Variables     map[string]any `json:"variables"`
	OperationName string         `json:"operationName"`
	header        http.Header
}

// server answers the requests of GraphQL over HTTP.
func server(t *testing.T, answer func(w http.ResponseWriter, a *asked)) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		a := &asked{header: r.Header}
		switch {
		case err != nil:
			return
		case r.Method != http.MethodPost:
			w.WriteHeader(http.StatusMethodNotAllowed)
		case r.Header.Get("Content-Type") != "application/json":
			w.WriteHeader(http.StatusUnsupportedMediaType)
		case json.Unmarshal(body, a) != nil || a.Query == "":
			w.WriteHeader(http.StatusBadRequest)
		default:
			answer(w, a)
		}
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// says answers with a text.
func says(status int, text string) func(http.ResponseWriter, *asked) {
	return func(w http.ResponseWriter, _ *asked) {
		w.Header().Set("Content-Type", "application/graphql-response+json")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, text)
	}
}

func opened(t *testing.T, url string, more ...string) bindings.Invoker {
	t.Helper()
	items := []config.Item{{Name: "endpoint", Value: url}}
	for i := 0; i+1 < len(more); i += 2 {
		items = append(items, config.Item{Name: more[i], Value: more[i+1]})
	}
	d, err := Component.Open(t.Context(), component.Env{}, items)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close(t.Context()) })
	return d.(bindings.Invoker)
}

func TestSuite(t *testing.T) { // not parallel: the suite counts goroutines
	url := server(t, func(w http.ResponseWriter, a *asked) {
		switch {
		case strings.Contains(a.Query, "echo"):
			text, _ := json.Marshal(a.Variables["text"]) // it came as JSON
			fmt.Fprintf(w, `{"data":%s}`, text)
		case strings.Contains(a.Query, "people"):
			_, _ = io.WriteString(w, `{"data":{"people":[]}}`)
		default:
			says(http.StatusBadRequest, `{"errors":[{"message":"unknown field"}]}`)(w, a)
		}
	})
	conform.Binding(t, Component, conform.BindingSetup{
		Patience: 20 * time.Second,
		Options: func(*testing.T) map[string]string {
			return map[string]string{"endpoint": url, "header:X-Key": "k", "Header:x-other": "o"}
		},
		Wrong: map[string]map[string]string{
			"endpoint":            {"endpoint": "ftp://x"},
			"responseTimeout":     {"responseTimeout": "0s"},
			"maxResponseBodySize": {"maxResponseBodySize": "0"},
			"clientCert":          {"clientCert": "x"},
			"header:Host":         {"header:Host": "x"},
			"header:a b":          {"header:a b": "x"},
			"header:x-line":       {"header:x-line": "a\nb"},
		},
		Requests: func(map[string]string) []bindings.Request {
			return []bindings.Request{
				{Operation: "query", Metadata: map[string]string{"query": "{people{name}}"}},
				{Operation: "mutation", Metadata: map[string]string{"mutation": "mutation {people}"}},
			}
		},
		RoundTrip: func(t *testing.T, out bindings.Invoker, _ map[string]string, data []byte) ([]byte, error) {
			// a variable is text; bytes go as numbers
			text, err := json.Marshal(map[string]any{"text": fmt.Sprintf("%x", data)})
			if err != nil {
				return nil, err
			}
			r, err := out.Invoke(t.Context(), &bindings.Request{
				Operation: "query", Metadata: map[string]string{"query": "query($text:String){echo}", "variables": string(text)},
			})
			if err != nil {
				return nil, err
			}
			var back []byte
			_, err = fmt.Sscanf(string(r.Data), `"%x"`, &back)
			if len(data) == 0 && string(r.Data) == `""` {
				err = nil
			}
			return back, err
		},
		Fails: failures(),
	})
}

func failures() []conform.BindingFailure {
	return []conform.BindingFailure{
		{Name: "no query", Kind: fault.Invalid, Request: bindings.Request{Operation: "query"}},
		{Name: "no mutation", Kind: fault.Invalid, Request: bindings.Request{Operation: "mutation"}},
		{Name: "unknown field", Kind: fault.Invalid, Request: bindings.Request{Operation: "query", Metadata: map[string]string{"query": "{x}"}}},
		{Name: "variables", Kind: fault.Invalid, Request: bindings.Request{Operation: "query", Metadata: map[string]string{"query": "{people}", "variables": "[1]"}}},
		{Name: "variables twice", Kind: fault.Invalid, Request: bindings.Request{Operation: "query", Metadata: map[string]string{"query": "{people}", "variables": "{} {}"}}},
		{Name: "no variables", Kind: fault.Invalid, Request: bindings.Request{Operation: "query", Metadata: map[string]string{"query": "{people}", "variables": "null"}}},
		{Name: "header", Kind: fault.Invalid, Request: bindings.Request{Operation: "query", Metadata: map[string]string{"query": "{people}", "header:Content-Length": "1"}}},
	}
}

func TestWhatTheServerIsAsked(t *testing.T) {
	t.Parallel()
	var got *asked
	url := server(t, func(w http.ResponseWriter, a *asked) {
		got = a
		says(http.StatusOK, `{"data": {"n": 1.0}, "extensions": {"cost": 1}}`)(w, a)
	})
	out := opened(t, url, "header:X-Key", "of the component", "header:X-Both", "of the component")
	r, err := out.Invoke(t.Context(), &bindings.Request{Operation: "mutation", Data: []byte("not used"), Metadata: map[string]string{
		"query": "mutation Add($id: ID!, $n: Int) {add}", "variable:id": "7", "variables": `{"id": 1, "n": 12345678901234567890, "list": [{"a": null}]}`,
		"operationName": "Add", "header:x-both": "of the request", "header:X-Own": "own", "traceparent": "00-x", "other": "not sent",
	}})
	if err != nil {
		t.Fatal(err)
	}
	if string(r.Data) != `{"n": 1.0}` || r.Metadata["operation"] != "mutation" || r.Metadata["duration"] == "" || r.Metadata["statusCode"] != "200" {
		t.Errorf("answer %s with %v", r.Data, r.Metadata)
	}
	want := map[string]any{"id": "7", "n": 12345678901234567890.0, "list": []any{map[string]any{"a": nil}}}
	if diff := cmp.Diff(want, got.Variables); diff != "" || got.OperationName != "Add" || !strings.HasPrefix(got.Query, "mutation Add") {
		t.Errorf("asked %q of %q, variables (-want +got):\n%s", got.OperationName, got.Query, diff)
	}
	for name, value := range map[string]string{"X-Key": "of the component", "X-Both": "of the request", "X-Own": "own", "Traceparent": "00-x", "Other": ""} {
		if s := got.header.Get(name); s != value {
			t.Errorf("header %s: %q, want %q", name, s, value)
		}
	}
	if out, ok := out.(*binding); ok && out.o.Headers["header:X-Key"] == "" {
		t.Error("the component's own headers changed")
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	coded := func(code string) string {
		return `{"data": null, "errors": [{"message": "no", "path": ["people", 0, "name"], "extensions": {"code": "` + code + `"}}]}`
	}
	rows := []struct {
		name   string
		status int
		text   string
		kind   fault.Kind
		want   string
	}{
		{"validation, old style", 200, `{"errors": [{"message": "field x is not there\non people"}]}`, fault.Invalid, "field x is not there on people"},
		{"validation", 400, `{"errors": [{"message": "bad"}]}`, fault.Invalid, "bad"},
		{"of a field", 200, `{"data": {"a": null}, "errors": [{"message": "db is down", "path": ["a"]}]}`, fault.Internal, "db is down (at a)"},
		{"code", 200, coded("BAD_USER_INPUT"), fault.Invalid, "no (at people.0.name) (BAD_USER_INPUT)"},
		{"login", 200, coded("UNAUTHENTICATED"), fault.Denied, "UNAUTHENTICATED"},
		{"spelled otherwise", 200, coded("access-denied"), fault.Denied, "access-denied"},
		{"not there", 200, coded("NOT_FOUND"), fault.NotFound, "no"},
		{"conflict", 200, coded("constraint-violation"), fault.Conflict, "no"},
		{"too many", 200, coded("RATE_LIMITED"), fault.Exhausted, "no"},
		{"later", 200, coded("SERVICE_UNAVAILABLE"), fault.Unavailable, "no"},
		{"a code nobody knows", 200, coded("OWN"), fault.Internal, "OWN"},
		{"the worst counts", 200, `{"data":{},"errors":[{"message":"slow","extensions":{"code":"TIMEOUT"}},{"message":"x","extensions":{"code":"FORBIDDEN"}}]}`, fault.Denied, "slow (TIMEOUT) and 1 more"},
		{"status", 503, `{"errors": [{"message": "down"}]}`, fault.Unavailable, "down"},
		{"a number for a code", 200, `{"data":{},"errors":[{"message":"x","extensions":{"code":401}}]}`, fault.Denied, "401"},
		{"no message", 200, `{"errors": [{}]}`, fault.Invalid, "without a message"},
		{"not GraphQL", 502, "<html>bad gateway</html>", fault.Unavailable, "bad gateway"},
		{"not found", 404, "nothing here", fault.NotFound, "nothing here"},
		{"a page", 200, "<html>", fault.Invalid, "not JSON"},
		{"another API", 200, `{"ok": true}`, fault.Invalid, "GraphQL server"},
		{"redirect", 307, "", fault.Denied, "redirects"},
		{"too long", 200, `{"data": "` + strings.Repeat("x", 4096) + `"}`, fault.Invalid, "more than 4096 bytes"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			out := opened(t, server(t, says(r.status, r.text)), "maxResponseBodySize", "4096")
			_, err := out.Invoke(t.Context(), &bindings.Request{Operation: "query", Metadata: map[string]string{"query": "{a}"}})
			if err == nil || fault.KindOf(err) != r.kind || !strings.Contains(err.Error(), r.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v (%v), want kind %v and %q in it", err, fault.KindOf(err), r.kind, r.want)
			}
		})
	}
}

func TestDataMayBeNull(t *testing.T) {
	t.Parallel()
	out := opened(t, server(t, says(http.StatusOK, `{"data": null}`)))
	_, err := out.Invoke(t.Context(), &bindings.Request{Operation: "query", Metadata: map[string]string{"query": "{a}"}})
	if err != nil {
		t.Errorf("data null without errors: %v", err)
	}
}

func TestRetryAfterIsPassedOn(t *testing.T) {
	t.Parallel()
	out := opened(t, server(t, func(w http.ResponseWriter, a *asked) {
		w.Header().Set("Retry-After", "7")
		says(http.StatusTooManyRequests, `{"errors": [{"message": "slower"}]}`)(w, a)
	}))
	_, err := out.Invoke(t.Context(), &bindings.Request{Operation: "query", Metadata: map[string]string{"query": "{a}"}})
	if fault.RetryAfter(err) != 7*time.Second || fault.KindOf(err) != fault.Exhausted {
		t.Errorf("%v, after %s", err, fault.RetryAfter(err))
	}
}

func TestServersThatDoNotAnswer(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	url := server(t, func(http.ResponseWriter, *asked) { <-release })
	defer close(release)
	q := &bindings.Request{Operation: "query", Metadata: map[string]string{"query": "{a}"}}
	if _, err := opened(t, url, "responseTimeout", "50ms").Invoke(t.Context(), q); fault.KindOf(err) != fault.Timeout {
		t.Errorf("a slow server: %v, want a timeout", err)
	}
	if _, err := opened(t, "http://127.0.0.1:1").Invoke(t.Context(), q); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("no server: %v, want unavailable", err)
	}
	if _, err := opened(t, "http://169.254.169.254/graphql").Invoke(t.Context(), q); fault.KindOf(err) != fault.Denied {
		t.Errorf("a metadata address: %v, want denied", err)
	}
}

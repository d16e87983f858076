package http

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/penstock-io/penstock/app"
	"github.com/penstock-io/penstock/cloudevents"
)

// FuzzAnswer holds that every answer has an outcome that says why, and that
// what is not JSON never is anything but a success.
func FuzzAnswer(f *testing.F) {
	for _, body := range []string{
		"", `{"status":"RETRY","retryAfter":"1h"}`, `{"status":"DROP"}`, `{"status":5}`, "{", "[]",
		`{"to":["a"],"data":"x"}`, `{"state":[{"key":"k"}],"to":""}`, `{"STATUS":"DROP"}`,
	} {
		f.Add(200, "5", body)
	}
	f.Add(503, "Fri, 31 Dec 9999 23:59:59 GMT", "x")
	f.Fuzz(func(t *testing.T, status int, after, body string) {
		a := &Answer{Status: status, Header: http.Header{"Retry-After": {after}}, Body: []byte(body)}
		o := eventOutcome("/x", a, time.Now())
		if o.Verdict == cloudevents.Leave || o.Verdict != cloudevents.Ack && (o.Err == nil || o.Reason == "") {
			t.Errorf("outcome = %+v", o)
		}
		if o.After < 0 || o.After > app.MaxPause {
			t.Errorf("after = %s", o.After)
		}
		if status/100 == 2 && !json.Valid(a.Body) && o.Verdict != cloudevents.Ack {
			t.Errorf("outcome of what is not JSON = %+v", o)
		}
		_ = readReply(a.Body)
	})
}

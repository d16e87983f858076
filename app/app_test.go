package app_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/penstock-io/penstock/app"
	apphttp "github.com/penstock-io/penstock/app/http"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/resilience"
	"github.com/penstock-io/penstock/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

// connect makes an App in front of a web server.
func connect(t testing.TB, server string, o app.Options) *app.App {
	t.Helper()
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	port, _ := strconv.Atoi(u.Port())
	ch, err := apphttp.New(apphttp.Options{Port: port, Address: u.Hostname(), MaxBody: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ch.Close)
	o.Channel = ch
	return app.New(o)
}

// at is the address of a path.
func at(path string) *app.Address { return &app.Address{Path: path} }

func serve(t testing.TB, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

func delivery(t testing.TB) *cloudevents.Delivery {
	t.Helper()
	raw := []byte(`{"specversion":"1.0","id":"1","source":"/s","type":"t","traceparent":"` + parent +
		`","datacontenttype":"text/plain","data":"hello"}`)
	e, err := cloudevents.Scan(raw)
	if err != nil {
		t.Fatal(err)
	}
	return &cloudevents.Delivery{Body: raw, Event: e, Metadata: map[string]string{"partition": "7", "bad name": "x", "note": "ä\r\nX: y"}}
}

// short is an outcome in one line.
func short(o cloudevents.Outcome) string {
	s := o.Verdict.String()
	if o.Err != nil {
		s += " (" + fault.KindOf(o.Err).String() + ")"
	}
	if o.After > 0 {
		s += " after " + o.After.Round(time.Second).String()
	}
	return s
}

// outcomeRow is an answer of the app and the outcome it stands for.
type outcomeRow struct {
	name   string
	status int
	header http.Header
	body   string
	want   string
}

func TestEventOutcomesOfSuccess(t *testing.T) {
	t.Parallel()
	testOutcomes(t, []outcomeRow{
		{"empty", 200, nil, "", "ack"},
		{"no content", 204, nil, "", "ack"},
		{"not JSON", 202, nil, "<html>RETRY</html>", "ack"},
		{"JSON but no object", 200, nil, `["DROP"]`, "ack"},
		{"half an object", 200, nil, `{"status":"RETRY"`, "ack"},
		{"no status", 200, nil, `{"success":true}`, "ack"},
		{"empty status", 200, nil, `{"status":""}`, "ack"},
		{"null status", 200, nil, `{"status":null}`, "ack"},
		{"status is a number", 200, nil, `{"status":500}`, "ack"},
		{"status inside", 200, nil, `{"data":{"status":"DROP"}}`, "ack"},
		{"success", 200, nil, `{"status":"SUCCESS"}`, "ack"},
		{"success with spaces", 200, nil, " { \"status\" : \"SUCCESS\" }\n", "ack"},
		{"retry", 200, nil, `{"status":"RETRY"}`, "retry (unavailable)"},
		{"retry after", 200, nil, `{"status":"RETRY","retryAfter":"30s"}`, "retry (unavailable) after 30s"},
		{"retry after seconds", 200, nil, `{"status":"RETRY","retryAfter":2}`, "retry (unavailable) after 2s"},
		{"retry after too long", 200, nil, `{"status":"RETRY","retryAfter":1e300}`, "retry (unavailable) after 1h0m0s"},
		{"retry after nonsense", 200, nil, `{"status":"RETRY","retryAfter":{"a":1}}`, "retry (unavailable)"},
		{"retry after in the past", 200, nil, `{"status":"RETRY","retryAfter":"-5s"}`, "retry (unavailable)"},
		{"drop", 200, nil, `{"status":"DROP"}`, "drop (dropped)"},
		{"drop behind much", 201, nil, `{"a":"` + strings.Repeat("x", 900_000) + `","status":"DROP"}`, "drop (dropped)"},
		{"unknown status", 200, nil, `{"status":"MAYBE"}`, "retry (internal)"},
	})
}

func TestEventOutcomesOfStatus(t *testing.T) {
	t.Parallel()
	in := func(d time.Duration) http.Header {
		return http.Header{"Retry-After": {time.Now().Add(d).UTC().Format(http.TimeFormat)}}
	}
	testOutcomes(t, []outcomeRow{
		{"not found", 404, nil, "", "drop (not found)"},
		{"redirect", 302, http.Header{"Location": {"/elsewhere"}}, "", "retry (internal)"},
		{"bad request", 400, nil, "no", "retry (invalid)"},
		{"forbidden", 403, nil, "", "retry (denied)"},
		{"gone", 410, nil, "", "retry (not found)"},
		{"slow", 408, nil, "", "retry (timeout)"},
		{"too early", 425, nil, "", "retry (unavailable)"},
		{"too many", 429, http.Header{"Retry-After": {"7"}}, "", "retry (exhausted) after 7s"},
		{"too many, for days", 429, http.Header{"Retry-After": {"999999"}}, "", "retry (exhausted) after 1h0m0s"},
		{"down until a date", 503, in(2 * time.Hour), "", "retry (unavailable) after 1h0m0s"},
		{"down until the past", 503, in(-time.Hour), "", "retry (unavailable)"},
		{"broken", 500, nil, `{"status":"SUCCESS"}`, "retry (internal)"},
	})
}

func testOutcomes(t *testing.T, rows []outcomeRow) {
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			a := connect(t, serve(t, func(w http.ResponseWriter, _ *http.Request) {
				maps.Copy(w.Header(), r.header)
				w.WriteHeader(r.status)
				_, _ = io.WriteString(w, r.body)
			}), app.Options{})
			o := a.Event(t.Context(), at("/orders"), delivery(t))
			if got := short(o); got != r.want {
				t.Errorf("outcome = %s, want %s (%v)", got, r.want, o.Err)
			}
			if o.Verdict != cloudevents.Ack && o.Reason == "" {
				t.Error("no reason")
			}
			if se, ok := errors.AsType[*apphttp.StatusError](o.Err); ok != (r.status/100 != 2) || ok && se.Status != r.status {
				t.Errorf("status error = %v", se)
			}
		})
	}
}

func TestEventRequest(t *testing.T) {
	t.Parallel()
	var got *http.Request
	var body []byte
	a := connect(t, serve(t, func(_ http.ResponseWriter, r *http.Request) {
		got = r
		body, _ = io.ReadAll(r.Body)
	}), app.Options{})
	d := delivery(t)
	if o := a.Event(t.Context(), at("/orders?x=1"), d); o.Verdict != cloudevents.Ack {
		t.Fatal(o)
	}
	if string(body) != string(d.Body) {
		t.Errorf("body = %s, want it byte for byte", body)
	}
	trace := got.Header.Get("traceparent")
	if cloudevents.TraceID(trace) != cloudevents.TraceID(parent) || trace == parent {
		t.Errorf("traceparent = %s, want a child of %s", trace, parent)
	}
	got.Header.Del("traceparent")
	want := http.Header{
		"Content-Type":   {"application/cloudevents+json"},
		"Content-Length": {fmt.Sprint(len(d.Body))},
		"Partition":      {"7"},
		"Note":           {"%C3%A4%0D%0AX: y"},
		"User-Agent":     {"penstock"},
	}
	if diff := cmp.Diff(want, got.Header); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
	if got.Method != http.MethodPost || got.RequestURI != "/orders?x=1" {
		t.Errorf("request = %s %s", got.Method, got.RequestURI)
	}
}

func TestEventWithoutEvent(t *testing.T) {
	t.Parallel()
	a := connect(t, "http://127.0.0.1:1", app.Options{})
	if o := a.Event(t.Context(), at("/"), &cloudevents.Delivery{}); short(o) != "drop (invalid)" {
		t.Errorf("outcome = %s", short(o))
	}
}

func TestBindingRequest(t *testing.T) {
	t.Parallel()
	var contentType, body, part string
	a := connect(t, serve(t, func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		contentType, body, part = r.Header.Get("Content-Type"), string(b), r.Header.Get("partition")
	}), app.Options{})
	bare, err := cloudevents.New("", []byte(`{"a":1}`), cloudevents.Attr{Name: "id", Value: "1"},
		cloudevents.Attr{Name: "source", Value: "s"}, cloudevents.Attr{Name: "type", Value: "t"})
	if err != nil {
		t.Fatal(err)
	}
	rows := []struct {
		name string
		d    *cloudevents.Delivery
		want []string
	}{
		{"text", delivery(t), []string{"text/plain", "hello", "7"}},
		{"no content type", &cloudevents.Delivery{Event: bare}, []string{"application/json", `{"a":1}`, ""}},
		{"no event", &cloudevents.Delivery{Body: []byte("raw")}, []string{"application/json", "raw", ""}},
	}
	for _, r := range rows {
		if _, o := a.Binding(t.Context(), at("cron"), r.d); o.Verdict != cloudevents.Ack {
			t.Fatalf("%s: %v", r.name, o)
		}
		if diff := cmp.Diff(r.want, []string{contentType, body, part}); diff != "" {
			t.Errorf("%s (-want +got):\n%s", r.name, diff)
		}
	}
}

func TestBindingAnswers(t *testing.T) {
	t.Parallel()
	rows := []struct {
		name   string
		status int
		body   string
		want   string
		reply  *app.Reply
	}{
		{"empty", 200, "", "ack", nil},
		{"created", 201, "done", "ack", nil},
		{"JSON", 200, `{"hello":"to"}`, "ack", nil},
		{"null to", 200, `{"to":null}`, "ack", nil},
		{"a status means nothing", 200, `{"status":"DROP"}`, "ack", nil},
		{"to", 200, `{"to":["a","b"],"data":{"x":1.50},"concurrency":"parallel","metadata":{"k":"v"}}`, "ack", &app.Reply{
			To: []string{"a", "b"}, Data: []byte(`{"x":1.50}`), Concurrency: "parallel",
			Operation: "create", Metadata: map[string]string{"k": "v"},
		}},
		{"to one", 200, `{"to":"a","data":"text","operation":"delete"}`, "ack", &app.Reply{
			To: []string{"a"}, Data: []byte("text"), Operation: "delete",
		}},
		{"state", 200, `{"storeName":"s","state":[{"key":"k","value":[1]}]}`, "ack", &app.Reply{
			StoreName: "s", State: []state.Change{{Key: "k", Value: []byte("[1]")}}, Operation: "create",
		}},
		{"not found", 404, "", "retry (not found)", nil},
		{"bad request", 400, "", "retry (invalid)", nil},
		{"broken", 500, `{"to":["a"]}`, "retry (internal)", nil},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			a := connect(t, serve(t, func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(r.status)
				_, _ = io.WriteString(w, r.body)
			}), app.Options{})
			reply, o := a.Binding(t.Context(), at("/in"), delivery(t))
			if short(o) != r.want {
				t.Errorf("outcome = %s, want %s", short(o), r.want)
			}
			if diff := cmp.Diff(r.reply, reply); diff != "" {
				t.Errorf("reply (-want +got):\n%s", diff)
			}
		})
	}
}

func TestBindingBadReply(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		`{"to":5}`:                     "read the app's reply: json: cannot unmarshal number into Go ",
		`{"to":["a"],"metadata":"x"}`:  "read the app's reply: json: cannot unmarshal string into Go ",
		`{"to":"a","concurrency":"x"}`: `read the app's reply: concurrency "x" is neither sequential nor parallel`,
	} {
		a := connect(t, serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) }), app.Options{})
		reply, o := a.Binding(t.Context(), at("/in"), delivery(t))
		if o.Verdict != cloudevents.Ack || reply == nil || reply.Err == nil || !strings.HasPrefix(reply.Err.Error(), want) {
			t.Errorf("%s: reply = %+v, want the error %q", body, reply, want)
		}
	}
}

func TestMaxConcurrency(t *testing.T) {
	t.Parallel()
	var now, most atomic.Int32
	arrived, release := make(chan struct{}, 100), make(chan struct{})
	a := connect(t, serve(t, func(_ http.ResponseWriter, _ *http.Request) {
		n := now.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		arrived <- struct{}{}
		<-release
		now.Add(-1)
	}), app.Options{MaxConcurrency: 3})
	var group sync.WaitGroup
	for range 20 {
		group.Go(func() {
			if o := a.Event(t.Context(), at("/"), delivery(t)); o.Verdict != cloudevents.Ack {
				t.Error(o)
			}
		})
	}
	for range 3 {
		<-arrived
	}
	// A caller whose time is up while it waits has not used a try.
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if o := a.Event(ctx, at("/"), delivery(t)); o.Verdict != cloudevents.Retry || !errors.Is(o.Err, resilience.ErrOpen) {
		t.Errorf("outcome while all slots are taken = %s: %v", short(o), o.Err)
	}
	close(release)
	group.Wait()
	if most.Load() != 3 {
		t.Errorf("%d calls at once, want 3", most.Load())
	}
}

func TestCancelledIsLeft(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	a := connect(t, serve(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // only then does the server see the client go
		cancel()
		<-r.Context().Done()
	}), app.Options{})
	if o := a.Event(ctx, at("/"), delivery(t)); o.Verdict != cloudevents.Leave {
		t.Errorf("outcome = %s, want leave", short(o))
	}
	if !a.Healthy() {
		t.Error("a call that was given up closed the gate")
	}
}

func TestTimeoutIsRetry(t *testing.T) {
	t.Parallel()
	a := connect(t, serve(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}), app.Options{Timeout: 30 * time.Millisecond})
	if o := a.Event(t.Context(), at("/"), delivery(t)); short(o) != "retry (timeout)" || errors.Is(o.Err, resilience.ErrOpen) {
		t.Errorf("outcome = %s: %v", short(o), o.Err)
	}
}

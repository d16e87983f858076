package webhook

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/cloudevents"
)

func TestOutcomes(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name    string
		outcome cloudevents.Outcome
		status  int
		part    string
		after   string
	}{
		{"ack", cloudevents.Acked(), 200, `"outcome":"ack"`, ""},
		{"drop", cloudevents.Dropped("bad", nil), 200, `"outcome":"drop"`, ""},
		{"retry", cloudevents.Retried(errors.New("x"), 0), 503, "send again", "10"},
		{"retry after", cloudevents.Retried(errors.New("x"), 90*time.Second), 503, "send again", "90"},
		{"retry after less than a second", cloudevents.Retried(nil, time.Millisecond), 503, "send again", "1"},
		{"leave", cloudevents.Left("stopping"), 503, "send again", "10"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			r := openWebhook(t, newEnv(t, "in"))
			rt := run(t, r, func(*cloudevents.Delivery) cloudevents.Outcome { return row.outcome })
			got := send(t, r, "POST", "/in", `{"a": 1}`, "Content-Type", "application/json")
			got.want(t, row.status, row.part)
			if got.header.Get("Retry-After") != row.after {
				t.Errorf("Retry-After %q, want %q", got.header.Get("Retry-After"), row.after)
			}
			d := rt.next(t)
			if string(d.Body) != `{"a": 1}` || string(d.Event.Data()) != `{"a": 1}` || d.Attempt != 1 || d.Origin != "in" {
				t.Errorf("delivery %+v", d)
			}
		})
	}
}

// signedHeaders returns the headers of a request signed by the scheme itself.
func signedHeaders(s scheme, id, body string, more ...string) []string {
	h := http.Header{}
	s.sign(h, id, []byte(body), time.Now())
	for name, values := range h {
		more = append(more, name, values[0])
	}
	return more
}

// presetRow is one request of a provider and what becomes of it.
type presetRow struct {
	name, preset, body string
	header             []string
	want               map[string]string
	metadata           map[string]string
}

func presetRows() []presetRow {
	return []presetRow{
		{
			"github", github, `{"repository":{"full_name":"o/r"},"ref":"refs/heads/main"}`,
			[]string{"X-GitHub-Delivery", "72d3162e", "X-GitHub-Event", "push", "X-Hub-Signature", "sha1=00", "Cookie", "c=1"},
			map[string]string{"id": "72d3162e", "type": "com.github.push", "source": "/webhooks/in", "subject": "o/r"},
			map[string]string{"x-github-delivery": "72d3162e", "x-github-event": "push"},
		},
		{
			"gitlab", gitlab, `{"object_kind":"merge_request","project":{"path_with_namespace":"g/p"}}`,
			[]string{"X-Gitlab-Event", "Merge Request Hook", "X-Gitlab-Event-UUID", "other", "X-Gitlab-Token", "hidden"},
			map[string]string{"id": "d1", "type": "com.gitlab.merge_request", "source": "/webhooks/in", "subject": "g/p"},
			map[string]string{"x-gitlab-event": "Merge Request Hook", "x-gitlab-event-uuid": "other", "webhook-id": "d1"},
		},
		{
			"stripe", stripe, `{"id":"evt_1","type":"charge.succeeded","data":{"object":{"id":"ch_1"}}}`, nil,
			map[string]string{"id": "evt_1", "type": "com.stripe.charge.succeeded", "source": "/webhooks/in", "subject": "ch_1"},
			map[string]string{},
		},
		{
			"slack event", slack, `{"type":"event_callback","event_id":"Ev1","team_id":"T1","event":{"type":"app_mention"}}`,
			[]string{"X-Slack-Retry-Num", "1"},
			map[string]string{"id": "Ev1", "type": "com.slack.app_mention", "source": "/webhooks/in", "subject": "T1"},
			map[string]string{"x-slack-retry-num": "1"},
		},
	}
}

func morePresetRows() []presetRow {
	return []presetRow{
		{
			"shopify", shopify, `{"id":1}`,
			[]string{"X-Shopify-Topic", "orders/create", "X-Shopify-Webhook-Id", "w1", "X-Shopify-Event-Id", "e1", "X-Shopify-Shop-Domain", "a.shop"},
			map[string]string{"id": "w1", "type": "com.shopify.orders.create", "source": "/webhooks/in", "subject": "a.shop"},
			map[string]string{
				"x-shopify-topic": "orders/create", "x-shopify-webhook-id": "w1", "x-shopify-event-id": "e1", "x-shopify-shop-domain": "a.shop",
			},
		},
		{
			"standard webhooks", standard, `{"type":"invoice.paid"}`,
			[]string{"Authorization", "Bearer x", "dapr-api-token", "x"},
			map[string]string{"id": "d1", "type": "webhook.invoice.paid", "source": "/webhooks/in"},
			map[string]string{"webhook-id": "d1"},
		},
		{
			"hmac", generic, `{}`,
			[]string{"Webhook-Id", "h1", "X-Request-Id", "r1"},
			map[string]string{"id": "h1", "type": "webhook.received", "source": "/webhooks/in"},
			map[string]string{"x-request-id": "r1", "webhook-id": "h1"},
		},
	}
}

func TestPresets(t *testing.T) {
	t.Parallel()
	const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	for _, row := range append(presetRows(), morePresetRows()...) {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			r := openWebhook(t, newEnv(t, "in"), "signature", row.preset, "secret", secret)
			rt := run(t, r, ack)
			header := signedHeaders(r.hook.scheme, "d1", row.body, append(row.header, "Content-Type", "application/json", "User-Agent", "")...)
			send(t, r, "POST", "/in", row.body, header...).want(t, 200, "ack")
			d := rt.next(t)
			row.want["datacontenttype"] = "application/json"
			if diff := cmp.Diff(row.want, attrs(d)); diff != "" {
				t.Errorf("attributes (-want +got):\n%s", diff)
			}
			delete(d.Metadata, "webhook-timestamp")
			delete(d.Metadata, "x-slack-request-timestamp")
			if diff := cmp.Diff(row.metadata, d.Metadata); diff != "" {
				t.Errorf("metadata (-want +got):\n%s", diff)
			}
			if string(d.Event.Data()) != row.body {
				t.Errorf("data %s", d.Event.Data())
			}

			send(t, r, "POST", "/in", row.body, header...).want(t, 200, `"outcome":"duplicate"`)
			send(t, r, "POST", "/in", row.body).want(t, 401, "unauthorized\n")
			if row.preset != gitlab && row.preset != bearer {
				send(t, r, "POST", "/in", row.body+" ", header...).want(t, 401, "unauthorized\n")
			}
			rt.none(t)
		})
	}
}

func TestSlackChallengeAndForms(t *testing.T) {
	t.Parallel()
	r := openWebhook(t, newEnv(t, "in"), "signature", slack, "secret", "s")
	rt := run(t, r, ack)
	body := `{"token":"x","challenge":"3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P","type":"url_verification"}`
	send(t, r, "POST", "/in", body, "Content-Type", "application/json").want(t, 401, "")
	got := send(t, r, "POST", "/in", body, signedHeaders(r.hook.scheme, "", body, "Content-Type", "application/json")...)
	got.want(t, 200, "")
	if got.body != "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P" {
		t.Errorf("challenge answered with %q", got.body)
	}
	rt.none(t)
	send(t, r, "POST", "/in", slackExample,
		signedHeaders(r.hook.scheme, "", slackExample, "Content-Type", "application/x-www-form-urlencoded")...).want(t, 200, "ack")
	d := rt.next(t)
	want := map[string]string{
		"id": "398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c", "type": "com.slack.command", "subject": "T1DC2JH3J",
		"source": "/webhooks/in", "datacontenttype": "application/x-www-form-urlencoded",
	}
	if diff := cmp.Diff(want, attrs(d)); diff != "" {
		t.Errorf("attributes (-want +got):\n%s", diff)
	}
}

func TestOverrides(t *testing.T) {
	t.Parallel()
	r := openWebhook(t, newEnv(t, "in"), "path", "/a/b", "eventType", "com.example.x", "source", "//example.com/in", "idHeader", "X-Id",
		"methods", "POST,PUT", "passHeaders", "X-Tenant,X-Acme-*")
	rt := run(t, r, ack)
	send(t, r, "PUT", "/a/b", "plain", "X-Id", "7", "X-Tenant", "t", "X-Acme-One", "1", "X-Acme-Token", "s", "X-Other", "o",
		"X-Acme-Bin", "\xff", "User-Agent", "").want(t, 200, "ack")
	d := rt.next(t)
	want := map[string]string{"id": "7", "type": "com.example.x", "source": "//example.com/in", "datacontenttype": "application/octet-stream"}
	if diff := cmp.Diff(want, attrs(d)); diff != "" {
		t.Errorf("attributes (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]string{"x-tenant": "t", "x-acme-one": "1"}, d.Metadata); diff != "" {
		t.Errorf("metadata (-want +got):\n%s", diff)
	}
	send(t, r, "PUT", "/a/b", "").want(t, 200, "ack")
	if d := rt.next(t); d.Event.Data() != nil || len(d.Event.ID()) < 20 {
		t.Errorf("empty body: data %q, id %q", d.Event.Data(), d.Event.ID())
	}
	for _, path := range []string{"/a/b/", "/a", "/A/B", "/", "/a/../a/b"} {
		send(t, r, "PUT", path, "").want(t, 404, "no webhook")
	}
	if got := send(t, r, "GET", "/a/b", ""); got.status != 405 || got.header.Get("Allow") != "POST, PUT" {
		t.Errorf("GET: %d, Allow %q", got.status, got.header.Get("Allow"))
	}
}

func TestBadInput(t *testing.T) {
	t.Parallel()
	r := openWebhook(t, newEnv(t, "in"), "maxBodySize", "100Ki")
	rt := run(t, r, ack)
	js := []string{"Content-Type", "application/json; charset=utf-8"}
	for _, row := range []struct {
		name, body string
		header     []string
		status     int
	}{
		{"not JSON", `{"a":`, js, 400},
		{"JSON not UTF-8", "{\"a\":\"\xff\"}", js, 400},
		{"JSON too deep", strings.Repeat("[", 50000) + strings.Repeat("]", 50000), js, 400},
		{"plain text", "x", []string{"Content-Type", "text/plain"}, 200},
		{"content type not UTF-8", "x", []string{"Content-Type", "text/\xff"}, 400},
		{"text not UTF-8", "\xff\xfe", []string{"Content-Type", "text/plain"}, 200},
		{"id not UTF-8", "x", []string{"Webhook-Id", "\xff"}, 200},
		{"id too long", "x", []string{"Webhook-Id", strings.Repeat("i", maxText+1)}, 200},
		{"at the limit", strings.Repeat("x", 100<<10), nil, 200},
		{"above the limit", strings.Repeat("x", 100<<10+1), nil, 413},
		{"gzip", "\x1f\x8b", []string{"Content-Encoding", "gzip"}, 415},
		{"identity", "x", []string{"Content-Encoding", "identity"}, 200},
		{"a browser", "x", []string{"Origin", "https://evil.example"}, 403},
		{"headers too large", "x", []string{"X-Big", strings.Repeat("x", maxHeader+1)}, 431},
		{
			"event with two data", `{"specversion":"1.0","id":"1","source":"s","type":"t","data":1,"data_base64":"AA=="}`,
			[]string{"Content-Type", "application/cloudevents+json"},
			400,
		},
		{"event without id", `{"specversion":"1.0","source":"s","type":"t"}`, []string{"Content-Type", "application/cloudevents+json"}, 400},
		{"event of version 9", "x", []string{"Ce-Specversion", "9", "Ce-Id", "1", "Ce-Source", "s", "Ce-Type", "t"}, 400},
		{"unknown event format", "x", []string{"Content-Type", "application/cloudevents+avro"}, 415},
	} {
		t.Run(row.name, func(t *testing.T) {
			if got := send(t, r, "POST", "/in", row.body, row.header...); got.status != row.status {
				t.Errorf("answer %d %q, want %d", got.status, got.body, row.status)
			}
			if row.status == 200 {
				if d := rt.next(t); string(d.Event.Data()) != row.body {
					t.Errorf("data changed: %q", d.Event.Data())
				}
			}
			rt.none(t)
		})
	}
	t.Run("chunked without end", func(t *testing.T) {
		body := io.LimitReader(endless{}, 1<<30)
		req, _ := http.NewRequestWithContext(t.Context(), "POST", "http://"+r.listener.address+"/in", body)
		transport := &http.Transport{}
		defer transport.CloseIdleConnections()
		res, err := transport.RoundTrip(req)
		if err == nil { // the server may cut the connection before its answer is read
			res.Body.Close()
			if res.StatusCode != 413 {
				t.Errorf("answer %d, want 413", res.StatusCode)
			}
		}
		rt.none(t)
	})
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestCloudEvents(t *testing.T) {
	t.Parallel()
	r := openWebhook(t, newEnv(t, "in"), "accept", "cloudevents")
	rt := run(t, r, ack)
	one := `{"specversion":"1.0", "id":"1","source":"s","type":"t","data":{"n":1.0}}`
	two := `{"specversion":"1.0","id":"2","source":"s","type":"t","ext":"x"}`
	js := "application/cloudevents+json"
	batch := "application/cloudevents-batch+json"

	send(t, r, "POST", "/in", one, "Content-Type", js).want(t, 200, `"events":1`)
	if d := rt.next(t); string(d.Body) != one || string(d.Event.JSON()) != one || d.Event.ID() != "1" {
		t.Errorf("structured: body %s", d.Body)
	}
	send(t, r, "POST", "/in", "hello", "Content-Type", "text/plain", "ce-specversion", "1.0", "ce-id", "3", "ce-source", "s", "ce-type", "t",
		"ce-note", "a%20b").want(t, 200, "ack")
	d := rt.next(t)
	want := map[string]string{"id": "3", "source": "s", "type": "t", "note": "a b", "datacontenttype": "text/plain"}
	if diff := cmp.Diff(want, attrs(d)); diff != "" || string(d.Event.Data()) != "hello" {
		t.Errorf("binary (-want +got):\n%s", diff)
	}
	send(t, r, "POST", "/in", "["+one+" , "+two+"]", "Content-Type", batch).want(t, 200, `"events":2,"duplicates":1`)
	if d := rt.next(t); string(d.Body) != two {
		t.Errorf("batch: body %s, want the second event", d.Body)
	}
	send(t, r, "POST", "/in", "[]", "Content-Type", batch).want(t, 200, `"events":0`)
	send(t, r, "POST", "/in", "["+one+`,{"id":"9"}]`, "Content-Type", batch).want(t, 400, "event 1")
	send(t, r, "POST", "/in", "["+strings.Repeat(one+",", maxBatch)+one+"]", "Content-Type", batch).want(t, 413, "1000 events")
	send(t, r, "POST", "/in", "{}", "Content-Type", "application/json").want(t, 415, "CloudEvent")
	rt.none(t)
}

func TestBatchIsAllOrNothing(t *testing.T) {
	t.Parallel()
	r := openWebhook(t, newEnv(t, "in"))
	var mu sync.Mutex
	failing := true
	rt := run(t, r, func(d *cloudevents.Delivery) cloudevents.Outcome {
		mu.Lock()
		defer mu.Unlock()
		if d.Event.ID() == "1" && failing {
			return cloudevents.Retried(errors.New("not now"), 3*time.Second)
		}
		return cloudevents.Acked()
	})
	var events []string
	for i := range 3 {
		events = append(events, fmt.Sprintf(`{"specversion":"1.0","id":"%d","source":"s","type":"t"}`, i))
	}
	body := "[" + strings.Join(events, ",") + "]"
	header := []string{"Content-Type", "application/cloudevents-batch+json"}
	got := send(t, r, "POST", "/in", body, header...)
	got.want(t, 503, "send again")
	if got.header.Get("Retry-After") != "3" {
		t.Errorf("Retry-After %q", got.header.Get("Retry-After"))
	}
	for i := range 3 {
		if d := rt.next(t); d.Event.ID() != strconv.Itoa(i) {
			t.Errorf("delivery %d is %s", i, d.Event.ID())
		}
	}
	mu.Lock()
	failing = false
	mu.Unlock()
	send(t, r, "POST", "/in", body, header...).want(t, 200, `"events":3,"duplicates":2`)
	if d := rt.next(t); d.Event.ID() != "1" {
		t.Errorf("delivered again: %s, want only the failed one", d.Event.ID())
	}
	rt.none(t)
}

func TestTimeoutThenJoin(t *testing.T) {
	t.Parallel()
	r := openWebhook(t, newEnv(t, "in"), "timeout", "50ms")
	rt := run(t, r, nil)
	header := []string{"Webhook-Id", "1"}
	send(t, r, "POST", "/in", "x", header...).want(t, 504, "not settled in time")
	send(t, r, "POST", "/in", "x", header...).want(t, 504, "not settled in time")
	d := rt.next(t)
	rt.none(t)
	d.Settle(cloudevents.Acked())
	send(t, r, "POST", "/in", "x", header...).want(t, 200, "duplicate")
	rt.none(t)
}

func TestFailedIsDeliveredAgain(t *testing.T) {
	t.Parallel()
	r := openWebhook(t, newEnv(t, "in"))
	rt := run(t, r, func(*cloudevents.Delivery) cloudevents.Outcome { return cloudevents.Retried(errors.New("no"), 0) })
	for range 3 {
		send(t, r, "POST", "/in", "x", "Webhook-Id", "1").want(t, 503, "")
		rt.next(t)
	}
}

func TestMemory(t *testing.T) {
	t.Parallel()
	now := time.Unix(0, 0)
	m := newMemory(time.Hour, func() time.Time { return now })
	take := func(key string, o cloudevents.Outcome) bool {
		e, fresh := m.claim(key)
		if fresh {
			m.finish(key, e, o)
		}
		return fresh
	}
	if !take("a", cloudevents.Acked()) || take("a", cloudevents.Acked()) {
		t.Error("a was not remembered")
	}
	now = now.Add(time.Hour)
	if take("a", cloudevents.Acked()) {
		t.Error("a was forgotten within the window")
	}
	now = now.Add(time.Second)
	if !take("a", cloudevents.Acked()) {
		t.Error("a was remembered beyond the window")
	}
	if !take("b", cloudevents.Left("x")) || !take("b", cloudevents.Retried(nil, 0)) || !take("b", cloudevents.Dropped("x", nil)) {
		t.Error("b was remembered before it was taken")
	}
	if take("b", cloudevents.Acked()) {
		t.Error("a dropped delivery was forgotten")
	}
	for i := range maxRemembered {
		take("n"+strconv.Itoa(i), cloudevents.Acked())
	}
	if len(m.entries) != maxRemembered || !take("a", cloudevents.Acked()) {
		t.Errorf("%d ids are remembered, want %d", len(m.entries), maxRemembered)
	}
	off := newMemory(0, time.Now)
	e, _ := off.claim("a")
	if _, fresh := off.claim("a"); fresh {
		t.Error("what is under way was not joined")
	}
	off.finish("a", e, cloudevents.Acked())
	if len(off.entries) != 0 {
		t.Error("remembered without a window")
	}
}

func TestAnswerIsJSON(t *testing.T) {
	t.Parallel()
	var v struct {
		Outcome            string
		Events, Duplicates int
	}
	if err := json.Unmarshal([]byte(done(200, "ack", 2, 1).body), &v); err != nil || v.Outcome != "ack" || v.Events != 2 || v.Duplicates != 1 {
		t.Errorf("%+v, %v", v, err)
	}
}

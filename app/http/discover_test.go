package http

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/app"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
)

func TestSubscriptions(t *testing.T) {
	t.Parallel()
	place := func(n string) config.Place { return config.Place{File: "GET /dapr/subscribe, entry " + n} }
	rows := []struct {
		name   string
		status int
		body   string
		want   []config.Subscription
	}{
		{"not there", 404, "no", nil},
		{"empty", 200, "", nil},
		{"no content", 204, "", nil},
		{"null", 200, "null", []config.Subscription{}},
		{"none", 200, " [] ", []config.Subscription{}},
		{"route", 200, `[{"pubsubname":"bus","topic":"a","route":"orders"}]`, []config.Subscription{
			{PubSub: "bus", Topic: "a", Rules: []config.Rule{{Path: "/orders", Place: place("1")}}, Place: place("1")},
		}},
		{"JavaScript SDK", 200, `[{"pubsubname":"bus","topic":"a","metadata":"","route":"/x","routes":{"default":"/d","rules":[]}}]`, []config.Subscription{
			{PubSub: "bus", Topic: "a", Rules: []config.Rule{{Path: "/d", Place: place("1")}}, Place: place("1")},
		}},
		{
			"everything", 200, `[{"pubsubName":"bus","topic":"a/#","routes":{"rules":[{"match":"event.type == \"x\"","path":"/x"},{"match":"m","path":""}],"default":"/d"},
			"deadLetterTopic":"dead","bulkSubscribe":{"enabled":true,"maxAwaitDurationMs":40},"metadata":{"rawPayload":true,"n":1,"s":"t","z":null},"extra":{}}]`,
			[]config.Subscription{{
				PubSub: "bus", Topic: "a/#", DeadLetterTopic: "dead", Place: place("1"),
				Rules: []config.Rule{{Match: `event.type == "x"`, Path: "/x", Place: place("1")}, {Path: "/d", Place: place("1")}},
				Bulk:  config.Bulk{Enabled: true, MaxMessages: 100, MaxAwait: 40 * time.Millisecond},
				Metadata: map[string]string{
					"rawPayload": "true", "n": "1", "s": "t", "z": "",
				},
			}},
		},
		{"useless ones", 200, `[{},{"pubsubname":"bus"},{"pubsubname":"bus","topic":"a"},{"pubsubname":"bus","topic":"b","route":"/b"}]`, []config.Subscription{
			{PubSub: "bus", Topic: "b", Rules: []config.Rule{{Path: "/b", Place: place("4")}}, Place: place("4")},
		}},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			c := channel(t, serve(t, func(w http.ResponseWriter, q *http.Request) {
				if q.Method != http.MethodGet || q.URL.Path != "/dapr/subscribe" {
					t.Errorf("asked with %s %s", q.Method, q.URL)
				}
				w.WriteHeader(r.status)
				_, _ = io.WriteString(w, r.body)
			}), Options{})
			got, err := c.Subscriptions(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(r.want, got); diff != "" {
				t.Errorf("subscriptions (-want +got):\n%s", diff)
			}
		})
	}
}

func TestSubscriptionsNonsense(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		"<html>":                  `read subscriptions: want a JSON array as the answer to GET /dapr/subscribe, got "<html>": `,
		`{"a":1}`:                 `read subscriptions: want a JSON array as the answer to GET /dapr/subscribe, got "{\"a\":1}": `,
		`[{"topic":5}]`:           "read subscriptions: entry 1 of GET /dapr/subscribe: json: cannot unmarshal number",
		`[{},{"routes":[]}]`:      "read subscriptions: entry 2 of GET /dapr/subscribe: json: cannot unmarshal array",
		`[{"metadata":{"a":[]}}]`: `read subscriptions: entry 1 of GET /dapr/subscribe: metadata "a": want a string, number or boolean`,
		`[{},{"routes":{"rules":[` + strings.Repeat(`{"match":"true","path":"/a"},`, 10_000) + `{}]}}]`: "read subscriptions: more than 10000 rules up to entry 2 of GET /dapr/subscribe",
		"[" + strings.Repeat("1,", 10_000) + "1]":                                                       "read subscriptions: 10001 of them, the limit is 10000",
	} {
		var asked atomic.Int32
		c := channel(t, serve(t, func(w http.ResponseWriter, _ *http.Request) {
			asked.Add(1)
			_, _ = io.WriteString(w, body)
		}), Options{})
		_, err := c.Subscriptions(t.Context())
		if err == nil || !strings.HasPrefix(err.Error(), want) || fault.KindOf(err) != fault.Invalid || asked.Load() != 1 {
			t.Errorf("%.40s: error = %v after %d questions, want %s", body, err, asked.Load(), want)
		}
	}
}

func TestSubscriptionsAreAskedAgain(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	c := channel(t, serve(t, func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1) < 3 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, `[{"pubsubname":"bus","topic":"a","route":"/a"}]`)
	}), Options{})
	subs, err := c.Subscriptions(t.Context())
	if err != nil || len(subs) != 1 || asked.Load() != 3 {
		t.Errorf("subscriptions = %v, %v after %d questions", subs, err, asked.Load())
	}
	asked.Store(-100)
	_, err = c.Subscriptions(t.Context())
	if err == nil || asked.Load() != -96 {
		t.Errorf("error = %v after %d questions, want one after 4", err, asked.Load()+100)
	}
}

func TestSubscriptionsDisabled(t *testing.T) {
	t.Parallel()
	c := channel(t, "http://127.0.0.1:1", Options{Disable: []string{"config", "subscribe"}})
	if subs, err := c.Subscriptions(t.Context()); subs != nil || err != nil {
		t.Errorf("subscriptions = %v, %v", subs, err)
	}
}

func TestUselessSubscriptionsAreLogged(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	c := channel(t, "http://127.0.0.1:1", Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if _, err := c.parseSubscriptions([]byte(`[{"pubsubname":"bus","topic":"a"}]`)); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), "it has no route") || !strings.Contains(log.String(), "topic=a") {
		t.Errorf("log = %s", log.String())
	}
}

func TestWantsBinding(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]string{
		200: "yes", 204: "yes", 405: "yes", 404: "no", 401: "no", 302: "no", 501: "no", 500: "error", 503: "error",
	} {
		c := channel(t, serve(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodOptions || r.URL.Path != "/cron" {
				t.Errorf("asked with %s %s", r.Method, r.URL)
			}
			w.WriteHeader(status)
		}), Options{})
		wants, err := c.WantsBinding(t.Context(), &app.Address{Path: "cron"})
		got := map[bool]string{true: "yes", false: "no"}[wants]
		if err != nil {
			got = "error"
		}
		if got != want {
			t.Errorf("%d: %s, want %s (%v)", status, got, want, err)
		}
	}
	c := channel(t, serve(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }), Options{ProbeTimeout: 20 * time.Millisecond})
	if _, err := c.WantsBinding(t.Context(), &app.Address{Path: "/cron"}); fault.KindOf(err) != fault.Timeout {
		t.Errorf("error = %v, want a time-out", err)
	}
}

func TestHealth(t *testing.T) {
	t.Parallel()
	c := channel(t, serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/alive" {
			w.WriteHeader(http.StatusTeapot)
		}
	}), Options{HealthPath: "alive"})
	if err := c.Health(t.Context()); err != nil {
		t.Error(err)
	}
	c.o.HealthPath = "/other"
	if err := c.Health(t.Context()); err == nil || err.Error() != "call app at /other: answered 418 I'm a teapot" {
		t.Errorf("error = %v", err)
	}
}

func FuzzSubscriptions(f *testing.F) {
	f.Add(`[{"pubsubname":"bus","topic":"a","routes":{"rules":[{"match":"m","path":"/x"}],"default":"/d"},"metadata":{"a":1}}]`)
	f.Add(`[null, {"metadata":""}]`)
	c, err := New(Options{Port: 1})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body string) {
		subs, err := c.parseSubscriptions([]byte(body))
		if err != nil && fault.KindOf(err) != fault.Invalid {
			t.Errorf("error of kind %v: %v", fault.KindOf(err), err)
		}
		for _, s := range subs {
			if s.Topic == "" || s.PubSub == "" || len(s.Rules) == 0 {
				t.Errorf("useless subscription %+v", s)
			}
		}
	})
}

// FuzzHeader holds that any metadata makes a request that arrives as one.
func FuzzHeader(f *testing.F) {
	f.Add("name", "value")
	f.Add("na\r\nme", "va\r\nlue: x")
	var got http.Header
	server := serve(f, func(_ http.ResponseWriter, r *http.Request) { got = r.Header })
	c := channel(f, server, Options{})
	f.Fuzz(func(t *testing.T, name, value string) {
		got = nil
		a, err := c.Call(t.Context(), &Request{Path: "/", Metadata: map[string]string{name: value}})
		if err != nil || a.Status != http.StatusOK || len(got) > 3 {
			t.Errorf("%q: %q: %v, headers %v", name, value, err, got)
		}
	})
}

package http_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/api"
	apihttp "github.com/penstock-io/penstock/api/http"
	"github.com/penstock-io/penstock/telemetry/journal"
)

// happened writes a round of an event down.
func happened(j *journal.Journal, id string, o journal.Outcome) {
	var r journal.Round
	j.Begin(&r, journal.Event{ID: id, Source: "/till", Type: "sold"}, journal.Nth{Route: "subscription/bus/a/b", Round: 1, Attempt: 1}, time.Now())
	r.Try("app", 0)
	r.Tried(o, "", time.Millisecond)
	r.End(journal.Ending{Outcome: o}, time.Millisecond)
}

func TestEvents(t *testing.T) {
	t.Parallel()
	i := &instance{journal: journal.New(0)}
	h := i.handler(apihttp.Options{})
	happened(i.journal, "1", journal.Ack)
	happened(i.journal, "2", journal.DeadLetter)
	happened(i.journal, "3", journal.Retry)
	var under journal.Round
	i.journal.Begin(&under, journal.Event{ID: "4"}, journal.Nth{Route: "binding/x"}, time.Now())
	for query, want := range map[string]string{
		"":                              "1 ack, 2 deadletter, 3 retry, 4 underway",
		"?limit=1":                      "3 retry, 4 underway",
		"?id=2":                         "2 deadletter",
		"?outcome=ack,retry":            "1 ack, 3 retry",
		"?outcome=ack&outcome=underway": "1 ack, 4 underway",
		"?route=subscription/*&type=s*": "1 ack, 2 deadletter, 3 retry",
		"?trace=none":                   "",
		"?since=1h":                     "1 ack, 2 deadletter, 3 retry, 4 underway",
	} {
		w := ask(h, http.MethodGet, "/v1.0-penstock/events"+query, "")
		var body struct{ Events []journal.Entry }
		if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || body.Events == nil {
			t.Fatalf("%s: %v in %s", query, err, w.Body)
		}
		var got []string
		for _, e := range body.Events {
			got = append(got, e.ID+" "+e.Outcome.String())
		}
		if got := strings.Join(got, ", "); got != want {
			t.Errorf("%s: got %s, want %s", query, got, want)
		}
	}
	for _, query := range []string{"?limit=1001", "?limit=x", "?outcome=lost", "?since=yesterday", "?payload=true", "?a=%zz"} {
		if w := ask(h, http.MethodGet, "/v1.0-penstock/events"+query, ""); w.Code != http.StatusBadRequest {
			t.Errorf("%s is answered %d: %s", query, w.Code, w.Body)
		}
	}
	for _, query := range []string{"?rate=-1", "?rate=10001", "?payload=perhaps", "?after=-1", "?limit=1"} {
		if w := ask(h, http.MethodGet, "/v1.0-penstock/events/watch"+query, ""); code(t, w) != "ERR_EVENT_SELECTION" {
			t.Errorf("watch %s is answered %d: %s", query, w.Code, w.Body)
		}
	}
}

// TestEventsAreGuarded: the token and the lists of the Configuration hold here too.
func TestEventsAreGuarded(t *testing.T) {
	t.Parallel()
	i := &instance{journal: journal.New(0)}
	for _, path := range []string{"/v1.0-penstock/events", "/v1.0-penstock/events/watch"} {
		if w := ask(i.handler(apihttp.Options{Tokens: []string{"secret"}}), http.MethodGet, path, ""); w.Code != http.StatusUnauthorized {
			t.Errorf("%s without the token is answered %d", path, w.Code)
		}
		if w := ask(i.limited(apihttp.Options{}, api.Surface{Denied: []api.Rule{{Name: "events", Version: "v1.0-penstock", Protocol: "http"}}}), http.MethodGet, path, ""); code(t, w) != "ERR_API_DENIED" {
			t.Errorf("%s that is denied is answered %d %s", path, w.Code, w.Body)
		}
		if w := ask(i.handler(apihttp.Options{}), http.MethodGet, path, "", "Origin", "https://elsewhere.example"); w.Code != http.StatusForbidden {
			t.Errorf("%s from a foreign page is answered %d", path, w.Code)
		}
	}
}

func TestRecentRoutes(t *testing.T) {
	t.Parallel()
	i := &instance{journal: journal.New(0)}
	h := i.handler(apihttp.Options{})
	for range 20 {
		happened(i.journal, "1", journal.Ack)
	}
	w := ask(h, http.MethodGet, "/v1.0-penstock/routes?window=10s", "")
	if !strings.Contains(w.Body.String(), `"recent":{"windowMs":10000,"rate":2,"errors":0,"p50Ms":1,"p99Ms":1,"oldestMs":0}`) {
		t.Errorf("got %s", w.Body)
	}
	if w := ask(h, http.MethodGet, "/v1.0-penstock/routes", ""); strings.Contains(w.Body.String(), "recent") {
		t.Errorf("not asked for: %s", w.Body)
	}
	for _, window := range []string{"soon", "2h", "-1s", "0s"} {
		if w := ask(h, http.MethodGet, "/v1.0-penstock/routes?window="+window, ""); w.Code != http.StatusBadRequest {
			t.Errorf("window %s is answered %d", window, w.Code)
		}
	}
}

// TestWatchHeartbeat: a quiet watch says now and then that it is still there, and
// ends with the instance.
func TestWatchHeartbeat(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := &instance{journal: journal.New(0)}
		h := i.handler(apihttp.Options{})
		answer := make(chan string)
		go func() { answer <- ask(h, http.MethodGet, "/v1.0-penstock/events/watch", "").Body.String() }()
		<-time.After(40 * time.Second)
		i.journal.End()
		want := ": what happens from now on\n\n: nothing yet\n\n: nothing yet\n\n" +
			"event: end\ndata: {\"reason\":\"watch events: the instance is stopping\"}\n\n"
		if diff := cmp.Diff(want, <-answer); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	})
}

// watching opens a watch of a real server and returns its lines.
func watching(t *testing.T, ctx context.Context, address string, header ...string) *bufio.Reader {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	must(t, err)
	for n := 0; n < len(header); n += 2 {
		r.Header.Set(header[n], header[n+1])
	}
	resp, err := http.DefaultClient.Do(r)
	must(t, err)
	t.Cleanup(func() { resp.Body.Close() })
	if got := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusOK || got != "text/event-stream" {
		t.Fatalf("answered %d %s", resp.StatusCode, got)
	}
	lines := bufio.NewReader(resp.Body)
	if got := message(t, lines); got != ": what happens from now on" {
		t.Fatalf("it begins with %q", got)
	}
	return lines
}

// message reads to the next empty line.
func message(t *testing.T, lines *bufio.Reader) string {
	t.Helper()
	var all []string
	for {
		line, err := lines.ReadString('\n')
		must(t, err)
		if line == "\n" {
			return strings.Join(all, "|")
		}
		all = append(all, strings.TrimSuffix(line, "\n"))
	}
}

func TestWatch(t *testing.T) {
	t.Parallel()
	i := &instance{journal: journal.New(0)}
	s := httptest.NewServer(i.handler(apihttp.Options{}))
	t.Cleanup(s.Close)
	const path = "/v1.0-penstock/events/watch"
	lines := watching(t, t.Context(), s.URL+path+"?outcome=drop&id=2")
	happened(i.journal, "1", journal.Drop)
	happened(i.journal, "2", journal.Ack)
	happened(i.journal, "2", journal.Drop)
	if got := message(t, lines); !strings.HasPrefix(got, `id: 3|data: {"seq":3,`) || !strings.Contains(got, `"id":"2"`) {
		t.Errorf("got %s", got)
	}
	again := watching(t, t.Context(), s.URL+path, "Last-Event-ID", "2")
	if got := message(t, again); !strings.HasPrefix(got, "id: 3|") {
		t.Errorf("after the second came %s", got)
	}
	i.journal.End()
	if got := message(t, again); !strings.HasPrefix(got, "event: end|") {
		t.Errorf("the end is %s", got)
	}
}

// TestASlowClient does not read: nobody waits for it, and it hears what it missed.
func TestASlowClient(t *testing.T) {
	t.Parallel()
	i := &instance{journal: journal.New(1)}
	s := httptest.NewServer(i.handler(apihttp.Options{}))
	t.Cleanup(s.Close)
	const written = 200_000
	lines := watching(t, t.Context(), s.URL+"/v1.0-penstock/events/watch?rate=10000")
	for n := range written {
		happened(i.journal, fmt.Sprint(n), journal.Ack)
	}
	i.journal.End()
	seen, lost := 0, 0
	for {
		got := message(t, lines)
		if strings.HasPrefix(got, "event: end|") {
			break
		}
		n := 0
		if _, err := fmt.Sscanf(got, `event: lost|data: {"lost":%d}`, &n); err == nil {
			lost += n
		} else {
			seen++
		}
	}
	if seen+lost != written || lost == 0 {
		t.Errorf("%d seen, %d lost, of %d", seen, lost, written)
	}
}

// TestClientsThatGoAway leave their place to others.
func TestClientsThatGoAway(t *testing.T) {
	t.Parallel()
	i := &instance{journal: journal.New(0)}
	h := i.handler(apihttp.Options{})
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	const path = "/v1.0-penstock/events/watch"
	ctx, cancel := context.WithCancel(t.Context())
	for range journal.MaxWatchers {
		watching(t, ctx, s.URL+path)
	}
	if w := ask(h, http.MethodGet, path, ""); code(t, w) != "ERR_LIMIT_REACHED" {
		t.Errorf("one too many is answered %d %s", w.Code, w.Body)
	}
	cancel()
	deadline, tick := time.After(10*time.Second), time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		w, err := i.journal.Watch(journal.Watching{})
		if err == nil {
			w.Close()
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("they keep their places")
		}
	}
}

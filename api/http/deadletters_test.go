package http_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	apihttp "github.com/penstock-io/penstock/api/http"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/deadletters"
)

// withLetters starts an instance that keeps dead letters: three events and one
// that is no text.
func withLetters(t *testing.T, inject func(ctx context.Context, route string, d *cloudevents.Delivery) error) http.Handler {
	t.Helper()
	i := start(t)
	i.letters = deadletters.New(deadletters.Options{
		App: "shop", Env: component.Env{DataDir: t.TempDir(), Shared: &component.Shared{}}, Inject: inject,
		Routes: func(string, string) []string { return []string{"r"} },
		Publish: func(ctx context.Context, _, topic string, body []byte, m map[string]string) error {
			return i.bus.Republish(ctx, topic, body, m)
		},
	})
	t.Cleanup(func() { must(t, i.letters.Close()) })
	collect := i.letters.Collect("bus", "graves")
	put := func(body string, n int) {
		o := collect(t.Context(), &cloudevents.Delivery{Body: []byte(body), Metadata: map[string]string{
			"x": "y", deadletters.TimeKey: fmt.Sprintf("2026-01-31T12:00:%02dZ", n), deadletters.ReasonKey: "<no> & good",
		}})
		must(t, o.Err)
	}
	put("\xff\x00", 0)
	for n := range 3 {
		put(fmt.Sprintf(`{"specversion":"1.0",  "id":"e%d","source":"s","type":"t","data":%d}`, n, n), n+1)
	}
	return i.handler(apihttp.Options{})
}

func taken(_ context.Context, _ string, d *cloudevents.Delivery) error {
	go d.Settle(cloudevents.Acked())
	return nil
}

const lettersPath = "/v1.0-penstock/deadletters"

type lettersPage struct {
	DeadLetters []map[string]any
	Next        string
}

func page(t *testing.T, h http.Handler, query string) lettersPage {
	t.Helper()
	w := ask(h, "GET", lettersPath+query, "")
	var p lettersPage
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code != http.StatusOK || w.Header().Get("Cache-Control") != "no-store" {
		t.Fatalf("%s: %d %s", query, w.Code, w.Body)
	}
	return p
}

func TestListDeadLetters(t *testing.T) {
	t.Parallel()
	h := withLetters(t, taken)
	first := page(t, h, "?limit=3")
	if len(first.DeadLetters) != 3 || first.DeadLetters[0]["eventId"] != "e2" || first.DeadLetters[0]["body"] != nil || first.DeadLetters[0]["metadata"] != nil {
		t.Errorf("first page %+v", first)
	}
	if rest := page(t, h, "?limit=3&page="+first.Next); len(rest.DeadLetters) != 1 || rest.Next != "" {
		t.Errorf("second page %+v", rest)
	}
	for query, want := range map[string]int{
		"?pubsub=bus&topic=graves": 4, "?topic=other": 0, "?reason=NO%3e": 4, "?filter=event.data+%3e+0": 2,
		"?since=2026-01-31T12:00:02Z": 2, "?until=2026-01-31T12:00:02Z": 3, "?since=1s": 0, "?attempts=1": 0, "?kind=dropped": 0, "?route=r": 0,
	} {
		if got := len(page(t, h, query).DeadLetters); got != want {
			t.Errorf("%s: %d letters, want %d", query, got, want)
		}
	}
	for _, query := range []string{"?limit=x", "?limit=-1", "?limit=9999", "?since=soon", "?filter=event.", "?page=x", "?reasn=x", "?attempts=few"} {
		if w := ask(h, "GET", lettersPath+query, ""); w.Code != http.StatusBadRequest || code(t, w) != "ERR_DEAD_LETTER_SELECTION" {
			t.Errorf("%s: %d %s", query, w.Code, w.Body)
		}
	}
}

func TestShowDeadLetter(t *testing.T) {
	t.Parallel()
	h := withLetters(t, taken)
	list := page(t, h, "").DeadLetters
	text, bytes := fmt.Sprint(list[0]["id"]), fmt.Sprint(list[3]["id"])
	var l map[string]any
	w := ask(h, "GET", lettersPath+"/"+text, "")
	must(t, json.Unmarshal(w.Body.Bytes(), &l))
	if l["body"] != `{"specversion":"1.0",  "id":"e2","source":"s","type":"t","data":2}` || l["metadata"].(map[string]any)["x"] != "y" {
		t.Errorf("shown %s", w.Body)
	}
	if w := ask(h, "GET", lettersPath+"/"+bytes, ""); !strings.Contains(w.Body.String(), `"bodyBase64":"/wA="`) {
		t.Errorf("shown %s", w.Body)
	}
	if w := ask(h, "GET", lettersPath+"/"+bytes, "", "Accept", "application/octet-stream"); w.Body.String() != "\xff\x00" {
		t.Errorf("bytes %q", w.Body)
	}
	if w := ask(h, "GET", lettersPath+"/nosuch", ""); w.Code != http.StatusNotFound || code(t, w) != "ERR_DEAD_LETTER_NOT_FOUND" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestReplayAndDiscardDeadLetters(t *testing.T) {
	t.Parallel()
	h := withLetters(t, taken)
	for body, want := range map[string]string{
		``: "ERR_DEAD_LETTER_SELECTION", `{}`: "ERR_DEAD_LETTER_SELECTION", `{"all":true,"topic":"graves"}`: "ERR_DEAD_LETTER_SELECTION",
		`{"flter":"true"}`: "ERR_MALFORMED_REQUEST", `[]`: "ERR_MALFORMED_REQUEST", `{"all":true}{}`: "ERR_MALFORMED_REQUEST",
		`{"filter":"event."}`: "ERR_DEAD_LETTER_SELECTION", `{"since":"soon"}`: "ERR_DEAD_LETTER_SELECTION",
	} {
		for _, verb := range []string{"/replay", "/discard"} {
			if w := ask(h, "POST", lettersPath+verb, body); w.Code != http.StatusBadRequest || code(t, w) != want {
				t.Errorf("%s %s: %d %s", verb, body, w.Code, w.Body)
			}
		}
	}
	for body, want := range map[string]int{
		`{"all":true,"body":"x"}`: http.StatusBadRequest, `{"all":true,"rate":-1}`: http.StatusBadRequest, `{"all":true,"to":"bus"}`: http.StatusBadRequest,
		`{"all":true,"to":"coach/t"}`: http.StatusNotFound, `{"all":true,"to":"bus/secret"}`: http.StatusForbidden,
	} {
		if w := ask(h, "POST", lettersPath+"/replay", body); w.Code != want {
			t.Errorf("%s: %d %s", body, w.Code, w.Body)
		}
	}
	if n := len(page(t, h, "").DeadLetters); n != 4 {
		t.Fatalf("%d letters are left", n)
	}
	w := ask(h, "POST", lettersPath+"/replay", `{"filter":"event.data == 1"}`)
	if w.Body.String() != `{"matched":1,"replayed":1,"failed":0,"left":0,"errors":[]}` {
		t.Errorf("replay: %s", w.Body)
	}
	if w := ask(h, "POST", lettersPath+"/replay", `{"filter":"event.data == 0","to":"bus/again"}`); !strings.Contains(w.Body.String(), `"replayed":1`) {
		t.Errorf("replay: %s", w.Body)
	}
	if w := ask(h, "POST", lettersPath+"/discard", `{"ids":["x"]}`); w.Body.String() != `{"discarded":0,"notFound":["x"]}` {
		t.Errorf("discard: %s", w.Body)
	}
	if w := ask(h, "POST", lettersPath+"/discard", `{"all":true}`); w.Body.String() != `{"discarded":2,"notFound":[]}` {
		t.Errorf("discard: %s", w.Body)
	}
	for _, method := range []string{"GET", "PUT", "DELETE"} {
		if w := ask(h, method, lettersPath+"/replay", ""); w.Code/100 == 2 {
			t.Errorf("%s replay: %d", method, w.Code)
		}
	}
}

func TestReplayTellsItsProgress(t *testing.T) {
	t.Parallel()
	h := withLetters(t, func(ctx context.Context, _ string, d *cloudevents.Delivery) error {
		time.AfterFunc(1100*time.Millisecond, func() { d.Settle(cloudevents.Acked()) })
		return nil
	})
	w := ask(h, "POST", lettersPath+"/replay", `{"all":true}`, "Accept", "application/x-ndjson")
	lines := strings.Split(strings.TrimSpace(w.Body.String()), "\n")
	if len(lines) < 2 || w.Header().Get("Content-Type") != "application/x-ndjson" {
		t.Fatalf("answer %s", w.Body)
	}
	if want := `{"matched":4,"replayed":4,"failed":0,"left":0,"errors":[],"done":true}`; lines[len(lines)-1] != want {
		t.Errorf("last line %s", lines[len(lines)-1])
	}
	if !strings.Contains(lines[0], `"matched":4`) || strings.Contains(lines[0], "done") {
		t.Errorf("first line %s", lines[0])
	}
}

package contract

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	ack   = "ack"
	retry = "retry"
	drop  = "drop"
)

// outcomes is the contract's table: what the app answers first, and what
// becomes of the event.
var outcomes = []struct {
	name string
	said answer
	want string
}{
	{"200 empty", answer{}, ack},
	{"201", answer{status: 201}, ack},
	{"204", answer{status: 204}, ack},
	{"not JSON", answer{body: "fine"}, ack},
	{"not an object", answer{body: `["RETRY"]`}, ack},
	{"status missing", answer{body: `{"x":1}`}, ack},
	{"status empty", answer{body: `{"status":""}`}, ack},
	{"SUCCESS", answer{body: `{"status":"SUCCESS"}`}, ack},
	{"RETRY", answer{body: ` { "status" : "RETRY" } `}, retry},
	{"DROP", answer{status: 202, body: `{"status":"DROP"}`}, drop},
	{"unknown word", answer{body: `{"status":"MAYBE"}`}, retry},
	{"lower case", answer{body: `{"status":"success"}`}, retry},
	{"302", answer{status: 302, header: http.Header{"Location": {"/elsewhere"}}}, retry},
	{"400", answer{status: 400}, retry},
	{"401", answer{status: 401}, retry},
	{"403", answer{status: 403}, retry},
	{"404", answer{status: 404}, drop},
	{"404 with status", answer{status: 404, body: `{"status":"SUCCESS"}`}, drop},
	{"408", answer{status: 408}, retry},
	{"409", answer{status: 409}, retry},
	{"429", answer{status: 429, header: http.Header{"Retry-After": {"1"}}}, retry},
	{"500", answer{status: 500}, retry},
	{"500 with status", answer{status: 500, body: `{"status":"SUCCESS"}`}, retry},
	{"503", answer{status: 503, header: http.Header{"Retry-After": {"1"}}}, retry},
}

// Every row, on both brokers, without and with a dead letter topic: of those
// with one, a retry is dead-lettered at the first failure, as no policy says
// otherwise.
func TestOutcomes(t *testing.T) {
	t.Parallel()
	var subs []string
	for _, bus := range []string{"mem", "db"} {
		subs = append(subs, fmt.Sprintf(`{"pubsubname":"%s","topic":"dead","route":"/%s/dead"}`, bus, bus))
		for i := range outcomes {
			subs = append(subs, fmt.Sprintf(`{"pubsubname":"%s","topic":"t%d","route":"/%s/plain/%d"}`, bus, i, bus, i),
				fmt.Sprintf(`{"pubsubname":"%s","topic":"l%d","route":"/%s/letter/%d","deadLetterTopic":"dead"}`, bus, i, bus, i))
		}
	}
	a := (&app{subscribe: "[" + strings.Join(subs, ",") + "]"})
	a.reply = func(c call, n int) answer {
		parts := strings.Split(c.path, "/")
		if i, err := strconv.Atoi(parts[len(parts)-1]); err == nil && n == 1 {
			return outcomes[i].said
		}
		return answer{}
	}
	a.serve(t)
	sc := start(t, setup{app: a.port, resources: buses})
	both(t, func(t *testing.T, bus string) {
		letters := 0
		for i, row := range outcomes {
			sc.publish(t, fmt.Sprintf("%s/t%d", bus, i), quote(row.name))
			sc.publish(t, fmt.Sprintf("%s/l%d", bus, i), quote(row.name))
			if row.want != ack {
				letters++
			}
		}
		dead := map[string]call{}
		for _, c := range a.wait(t, "/"+bus+"/dead", letters) {
			dead[c.data(t)] = c
		}
		// Retries take the longest, so what will not come has not come then.
		for i, row := range outcomes {
			if row.want == retry {
				a.wait(t, fmt.Sprintf("/%s/plain/%d", bus, i), 2)
			}
		}
		for i, row := range outcomes {
			t.Run(row.name, func(t *testing.T) {
				checkPlain(t, a.wait(t, fmt.Sprintf("/%s/plain/%d", bus, i), 1), row.want, row.said)
				if got := len(a.wait(t, fmt.Sprintf("/%s/letter/%d", bus, i), 1)); got != 1 {
					t.Errorf("with a dead letter topic delivered %d times", got)
				}
				letter, buried := dead[quote(row.name)]
				if buried != (row.want != ack) {
					t.Fatalf("dead-lettered: %t", buried)
				}
				if buried && string(letter.event(t)["topic"]) != quote(fmt.Sprintf("l%d", i)) {
					t.Errorf("dead letter %s", letter.body)
				}
			})
		}
	})
	if n := len(a.got("/elsewhere")); n > 0 {
		t.Errorf("a redirect was followed")
	}
}

// checkPlain checks the deliveries of an event without a dead letter topic.
func checkPlain(t *testing.T, calls []call, want string, said answer) {
	t.Helper()
	if got, times := len(calls), map[string]int{ack: 1, drop: 1, retry: 2}[want]; got != times {
		t.Fatalf("delivered %d times, want %d", got, times)
	}
	if want != retry {
		return
	}
	if string(calls[0].body) != string(calls[1].body) {
		t.Errorf("delivered first %s, then %s", calls[0].body, calls[1].body)
	}
	if pause := calls[1].at.Sub(calls[0].at); said.header.Get("Retry-After") != "" && pause < 900*time.Millisecond {
		t.Errorf("again after %s, earlier than asked for", pause)
	}
}

// An app that closes the connection, or answers nonsense, did not take the event.
func TestNoAnswerIsRetried(t *testing.T) {
	t.Parallel()
	a := &app{subscribe: `[{"pubsubname":"mem","topic":"a","route":"/a"}]`}
	a.reply = func(_ call, n int) answer {
		if n == 1 {
			panic(http.ErrAbortHandler)
		}
		return answer{}
	}
	a.serve(t)
	sc := start(t, setup{app: a.port, resources: buses})
	sc.publish(t, "mem/a", `1`)
	a.wait(t, "/a", 2)
}

// bulkCall is the body of a bulk delivery.
type bulkCall struct {
	ID      string `json:"id"`
	Type    string `json:"type"`
	Topic   string `json:"topic"`
	PubSub  string `json:"pubsubname"`
	Entries []struct {
		ID          string          `json:"entryId"`
		Event       json.RawMessage `json:"event"`
		ContentType string          `json:"contentType"`
	} `json:"entries"`
}

func readBulk(c call) (b bulkCall, data []string) {
	if err := json.Unmarshal(c.body, &b); err != nil {
		return b, nil
	}
	for _, e := range b.Entries {
		var event struct {
			Data string `json:"data"`
		}
		if json.Unmarshal(e.Event, &event) == nil {
			data = append(data, event.Data)
		}
	}
	return b, data
}

// Each entry of a bulk delivery has an outcome of its own; one that the answer
// leaves out is delivered again.
func TestBulkSubscribe(t *testing.T) {
	t.Parallel()
	a := bulkApp().serve(t)
	sc := start(t, setup{app: a.port, resources: buses})
	const four = `[{"entryId":"1","event":"ok"},{"entryId":"2","event":"drop"},{"entryId":"3","event":"again"},{"entryId":"4","event":"untold"}]`
	post := func(t *testing.T, to, body string) {
		t.Helper()
		checkProblem(t, send(t, request{url: sc.api + "/publish/bulk/" + to, contentType: "application/json", body: body}), 204, "", "")
	}
	t.Run("durable", func(t *testing.T) {
		t.Parallel()
		post(t, "db/a", four)
		seen := map[string]int{}
		eventually(t, "retries", func() bool {
			clear(seen)
			for _, c := range a.got("/db") {
				_, data := readBulk(c)
				for _, d := range data {
					seen[d]++
				}
			}
			return seen["again"] > 1 && seen["untold"] > 1
		})
		if seen["ok"] != 1 || seen["drop"] != 1 {
			t.Errorf("delivered %v", seen)
		}
	})
	t.Run("in memory", func(t *testing.T) {
		t.Parallel()
		post(t, "mem/a", four)
		post(t, "mem/gone", `[{"entryId":"1","event":"lost 1"},{"entryId":"2","event":"lost 2"}]`)
		c := a.wait(t, "/mem", 1)[0]
		b, _ := readBulk(c)
		if c.header.Get("Content-Type") != "application/json" || b.Type != "com.dapr.event.sent.bulk" || b.ID == "" ||
			b.Topic != "a" || b.PubSub != "mem" || len(b.Entries) == 0 || b.Entries[0].ContentType != ceType {
			t.Errorf("delivered as %q: %s", c.header.Get("Content-Type"), c.body)
		}
		dead := map[string]int{}
		for _, c := range a.wait(t, "/d", 5) { // no policy: a retry is dead-lettered at once
			dead[c.data(t)]++
		}
		if len(dead) != 5 || dead[`"ok"`] != 0 {
			t.Errorf("dead letters %v", dead)
		}
	})
}

// bulkApp answers each entry with the word that its data is.
func bulkApp() *app {
	a := &app{subscribe: `[
		{"pubsubname":"mem","topic":"a","route":"/mem","deadLetterTopic":"d","bulkSubscribe":{"enabled":true,"maxMessagesCount":4,"maxAwaitDurationMs":500}},
		{"pubsubname":"db","topic":"a","route":"/db","bulkSubscribe":{"enabled":true,"maxMessagesCount":4,"maxAwaitDurationMs":500}},
		{"pubsubname":"mem","topic":"gone","route":"/gone","deadLetterTopic":"d","bulkSubscribe":{"enabled":true,"maxMessagesCount":2,"maxAwaitDurationMs":50}},
		{"pubsubname":"mem","topic":"d","route":"/d"}]`}
	a.reply = func(c call, _ int) answer {
		if c.path == "/gone" {
			return answer{status: 404}
		}
		b, data := readBulk(c)
		var said []string
		for i, e := range b.Entries {
			word := map[string]string{"ok": "SUCCESS", "drop": "DROP", "again": "RETRY"}[data[i]]
			if word != "" {
				said = append(said, fmt.Sprintf(`{"entryId":"%s","status":"%s"}`, e.ID, word))
			}
		}
		return answer{body: `{"statuses":[` + strings.Join(said, ",") + `]}`}
	}
	return a
}

// A dead letter is the message's own bytes with its metadata, which reaches the
// app as headers.
func TestDeadLetterIsTheMessage(t *testing.T) {
	t.Parallel()
	a := &app{subscribe: `[
		{"pubsubname":"db","topic":"raw","route":"/gone","deadLetterTopic":"d","metadata":{"rawPayload":"true"}},
		{"pubsubname":"db","topic":"d","route":"/d","metadata":{"rawPayload":"true"}}]`}
	a.reply = func(c call, _ int) answer {
		if c.path == "/gone" {
			return answer{status: 404}
		}
		return answer{}
	}
	a.serve(t)
	sc := start(t, setup{app: a.port, resources: buses})
	sc.publishAs(t, "db/raw?metadata.rawPayload=true&metadata.tenant=t1&metadata.host=evil", "application/octet-stream", "\xff\x00raw")
	first, dead := a.wait(t, "/gone", 1)[0], a.wait(t, "/d", 1)[0]
	if got := string(dead.event(t)["topic"]); got != `"d"` {
		t.Errorf("the dead letter is an event of topic %s instead of the bytes that came", got)
	}
	for _, c := range []call{first, dead} {
		if got := string(c.event(t)["data_base64"]); got != `"/wByYXc="` {
			t.Errorf("%s got %s", c.path, c.body)
		}
		if c.header.Get("tenant") != "t1" || c.header.Get("dapr-api-token") != "" {
			t.Errorf("%s got headers %v", c.path, c.header)
		}
	}
}

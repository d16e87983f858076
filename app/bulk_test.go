package app_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/app"
	"github.com/penstock-io/penstock/cloudevents"
)

// bulkCall is the body of a bulk delivery.
type bulkCall struct {
	ID, Type, Topic, PubSubName string
	Entries                     []struct {
		EntryID     string
		Event       json.RawMessage
		ContentType string
	}
}

func bulkEvent(t *testing.T, n int) *cloudevents.Delivery {
	t.Helper()
	raw := fmt.Appendf(nil, `{"specversion":"1.0","id":"%d","source":"/s","type":"t","data":{"n":  %d}}`, n, n)
	e, err := cloudevents.Scan(raw)
	if err != nil {
		t.Fatal(err)
	}
	return &cloudevents.Delivery{Body: raw, Event: e, Attempt: 1}
}

// deliverAll sends n events at once and returns their outcomes in order.
func deliverAll(t *testing.T, k *app.Bulk, n int) []cloudevents.Outcome {
	t.Helper()
	out := make([]cloudevents.Outcome, n)
	var wg sync.WaitGroup
	for i := range n {
		d := bulkEvent(t, i)
		wg.Go(func() { out[i] = k.Event(t.Context(), d) })
	}
	wg.Wait()
	return out
}

func TestBulkGivesEachEntryItsOutcome(t *testing.T) {
	t.Parallel()
	calls := make(chan bulkCall, 10)
	words := map[string]string{`{"n":  0}`: "SUCCESS", `{"n":  1}`: "RETRY", `{"n":  2}`: "DROP", `{"n":  3}`: "nonsense"}
	a := connect(t, serve(t, func(w http.ResponseWriter, r *http.Request) {
		var c bulkCall
		if err := json.NewDecoder(r.Body).Decode(&c); err != nil {
			t.Error(err)
		}
		calls <- c
		answer := map[string]any{}
		statuses := []map[string]string{{"entryId": "of nobody", "status": "DROP"}}
		for _, e := range c.Entries {
			ev, err := cloudevents.Scan(e.Event)
			if err != nil {
				t.Error(err)
				continue
			}
			if word, ok := words[string(ev.Data())]; ok { // the fifth is left out
				statuses = append(statuses, map[string]string{"entryId": e.EntryID, "status": word})
			}
		}
		answer["statuses"] = statuses
		json.NewEncoder(w).Encode(answer)
	}), app.Options{})
	k := a.NewBulk(app.BulkOptions{To: app.Address{Path: "/bulk", PubSub: "bus", Topic: `a"b`}, Max: 5, Wait: time.Minute})
	var got []cloudevents.Verdict
	for _, o := range deliverAll(t, k, 5) {
		got = append(got, o.Verdict)
	}
	want := []cloudevents.Verdict{cloudevents.Ack, cloudevents.Retry, cloudevents.Drop, cloudevents.Retry, cloudevents.Retry}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("outcomes (-want +got):\n%s", diff)
	}
	c := <-calls
	if c.Type != "com.dapr.event.sent.bulk" || c.Topic != `a"b` || c.PubSubName != "bus" || len(c.Entries) != 5 || c.ID == "" || c.Entries[0].ContentType != "application/cloudevents+json" {
		t.Errorf("envelope is %+v", c)
	}
}

func TestBulkAnswersForAll(t *testing.T) {
	t.Parallel()
	rows := []struct {
		name   string
		status int
		body   string
		want   cloudevents.Verdict
	}{
		{"no such path", 404, "", cloudevents.Drop},
		{"a failure", 503, "", cloudevents.Retry},
		{"nothing said", 200, "", cloudevents.Retry},
		{"nonsense", 200, "[[[", cloudevents.Retry},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			a := connect(t, serve(t, func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(row.status)
				io.WriteString(w, row.body)
			}), app.Options{})
			for i, o := range deliverAll(t, a.NewBulk(app.BulkOptions{To: app.Address{Path: "/bulk"}, Max: 3, Wait: time.Minute}), 3) {
				if o.Verdict != row.want {
					t.Errorf("entry %d: %v, want %v", i, o.Verdict, row.want)
				}
			}
		})
	}
}

func TestBulkGoesOutWhenTheFirstWaitedLongEnough(t *testing.T) {
	t.Parallel()
	sizes := make(chan int, 10)
	a := connect(t, serve(t, func(_ http.ResponseWriter, r *http.Request) {
		var c bulkCall
		if err := json.NewDecoder(r.Body).Decode(&c); err != nil {
			t.Error(err)
		}
		sizes <- len(c.Entries)
	}), app.Options{})
	deliverAll(t, a.NewBulk(app.BulkOptions{To: app.Address{Path: "/bulk"}, Max: 100, Wait: 50 * time.Millisecond}), 3)
	total := 0
	for total < 3 {
		total += <-sizes
	}
}

func TestBulkEntryAsksForAPause(t *testing.T) {
	t.Parallel()
	a := connect(t, serve(t, func(w http.ResponseWriter, r *http.Request) {
		var c bulkCall
		if err := json.NewDecoder(r.Body).Decode(&c); err != nil {
			t.Error(err)
		}
		fmt.Fprintf(w, `{"statuses":[{"entryId":%q,"status":"RETRY","retryAfter":"30s"}]}`, c.Entries[0].EntryID)
	}), app.Options{})
	k := a.NewBulk(app.BulkOptions{To: app.Address{Path: "/bulk"}, Max: 1})
	if o := k.Event(t.Context(), bulkEvent(t, 0)); short(o) != "retry (unavailable) after 30s" {
		t.Errorf("outcome = %s", short(o))
	}
}

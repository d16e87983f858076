package http

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"time"

	"github.com/penstock-io/penstock/app"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/telemetry/trace"
)

// Bulk delivers several events in one request, whose answer has a status for
// each: {"statuses":[{"entryId":"..","status":"RETRY","retryAfter":"30s"}]}. An
// entry that the answer leaves out is a retry. A status of the answer itself
// that is no success is the outcome of all, as it is for a single event.
func (c *Channel) Bulk(ctx context.Context, to *app.Address, ds []*cloudevents.Delivery, limit time.Duration) []cloudevents.Outcome {
	body, ids := bulkBody(to, ds)
	outcomes := make([]cloudevents.Outcome, len(ds))
	h := http.Header{"Idempotency-Key": nil}
	trace.Current(ctx).Context().Header(h)
	answer, err := c.Call(ctx, &Request{Path: to.Path, ContentType: "application/json", Body: body, Header: h, Timeout: limit})
	if err != nil {
		return fill(outcomes, app.Unanswered(ctx, to.Path, err))
	}
	if answer.Status/100 != 2 {
		return fill(outcomes, eventOutcome(to.Path, answer, time.Now()))
	}
	fill(outcomes, app.Retried(fault.New(fault.Internal, "call app at %s: its answer has no status for this entry", to.Path)))
	var said struct {
		Statuses []struct {
			EntryID    string          `json:"entryId"`
			Status     string          `json:"status"`
			RetryAfter json.RawMessage `json:"retryAfter"`
		} `json:"statuses"`
	}
	if json.Unmarshal(answer.Body, &said) != nil {
		return outcomes
	}
	for _, s := range said.Statuses {
		if i, ok := ids[s.EntryID]; ok {
			outcomes[i] = app.WordOutcome(to.Path, s.Status, pause(s.RetryAfter))
		}
	}
	return outcomes
}

func fill(list []cloudevents.Outcome, o cloudevents.Outcome) []cloudevents.Outcome {
	for i := range list {
		list[i] = o
	}
	return list
}

// bulkEntry is one event in the body of a bulk delivery.
type bulkEntry struct {
	id          string
	event       []byte // JSON
	contentType string
	metadata    map[string]string
}

// entryOf is the event as it is, or, on a topic of raw payloads, its bytes in
// base64.
func entryOf(to *app.Address, id string, d *cloudevents.Delivery) bulkEntry {
	if !to.Raw {
		return bulkEntry{id, d.Event.JSON(), cloudevents.ContentType, d.Metadata}
	}
	event := append(base64.StdEncoding.AppendEncode([]byte{'"'}, d.Body), '"')
	return bulkEntry{id, event, "application/octet-stream", d.Metadata}
}

// bulkBody writes the deliveries as Dapr does and returns where each entry id belongs.
func bulkBody(to *app.Address, ds []*cloudevents.Delivery) (body []byte, ids map[string]int) {
	ids = make(map[string]int, len(ds))
	entries := make([]bulkEntry, 0, len(ds))
	for i, d := range ds {
		id := cloudevents.NewID()
		ids[id] = i
		entries = append(entries, entryOf(to, id, d))
	}
	body = []byte(`{"id":"` + cloudevents.NewID() + `","type":"com.dapr.event.sent.bulk","topic":`)
	body = appendString(body, to.Topic)
	body = append(body, `,"pubsubname":`...)
	body = appendString(body, to.PubSub)
	body = append(body, `,"metadata":{},"entries":[`...)
	for i, e := range entries {
		if i > 0 {
			body = append(body, ',')
		}
		body = e.append(body)
	}
	return append(body, `]}`...), ids
}

// append writes the entry with the event's bytes untouched, which a JSON
// encoder would compact.
func (e bulkEntry) append(body []byte) []byte {
	body = append(body, `{"entryId":"`+e.id+`","event":`...)
	body = append(body, e.event...)
	body = append(body, `,"contentType":"`+e.contentType+`"`...)
	if len(e.metadata) > 0 {
		metadata, err := json.Marshal(e.metadata)
		if err == nil {
			body = append(append(body, `,"metadata":`...), metadata...)
		}
	}
	return append(body, '}')
}

func appendString(body []byte, s string) []byte {
	text, err := json.Marshal(s)
	if err != nil {
		return append(body, `""`...)
	}
	return append(body, text...)
}

package app

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"time"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
)

// BulkOptions say how deliveries are put together.
type BulkOptions struct {
	Path          string
	PubSub, Topic string
	// Max is how many deliveries one call carries; default 100.
	Max int
	// Wait is how long the first waits for more; default 1 s.
	Wait time.Duration
}

// Bulk delivers several events in one call of the app, each with an outcome of
// its own. Deliveries that come while none waits begin a new call, which goes
// out when it is full or its first has waited long enough.
type Bulk struct {
	app *App
	o   BulkOptions

	mu      sync.Mutex
	filling *batch
}

// batch is one call. Its outcomes are written before done is closed; the zero
// outcome is Leave, so a call that never was loses nothing.
type batch struct {
	deliveries []*cloudevents.Delivery
	full, done chan struct{}
	outcomes   []cloudevents.Outcome
}

// NewBulk makes a Bulk of one path.
func (a *App) NewBulk(o BulkOptions) *Bulk {
	o.Max, o.Wait = orElse(o.Max, 100), orElse(o.Wait, time.Second)
	return &Bulk{app: a, o: o}
}

// Event delivers d together with others and returns its own outcome: that of
// its entry in the answer, a retry when the answer leaves it out, a drop for
// all when the app has no such path (404), a retry for all after any other
// status or without an answer.
func (k *Bulk) Event(ctx context.Context, d *cloudevents.Delivery) cloudevents.Outcome {
	b, i := k.join(d)
	if i == 0 {
		k.lead(ctx, b)
		return b.outcomes[0]
	}
	select {
	case <-b.done:
		return b.outcomes[i]
	case <-ctx.Done():
		return unanswered(ctx, k.o.Path, context.Cause(ctx))
	}
}

// join puts d into the batch that fills up and returns its place there.
func (k *Bulk) join(d *cloudevents.Delivery) (*batch, int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	b := k.filling
	if b == nil {
		b = &batch{full: make(chan struct{}), done: make(chan struct{})}
		k.filling = b
	}
	b.deliveries = append(b.deliveries, d)
	if len(b.deliveries) == k.o.Max {
		k.filling = nil
		close(b.full)
	}
	return b, len(b.deliveries) - 1
}

// lead waits for the batch to fill, sends it and hands out the outcomes.
func (k *Bulk) lead(ctx context.Context, b *batch) {
	timer := time.NewTimer(k.o.Wait)
	defer timer.Stop()
	select {
	case <-b.full:
	case <-timer.C:
	case <-ctx.Done():
	}
	k.mu.Lock()
	if k.filling == b {
		k.filling = nil
	}
	b.outcomes = make([]cloudevents.Outcome, len(b.deliveries))
	k.mu.Unlock()
	defer close(b.done)
	k.send(ctx, b)
}

func (k *Bulk) send(ctx context.Context, b *batch) {
	body, ids := k.body(b)
	answer, err := k.app.Call(ctx, &Request{
		Path: k.o.Path, ContentType: "application/json", Body: body,
		Header: http.Header{"Idempotency-Key": nil},
	})
	if err != nil {
		fill(b.outcomes, unanswered(ctx, k.o.Path, err))
		return
	}
	if answer.Status/100 != 2 {
		fill(b.outcomes, eventOutcome(k.o.Path, answer, time.Now()))
		return
	}
	fill(b.outcomes, cloudevents.Retried(fault.New(fault.Internal, "call app at %s: its answer has no status for this entry", k.o.Path), 0))
	var said struct {
		Statuses []struct {
			EntryID string `json:"entryId"`
			Status  string `json:"status"`
		} `json:"statuses"`
	}
	if err := json.Unmarshal(answer.Body, &said); err != nil {
		return
	}
	for _, s := range said.Statuses {
		if i, ok := ids[s.EntryID]; ok {
			b.outcomes[i] = WordOutcome(k.o.Path, s.Status, 0)
		}
	}
}

func fill(list []cloudevents.Outcome, o cloudevents.Outcome) {
	for i := range list {
		list[i] = o
	}
}

// bulkEntry is one event in the body of a bulk delivery.
type bulkEntry struct {
	id       string
	event    []byte
	metadata map[string]string
}

// body writes the batch as Dapr does and returns where each entry id belongs.
func (k *Bulk) body(b *batch) (body []byte, ids map[string]int) {
	ids = make(map[string]int, len(b.deliveries))
	entries := make([]bulkEntry, 0, len(b.deliveries))
	for i, d := range b.deliveries {
		id := cloudevents.NewID()
		ids[id] = i
		entries = append(entries, bulkEntry{id, d.Event.JSON(), d.Metadata})
	}
	body = []byte(`{"id":"` + cloudevents.NewID() + `","type":"com.dapr.event.sent.bulk","topic":`)
	body = appendString(body, k.o.Topic)
	body = append(body, `,"pubsubname":`...)
	body = appendString(body, k.o.PubSub)
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
	body = append(body, `,"contentType":"`+eventType+`"`...)
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

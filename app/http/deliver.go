package http

import (
	"context"
	"net/http"
	"time"

	"github.com/penstock-io/penstock/app"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/telemetry/trace"
)

// Event delivers an event as structured JSON with the delivery's metadata and a
// traceparent as headers. 404 is a drop; any other status that is no success is
// a retry, whose error is a [*StatusError] of the kind the status stands for. A
// success may hold {"status":"RETRY","retryAfter":"30s"}.
func (c *Channel) Event(ctx context.Context, to *app.Address, d *cloudevents.Delivery, limit time.Duration) cloudevents.Outcome {
	answer, err := c.Call(ctx, &Request{
		Path:        to.Path,
		ContentType: structuredType,
		Header:      headerFor(ctx, d),
		Metadata:    d.Metadata,
		Body:        d.Event.JSON(),
		Timeout:     limit,
	})
	if err != nil {
		return app.Unanswered(ctx, to.Path, err)
	}
	return eventOutcome(to.Path, answer, time.Now())
}

// Binding delivers the payload alone. The reply is nil unless the app's answer
// is a JSON object with "to" or "state".
func (c *Channel) Binding(ctx context.Context, to *app.Address, d *cloudevents.Delivery, limit time.Duration) (*app.Reply, cloudevents.Outcome) {
	r := &Request{Path: to.Path, ContentType: "application/json", Metadata: d.Metadata, Body: d.Body, Timeout: limit}
	r.Header = headerFor(ctx, d)
	if e := d.Event; e != nil {
		r.Body = e.Data()
		if ct := e.DataContentType(); ct != "" {
			r.ContentType = ct
		}
	}
	answer, err := c.Call(ctx, r)
	if err != nil {
		return nil, app.Unanswered(ctx, to.Path, err)
	}
	if answer.Status/100 != 2 {
		return nil, app.Retried(statusError(to.Path, answer, time.Now()))
	}
	reply := readReply(answer.Body)
	if d.Answer != nil {
		tellAnswer(d, answer, reply)
	}
	return reply, cloudevents.Acked()
}

// tellAnswer hands the app's answer to a source that can pass it on: the data of
// a reply that asks for something, else the body as it is.
func tellAnswer(d *cloudevents.Delivery, a *Answer, r *app.Reply) {
	if r != nil {
		d.Answer("", r.Data)
		return
	}
	d.Answer(a.Header.Get("Content-Type"), a.Body)
}

// headerFor makes the headers that do not come from the metadata. Deliveries
// are made at least once, so the transport may repeat one on a fresh connection
// when an old one turns out to be dead: the empty Idempotency-Key, which is
// never sent, tells it so.
func headerFor(ctx context.Context, d *cloudevents.Delivery) http.Header {
	h := make(http.Header, 8)
	h["Idempotency-Key"] = nil
	if s := trace.Current(ctx); s.Recording() {
		s.Context().Header(h)
		return h
	}
	if parent, state := d.Trace(); cloudevents.ValidTraceParent(parent) {
		h["Traceparent"] = []string{cloudevents.ChildTraceParent(parent)}
		if state != "" {
			h["Tracestate"] = []string{state}
		}
	}
	return h
}

// Request is one call to the app. Body and Metadata are not changed; Body may
// still be read a moment after Call returned.
type Request struct {
	Method      string // empty: POST
	Path        string // "/orders"; may hold a query
	ContentType string
	Header      http.Header // may be nil; Call adds to it and keeps it
	// Metadata is sent as headers as far as they can carry it; names that mean
	// something to the transport itself are left out.
	Metadata map[string]string
	Body     []byte
	// Timeout bounds the call beside ctx; zero leaves it to ctx alone. It costs
	// less than a context with a deadline.
	Timeout time.Duration
}

// Answer is what the app answered. Body is at most the limit of the channel.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

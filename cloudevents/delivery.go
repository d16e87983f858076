package cloudevents

import (
	"context"
	"time"
)

// ContentType is the media type of one structured event in JSON.
const ContentType = "application/cloudevents+json"

// Delivery is one event on its way from a source, with the means to tell the
// source how it ended. A source makes it, the router owns it until Settle.
type Delivery struct {
	// Body is what the source received, byte for byte. Nobody changes it; a
	// dead letter carries it.
	Body []byte
	// Event is the decoded event. Sources that mint events (cron, webhook,
	// file) set it; for topics it is nil until the route decodes Body.
	Event *Event
	// Metadata is what the transport said beside the body. It reaches the app
	// as headers. May be nil.
	Metadata map[string]string
	// Key is the transport's ordering key; empty when it has none.
	Key string
	// Attempt counts deliveries of this event, from 1, as far as the source
	// knows.
	Attempt int
	// Topic is the one the event was published to, as the broker calls it, where
	// that may be another than the one subscribed to; else empty.
	Topic string
	// Replays counts how often somebody replayed this event after it was given
	// up; a dead letter carries it on.
	Replays int
	// Origin names where it came from, for logs and dead letters:
	// "bus/orders" or "github".
	Origin string
	// Began is the traceparent of a trace that began with the delivery, which came
	// with none, so that all tries of it are of one trace. Whoever makes spans sets
	// it.
	Began string
	// Answer, when it is not nil, is told what a target answered to the event,
	// before Settle; the last answer counts. Sources that can answer set it. The
	// bytes are not changed afterwards; contentType may be empty.
	Answer func(contentType string, data []byte)
	// Settle tells the source the outcome. It is called exactly once, from any
	// goroutine, and does not block on the network: a source that must write
	// to acknowledge does so in a batch of its own.
	Settle func(Outcome)
}

// Trace returns the trace context that the event came with, in itself or beside it:
// traceparent and tracestate, as they were written. Both may be empty.
func (d *Delivery) Trace() (parent, state string) {
	if d.Event != nil {
		if parent, _ = d.Event.Attr("traceparent"); parent != "" {
			state, _ = d.Event.Attr("tracestate")
			return parent, state
		}
	}
	if len(d.Metadata) == 0 {
		return "", ""
	}
	return d.Metadata["traceparent"], d.Metadata["tracestate"]
}

// EmitFunc hands one delivery to the router. It blocks while the router's
// window is full: that is the only back-pressure. An error means that the
// router did not take the delivery (it is stopping, or ctx ended): the source
// still owns the event and Settle will not be called.
type EmitFunc func(ctx context.Context, d *Delivery) error

// Verdict is the word of an [Outcome].
type Verdict uint8

// The verdicts. The zero value is Leave, so that an outcome nobody set loses
// nothing.
const (
	// Leave: say nothing to the source; it stays the owner. Used when shutting
	// down, rebalanced or disconnected. Not an attempt.
	Leave Verdict = iota
	// Ack: delivered and durable on the other side.
	Ack
	// Retry: deliver again, not before After.
	Retry
	// Drop: given up on purpose. Dead-lettered where one is configured, and
	// then acknowledged.
	Drop
)

// String returns the word used in logs and metric labels.
func (v Verdict) String() string {
	switch v {
	case Ack:
		return "ack"
	case Retry:
		return "retry"
	case Drop:
		return "drop"
	default:
		return "leave"
	}
}

// Outcome is how one delivery ended.
type Outcome struct {
	// Verdict is what to do.
	Verdict Verdict
	// Reason says why in one line; it goes into logs and dead letters.
	Reason string
	// Err is the error behind a Retry or Drop; may be nil.
	Err error
	// After is the shortest wait before the next try; zero leaves it to the
	// route's back-off.
	After time.Duration
	// Discard makes a Drop skip the dead letter: gRPC Unimplemented, and a
	// pipeline's filter.
	Discard bool
}

// Acked is the outcome of a delivery that is done.
func Acked() Outcome { return Outcome{Verdict: Ack} }

// Left is the outcome of a delivery that was neither done nor tried to the end.
func Left(reason string) Outcome { return Outcome{Verdict: Leave, Reason: reason} }

// Dropped is the outcome of a delivery given up on purpose.
func Dropped(reason string, err error) Outcome {
	return Outcome{Verdict: Drop, Reason: reason, Err: err}
}

// Retried is the outcome of a delivery to be tried again, not before after.
func Retried(err error, after time.Duration) Outcome {
	o := Outcome{Verdict: Retry, Err: err, After: after}
	if err != nil {
		o.Reason = err.Error()
	}
	return o
}

package runtime

import (
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/router"
	"github.com/penstock-io/penstock/telemetry/journal"
)

// eventOf is what the journal is told of a delivery's event.
func eventOf(d *cloudevents.Delivery) journal.Event {
	e := d.Event
	if e == nil {
		return journal.Event{Size: int64(len(d.Body)), TraceID: traceOf(d), Payload: raw{d}}
	}
	size := int64(len(d.Body))
	if size == 0 {
		size = int64(e.Size())
	}
	return journal.Event{ID: e.ID(), Source: e.Source(), Type: e.Type(), Subject: e.Subject(), TraceID: traceOf(d), Size: size, Payload: e}
}

// raw is the payload of what cannot be decoded.
type raw struct{ *cloudevents.Delivery }

func (r raw) Data() []byte { return r.Body }

// traceOf is the id of the trace that an event came with, in itself or beside it.
func traceOf(d *cloudevents.Delivery) string {
	parent, _ := d.Trace()
	return cloudevents.TraceID(parent)
}

// outcomeWord is the journal's word for what came of a try.
func outcomeWord(v cloudevents.Verdict) journal.Outcome {
	switch v {
	case cloudevents.Ack:
		return journal.Ack
	case cloudevents.Retry:
		return journal.Retry
	case cloudevents.Drop:
		return journal.Drop
	}
	return journal.Leave
}

// endingOf is how the journal has it that a round ended.
func endingOf(e *router.End) journal.Ending {
	o := outcomeWord(e.Outcome.Verdict)
	switch {
	case e.Buried:
		o = journal.DeadLetter
	case o == journal.Retry && !e.Again:
		o = journal.GiveBack
	}
	return journal.Ending{Outcome: o, Reason: whyNot(e.Outcome), Wait: e.Wait}
}

// whyNot is the reason of an outcome; empty when there is none to give.
func whyNot(o cloudevents.Outcome) string {
	if o.Reason == "" && o.Err != nil {
		return o.Err.Error()
	}
	return o.Reason
}

// Journal implements api.Records.
func (r *Runtime) Journal() *journal.Journal { return r.journal }

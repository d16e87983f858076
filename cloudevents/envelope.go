package cloudevents

import (
	"fmt"
	"strings"
	"time"

	"github.com/penstock-io/penstock/fault"
)

// What an event has when nobody says otherwise.
const (
	defaultType   = "com.dapr.event.sent"
	defaultSource = "penstock"
)

// Envelope is what is known of a payload beside its bytes, and makes an event
// of it in the way Dapr does.
type Envelope struct {
	// Source is the app id; "penstock" when empty.
	Source string
	// Topic and PubSub are where the event is published.
	Topic, PubSub string
	// ContentType is that of the payload; text/plain when empty.
	ContentType string
	// TraceParent and TraceState are of the span that publishes. Empty ones
	// are left out.
	TraceParent, TraceState string
	// Metadata is that of the request. Its keys cloudevent.id, .source, .type,
	// .subject, .traceid, .traceparent and .tracestate, in any case, override
	// the attributes of that name; an empty value overrides nothing.
	Metadata map[string]string
}

// Wrap makes an event around data.
//
// A content type of application/cloudevents+json says that data is an event
// already: it is kept as it is, but topic and pubsubname are overwritten, and
// id, source, type, specversion, time and the trace are filled in where they
// are missing. A valid traceparent stays, and so does everything else the
// caller set: there, overrides only fill what is missing.
//
// Any other data is put into a new envelope: JSON verbatim, an octet stream or
// protobuf event as data_base64, everything else as a string (or data_base64
// if it is not UTF-8). What claims to be JSON and is not is a string too.
//
// Errors are [fault.Invalid]: an event that [Scan] would refuse for more than a
// missing attribute, JSON beyond [MaxDepth] or [MaxNumberLen], an attribute
// longer than [MaxValueLen] or not UTF-8.
func (v Envelope) Wrap(data []byte) (*Event, error) {
	var e *Event
	var err error
	if strings.EqualFold(mediaType(v.ContentType), structuredType) {
		e, err = v.adopt(data)
	} else {
		e, err = v.wrap(data)
	}
	if err != nil {
		return nil, fault.New(fault.Invalid, "wrap event: %w", err)
	}
	return e, nil
}

// Rewrap is Wrap of an event that was scanned already: what Wrap makes of its
// JSON. An event that has all it needs, and the envelope's topic and pubsubname,
// is returned as it is.
func (v Envelope) Rewrap(e *Event) (*Event, error) {
	e, err := v.fill(e)
	if err != nil {
		return nil, fault.New(fault.Invalid, "wrap event: %w", err)
	}
	return e, nil
}

// WrapRaw makes an event around a message that came in without an envelope:
// data is carried as data_base64 and called application/octet-stream whatever
// it is. Errors are those of Wrap.
func (v Envelope) WrapRaw(data []byte) (*Event, error) {
	v.ContentType = "application/octet-stream"
	return v.Wrap(data)
}

func (v Envelope) wrap(data []byte) (*Event, error) {
	if len(data) > maxText/2 {
		return nil, wrong(maxText/2, "data is longer than 1 GiB")
	}
	if data == nil {
		data = []byte{}
	}
	if v.ContentType == "" {
		v.ContentType = "text/plain"
	}
	place, err := placeData(v.ContentType, data)
	if err != nil {
		return nil, fmt.Errorf("data: %w", err)
	}
	h := v.head()
	if err := h.check(&v); err != nil {
		return nil, err
	}
	e := &Event{}
	e.slots = e.inline[:0]
	e.start(h.size(&v) + bodyLen(place, data))
	h.write(e, &v)
	e.finish(place, data)
	return e, nil
}

// write puts the attributes of an envelope on an event that has none yet.
func (h *head) write(e *Event, v *Envelope) {
	if h.id != "" {
		e.put("id", h.id)
	} else {
		at := e.begin("id")
		e.text = appendUUID(e.text)
		e.end("id", at)
	}
	e.put("source", h.source)
	e.put("type", h.typ)
	e.put("datacontenttype", v.ContentType)
	e.putSome("subject", h.subject)
	at := e.begin("time")
	e.text = time.Now().UTC().AppendFormat(e.text, time.RFC3339Nano)
	e.end("time", at)
	e.putSome("topic", v.Topic)
	e.putSome("pubsubname", v.PubSub)
	e.putSome("traceid", h.traceID)
	e.putSome("traceparent", h.traceParent)
	e.putSome("tracestate", h.traceState)
}

// putSome puts the attribute unless its value is empty.
func (e *Event) putSome(name, value string) {
	if value != "" {
		e.put(name, value)
	}
}

// adopt keeps an event of the caller's.
func (v Envelope) adopt(data []byte) (*Event, error) {
	e, err := scan(data)
	if err != nil {
		return nil, err
	}
	return v.fill(e)
}

// fill gives an event of the caller's what it lacks.
func (v Envelope) fill(e *Event) (*Event, error) {
	h := v.head()
	if err := h.check(&v); err != nil {
		return nil, err
	}
	fill := make([]Attr, 0, 16)
	missing := func(name, value string) {
		if old, _ := e.Attr(name); value != "" && isBlank(old) {
			fill = append(fill, Attr{name, value})
		}
	}
	if h.id == "" && isBlank(e.ID()) {
		h.id = NewID()
	}
	missing("specversion", "1.0")
	missing("id", h.id)
	missing("source", h.source)
	missing("type", h.typ)
	missing("subject", h.subject)
	if e.Time() == "" {
		missing("time", time.Now().UTC().Format(time.RFC3339Nano))
	}
	for _, a := range [...]Attr{{"topic", v.Topic}, {"pubsubname", v.PubSub}} {
		if old, _ := e.Attr(a.Name); a.Value != "" && (old != a.Value || e.Literal(a.Name)) {
			fill = append(fill, a)
		}
	}
	fill = append(fill, h.trace(e)...)
	if len(fill) == 0 {
		return e, e.checkRequired()
	}
	if len(e.slots)+len(fill) > MaxAttrs {
		return nil, fmt.Errorf("more than %d attributes", MaxAttrs-len(fill))
	}
	e = e.splice(fill)
	return e, e.checkRequired()
}

// head is what an envelope says of an event, with defaults and overrides.
type head struct {
	id, source, typ, subject         string
	traceID, traceParent, traceState string
}

func (v *Envelope) head() head {
	h := head{
		source: v.Source, typ: defaultType,
		traceParent: v.TraceParent, traceState: v.TraceState,
	}
	if h.source == "" {
		h.source = defaultSource
	}
	if v.hasOverrides() {
		v.override("cloudevent.id", &h.id)
		v.override("cloudevent.source", &h.source)
		v.override("cloudevent.type", &h.typ)
		v.override("cloudevent.subject", &h.subject)
		v.override("cloudevent.traceid", &h.traceID)
		if ValidTraceParent(h.traceID) {
			h.traceParent = h.traceID
		}
		v.override("cloudevent.traceparent", &h.traceParent)
		v.override("cloudevent.tracestate", &h.traceState)
	}
	if h.traceID == "" {
		h.traceID = h.traceParent
	}
	return h
}

func (v *Envelope) hasOverrides() bool {
	const prefix = "cloudevent."
	for key := range v.Metadata {
		if len(key) > len(prefix) && strings.EqualFold(key[:len(prefix)], prefix) {
			return true
		}
	}
	return false
}

func (v *Envelope) override(key string, into *string) {
	if s, _ := lookup(v.Metadata, key); s != "" {
		*into = s
	}
}

// trace returns the attributes that an event of the caller's lacks of a trace.
func (h *head) trace(e *Event) []Attr {
	parent, _ := e.Attr("traceparent")
	id, _ := e.Attr("traceid")
	var fill []Attr
	switch {
	case ValidTraceParent(parent):
	case ValidTraceParent(id):
		parent = id
		fill = append(fill, Attr{"traceparent", parent})
	case h.traceParent != "":
		parent = h.traceParent
		fill = append(fill, Attr{"traceparent", parent})
		if h.traceState != "" {
			fill = append(fill, Attr{"tracestate", h.traceState})
		}
	default:
		return nil
	}
	if id == "" {
		fill = append(fill, Attr{"traceid", parent})
	}
	return fill
}

// check tells whether every value may stand in an event.
func (h *head) check(v *Envelope) error {
	for _, a := range [...]Attr{
		{"source", h.source},
		{"type", h.typ},
		{"subject", h.subject},
		{"datacontenttype", v.ContentType},
		{"topic", v.Topic},
		{"pubsubname", v.PubSub},
		{"traceid", h.traceID},
		{"traceparent", h.traceParent},
		{"tracestate", h.traceState},
	} {
		if why := valueFault(a); why != "" {
			return fmt.Errorf("attribute %q: %s", a.Name, why)
		}
	}
	if why := valueFault(Attr{"id", h.id}); h.id != "" && why != "" {
		return fmt.Errorf("attribute %q: %s", "id", why)
	}
	return nil
}

// size is about how many bytes the attributes need in the text.
func (h *head) size(v *Envelope) int {
	const names = 320 // of all members with quotes, a UUID and a time
	return names + len(h.id) + len(h.source) + len(h.typ) + len(h.subject) +
		len(h.traceID) + len(h.traceParent) + len(h.traceState) +
		len(v.ContentType) + len(v.Topic) + len(v.PubSub)
}

package cloudevents

import (
	"bytes"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/cloudevents/sdk-go/v2/types"

	"github.com/penstock-io/penstock/fault"
)

// ToSDK makes an event of the CloudEvents SDK, for code that speaks its type.
// It shares no memory with e. Integers of 32 bits and booleans keep their type,
// longer integers become strings, opaque members are left out. The error is [fault.Invalid]: a time, source
// or dataschema that the SDK cannot hold, though Scan lets it pass.
func ToSDK(e *Event) (event.Event, error) {
	ctx := &event.EventContextV1{}
	for _, s := range e.slots {
		if s.kind == valueNull || s.kind == valueOpaque {
			continue
		}
		if err := e.toSDK(ctx, s); err != nil {
			return event.Event{}, fault.New(fault.Invalid, "convert event: attribute %q: %w", e.name(s), err)
		}
	}
	out := event.Event{Context: ctx, DataEncoded: bytes.Clone(e.Data())}
	switch {
	case e.data == dataBase64 || e.data == bodyBase64:
		out.DataBase64 = true
	case e.data == bodyString && isJSONType(e.DataContentType()):
		out.DataEncoded = appendBody(nil, bodyString, e.body)
	}
	return out, nil
}

// toSDK sets one attribute. Optional ones that are empty are left out, as the
// SDK does.
func (e *Event) toSDK(ctx *event.EventContextV1, s slot) error {
	name, value := e.name(s), strings.Clone(e.value(s))
	k := knownIndex(name)
	if k >= 0 && value == "" {
		return nil
	}
	switch k { // fields, not setters: those would trim spaces
	case knownSpecVersion:
	case knownID:
		ctx.ID = value
	case knownType:
		ctx.Type = value
	case knownSubject:
		ctx.Subject = &value
	case knownDataContentType:
		ctx.DataContentType = &value
	case knownSource:
		ref := types.ParseURIRef(value)
		if ref == nil {
			return fault.New(fault.Invalid, "%.200q is not a URI reference", value)
		}
		ctx.Source = *ref
	case knownDataSchema:
		if ctx.DataSchema = types.ParseURI(value); ctx.DataSchema == nil {
			return fault.New(fault.Invalid, "%.200q is not a URI", value)
		}
	case knownTime:
		at, err := types.ParseTimestamp(value)
		if err != nil {
			return fault.New(fault.Invalid, "%.64q is not an RFC 3339 time", value)
		}
		ctx.Time = at
	default:
		return ctx.SetExtension(name, typed(value, s.kind))
	}
	return nil
}

// typed returns the value in the SDK's type for it.
func typed(value string, kind valueKind) any {
	if kind != valueLiteral && kind != valueFloat {
		return value
	}
	if value == "true" || value == "false" {
		return value == "true"
	}
	if n, err := strconv.ParseInt(value, 10, 32); err == nil {
		return int32(n)
	}
	return value
}

// FromSDK makes an event of one of the CloudEvents SDK, whose data is kept, not
// copied. The error is [fault.Invalid]: an event that the SDK's Validate or
// [New] refuses, or of a specversion other than 1.0.
func FromSDK(in event.Event) (*Event, error) {
	if err := in.Validate(); err != nil {
		return nil, fault.New(fault.Invalid, "convert event: %w", err)
	}
	if in.SpecVersion() != event.CloudEventsVersionV1 {
		return nil, fault.New(fault.Invalid, "convert event: specversion %q is not supported, must be \"1.0\"", in.SpecVersion())
	}
	attrs := []Attr{{"id", in.ID()}, {"source", in.Source()}, {"type", in.Type()}}
	for _, a := range [...]Attr{{"subject", in.Subject()}, {"dataschema", in.DataSchema()}} {
		if a.Value != "" {
			attrs = append(attrs, a)
		}
	}
	if !in.Time().IsZero() {
		attrs = append(attrs, Attr{"time", types.FormatTime(in.Time())})
	}
	var literals []Attr
	extensions := in.Extensions()
	for _, name := range slices.Sorted(maps.Keys(extensions)) {
		text, err := types.Format(extensions[name])
		if err != nil {
			return nil, fault.New(fault.Invalid, "convert event: attribute %q: %w", name, err)
		}
		switch extensions[name].(type) {
		case bool, int32:
			literals = append(literals, Attr{name, text})
		default:
			attrs = append(attrs, Attr{name, text})
		}
	}
	e, err := New(in.DataContentType(), in.Data(), attrs...)
	if err != nil {
		return nil, err
	}
	return e, e.finishSDK(in.DataBase64, literals)
}

// finishSDK sets on a fresh event what New has no word for.
func (e *Event) finishSDK(encoded bool, literals []Attr) error {
	if encoded && e.data != dataNone {
		e.data = bodyBase64
	}
	for _, a := range literals {
		if why := nameFault(a.Name); why != "" || e.find(a.Name) >= 0 || len(e.slots) == MaxAttrs {
			return fault.New(fault.Invalid, "convert event: attribute %.64q: cannot be set", a.Name)
		}
		e.putLiteral(a)
	}
	return nil
}

// notAttr says why an opaque member is no attribute.
func (e *Event) notAttr(s slot) string {
	if why := nameFault(lowerASCII(e.name(s))); why != "" {
		return why
	}
	return "the value must be a string, an integer, true, false or null"
}

// putLiteral appends an attribute whose value is a JSON number or boolean.
func (e *Event) putLiteral(a Attr) {
	at := e.begin(a.Name)
	e.text = append(e.text[:at], a.Value...)
	e.tail = uint32(len(e.text))
	e.record(slot{
		name: uint32(at - 2 - len(a.Name)), nameLen: uint16(len(a.Name)),
		value: uint32(at), end: e.tail, kind: valueLiteral,
	}, a.Name)
}

// Check holds an event to the letter of the specification, as the CloudEvents
// SDK reads it: beyond what Scan looks at, time is RFC 3339, source a URI
// reference, dataschema an absolute URI, datacontenttype a media type, and no
// member is opaque. Edges
// where strangers hand in events (a webhook) call it after [FromHTTP]; it costs
// some microseconds and copies the attributes, not the data. The error is
// [fault.Invalid].
func Check(e *Event) error {
	ctx := &event.EventContextV1{}
	for _, s := range e.slots {
		if s.kind == valueNull {
			continue
		}
		if s.kind == valueOpaque {
			return fault.New(fault.Invalid, "check event: attribute %.64q: %s", e.name(s), e.notAttr(s))
		}
		if err := e.toSDK(ctx, s); err != nil {
			return fault.New(fault.Invalid, "check event: attribute %q: %w", e.name(s), err)
		}
	}
	if errs := ctx.Validate(); len(errs) > 0 {
		name := slices.Min(slices.Collect(maps.Keys(errs)))
		return fault.New(fault.Invalid, "check event: attribute %q: %w", name, errs[name])
	}
	return nil
}

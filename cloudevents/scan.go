package cloudevents

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/penstock-io/penstock/fault"
)

// Scan reads a structured JSON event in one pass; raw is kept, not copied.
//
// It refuses, with an error of kind [fault.Invalid] that names the byte: text
// that is not JSON or not UTF-8 or is beyond the Max limits; a member that is
// there twice; data beside data_base64; an id, source or type that is missing
// or blank; a specversion other than 1.0; an attribute of the specification
// that is not a string (null is as good as absent), has half a surrogate pair
// or is spelled in upper case.
//
// It is lenient where producers are: extension names may have upper-case
// letters (they are read in lower case), integers may be longer than 32 bits,
// and times, URIs and media types are passed on as they are. A member whose
// name is not letters and digits, or whose value is not a string, integer,
// boolean or null, is no attribute, but passes through: see [Event.Members].
func Scan(raw []byte) (*Event, error) {
	e, err := scan(raw)
	if err == nil {
		err = e.checkRequired()
	}
	if err != nil {
		return nil, fault.New(fault.Invalid, "scan event: %w", err)
	}
	return e, nil
}

// scan is Scan without the check for required attributes.
func scan(raw []byte) (*Event, error) {
	if len(raw) > maxText {
		return nil, wrong(maxText, "the event is longer than 2 GiB")
	}
	if !utf8.Valid(raw) {
		return nil, wrong(badUTF8(raw), "not UTF-8")
	}
	e := &Event{text: raw, whole: true, received: true}
	e.slots = e.inline[:0]
	c := cursor{text: raw, room: MaxDepth - 1}
	if ch, err := c.next(); err != nil {
		return nil, err
	} else if ch != '{' {
		return nil, wrong(c.pos, "expected an object")
	}
	c.pos++
	e.tail = uint32(c.pos)
	if err := e.scanMembers(&c); err != nil {
		return nil, err
	}
	if err := c.end(); err != nil {
		return nil, err
	}
	e.settleData()
	return e, nil
}

// scanMembers reads the members of the event's object and its closing brace.
func (e *Event) scanMembers(c *cursor) error {
	ch, err := c.next()
	if err != nil {
		return err
	}
	if ch == '}' {
		c.pos++
		return nil
	}
	var data, encoded bool
	for {
		if err := e.scanMember(c, &data, &encoded); err != nil {
			return err
		}
		e.tail = uint32(c.pos)
		ch, err := c.next()
		if err != nil {
			return err
		}
		c.pos++
		if ch == '}' {
			return nil
		}
		if ch != ',' {
			return wrong(c.pos-1, "expected , or } in the event")
		}
	}
}

func (e *Event) scanMember(c *cursor, data, encoded *bool) error {
	ch, err := c.next()
	if err != nil {
		return err
	}
	if ch != '"' {
		return wrong(c.pos, "expected an attribute name in quotes")
	}
	at := c.pos
	escaped, err := c.str()
	if err != nil {
		return err
	}
	raw := c.text[at+1 : c.pos-1]
	if err := c.colon(); err != nil {
		return err
	}
	name := raw
	if escaped {
		if name = unescaped(raw); loneSurrogate(raw) {
			return wrong(at, "attribute name with half a surrogate pair")
		}
	}
	switch string(name) {
	case "data":
		return e.scanData(c, at, data)
	case "data_base64":
		return e.scanBase64(c, at, encoded)
	default:
		s := slot{name: uint32(at + 1), nameLen: uint16(min(len(raw), 1<<16-1)), odd: escaped}
		return e.scanAttr(c, s, view(name))
	}
}

// scanAttr reads the value of an attribute or opaque member.
func (e *Event) scanAttr(c *cursor, s slot, spelled string) error {
	at := int(s.name) - 1
	if len(spelled) > MaxMemberNameLen {
		return wrong(at, fmt.Sprintf("attribute %.64q: the name is longer than %d bytes", spelled, MaxMemberNameLen))
	}
	name := lowerASCII(spelled)
	known := knownIndex(name) >= 0
	if name != spelled && (known || isReserved(name)) {
		return wrong(at, fmt.Sprintf("attribute %q must be written %q", spelled, name))
	}
	if len(e.slots) == MaxAttrs {
		return wrong(at, fmt.Sprintf("more than %d attributes", MaxAttrs))
	}
	ch, err := c.next()
	if err != nil {
		return err
	}
	s.value = uint32(c.pos)
	if s.kind, err = c.attrValue(ch); err != nil {
		return attrFault(err, spelled)
	}
	s.end = uint32(c.pos)
	if known && s.kind > valueEscaped && s.kind != valueNull {
		return wrong(int(s.value), fmt.Sprintf("attribute %q: must be a string%s", name, halfPair(ch)))
	}
	if s.end-s.value > MaxValueLen+2 {
		return wrong(int(s.value), fmt.Sprintf("attribute %q: longer than %d bytes", spelled, MaxValueLen))
	}
	switch {
	case s.kind == valueOpaque || !known && !isAttrName(name):
		s.kind, name = valueOpaque, spelled
	case name != spelled:
		s.odd = true
	}
	if e.twice(s.kind, name, spelled) {
		return wrong(at, fmt.Sprintf("attribute %q is there twice", name))
	}
	e.opaque = e.opaque || s.kind == valueOpaque
	e.record(s, name)
	return nil
}

// halfPair says what is wrong with a string that is no attribute's value.
func halfPair(ch byte) string {
	if ch == '"' {
		return " without half a surrogate pair"
	}
	return ""
}

// twice tells whether the event has an attribute of that name already, or a
// member that is spelled so where one of the two is opaque.
func (e *Event) twice(kind valueKind, name, spelled string) bool {
	if kind != valueOpaque && e.find(name) >= 0 {
		return true
	}
	if kind != valueOpaque && !e.opaque {
		return false
	}
	return slices.ContainsFunc(e.slots, func(s slot) bool { return e.spelling(s) == spelled })
}

// attrFault says in which attribute the value is wrong.
func attrFault(err error, name string) error {
	s, ok := errors.AsType[*syntaxError](err)
	if !ok {
		return err
	}
	return &syntaxError{at: s.at, why: fmt.Sprintf("attribute %q: %s", name, s.why), limit: s.limit}
}

// attrValue moves over the value of an attribute and tells what it is: opaque
// when no attribute can have it.
func (c *cursor) attrValue(ch byte) (valueKind, error) {
	at := c.pos
	switch {
	case ch == '"':
		escaped, err := c.str()
		if err != nil || !escaped {
			return valueString, err
		}
		if loneSurrogate(c.text[at+1 : c.pos-1]) {
			return valueOpaque, nil
		}
		return valueEscaped, nil
	case ch == '{' || ch == '[':
		return valueOpaque, c.skip()
	case ch == 'n':
		return valueNull, c.literal("null")
	case ch != '-' && (ch < '0' || ch > '9'):
		return valueLiteral, c.scalar(ch)
	}
	integer, err := c.number()
	if err != nil || integer {
		return valueLiteral, err
	}
	if _, ok := wholeNumber(view(c.text[at:c.pos])); !ok {
		return valueOpaque, nil
	}
	return valueFloat, nil
}

// scanData reads the data member. Null stands for itself where the content
// type is JSON, which is not known yet.
func (e *Event) scanData(c *cursor, at int, seen *bool) error {
	if *seen {
		return wrong(at, "data is there twice")
	}
	*seen = true
	c.space()
	from := c.pos
	if err := c.skip(); err != nil {
		return err
	}
	null := string(c.text[from:c.pos]) == "null"
	if e.data == dataBase64 {
		if null {
			return nil
		}
		return wrong(at, "data and data_base64 exclude each other")
	}
	e.data, e.dataFrom, e.dataTo = dataJSON, uint32(from), uint32(c.pos)
	return nil
}

func (e *Event) scanBase64(c *cursor, at int, seen *bool) error {
	if *seen {
		return wrong(at, "data_base64 is there twice")
	}
	*seen = true
	ch, err := c.next()
	if err != nil {
		return err
	}
	from := c.pos
	if ch == 'n' {
		return c.literal("null")
	}
	if ch != '"' {
		return wrong(from, "data_base64 must be a string")
	}
	if _, err := c.str(); err != nil {
		return err
	}
	if !isBase64(unescaped(c.text[from+1 : c.pos-1])) {
		return wrong(from, "data_base64 is not base64")
	}
	if e.data == dataJSON && string(e.text[e.dataFrom:e.dataTo]) != "null" {
		return wrong(at, "data and data_base64 exclude each other")
	}
	e.data, e.dataFrom, e.dataTo = dataBase64, uint32(from), uint32(c.pos)
	return nil
}

// settleData decides how the data in the text is read, when the content type is
// known.
func (e *Event) settleData() {
	if e.data != dataJSON && e.data != dataString && e.data != dataNone {
		return
	}
	if e.dataTo == 0 {
		return
	}
	e.data = dataJSON
	if isJSONType(e.DataContentType()) {
		return
	}
	switch e.text[e.dataFrom] {
	case '"':
		e.data = dataString
	case 'n':
		e.data = dataNone
	}
}

// checkRequired tells whether the event has what every event must have.
func (e *Event) checkRequired() error {
	if e.known[knownSpecVersion] == 0 {
		return fmt.Errorf("attribute %q is missing", "specversion")
	}
	if v := e.knownValue(knownSpecVersion); v != "1.0" {
		at := int(e.slots[e.known[knownSpecVersion]-1].value)
		return wrong(at, fmt.Sprintf("attribute \"specversion\": %.32q is not supported, must be \"1.0\"", v))
	}
	for _, name := range [...]string{"id", "source", "type"} {
		i := e.find(name)
		if i < 0 || e.slots[i].kind == valueNull {
			return fmt.Errorf("attribute %q is missing", name)
		}
		if isBlank(e.value(e.slots[i])) {
			return wrong(int(e.slots[i].value), fmt.Sprintf("attribute %q is blank", name))
		}
	}
	return nil
}

// nameFault says why name cannot be the name of an attribute that somebody
// sets, or nothing.
func nameFault(name string) string {
	if name == "" || len(name) > MaxNameLen {
		return fmt.Sprintf("the name must have 1 to %d characters", MaxNameLen)
	}
	if !isAttrName(name) {
		return "the name may only have lower-case letters and digits"
	}
	if isReserved(name) {
		return "the event sets it itself"
	}
	return ""
}

// isAttrName tells whether an attribute may have that name.
func isAttrName(name string) bool {
	if name == "" || len(name) > MaxNameLen {
		return false
	}
	for i := range len(name) {
		if ch := name[i]; (ch < 'a' || ch > 'z') && (ch < '0' || ch > '9') {
			return false
		}
	}
	return true
}

// valueFault says why a cannot have its value, or nothing.
func valueFault(a Attr) string {
	if len(a.Value) > MaxValueLen {
		return fmt.Sprintf("longer than %d bytes", MaxValueLen)
	}
	if !utf8.ValidString(a.Value) {
		return "not UTF-8"
	}
	if k := knownIndex(a.Name); (k == knownID || k == knownSource || k == knownType) && isBlank(a.Value) {
		return "must not be blank"
	}
	return ""
}

func isReserved(name string) bool {
	return name == "specversion" || name == "data" || name == "data_base64"
}

func isBlank(s string) bool { return strings.TrimSpace(s) == "" }

// isBase64 tells whether text is padded standard base64. Line breaks may stand
// anywhere, as they may for the decoder.
func isBase64(text []byte) bool {
	if bytes.ContainsAny(text, "\r\n") {
		text = bytes.ReplaceAll(bytes.ReplaceAll(text, []byte("\r"), nil), []byte("\n"), nil)
	}
	if len(text)%4 != 0 {
		return false
	}
	digits := bytes.TrimSuffix(bytes.TrimSuffix(text, []byte("=")), []byte("="))
	for _, ch := range digits {
		letter := 'a' <= ch|0x20 && ch|0x20 <= 'z'
		if !letter && (ch < '0' || ch > '9') && ch != '+' && ch != '/' {
			return false
		}
	}
	return true
}

package cloudevents

import (
	"encoding/base64"
	"strings"
	"unicode/utf8"

	"github.com/penstock-io/penstock/fault"
)

// New makes a binary-mode event around data bytes that are kept, not copied.
// attrs must hold id, source and type; specversion is added. An empty
// contentType means no datacontenttype attribute. Nil data means no data.
//
// The errors are [fault.Invalid]: an attribute that [CheckAttr] refuses, is
// there twice or is missing, or data that claims to be JSON and is beyond
// [MaxDepth] or [MaxNumberLen].
func New(contentType string, data []byte, attrs ...Attr) (*Event, error) {
	e, err := build(contentType, data, attrs)
	if err != nil {
		return nil, fault.New(fault.Invalid, "make event: %w", err)
	}
	return e, nil
}

func build(contentType string, data []byte, attrs []Attr) (*Event, error) {
	if len(attrs) > MaxAttrs-2 {
		return nil, fault.New(fault.Invalid, "more than %d attributes", MaxAttrs)
	}
	if len(data) > maxText {
		return nil, fault.New(fault.Invalid, "data is longer than 2 GiB")
	}
	place, err := placeData(contentType, data)
	if err != nil {
		return nil, fault.New(fault.Invalid, "data: %w", err)
	}
	e := &Event{body: data, data: place}
	e.slots = e.inline[:0]
	e.start(len(contentType) + len(`"datacontenttype":"",`) + attrsLen(attrs))
	if err := e.putChecked(attrs); err != nil {
		return nil, err
	}
	if contentType != "" {
		if err := e.putChecked([]Attr{{"datacontenttype", contentType}}); err != nil {
			return nil, err
		}
	}
	return e, e.checkRequired()
}

// start begins the text with room for n more bytes.
func (e *Event) start(n int) {
	const head = `{"specversion":"1.0"`
	e.text = append(make([]byte, 0, len(head)+n), head...)
	e.tail = uint32(len(head))
	e.record(slot{name: 2, nameLen: 11, value: 15, end: uint32(len(head))}, "specversion")
}

// attrsLen is about how many bytes attrs need in the text.
func attrsLen(attrs []Attr) int {
	n := 0
	for _, a := range attrs {
		n += len(a.Name) + len(a.Value) + len(`,"":""`)
	}
	return n
}

func (e *Event) putChecked(attrs []Attr) error {
	for _, a := range attrs {
		if err := CheckAttr(a); err != nil {
			return err
		}
		if e.find(a.Name) >= 0 {
			return fault.New(fault.Invalid, "attribute %q is there twice", a.Name)
		}
		e.put(a.Name, a.Value)
	}
	return nil
}

// put appends an attribute to the text, which ends with its last member.
func (e *Event) put(name, value string) {
	at := e.begin(name)
	e.text = appendEscaped(e.text, value)
	e.end(name, at)
}

// begin writes a member up to the quote that opens its value, whose position
// it returns. Between begin and end the value is appended, escaped.
func (e *Event) begin(name string) int {
	if e.text[len(e.text)-1] != '{' {
		e.text = append(e.text, ',')
	}
	e.text = append(e.text, '"')
	e.text = append(e.text, name...)
	e.text = append(e.text, `":"`...)
	return len(e.text) - 1
}

// end closes the value that begins at at and records the attribute.
func (e *Event) end(name string, at int) {
	s := slot{
		name:    uint32(at - len(name) - 2),
		nameLen: uint16(len(name)),
		value:   uint32(at),
	}
	s.kind = stringKind(e.text[at:])
	e.text = append(e.text, '"')
	s.end = uint32(len(e.text))
	e.tail = s.end
	e.record(s, name)
}

// finish writes data and the closing brace after the attributes, so that the
// text is whole. The data is not held any more.
func (e *Event) finish(place dataKind, data []byte) {
	e.body, e.data, e.whole = nil, place, true
	if place == dataNone {
		e.text = append(e.text, '}')
		return
	}
	key := `,"data":`
	if place == bodyBase64 {
		key = `,"data_base64":`
	}
	e.text = append(e.text, key...)
	from := len(e.text)
	e.text = appendBody(e.text, place, data)
	e.dataFrom, e.dataTo = uint32(from), uint32(len(e.text))
	e.tail = e.dataTo
	e.text = append(e.text, '}')
	if place == bodyBase64 {
		e.data = dataBase64
		return
	}
	e.trimData()
	e.data = dataJSON
	e.settleData()
}

// trimData leaves white space around the data out of its span.
func (e *Event) trimData() {
	isSpace := func(ch byte) bool { return ch == ' ' || ch == '\t' || ch == '\n' || ch == '\r' }
	for e.dataFrom < e.dataTo && isSpace(e.text[e.dataFrom]) {
		e.dataFrom++
	}
	for e.dataFrom < e.dataTo && isSpace(e.text[e.dataTo-1]) {
		e.dataTo--
	}
}

// appendBody appends data as the value of a member.
func appendBody(dst []byte, place dataKind, data []byte) []byte {
	switch place {
	case bodyJSON:
		return append(dst, data...)
	case bodyString:
		dst = append(dst, '"')
		dst = appendEscaped(dst, data)
	default:
		dst = append(dst, '"')
		dst = base64.StdEncoding.AppendEncode(dst, data)
	}
	return append(dst, '"')
}

// bodyLen is about how many bytes appendBody needs with its key.
func bodyLen(place dataKind, data []byte) int {
	switch place {
	case dataNone:
		return 1
	case bodyJSON:
		return len(data) + 16
	case bodyString:
		return len(data) + len(data)/16 + 24
	default:
		return base64.StdEncoding.EncodedLen(len(data)) + 24
	}
}

// placeData decides how data is written in structured form. JSON types take
// JSON verbatim; octet streams, protobuf events and what is not UTF-8 become
// base64; everything else is a string. That includes data that claims to be
// JSON and is not. Without a content type, which means JSON, only base64 keeps
// what is not JSON as it is. The error says that the data is JSON beyond our
// limits.
func placeData(contentType string, data []byte) (dataKind, error) {
	if data == nil {
		return dataNone, nil
	}
	switch {
	case isJSONType(contentType):
		err := checkJSON(data)
		if err == nil {
			return bodyJSON, nil
		}
		if isLimit(err) {
			return 0, err
		}
		if contentType == "" {
			return bodyBase64, nil
		}
	case isBytesType(contentType):
		return bodyBase64, nil
	}
	if !utf8.Valid(data) {
		return bodyBase64, nil
	}
	return bodyString, nil
}

// mediaType cuts the parameters off a content type.
func mediaType(contentType string) string {
	media, _, _ := strings.Cut(contentType, ";")
	return strings.TrimSpace(media)
}

// isJSONType tells whether data of that content type is JSON. No content type
// means JSON.
func isJSONType(contentType string) bool {
	const suffix = "+json"
	media := mediaType(contentType)
	if media == "" || strings.EqualFold(media, "application/json") || strings.EqualFold(media, "text/json") {
		return true
	}
	cut := len(media) - len(suffix)
	return cut > 0 && strings.EqualFold(media[cut:], suffix)
}

// isBytesType tells whether data of that content type is never text.
func isBytesType(contentType string) bool {
	media := mediaType(contentType)
	return strings.EqualFold(media, "application/octet-stream") ||
		strings.EqualFold(media, "application/cloudevents+protobuf")
}

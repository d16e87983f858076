// Package cloudevents is an event: its attributes, its data bytes and the forms
// it travels in.
//
// A source makes an [Event] with [Scan], [FromHTTP], [New] or an [Envelope];
// the router reads attributes with [Event.Attr], adds some with [Event.With]
// and writes it out with [Event.JSON] or [Event.HTTPBinary]. A [Delivery] is an
// event on its way, with the means to tell its source how it ended.
//
// It promises that data passes through byte for byte: it is checked once, and
// never decoded or encoded again. Input is refused with an error of kind
// [fault.Invalid] that names the byte, in time and memory linear to its size;
// limits are the Max constants. Nothing here panics on any input.
package cloudevents

import (
	"encoding/base64"
	"iter"
	"strings"
	"unsafe"

	"github.com/penstock-io/penstock/fault"
)

// Limits of an event. Whole events are bounded by whoever reads them in; one of
// 2 GiB or more is refused here.
const (
	// MaxNameLen is the longest name of an attribute, in bytes.
	MaxNameLen = 64
	// MaxValueLen is the longest value of an attribute, in bytes.
	MaxValueLen = 64 << 10
	// MaxAttrs is how many attributes an event may have, its opaque members
	// included.
	MaxAttrs = 128
	// MaxMemberNameLen is the longest name of an opaque member, in bytes. Its
	// value may be as long as that of an attribute: see MaxValueLen.
	MaxMemberNameLen = 256
	// MaxDepth is how deep a structured event may nest, its own object
	// included; JSON data may nest one level less.
	MaxDepth = 64
	// MaxNumberLen is the longest JSON number, in bytes: readers that keep
	// every digit need time that grows with the square of it.
	MaxNumberLen = 4096

	maxText = 1<<31 - 1
)

// Event is one CloudEvent 1.0. It is immutable and safe for concurrent use;
// the With methods return a new event that shares the untouched bytes. It must
// not be copied. Strings and bytes it returns may share its memory: they must
// not be changed, and keep the event's bytes alive as long as they are held.
type Event struct {
	// text is the structured form (whole), or its beginning: the object up to
	// the last attribute, without data and the closing brace.
	text []byte
	// body is the payload of an event whose text is not whole.
	body     []byte
	slots    []slot
	tail     uint32 // offset in text where the next member goes
	dataFrom uint32 // span of the data value in text, quotes included
	dataTo   uint32
	known    [knownNames]uint8 // slot number plus one, by knownIndex
	data     dataKind
	whole    bool
	received bool // came in structured form
	opaque   bool // may have opaque members
	inline   [16]slot
}

// slot says where one attribute is in the text.
type slot struct {
	name    uint32 // first byte of the name, after the quote
	value   uint32 // first byte of the value, quote included
	end     uint32 // after the value, quote included
	nameLen uint16
	kind    valueKind
	odd     bool // the name has escapes or upper-case letters
}

type valueKind uint8

const (
	valueString  valueKind = iota
	valueEscaped           // a string with escapes
	valueLiteral           // an integer, true or false: its text is its value
	valueFloat             // a whole number with fraction or exponent
	valueNull              // as good as absent
	valueOpaque            // no attribute: any JSON under any name
)

// dataKind says where the payload is and how it is, or will be, written.
type dataKind uint8

const (
	dataNone   dataKind = iota
	dataJSON            // in text, verbatim
	dataString          // in text, a string to unescape
	dataBase64          // in text, a string to decode
	bodyJSON            // in body, to be written verbatim
	bodyString          // in body, to be written as a string
	bodyBase64          // in body, to be written as data_base64
)

// The attributes found without a search.
const (
	knownID = iota
	knownSource
	knownType
	knownSpecVersion
	knownSubject
	knownTime
	knownDataContentType
	knownDataSchema
	knownNames
)

func knownIndex(name string) int {
	switch name {
	case "id":
		return knownID
	case "source":
		return knownSource
	case "type":
		return knownType
	case "specversion":
		return knownSpecVersion
	case "subject":
		return knownSubject
	case "time":
		return knownTime
	case "datacontenttype":
		return knownDataContentType
	case "dataschema":
		return knownDataSchema
	default:
		return -1
	}
}

// Attr is one context attribute: its lower-case name and its value as a string
// (JSON escapes resolved; numbers and booleans in their canonical text form).
type Attr struct{ Name, Value string }

// CheckAttr tells whether a may be set on an event: a name of lower-case
// letters and digits, up to [MaxNameLen] long and not one the event sets
// itself (specversion, data), and a value of UTF-8 up to [MaxValueLen] long,
// not blank where the attribute is required. The error is [fault.Invalid].
func CheckAttr(a Attr) error {
	if why := nameFault(a.Name); why != "" {
		return fault.New(fault.Invalid, "set attribute %.64q: %s", a.Name, why)
	}
	if why := valueFault(a); why != "" {
		return fault.New(fault.Invalid, "set attribute %q: %s", a.Name, why)
	}
	return nil
}

// ID returns the id; it is never empty.
func (e *Event) ID() string { return e.knownValue(knownID) }

// Source returns the source; it is never empty.
func (e *Event) Source() string { return e.knownValue(knownSource) }

// Type returns the type; it is never empty.
func (e *Event) Type() string { return e.knownValue(knownType) }

// Subject returns the subject, or nothing.
func (e *Event) Subject() string { return e.knownValue(knownSubject) }

// Time returns the time as it was written, or nothing. It should be RFC 3339,
// but nobody has checked it.
func (e *Event) Time() string { return e.knownValue(knownTime) }

// DataContentType returns the media type of the data with its parameters, or
// nothing; nothing means JSON.
func (e *Event) DataContentType() string { return e.knownValue(knownDataContentType) }

// Attr returns any attribute, required, optional or extension. The name is in
// lower case.
func (e *Event) Attr(name string) (string, bool) {
	i := e.find(name)
	if i < 0 || e.slots[i].kind == valueNull {
		return "", false
	}
	return e.value(e.slots[i]), true
}

// Literal tells whether an attribute was written as a JSON number or boolean,
// whose text is its value, and not as a string.
func (e *Event) Literal(name string) bool {
	i := e.find(name)
	return i >= 0 && (e.slots[i].kind == valueLiteral || e.slots[i].kind == valueFloat)
}

// Attrs yields every attribute, specversion included, data excluded, in the
// order in which they are written.
func (e *Event) Attrs() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for _, s := range e.slots {
			if s.kind != valueNull && s.kind != valueOpaque && !yield(e.name(s), e.value(s)) {
				return
			}
		}
	}
}

// Members yields the opaque members: the name as it is spelled, and the JSON
// value as it is written. CloudEvents has no attribute of that name or with
// that value, and Attr and Attrs know nothing of them; structured events carry
// them untouched, because events that Dapr made may have them.
func (e *Event) Members() iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		for _, s := range e.slots {
			if s.kind == valueOpaque && !yield(e.name(s), e.text[s.value:s.end:s.end]) {
				return
			}
		}
	}
}

// Member returns the JSON value of the opaque member of that name, see
// [Event.Members].
func (e *Event) Member(name string) ([]byte, bool) {
	if !e.opaque {
		return nil, false
	}
	for is, value := range e.Members() {
		if is == name {
			return value, true
		}
	}
	return nil, false
}

// Data returns the payload bytes: a JSON value verbatim, a JSON string of a
// non-JSON content type unescaped, data_base64 decoded. Nil means no data.
// Strings with escapes and data_base64 are decoded on every call: keep the
// result. Half a surrogate pair in an escaped string becomes U+FFFD.
func (e *Event) Data() []byte {
	switch e.data {
	case dataNone:
		return nil
	case dataJSON:
		return e.text[e.dataFrom:e.dataTo:e.dataTo]
	case dataString:
		return unescaped(e.dataText())
	case dataBase64:
		text := unescaped(e.dataText())
		out := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
		n, err := base64.StdEncoding.Decode(out, text)
		if err != nil { // cannot be: checked when the event was made
			return nil
		}
		return out[:n:n]
	default:
		return e.body
	}
}

// Structured tells whether the event was received in structured form.
func (e *Event) Structured() bool { return e.received }

// Size returns the number of bytes the event holds on to.
func (e *Event) Size() int {
	n := int(unsafe.Sizeof(*e)) + len(e.text) + len(e.body)
	if len(e.slots) > len(e.inline) {
		n += len(e.slots) * int(unsafe.Sizeof(slot{}))
	}
	return n
}

// dataText returns what stands between the quotes of the data in the text.
func (e *Event) dataText() []byte {
	return e.text[e.dataFrom+1 : e.dataTo-1 : e.dataTo-1]
}

func (e *Event) knownValue(k int) string {
	i := e.known[k]
	if i == 0 || e.slots[i-1].kind == valueNull {
		return ""
	}
	return e.value(e.slots[i-1])
}

// find returns the number of the slot of an attribute, null ones included and
// opaque members not, or -1.
func (e *Event) find(name string) int {
	if k := knownIndex(name); k >= 0 {
		return int(e.known[k]) - 1
	}
	for i := range e.slots {
		if e.name(e.slots[i]) == name && e.slots[i].kind != valueOpaque {
			return i
		}
	}
	return -1
}

// record adds a slot for the attribute of that name.
func (e *Event) record(s slot, name string) {
	e.slots = append(e.slots, s)
	if k := knownIndex(name); k >= 0 {
		e.known[k] = uint8(len(e.slots))
	}
}

// name returns the name of an attribute in lower case, and that of an opaque
// member as it is spelled.
func (e *Event) name(s slot) string {
	if s.odd {
		return e.oddName(s)
	}
	return view(e.text[s.name : s.name+uint32(s.nameLen)])
}

func (e *Event) oddName(s slot) string {
	if s.kind == valueOpaque {
		return e.spelling(s)
	}
	return lowerASCII(e.spelling(s))
}

// spelling returns a name with its escapes resolved.
func (e *Event) spelling(s slot) string {
	b := e.text[s.name : s.name+uint32(s.nameLen)]
	if s.odd {
		return string(unescaped(b))
	}
	return view(b)
}

func (e *Event) value(s slot) string {
	b := e.text[s.value:s.end]
	switch s.kind {
	case valueString:
		return view(b[1 : len(b)-1])
	case valueEscaped:
		return string(unescaped(b[1 : len(b)-1]))
	case valueFloat:
		v, _ := wholeNumber(view(b))
		return v
	case valueNull:
		return ""
	default:
		if string(b) == "-0" {
			return "0"
		}
		return view(b)
	}
}

// lowerASCII returns s with the letters A to Z in lower case, and all else as it
// is: no other character becomes one that is allowed in a name.
func lowerASCII(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return 'A' <= r && r <= 'Z' }) {
		return s
	}
	return string(appendLower(nil, s))
}

func appendLower(dst []byte, s string) []byte {
	for i := range len(s) {
		ch := s[i]
		if 'A' <= ch && ch <= 'Z' {
			ch |= 0x20
		}
		dst = append(dst, ch)
	}
	return dst
}

// view returns b as a string without a copy: the bytes of an event never
// change.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

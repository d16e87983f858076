package cloudevents

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/penstock-io/penstock/fault"
)

// The content types of events in JSON.
const (
	structuredType = "application/cloudevents+json"
	batchType      = "application/cloudevents-batch+json"
	typePrefix     = "application/cloudevents"

	// MaxBatch is how many events one batch may have.
	MaxBatch = 10_000

	headerPrefix = "Ce-"
)

// IsHTTP tells whether a message with this header claims to be a CloudEvent or
// a batch of them, in any mode and format.
func IsHTTP(header http.Header) bool {
	media := mediaType(header.Get("Content-Type"))
	if len(media) >= len(typePrefix) && strings.EqualFold(media[:len(typePrefix)], typePrefix) {
		return true
	}
	return header.Get("Ce-Specversion") != ""
}

// FromHTTP reads the events of an HTTP message: one in structured or binary
// mode, any number in batched mode. body is kept, not copied. The errors are
// [fault.Invalid]: no CloudEvent at all, a format that is not JSON, or an event
// that [Scan] or [New] refuses; of a batch with one such event nothing is
// taken.
func FromHTTP(header http.Header, body []byte) ([]*Event, error) {
	media := strings.ToLower(mediaType(header.Get("Content-Type")))
	switch {
	case media == structuredType:
		return one(Scan(body))
	case media == batchType:
		return ScanBatch(body)
	case strings.HasPrefix(media, typePrefix):
		return nil, fault.New(fault.Invalid, "read event: content type %.64q is not supported, use %s", media, structuredType)
	case header.Get("Ce-Specversion") == "":
		return nil, fault.New(fault.Invalid, "read event: neither a ce-specversion header nor a content type of %s", structuredType)
	}
	return one(fromBinary(header, body))
}

func one(e *Event, err error) ([]*Event, error) {
	if err != nil {
		return nil, err
	}
	return []*Event{e}, nil
}

// fromBinary reads an event in binary mode. Headers come in the order of their
// names, so that the same message always makes the same bytes.
func fromBinary(header http.Header, body []byte) (*Event, error) {
	attrs := make([]Attr, 0, 16)
	names := make([]byte, 0, 128) // of all attributes, in one piece
	for key, values := range header {
		if len(key) < len(headerPrefix) || !strings.EqualFold(key[:len(headerPrefix)], headerPrefix) {
			continue
		}
		from := len(names)
		names = appendLower(names, key[len(headerPrefix):])
		name := view(names[from:])
		if len(values) != 1 {
			return nil, fault.New(fault.Invalid, "read event: header %.64q is there %d times", key, len(values))
		}
		value, ok := decodeHeader(values[0])
		if !ok {
			return nil, fault.New(fault.Invalid, "read event: header %.64q is not UTF-8 when decoded", key)
		}
		switch name {
		case "specversion":
			if value != "1.0" {
				return nil, fault.New(fault.Invalid, "read event: specversion %.32q is not supported, must be \"1.0\"", value)
			}
		case "datacontenttype": // Content-Type says it
		default:
			attrs = append(attrs, Attr{name, value})
		}
	}
	slices.SortFunc(attrs, func(a, b Attr) int { return strings.Compare(a.Name, b.Name) })
	if len(body) == 0 {
		body = nil
	}
	return New(header.Get("Content-Type"), body, attrs...)
}

// ScanBatch reads a JSON array of up to [MaxBatch] structured events. raw is
// kept, not copied, as long as one of the events is. The error is
// [fault.Invalid] and names the event by its number, from 0.
func ScanBatch(raw []byte) ([]*Event, error) {
	spans, err := batchSpans(raw)
	if err != nil {
		return nil, fault.New(fault.Invalid, "scan batch: %w", err)
	}
	events := make([]*Event, 0, len(spans))
	for i, s := range spans {
		e, err := Scan(raw[s.from:s.to:s.to])
		if err != nil {
			return nil, fault.Wrap(err, "scan batch: event %d at byte %d", i, s.from)
		}
		events = append(events, e)
	}
	return events, nil
}

type span struct{ from, to int }

// batchSpans finds the elements of a JSON array.
func batchSpans(raw []byte) ([]span, error) {
	if !utf8.Valid(raw) {
		return nil, wrong(badUTF8(raw), "not UTF-8")
	}
	c := cursor{text: raw, room: MaxDepth}
	ch, err := c.next()
	if err != nil {
		return nil, err
	}
	if ch != '[' {
		return nil, wrong(c.pos, "expected an array of events")
	}
	c.pos++
	if ch, err = c.next(); err != nil {
		return nil, err
	}
	if ch == ']' {
		c.pos++
		return nil, c.end()
	}
	return c.elements()
}

// elements finds the elements of an array that has some, from the first one
// on, and moves over its closing bracket and to the end.
func (c *cursor) elements() ([]span, error) {
	var spans []span
	for ch := byte(','); ch == ','; c.pos++ {
		if _, err := c.next(); err != nil {
			return nil, err
		}
		if len(spans) == MaxBatch {
			return nil, wrong(c.pos, fmt.Sprintf("more than %d events", MaxBatch))
		}
		from := c.pos
		if err := c.skip(); err != nil {
			return nil, err
		}
		spans = append(spans, span{from, c.pos})
		var err error
		if ch, err = c.next(); err != nil {
			return nil, err
		}
		if ch != ',' && ch != ']' {
			return nil, wrong(c.pos, "expected , or ] in the batch")
		}
	}
	return spans, c.end()
}

// AppendBatch appends the events as a JSON array, whose content type is
// application/cloudevents-batch+json.
func AppendBatch(dst []byte, events ...*Event) []byte {
	dst = append(dst, '[')
	for i, e := range events {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = e.AppendJSON(dst)
	}
	return append(dst, ']')
}

// HTTPStructured sets the content type of structured mode on h and returns the
// body.
func (e *Event) HTTPStructured(h http.Header) []byte {
	h.Set("Content-Type", structuredType)
	return e.JSON()
}

// HTTPBinary sets the headers of binary mode on h and returns the body, which
// is Data. Whatever a header cannot hold is percent-encoded; opaque members have
// no header and are left out. The content type
// is datacontenttype, or application/json where an event with JSON data does
// not say; other headers named ce-* that h has are removed.
func (e *Event) HTTPBinary(h http.Header) []byte {
	for key := range h {
		if len(key) >= len(headerPrefix) && strings.EqualFold(key[:len(headerPrefix)], headerPrefix) {
			delete(h, key)
		}
	}
	h.Del("Content-Type")
	values := make([]string, 0, len(e.slots)) // of all headers, in one piece
	for name, value := range e.Attrs() {
		if name != "datacontenttype" {
			values = append(values, encodeHeader(value))
			h[headerName(name)] = values[len(values)-1 : len(values) : len(values)]
		}
	}
	if ct := e.DataContentType(); ct != "" {
		h.Set("Content-Type", encodeContentType(strings.TrimSpace(ct)))
	} else if e.data == dataJSON || e.data == bodyJSON {
		h.Set("Content-Type", "application/json")
	}
	return e.Data()
}

// headerName returns the canonical name of the header of an attribute.
func headerName(name string) string {
	switch name {
	case "id":
		return "Ce-Id"
	case "source":
		return "Ce-Source"
	case "type":
		return "Ce-Type"
	case "specversion":
		return "Ce-Specversion"
	case "subject":
		return "Ce-Subject"
	case "time":
		return "Ce-Time"
	case "traceparent":
		return "Ce-Traceparent"
	case "traceid":
		return "Ce-Traceid"
	case "topic":
		return "Ce-Topic"
	case "pubsubname":
		return "Ce-Pubsubname"
	default:
		return http.CanonicalHeaderKey(headerPrefix + name)
	}
}

// encodeHeader percent-encodes what the HTTP binding says: space, double
// quote, percent and everything that is not printable ASCII.
func encodeHeader(value string) string {
	return percentEncode(value, func(ch byte) bool {
		return ch > ' ' && ch < 0x7f && ch != '"' && ch != '%'
	})
}

// encodeContentType encodes only what would make the header invalid.
func encodeContentType(value string) string {
	return percentEncode(value, func(ch byte) bool { return ch >= ' ' && ch < 0x7f })
}

func percentEncode(value string, safe func(byte) bool) string {
	const hex = "0123456789ABCDEF"
	n := 0
	for i := range len(value) {
		if !safe(value[i]) {
			n++
		}
	}
	if n == 0 {
		return value
	}
	b := make([]byte, 0, len(value)+2*n)
	for i := range len(value) {
		if ch := value[i]; safe(ch) {
			b = append(b, ch)
		} else {
			b = append(b, '%', hex[ch>>4], hex[ch&15])
		}
	}
	return string(b)
}

// decodeHeader resolves the double quotes around a header value, if any, and
// then percent-encoding, once. A percent sign that encodes nothing stands for
// itself. It reports false when the result is not UTF-8.
func decodeHeader(value string) (string, bool) {
	if len(value) >= 2 && value[0] == '"' && value[len(value)-1] == '"' {
		value = unquoteHeader(value[1 : len(value)-1])
	}
	if !strings.Contains(value, "%") {
		return value, utf8.ValidString(value)
	}
	b := make([]byte, 0, len(value))
	for i := 0; i < len(value); i++ {
		if value[i] == '%' && i+2 < len(value) {
			high, low := unhex(value[i+1]), unhex(value[i+2])
			if high >= 0 && low >= 0 {
				b = append(b, byte(high<<4|low))
				i += 2
				continue
			}
		}
		b = append(b, value[i])
	}
	return string(b), utf8.Valid(b)
}

// unquoteHeader resolves the backslashes of a quoted string.
func unquoteHeader(value string) string {
	if !strings.Contains(value, `\`) {
		return value
	}
	b := make([]byte, 0, len(value))
	for i := 0; i < len(value); i++ {
		if value[i] == '\\' && i+1 < len(value) {
			i++
		}
		b = append(b, value[i])
	}
	return string(b)
}

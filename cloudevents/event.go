package cloudevents

import "iter"

// Event is one CloudEvent 1.0. It is immutable and safe for concurrent use;
// the With methods return a new event that shares the untouched bytes.
type Event struct{}

// Attr is one context attribute: its lower-case name and its value as a string
// (JSON escapes resolved; numbers and booleans in their canonical text form).
type Attr struct{ Name, Value string }

// Scan reads a structured JSON event in one pass; raw is kept, not copied.
func Scan(raw []byte) (*Event, error) { panic("being written") }

// New makes a binary-mode event around data bytes that are kept, not copied.
// attrs must hold id, source and type; specversion is added. An empty
// contentType means no datacontenttype attribute.
func New(contentType string, data []byte, attrs ...Attr) (*Event, error) { panic("being written") }

func (e *Event) ID() string              { panic("being written") }
func (e *Event) Source() string          { panic("being written") }
func (e *Event) Type() string            { panic("being written") }
func (e *Event) Subject() string         { panic("being written") }
func (e *Event) Time() string            { panic("being written") }
func (e *Event) DataContentType() string { panic("being written") }

// Attr returns any attribute, required, optional or extension.
func (e *Event) Attr(name string) (string, bool) { panic("being written") }

// Attrs yields every attribute, specversion included, data excluded.
func (e *Event) Attrs() iter.Seq2[string, string] { panic("being written") }

// Data returns the payload bytes: a JSON value verbatim, a JSON string of a
// non-JSON content type unescaped, data_base64 decoded. Nil means no data.
func (e *Event) Data() []byte { panic("being written") }

// JSON returns the structured form. Unchanged structured events return the
// bytes as received.
func (e *Event) JSON() []byte { panic("being written") }

// AppendJSON appends the structured form to dst.
func (e *Event) AppendJSON(dst []byte) []byte { panic("being written") }

// With returns the event with the attributes added or replaced, by splice.
func (e *Event) With(attrs ...Attr) *Event { panic("being written") }

// WithData returns the event with another payload.
func (e *Event) WithData(contentType string, data []byte) *Event { panic("being written") }

// Structured tells whether the event was received in structured form.
func (e *Event) Structured() bool { panic("being written") }

// Size returns the number of bytes the event holds on to.
func (e *Event) Size() int { panic("being written") }

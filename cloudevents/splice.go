package cloudevents

import "slices"

// JSON returns the structured form. Unchanged structured events return the
// bytes as received. An event in binary form is written anew on each call.
func (e *Event) JSON() []byte {
	if e.whole {
		return e.text[:len(e.text):len(e.text)]
	}
	return e.AppendJSON(make([]byte, 0, len(e.text)+bodyLen(e.data, e.body)))
}

// AppendJSON appends the structured form to dst.
func (e *Event) AppendJSON(dst []byte) []byte {
	dst = append(dst, e.text...)
	if e.whole {
		return dst
	}
	if e.data != dataNone {
		key := `,"data":`
		if e.data == bodyBase64 {
			key = `,"data_base64":`
		}
		dst = appendBody(append(dst, key...), e.data, e.body)
	}
	return append(dst, '}')
}

// With returns the event with the attributes added or replaced, by splice: no
// byte but theirs changes. Of two with the same name the last counts. An
// attribute that [CheckAttr] refuses, or one too many, is left out: With never
// makes an event that [Scan] would refuse. A datacontenttype set so says anew
// how the same data is read; use WithData to change both.
func (e *Event) With(attrs ...Attr) *Event {
	refused := func(a Attr) bool { return nameFault(a.Name) != "" || valueFault(a) != "" }
	if slices.ContainsFunc(attrs, refused) {
		attrs = slices.DeleteFunc(slices.Clone(attrs), refused)
	}
	if len(attrs) == 0 {
		return e
	}
	return e.splice(attrs)
}

// splice is With without checks.
func (e *Event) splice(attrs []Attr) *Event {
	n := &Event{
		body: e.body, data: e.data, known: e.known,
		whole: e.whole, received: e.received, opaque: e.opaque,
	}
	n.slots = n.inline[:0]
	if most := min(len(e.slots)+len(attrs), MaxAttrs); most > len(n.inline) {
		n.slots = make([]slot, 0, most)
	}
	n.text = make([]byte, 0, len(e.text)+attrsLen(attrs))
	from := 0 // what stands before it in e.text is done
	for _, s := range e.slots {
		n.moveData(e, from, s.name)
		shift := uint32(len(n.text) - from) // wraps around when negative
		moved := s
		moved.name, moved.value, moved.end = s.name+shift, s.value+shift, s.end+shift
		if v, ok := last(attrs, e.name(s)); ok && (s.kind != valueOpaque || e.find(e.name(s)) < 0) {
			// An opaque member becomes the attribute of its name, but where there
			// is one beside it: aB beside ab.
			n.text = append(n.text, e.text[from:s.value]...)
			n.text = append(n.text, '"')
			n.text = appendEscaped(n.text, v)
			n.text = append(n.text, '"')
			moved.end, moved.kind = uint32(len(n.text)), stringKind(n.text[moved.value:])
			from = int(s.end)
		}
		n.slots = append(n.slots, moved)
	}
	n.moveData(e, from, e.tail)
	n.text = append(n.text, e.text[from:e.tail]...)
	n.tail = uint32(len(n.text))
	for i, a := range attrs {
		if v, _ := last(attrs[i:], a.Name); n.find(a.Name) < 0 && len(n.slots) < MaxAttrs {
			n.put(a.Name, v)
		}
	}
	n.text = append(n.text, e.text[e.tail:]...)
	if _, ok := last(attrs, "datacontenttype"); ok {
		n.replaceData()
	}
	return n
}

// moveData sets the span of the data when it lies before the position upTo of
// from's text, of which all before done is already in n.
func (n *Event) moveData(from *Event, done int, upTo uint32) {
	if n.dataTo != 0 || from.dataTo == 0 || from.dataFrom >= upTo {
		return
	}
	shift := uint32(len(n.text) - done)
	n.dataFrom, n.dataTo = from.dataFrom+shift, from.dataTo+shift
}

// replaceData decides anew how the data is read or written.
func (e *Event) replaceData() {
	if e.body == nil {
		e.settleData()
		return
	}
	place, err := placeData(e.DataContentType(), e.body)
	if err != nil { // JSON beyond our limits
		place = bodyBase64
	}
	e.data = place
}

// last returns the value of the last attribute of that name.
func last(attrs []Attr, name string) (string, bool) {
	for i := len(attrs) - 1; i >= 0; i-- {
		if attrs[i].Name == name {
			return attrs[i].Value, true
		}
	}
	return "", false
}

func stringKind(text []byte) valueKind {
	if slices.Contains(text, '\\') {
		return valueEscaped
	}
	return valueString
}

// WithData returns the event with another payload, which is kept, not copied.
// The attributes and opaque members stay, but for datacontenttype, which
// becomes contentType; empty means none. Nil data means no data. JSON beyond [MaxDepth] or
// [MaxNumberLen] is carried as data_base64, and a content type that [CheckAttr]
// refuses is as good as none.
func (e *Event) WithData(contentType string, data []byte) *Event {
	ct := Attr{"datacontenttype", contentType}
	if valueFault(ct) != "" || len(e.slots) == MaxAttrs && e.known[knownDataContentType] == 0 {
		contentType = ""
	}
	place, err := placeData(contentType, data)
	if err != nil {
		place = bodyBase64
	}
	n := &Event{body: data, data: place, received: e.received, opaque: e.opaque}
	n.slots = n.inline[:0]
	if len(e.slots) >= len(n.inline) {
		n.slots = make([]slot, 0, len(e.slots)+1)
	}
	n.start(len(e.text) + len(contentType) + 32 - int(e.dataTo-e.dataFrom))
	for i, s := range e.slots {
		switch i + 1 {
		case int(e.known[knownSpecVersion]), int(e.known[knownDataContentType]):
		default:
			n.copyAttr(e, s)
		}
	}
	if contentType != "" {
		n.put(ct.Name, ct.Value)
	}
	return n
}

// copyAttr appends an attribute or opaque member of from, name and value as
// they are written there.
func (e *Event) copyAttr(from *Event, s slot) {
	if s.kind == valueNull {
		return
	}
	e.text = append(append(e.text, `,"`...), from.text[s.name:s.name+uint32(s.nameLen)]...)
	e.text = append(e.text, `":`...)
	at := uint32(len(e.text))
	e.text = append(e.text, from.text[s.value:s.end]...)
	e.tail = uint32(len(e.text))
	moved := s
	moved.name, moved.value, moved.end = at-2-uint32(s.nameLen), at, e.tail
	e.record(moved, from.name(s))
}

package expr

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"math"
	"mime"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/penstock-io/penstock/cloudevents"
)

// numbers says how JSON numbers are read.
type numbers bool

const (
	// forCEL makes doubles, and integers of whole numbers over 2^53.
	forCEL numbers = false
	// forJQ keeps the digits as a json.Number.
	forJQ numbers = true
)

// object is the whole event: its attributes, opaque members, and its data.
func object(e *cloudevents.Event, n numbers) map[string]any {
	all := make(map[string]any, 12)
	for name, text := range e.Attrs() {
		all[name] = attrValue(e, name, text)
	}
	for name, raw := range e.Members() {
		all[name] = memberValue(raw, n)
	}
	data := e.Data()
	if isBinary(data) {
		all["data_base64"] = base64.StdEncoding.EncodeToString(data)
	}
	if data != nil && (n == forCEL || !isBinary(data)) { // jq knows no bytes
		all["data"] = dataValue(e.DataContentType(), data, n)
	}
	return all
}

// isBinary tells whether data can only be shown as base64.
func isBinary(data []byte) bool { return !utf8.Valid(data) }

// dataValue is the payload: the JSON value, a string, or bytes.
func dataValue(contentType string, data []byte, n numbers) any {
	switch {
	case data == nil:
		return nil
	case isBinary(data):
		return data
	case isJSON(contentType):
		if v, ok := decode(data, n); ok {
			return v
		}
	}
	return string(data)
}

// isJSON tells whether data of this content type is a JSON value. An event
// without one is JSON, says the specification.
func isJSON(contentType string) bool {
	if contentType == "" || contentType == "application/json" {
		return true
	}
	media, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		media, _, _ = strings.Cut(contentType, ";")
		media = strings.ToLower(strings.TrimSpace(media))
	}
	return strings.HasSuffix(media, "/json") || strings.HasSuffix(media, "+json")
}

// decode reads one JSON value; the decoder of the standard library bounds its
// nesting at 10,000.
func decode(data []byte, n numbers) (any, bool) {
	var v any
	if n == forCEL && !longNumber(data) {
		return v, json.Unmarshal(data, &v) == nil
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	if dec.Decode(&v) != nil || len(bytes.TrimLeft(data[dec.InputOffset():], " \t\r\n")) > 0 {
		return nil, false
	}
	if n == forCEL {
		v = exact(v)
	}
	return v, true
}

// longNumber tells whether data may hold a number that a double cannot: a run
// of 16 digits. Then reading it takes the slower way.
func longNumber(data []byte) bool {
	run := 0
	for _, b := range data {
		if b < '0' || b > '9' {
			run = 0
		} else if run++; run == 16 {
			return true
		}
	}
	return false
}

// exact turns every json.Number in v into what CEL counts with.
func exact(v any) any {
	switch v := v.(type) {
	case json.Number:
		return number(string(v))
	case []any:
		for i := range v {
			v[i] = exact(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = exact(v[k])
		}
	}
	return v
}

// number is a double, or an integer where a double would lose digits.
func number(text string) any {
	if i, err := strconv.ParseInt(text, 10, 64); err == nil {
		if i < -1<<53 || i > 1<<53 {
			return i
		}
		return float64(i)
	}
	if u, err := strconv.ParseUint(text, 10, 64); err == nil {
		return u
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil { // 1e400: the nearest there is
		return math.Inf(int(f))
	}
	return f
}

// memberValue is the value of an opaque member: what its JSON says.
func memberValue(raw []byte, n numbers) any {
	v, ok := decode(raw, n)
	if !ok { // a number that no double holds
		return string(raw)
	}
	return v
}

// attrValue is the value of a context attribute: a string, except that an
// extension which stands in the JSON as a number or boolean is one.
func attrValue(e *cloudevents.Event, name, text string) any {
	if !maybeTyped(name, text) || !e.Structured() || !e.Literal(name) {
		return text
	}
	if text == "true" || text == "false" {
		return text == "true"
	}
	return number(text)
}

// maybeTyped tells whether the attribute may have been something else than a
// string: not one that the specification names, and its text is that of a JSON
// number or boolean.
func maybeTyped(name, text string) bool {
	switch name {
	case "id", "source", "type", "subject", "time", "specversion", "datacontenttype", "dataschema",
		"topic", "pubsubname", "traceid", "traceparent", "tracestate":
		return false
	}
	if text == "" || len(text) > 32 {
		return false
	}
	if text == "true" || text == "false" {
		return true
	}
	if c := text[0]; c != '-' && (c < '0' || c > '9') {
		return false
	}
	return strings.Trim(text, "0123456789+-.eE") == ""
}

package mongodb

import (
	"bytes"
	"encoding/json"
	"io"
	"math/big"
	"strings"
	"time"
	"unicode/utf8"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/state"
)

// Fields of a document.
const (
	fieldID    = "_id"
	fieldValue = "value"
	fieldETag  = "_etag"
	fieldTTL   = "_ttl"
)

// deepest is how many levels of objects and lists a document may have, so that
// MongoDB takes it.
const deepest = 90

// encode makes what is kept of a value: JSON as a document's part, where that
// gives back the same JSON, else its text; bytes as text, where they are one.
func encode(c *state.Change) any {
	if c.Binary {
		if utf8.Valid(c.Value) {
			return string(c.Value)
		}
		return bson.Binary{Data: c.Value}
	}
	d := json.NewDecoder(bytes.NewReader(c.Value))
	d.UseNumber()
	v, ok := exact(d, 0)
	if _, err := d.Token(); err != io.EOF || !ok {
		return string(c.Value)
	}
	if _, text := v.(string); text {
		return string(c.Value) // with its quotes: text of a value is what was saved
	}
	return v
}

// exact reads a JSON value; false when BSON has none that is the same.
func exact(d *json.Decoder, depth int) (any, bool) {
	t, err := d.Token()
	if err != nil || depth > deepest {
		return nil, false
	}
	switch t := t.(type) {
	case json.Number:
		return number(t)
	case json.Delim:
		if t == '[' {
			return list(d, depth)
		}
		return object(d, depth)
	default: // text, booleans and null
		return t, true
	}
}

func list(d *json.Decoder, depth int) (any, bool) {
	a := bson.A{}
	for d.More() {
		v, ok := exact(d, depth+1)
		if !ok {
			return nil, false
		}
		a = append(a, v)
	}
	_, err := d.Token()
	return a, err == nil
}

func object(d *json.Decoder, depth int) (any, bool) {
	o, seen := bson.D{}, map[string]bool{}
	for d.More() {
		t, err := d.Token()
		name, ok := t.(string)
		if err != nil || !ok || name == "" || seen[name] || strings.HasPrefix(name, "$") || strings.ContainsAny(name, ".\x00") {
			return nil, false
		}
		seen[name] = true
		v, ok := exact(d, depth+1)
		if !ok {
			return nil, false
		}
		o = append(o, bson.E{Key: name, Value: v})
	}
	_, err := d.Token()
	return o, err == nil
}

// number is a whole number or a double, whichever is exact.
func number(n json.Number) (any, bool) {
	if i, err := n.Int64(); err == nil {
		return i, n != "-0"
	}
	f, err := n.Float64()
	if err != nil {
		return nil, false
	}
	want, ok := new(big.Rat).SetString(string(n))
	if len(n) > 40 || !ok { // a long exponent makes a large number of digits
		return nil, false
	}
	// The shortest text of a double gives the same digits back, or the number had
	// more than a double has.
	text, err := json.Marshal(f)
	if err != nil {
		return nil, false
	}
	got, ok := new(big.Rat).SetString(string(text))
	return f, ok && got.Cmp(want) == 0
}

// decode makes an item of a document.
func decode(doc bson.Raw, now time.Time) (string, state.Item) {
	key, _ := doc.Lookup(fieldID).StringValueOK()
	it := state.Item{Found: true}
	if at, ok := doc.Lookup(fieldTTL).TimeOK(); ok {
		it.Expires = at
		if !at.After(now) {
			return key, state.Item{}
		}
	}
	it.ETag, _ = doc.Lookup(fieldETag).StringValueOK()
	v := doc.Lookup(fieldValue)
	if text, ok := v.StringValueOK(); ok {
		it.Value = []byte(text)
		return key, it
	}
	if _, data, ok := v.BinaryOK(); ok {
		it.Value = bytes.Clone(data)
		if it.Value == nil {
			it.Value = []byte{}
		}
		return key, it
	}
	text, err := bson.MarshalExtJSON(bson.D{{Key: "v", Value: v}}, false, false)
	var around struct{ V json.RawMessage }
	if err == nil {
		err = json.Unmarshal(text, &around)
	}
	if err != nil {
		return key, state.Item{Err: fault.New(fault.Invalid, "read value: it cannot be written as JSON")}
	}
	it.Value = around.V
	return key, it
}

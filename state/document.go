package state

import (
	"encoding/json"

	"github.com/penstock-io/penstock/fault"
)

// Document is a value to save as JSON has it: in requests over HTTP and in what
// apps reply.
type Document struct {
	Key string `json:"key"`
	// Value is kept byte for byte; nothing is null.
	Value    json.RawMessage   `json:"value"`
	ETag     *string           `json:"etag"`
	Metadata map[string]string `json:"metadata"`
	Options  Options           `json:"options"`
}

// Options are how to change, in words. All may be empty.
type Options struct {
	// Concurrency is first-write or last-write.
	Concurrency string `json:"concurrency"`
	// Consistency is strong or eventual.
	Consistency string `json:"consistency"`
}

// IsBytes tells whether a value that came as bytes is to be kept as such: it is
// JSON only where the metadata of the request says so, and then only when it is.
func IsBytes(value []byte, metadata map[string]string) bool {
	return metadata["contentType"] != "application/json" || !json.Valid(value)
}

// Change makes a change of the document. Kind Invalid for a word that is none.
func (d *Document) Change() (Change, error) {
	c := Change{Key: d.Key, Value: d.Value, ETag: d.ETag, Metadata: d.Metadata}
	if c.Value == nil {
		c.Value = []byte("null")
	}
	return c, d.Options.Put(&c)
}

// Put puts the options into a change.
func (o Options) Put(c *Change) (err error) {
	switch o.Concurrency {
	case "", "last-write":
	case "first-write":
		c.FirstWrite = true
	default:
		return fault.New(fault.Invalid, "read state of %q: concurrency %q is neither first-write nor last-write", short(c.Key), short(o.Concurrency))
	}
	c.Strong, err = o.Strong()
	return err
}

// Strong tells whether the consistency asked for is the strong one.
func (o Options) Strong() (bool, error) {
	switch o.Consistency {
	case "", "eventual":
		return false, nil
	case "strong":
		return true, nil
	}
	return false, fault.New(fault.Invalid, "read state: consistency %q is neither strong nor eventual", short(o.Consistency))
}

package http

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/penstock-io/penstock/api"
)

// A bulk body is read or refused; what is read of JSON stands in the body as it
// is, and every element is accounted for.
func FuzzReadEntries(f *testing.F) {
	for _, s := range []string{
		`[]`, `[{"entryId":"1","event":{ "a" : 1.0 },"contentType":"application/json"}]`, `[{"entryId":"1","event":"x"},{"event":null}]`,
		`[{"entryId":"1","event":"AA==","contentType":"application/octet-stream","metadata":{"a":"b"}}]`, `[[`, `[{}`, `[] x`, `{`, `[{"event":"\ud800"}]`, "[]\u00a0",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		b := &api.Bulk{}
		if err := readEntries(b, body); err != nil {
			if p := api.AsError(err).Problem; p != api.BulkEvents {
				t.Fatalf("problem %s", p.Code())
			}
			return
		}
		var all []json.RawMessage
		if err := json.Unmarshal(body, &all); err != nil || len(all) != len(b.Entries) {
			t.Fatalf("%d entries of %d, %v", len(b.Entries), len(all), err)
		}
		for _, e := range b.Entries {
			if isJSON(e.ContentType) && !bytes.Contains(body, e.Data) {
				t.Fatalf("data %q is not in the body", e.Data)
			}
		}
	})
}

// Data of a binding request that is no string arrives byte for byte.
func FuzzReadBinding(f *testing.F) {
	for _, s := range []string{
		`{}`, `{"operation":"create","data":{ "a" : 1.0 }}`, `{"data":"text\n"}`, `{"data":null}`, `{"metadata":{"a":1}}`, `[`, ``, `{"data":[1e400]}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := readBinding(body)
		if err != nil {
			if p := api.AsError(err).Problem; p != api.Malformed {
				t.Fatalf("problem %s", p.Code())
			}
			return
		}
		var b struct{ Data any }
		if err := json.Unmarshal(body, &b); err != nil {
			return // numbers that are no float64 are fine as bytes
		}
		switch text, isText := b.Data.(string); {
		case b.Data == nil && r.Data != nil, isText && string(r.Data) != text:
			t.Fatalf("%q read as %q", body, r.Data)
		case b.Data != nil && !isText && !bytes.Contains(body, r.Data):
			t.Fatalf("data %q is not in the body", r.Data)
		}
	})
}

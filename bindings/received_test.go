package bindings

import (
	"testing"
	"time"
)

func TestReceivedTellsWhatDataIs(t *testing.T) {
	t.Parallel()
	rows := map[string]struct{ said, data, want string }{
		"json by itself":       {"", `{"a":1}`, "application/json"},
		"text by itself":       {"", "hello", "text/plain"},
		"empty by itself":      {"", "", "text/plain"},
		"bytes by themselves":  {"", "\xff\xfe", "application/octet-stream"},
		"said":                 {"text/csv", "a,b", "text/csv"},
		"json as said":         {"application/vnd.x+json; charset=utf-8", `[1]`, "application/vnd.x+json; charset=utf-8"},
		"called json, is none": {"application/json", "{", "application/octet-stream"},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, err := Received{ID: "1", Source: "s", Type: "t", Subject: "x", Time: time.Unix(1, 0), ContentType: row.said, Data: []byte(row.data)}.Event()
			if err != nil {
				t.Fatal(err)
			}
			if e.DataContentType() != row.want || string(e.Data()) != row.data {
				t.Errorf("data %q of type %q, want %q of type %q", e.Data(), e.DataContentType(), row.data, row.want)
			}
			if e.ID() != "1" {
				t.Errorf("id %q", e.ID())
			}
		})
	}
}

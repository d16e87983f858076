package http

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/app"
	"github.com/penstock-io/penstock/cloudevents"
)

func TestBulkBody(t *testing.T) {
	t.Parallel()
	const event = `{"specversion":"1.0","id":"1","source":"s","type":"t","data":{"n": 1.50}}`
	e, err := cloudevents.Scan([]byte(event))
	if err != nil {
		t.Fatal(err)
	}
	d := &cloudevents.Delivery{Body: []byte("\x00raw\xff"), Event: e, Metadata: map[string]string{"k": "v"}}
	for _, row := range []struct {
		name               string
		raw                bool
		event, contentType string
	}{
		{"events stay as they are", false, event, "application/cloudevents+json"},
		{"raw payloads are in base64", true, `"AHJhd/8="`, "application/octet-stream"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			body, ids := bulkBody(&app.Address{PubSub: "bus", Topic: "to\"pic", Raw: row.raw}, []*cloudevents.Delivery{d})
			var got struct {
				Type, Topic, PubSubName string
				Entries                 []struct {
					EntryID     string
					Event       json.RawMessage
					ContentType string
					Metadata    map[string]string
				}
			}
			if err := json.Unmarshal(body, &got); err != nil {
				t.Fatalf("%s: %v", body, err)
			}
			if len(got.Entries) != 1 || ids[got.Entries[0].EntryID] != 0 || len(ids) != 1 {
				t.Fatalf("entries %+v of %v", got.Entries, ids)
			}
			one := got.Entries[0]
			want := []string{"com.dapr.event.sent.bulk", `to"pic`, "bus", row.event, row.contentType, "v"}
			if diff := cmp.Diff(want, []string{got.Type, got.Topic, got.PubSubName, string(one.Event), one.ContentType, one.Metadata["k"]}); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

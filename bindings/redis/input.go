package redis

import (
	"encoding/json"
	"maps"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/penstock-io/penstock/bindings"
	client "github.com/penstock-io/penstock/client/redis"
	"github.com/penstock-io/penstock/client/redis/streams"
	"github.com/penstock-io/penstock/cloudevents"
)

// source makes events of what a component reads.
type source struct{ name, of string }

func (s source) fill(d *cloudevents.Delivery, r bindings.Received) {
	r.Source = "redis:" + url.PathEscape(s.of)
	e, err := r.Event()
	if err != nil { // such as a time before year 1
		r.Time = time.Time{}
		r.ContentType = "application/octet-stream"
		e, _ = r.Event() // bytes fit into any event
	}
	d.Event, d.Body, d.Origin = e, r.Data, s.name
}

// item makes the event of an entry of a list.
func (s source) item(d *cloudevents.Delivery, id string, body []byte) {
	r := bindings.Received{ID: id, Type: "io.penstock.redis.item", Data: body}
	if micros, err := strconv.ParseInt(id, 10, 64); err == nil {
		r.Time = time.UnixMicro(micros)
	}
	s.fill(d, r)
}

// entry makes the event of an entry of a stream. The field data is its data, or
// else all fields as an object of JSON; the other fields are metadata, and so is
// what a field metadata has as an object of JSON, the way of pubsub.redis.
func (s source) entry(d *cloudevents.Delivery, e *streams.Entry) {
	r := bindings.Received{ID: e.ID, Type: "io.penstock.redis.entry"}
	if millis, _, ok := strings.Cut(e.ID, "-"); ok {
		if n, err := strconv.ParseInt(millis, 10, 64); err == nil {
			r.Time = time.UnixMilli(n)
		}
	}
	metadata := make(map[string]string, len(e.Fields))
	for _, f := range e.Fields {
		metadata[f.Field] = f.Value
	}
	if data, ok := metadata["data"]; ok {
		r.Data = client.Bytes(data)
		delete(metadata, "data")
	} else {
		r.ContentType = "application/json"
		r.Data, _ = json.Marshal(metadata) // a map of texts always has a form
	}
	if text, ok := metadata["metadata"]; ok {
		var more map[string]string
		if json.Unmarshal([]byte(text), &more) == nil {
			delete(metadata, "metadata")
			maps.Copy(metadata, more)
		}
	}
	for k, v := range metadata {
		switch {
		case strings.EqualFold(k, "content-type"):
			r.ContentType = v
		case d.Key == "" && (strings.EqualFold(k, "partitionKey") || strings.EqualFold(k, "orderingKey")):
			d.Key = v
		}
	}
	if len(metadata) > 0 {
		d.Metadata = metadata
	}
	s.fill(d, r)
}

package webhook

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/penstock-io/penstock/cloudevents"
)

// The bounds of what one request becomes.
const (
	maxBatch         = 1000
	maxMetadata      = 64
	maxMetadataBytes = 8 << 10
)

var (
	errFormat  = errors.New("a CloudEvent is wanted, in binary, structured JSON or batched JSON mode")
	errTooMany = errors.New("more than 1000 events in one batch") // maxBatch
	errNotJSON = errors.New("the body is not valid JSON in UTF-8")
)

// item is one event of a request.
type item struct {
	key      string // the same when the sender sends again
	event    *cloudevents.Event
	body     []byte
	metadata map[string]string
}

// items makes the events of a verified request.
func (h *hook) items(head http.Header, body []byte) ([]item, error) {
	preset := h.o.preset()
	switch {
	case takesCloudEvents(preset) && cloudevents.IsHTTP(head):
		return h.cloudItems(head, body)
	case h.o.Accept == "cloudevents":
		return nil, errFormat
	}
	id := identify(preset, h.o.IDHeader, head, body)
	if id.id == "" {
		id.id = rand.Text()
	}
	event, err := h.event(id, head.Get("Content-Type"), body)
	if err != nil {
		return nil, err
	}
	return []item{{key: id.id, event: event, body: body, metadata: h.metadata(head)}}, nil
}

// event makes the event of a plain request.
func (h *hook) event(id identity, contentType string, body []byte) (*cloudevents.Event, error) {
	switch {
	case len(body) == 0:
		contentType, body = "", nil
	case contentType == "":
		contentType = "application/octet-stream"
	case isJSON(contentType) && !(utf8.Valid(body) && json.Valid(body)):
		return nil, errNotJSON
	}
	name := id.event
	if name == "" {
		name = "received"
	}
	attrs := []cloudevents.Attr{
		{Name: "id", Value: id.id},
		{Name: "source", Value: h.source()},
		{Name: "type", Value: orElse(h.o.EventType, typePrefix(h.o.preset())+name)},
		{Name: "time", Value: h.now().UTC().Format(time.RFC3339Nano)},
	}
	if id.subject != "" {
		attrs = append(attrs, cloudevents.Attr{Name: "subject", Value: id.subject})
	}
	return cloudevents.New(contentType, body, attrs...)
}

func (h *hook) source() string { return orElse(h.o.Source, "/webhooks/"+h.name) }

// takesCloudEvents tells whether requests under that preset may be
// CloudEvents. The providers' own formats are not, and their signatures would
// not cover attributes in headers.
func takesCloudEvents(preset string) bool {
	return preset == none || preset == standard || preset == generic || preset == bearer
}

// cloudItems makes the events of a request that says it is a CloudEvent or a
// batch of them. All must be right.
func (h *hook) cloudItems(head http.Header, body []byte) ([]item, error) {
	switch mediaType(head.Get("Content-Type")) {
	case "application/cloudevents+json", "application/cloudevents-batch+json":
	default:
		if strings.HasPrefix(mediaType(head.Get("Content-Type")), "application/cloudevents") {
			return nil, errFormat
		}
	}
	events, err := cloudevents.FromHTTP(head, body)
	switch {
	case err != nil:
		return nil, err
	case len(events) > maxBatch:
		return nil, errTooMany
	}
	metadata := h.metadata(head)
	items := make([]item, 0, len(events))
	for _, e := range events {
		if e.Structured() {
			body = e.JSON()
		}
		items = append(items, item{key: e.Source() + "\n" + e.ID(), event: e, body: body, metadata: metadata})
	}
	if h.o.preset() == standard && len(items) == 1 {
		// The signed id; attributes in headers are not covered.
		items[0].key = identify(standard, "", head, nil).id
	}
	return items, nil
}

func isJSON(contentType string) bool {
	media := mediaType(contentType)
	return media == "application/json" || media == "text/json" || strings.HasSuffix(media, "+json")
}

// passed are the headers that the app gets to see, by prefix. What is signed
// or secret is left out by isPrivate.
func passed(preset string) []string {
	common := []string{"traceparent", "tracestate", "baggage", "user-agent", "webhook-id", "webhook-timestamp", "idempotency-key"}
	switch preset {
	case github, gitlab, slack, shopify:
		return append(common, "x-"+preset+"-*")
	case generic, none, bearer:
		return append(common, "x-request-id")
	default:
		return common
	}
}

// isPrivate tells whether a header may hold a credential or a signature, or
// belongs to the connection.
func (h *hook) isPrivate(name string) bool {
	switch name {
	case "authorization", "proxy-authorization", "cookie", "content-type", "content-length", "connection", "host",
		strings.ToLower(h.o.SigHeader):
		return true
	}
	for _, part := range []string{"token", "secret", "signature", "hmac", "password", "api-key", "apikey"} {
		if strings.Contains(name, part) {
			return true
		}
	}
	return strings.HasPrefix(name, "dapr-")
}

// metadata returns the headers for the app: in the order of their names, as
// many as the bounds let in.
func (h *hook) metadata(head http.Header) map[string]string {
	patterns := append(passed(h.o.preset()), h.o.PassHeaders...)
	out := map[string]string{}
	size := 0
	for _, key := range slices.Sorted(maps.Keys(head)) {
		name, value := strings.ToLower(key), strings.Join(head[key], ", ")
		if !matches(patterns, name) || h.isPrivate(name) || !utf8.ValidString(value) {
			continue
		}
		size += len(name) + len(value)
		if len(out) == maxMetadata || size > maxMetadataBytes {
			break
		}
		out[name] = value
	}
	return out
}

func matches(patterns []string, name string) bool {
	for _, p := range patterns {
		prefix, open := strings.CutSuffix(p, "*")
		if open && len(name) >= len(prefix) && strings.EqualFold(name[:len(prefix)], prefix) || strings.EqualFold(p, name) {
			return true
		}
	}
	return false
}

func orElse(s, other string) string {
	if s != "" {
		return s
	}
	return other
}

package bindings

import (
	"encoding/json"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/penstock-io/penstock/cloudevents"
)

// Received is what an input binding got from outside: data in whatever form the
// other side chose, which becomes the data of an event as it stands.
type Received struct {
	// ID is the same whenever the same message is received again, where the
	// other side has something to make it of; dedupe leans on it.
	ID string
	// Source and Type are the event's; Subject may be empty.
	Source, Type, Subject string
	// Time is when the message was made; zero leaves the attribute out.
	Time time.Time
	// ContentType is what the other side said; empty lets the data tell:
	// JSON, text or bytes.
	ContentType string
	// Data is not copied.
	Data []byte
	// Attrs are further attributes.
	Attrs []cloudevents.Attr
}

// Event makes the event. Data that is called JSON and is none goes as bytes, so
// that nothing is refused for its label.
func (r Received) Event() (*cloudevents.Event, error) {
	attrs := append(make([]cloudevents.Attr, 0, 5+len(r.Attrs)),
		cloudevents.Attr{Name: "id", Value: r.ID},
		cloudevents.Attr{Name: "source", Value: r.Source},
		cloudevents.Attr{Name: "type", Value: r.Type})
	if r.Subject != "" {
		attrs = append(attrs, cloudevents.Attr{Name: "subject", Value: r.Subject})
	}
	if !r.Time.IsZero() {
		attrs = append(attrs, cloudevents.Attr{Name: "time", Value: r.Time.UTC().Format(time.RFC3339Nano)})
	}
	attrs = append(attrs, r.Attrs...)
	contentType := r.contentType()
	e, err := cloudevents.New(contentType, r.Data, attrs...)
	if err != nil && isJSON(contentType) { // JSON beyond what is taken for JSON
		return cloudevents.New(octets, r.Data, attrs...)
	}
	return e, err
}

const octets = "application/octet-stream"

func (r Received) contentType() string {
	switch {
	case r.ContentType != "" && (!isJSON(r.ContentType) || json.Valid(r.Data)):
		return r.ContentType
	case r.ContentType != "":
		return octets
	case len(r.Data) > 0 && json.Valid(r.Data):
		return "application/json"
	case utf8.Valid(r.Data):
		return "text/plain"
	default:
		return octets
	}
}

func isJSON(contentType string) bool {
	base, _, _ := strings.Cut(strings.ToLower(contentType), ";")
	base = strings.TrimSpace(base)
	return base == "application/json" || strings.HasSuffix(base, "+json")
}

package http

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"mime"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/penstock-io/penstock/api"
)

// onBulkPublish takes many events for one topic.
func (h *handler) onBulkPublish(w http.ResponseWriter, r *http.Request) {
	bulk, err := h.bulk(w, r)
	var failures []api.BulkFailure
	if err == nil {
		failures, err = h.api.BulkPublish(r.Context(), bulk)
	}
	switch {
	case len(failures) > 0:
		respondFailures(w, failures)
	case err != nil:
		respondError(w, err)
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

func respondFailures(w http.ResponseWriter, failures []api.BulkFailure) {
	type failedEntry struct {
		ID    string `json:"entryId"`
		Error string `json:"error"`
	}
	body := struct {
		Failed []failedEntry `json:"failedEntries"`
		Code   string        `json:"errorCode"`
	}{Failed: make([]failedEntry, len(failures)), Code: api.PublishMessage.Code()}
	for i, f := range failures {
		body.Failed[i] = failedEntry{ID: f.ID, Error: f.Err.Error()}
	}
	setRetryAfter(w, failures[0].Err)
	respondJSON(w, api.PublishMessage.HTTPStatus(), body)
}

func (h *handler) bulk(w http.ResponseWriter, r *http.Request) (*api.Bulk, error) {
	path, err := names(r, "bus", "*")
	if err != nil {
		return nil, err
	}
	b := &api.Bulk{PubSub: path[0], Topic: path[1]}
	if b.Metadata, err = queryMetadata(r.URL.RawQuery, api.PublishMetadata); err != nil {
		return nil, err
	}
	if b.Trace, err = traceOf(r); err != nil {
		return nil, err
	}
	body, err := h.readBody(w, r)
	if err != nil {
		return nil, err
	}
	return b, readEntries(b, body)
}

// entry is one element of the body. Event is kept byte for byte.
type entry struct {
	ID          string            `json:"entryId"`
	Event       json.RawMessage   `json:"event"`
	ContentType string            `json:"contentType"`
	Metadata    map[string]string `json:"metadata"`
}

// jsonSpace is what JSON takes for space; Unicode has more.
const jsonSpace = " \t\r\n"

// readEntries reads the elements one by one and stops at the first bad one, and
// at the first too many, so that a hostile body costs no more than its own size.
func readEntries(b *api.Bulk, body []byte) error {
	if !utf8.Valid(body) {
		return b.Malformed("read events: the body is not UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	if t, err := dec.Token(); err != nil || t != json.Delim('[') {
		return b.Malformed("read events: the body is not a JSON array of {entryId, event, contentType, metadata}")
	}
	for len(b.Entries) <= api.MaxBulkEntries && dec.More() {
		var e entry
		if err := dec.Decode(&e); err != nil {
			return b.Malformed("read events: entry %d: %w", len(b.Entries), err)
		}
		data, err := eventData(e)
		if err != nil {
			return b.Malformed("read events: entry %d (%q): %w", len(b.Entries), e.ID, err)
		}
		b.Entries = append(b.Entries, api.BulkEntry{ID: e.ID, Data: data, ContentType: e.ContentType, Metadata: e.Metadata})
	}
	if len(b.Entries) > api.MaxBulkEntries {
		return nil // which the check of all bulks refuses
	}
	if _, err := dec.Token(); err != nil {
		return b.Malformed("read events: the array does not end: %w", err)
	}
	if rest := bytes.TrimLeft(body[dec.InputOffset():], jsonSpace); len(rest) > 0 {
		return b.Malformed("read events: something follows the array")
	}
	return nil
}

// eventData returns the payload of an entry: JSON as it stands, text out of its
// JSON string, bytes out of base64.
func eventData(e entry) ([]byte, error) {
	if len(e.Event) == 0 {
		return nil, api.Errorf(api.BulkEvents, "event is missing")
	}
	if isJSON(e.ContentType) {
		return e.Event, nil
	}
	if e.Event[0] != '"' {
		if isBinary(e.ContentType) {
			return nil, api.Errorf(api.BulkEvents, "event of type %s is not a base64 string", e.ContentType)
		}
		return e.Event, nil
	}
	text, err := textOf(e.Event)
	if err != nil {
		return nil, err
	}
	if !isBinary(e.ContentType) {
		return []byte(text), nil
	}
	data, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, api.Errorf(api.BulkEvents, "event of type %s is not base64: %w", e.ContentType, err)
	}
	return data, nil
}

// textOf returns the text of a JSON string. Half a surrogate pair is no text and
// would come out as another character, so it is refused.
func textOf(raw json.RawMessage) (string, error) {
	var text string
	if err := json.Unmarshal(raw, &text); err != nil {
		return "", err
	}
	if strings.ContainsRune(text, utf8.RuneError) && !bytes.ContainsRune(raw, utf8.RuneError) &&
		!bytes.Contains(bytes.ToLower(raw), []byte(`\ufffd`)) {
		return "", errors.New("it holds half a surrogate pair")
	}
	return text, nil
}

func isJSON(contentType string) bool {
	t := mediaType(contentType)
	return t == "application/json" || strings.HasSuffix(t, "+json")
}

func isBinary(contentType string) bool {
	t := mediaType(contentType)
	return t == "application/octet-stream" || t == "application/cloudevents+protobuf"
}

func mediaType(contentType string) string {
	t, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		t, _, _ = strings.Cut(contentType, ";")
		t = strings.ToLower(strings.TrimSpace(t))
	}
	return t
}

package file

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/penstock-io/penstock/cloudevents"
)

// send hands one event over. An event that is not taken stays owed.
func (b *binding) send(ctx context.Context, emit cloudevents.EmitFunc, j *job, it *item, data []byte) error {
	e, err := b.event(j, it, data)
	if err == nil {
		var once sync.Once
		d := &cloudevents.Delivery{
			Body: data, Event: e, Attempt: it.attempt + 1, Origin: b.env.Name,
			Metadata: metadata(j, it),
			Settle:   func(o cloudevents.Outcome) { once.Do(func() { b.settle(j, it, o) }) },
		}
		if b.options.OrderBy == "file" {
			d.Key = j.name
		}
		err = emit(ctx, d)
	}
	if err != nil {
		b.bytes.Release(weight(it))
		b.back(it)
	}
	return err
}

func (b *binding) event(j *job, it *item, data []byte) (*cloudevents.Event, error) {
	kind := "io.penstock.file.created"
	if b.options.Mode == lines {
		kind = "io.penstock.file.line"
	}
	source := url.URL{Path: filepath.ToSlash(filepath.Join(b.options.Path, j.name))}
	attrs := []cloudevents.Attr{
		{Name: "id", Value: j.id(it)},
		{Name: "source", Value: source.String()},
		{Name: "type", Value: kind},
		{Name: "subject", Value: label(j.name)},
		{Name: "time", Value: time.Unix(0, j.identity.modTime).UTC().Format(time.RFC3339Nano)},
	}
	contentType := b.contentType(j.name)
	if isJSON(contentType) && !json.Valid(data) {
		contentType = "application/octet-stream"
	}
	e, err := cloudevents.New(contentType, data, attrs...)
	if err != nil && isJSON(contentType) { // JSON beyond what is taken for JSON
		return cloudevents.New("application/octet-stream", data, attrs...)
	}
	return e, err
}

// id is the same for the same event of the same file, however often it is read.
func (j *job) id(it *item) string {
	h := sha256.New()
	for _, part := range []string{j.name, j.generation, strconv.FormatInt(it.offset, 10)} {
		h.Write([]byte(part + "\x00"))
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

func metadata(j *job, it *item) map[string]string {
	m := map[string]string{
		"fileName": label(j.name),
		"size":     strconv.FormatInt(j.identity.size, 10),
		"modTime":  time.Unix(0, j.identity.modTime).UTC().Format(time.RFC3339Nano),
	}
	if it.line > 0 {
		m["line"] = strconv.FormatInt(it.line, 10)
		m["offset"] = strconv.FormatInt(it.offset, 10)
	}
	return m
}

// label is a file name fit for attributes and headers: one with characters that
// are not for display is escaped like a part of a URL.
func label(name string) string {
	if !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return url.PathEscape(name)
	}
	return name
}

// contentType guesses by the end of the name, the same on every machine.
func (b *binding) contentType(name string) string {
	if b.options.ContentType != "" {
		return b.options.ContentType
	}
	switch strings.ToLower(filepath.Ext(name)) {
	case ".json":
		return "application/json"
	case ".jsonl", ".ndjson":
		if b.options.Mode == lines {
			return "application/json"
		}
		return "application/x-ndjson"
	case ".csv":
		return "text/csv"
	case ".xml":
		return "application/xml"
	case ".yaml", ".yml":
		return "application/yaml"
	case ".html", ".htm":
		return "text/html"
	case ".txt", ".log", ".md":
		return "text/plain"
	}
	if b.options.Mode == lines {
		return "text/plain"
	}
	return "application/octet-stream"
}

func isJSON(contentType string) bool {
	base, _, _ := strings.Cut(strings.ToLower(contentType), ";")
	base = strings.TrimSpace(base)
	return base == "application/json" || strings.HasSuffix(base, "+json")
}

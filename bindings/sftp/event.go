package sftp

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/pkg/sftp"

	"github.com/penstock-io/penstock/bindings"
	client "github.com/penstock-io/penstock/client/sftp"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
)

const (
	firstPause = time.Second
	maxPause   = time.Minute
)

// handOver makes the event of a file and hands it to the router. Its error ends
// the Read; what is the matter with one file does not.
func (b *inbox) handOver(ctx context.Context, emit cloudevents.EmitFunc, j *job) error {
	b.mu.Lock()
	ident, attempt := j.identity, j.attempt+1
	b.mu.Unlock()
	weight := int64(1)
	if b.options.Deliver == asBody {
		weight = min(max(ident.size, 1), maxBytes)
	}
	if err := b.bytes.Acquire(ctx, weight); err != nil {
		b.back(j)
		return nil // Read ends
	}
	free := sync.OnceFunc(func() { b.bytes.Release(weight) })
	data, ok := b.contents(ctx, j, ident)
	if !ok {
		free()
		return nil
	}
	event, err := b.event(j, ident, data)
	if err == nil {
		var once sync.Once
		err = emit(ctx, &cloudevents.Delivery{
			Body: data, Event: event, Attempt: attempt, Origin: b.env.Name, Metadata: b.metadata(j, ident),
			Settle: func(o cloudevents.Outcome) { once.Do(func() { free(); b.settle(j, o) }) },
		})
	}
	if err != nil {
		free()
		b.back(j)
		if ctx.Err() == nil {
			return fault.Wrap(err, "hand over file %q", j.name)
		}
	}
	return nil
}

// contents returns the data of a file's event. When there are none, not ok, it
// has said what becomes of the file.
func (b *inbox) contents(ctx context.Context, j *job, ident identity) ([]byte, bool) {
	type result struct {
		data []byte
		now  identity
	}
	reading, cancel := context.WithTimeout(ctx, invokeTimeout)
	defer cancel()
	r, err := client.Do(reading, b.client, func(s *sftp.Client) (r result, err error) {
		r.now, err = identify(s.Lstat(j.claim))
		if err != nil || r.now != ident || b.options.Deliver == asPath || ident.size > b.maxSize {
			return r, err
		}
		f, err := s.Open(j.claim)
		if err != nil {
			return r, err
		}
		defer f.Close()
		r.data = make([]byte, ident.size)
		if _, err := io.ReadFull(f, r.data); err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			return r, err
		}
		r.now, err = identify(f.Stat()) // whoever had it open may still write
		return r, err
	})
	switch {
	case err != nil && ctx.Err() != nil:
		b.back(j)
	case err != nil:
		b.unreadable(j, err)
	case r.now != ident:
		b.mu.Lock()
		j.identity = r.now
		b.mu.Unlock()
		b.later(j, max(b.options.StableFor, 10*time.Millisecond))
	case b.options.Deliver == asPath:
		data, _ := json.Marshal(map[string]any{ // nothing in it can fail
			"fileName": b.relative(j.claim), "name": j.name, "size": ident.size,
		})
		return data, true
	case ident.size > b.maxSize:
		b.giveUp(j, fmt.Sprintf("it has %d bytes, more than maxFileSize, %d", ident.size, b.maxSize))
	default:
		return r.data, true
	}
	return nil, false
}

func identify(info interface {
	Size() int64
	ModTime() time.Time
}, err error,
) (identity, error) {
	if err != nil {
		return identity{}, err
	}
	return identity{info.Size(), info.ModTime().Unix()}, nil
}

// unreadable has a file that could not be read tried again, unless it is gone.
func (b *inbox) unreadable(j *job, err error) {
	if fault.KindOf(err) == fault.NotFound {
		b.mu.Lock()
		b.forget(j)
		b.mu.Unlock()
		b.env.Logger.Warn("file is gone, taken over by another process or removed", "file", j.name)
		return
	}
	b.mu.Lock()
	j.faults++
	n := j.faults
	b.mu.Unlock()
	if n == 1 {
		b.env.Logger.Warn("file cannot be read, trying again", "file", j.name, "error", err)
	}
	b.later(j, min(firstPause<<min(n-1, 6), maxPause))
}

func (b *inbox) event(j *job, ident identity, data []byte) (*cloudevents.Event, error) {
	contentType := b.options.ContentType
	if b.options.Deliver == asPath {
		contentType = "application/json"
	}
	source := url.URL{Scheme: "sftp", Host: b.client.Address(), Path: path.Join(b.folder, j.name)}
	return bindings.Received{
		ID: b.id(j, ident), Source: source.String(), Type: "io.penstock.sftp.file", Subject: label(j.name),
		Time: time.Unix(ident.modTime, 0), ContentType: contentType, Data: data,
	}.Event()
}

// id is the same for the same file, whoever reads it and however often.
func (b *inbox) id(j *job, ident identity) string {
	h := sha256.New()
	for _, part := range []string{b.folder, j.name, strconv.FormatInt(ident.size, 10), strconv.FormatInt(ident.modTime, 10)} {
		h.Write([]byte(part + "\x00"))
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

func (b *inbox) metadata(j *job, ident identity) map[string]string {
	m := map[string]string{
		"fileName": label(j.name),
		"size":     strconv.FormatInt(ident.size, 10),
		"modTime":  time.Unix(ident.modTime, 0).UTC().Format(time.RFC3339),
	}
	if b.options.Deliver == asPath {
		m["fileName"], m["name"] = label(b.relative(j.claim)), label(j.name)
	}
	return m
}

// relative returns a path as get takes it.
func (b *inbox) relative(full string) string {
	return strings.TrimPrefix(strings.TrimPrefix(full, strings.TrimSuffix(b.root, "/")), "/")
}

// label is a file name fit for attributes and headers: one with characters that
// are not for display is escaped like a part of a URL.
func label(name string) string {
	if !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return url.PathEscape(name)
	}
	return name
}

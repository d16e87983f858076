package awsfake

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Object is what a bucket holds under a key.
type Object struct {
	Body                            []byte
	ContentType, StorageClass, Tags string
	made                            time.Time
}

type fakeBucket struct {
	objects map[string]*Object
	queue   string // that gets notifications; empty is none
}

func (o *Object) etag() string { return `"` + sum(string(o.Body)) + `"` }

// Bucket makes a bucket. The queue of that name, unless it is empty, gets a
// notification of each object that is made or deleted.
func (s *Server) Bucket(name, queue string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.buckets[name] = &fakeBucket{objects: map[string]*Object{}, queue: queue}
}

// Object returns what is under a key; nil when nothing is.
func (s *Server) Object(bucket, key string) *Object {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.buckets[bucket]; b != nil {
		return b.objects[key]
	}
	return nil
}

func missing(code string) *Failure {
	return &Failure{Status: http.StatusNotFound, Code: code, Message: "The specified thing does not exist."}
}

// serveS3 answers requests whose path is /bucket or /bucket/key.
func (s *Server) serveS3(w http.ResponseWriter, r *http.Request) {
	bucket, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // it has gone
	}
	f := s.count("S3" + r.Method)
	if f == nil {
		s.mu.Lock()
		f = s.s3(w, r, bucket, key, body)
		s.mu.Unlock()
	}
	if f == nil {
		return
	}
	for k, v := range f.Header {
		w.Header().Set(k, v)
	}
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(f.Status)
	fmt.Fprintf(w, "<Error><Code>%s</Code><Message>%s</Message><RequestId>1</RequestId></Error>", f.Code, escape(f.Message))
}

// s3 carries out one request; the caller holds mu.
func (s *Server) s3(w http.ResponseWriter, r *http.Request, bucket, key string, body []byte) *Failure {
	b := s.buckets[bucket]
	if b == nil {
		return missing("NoSuchBucket")
	}
	switch {
	case key == "" && r.Method == http.MethodGet:
		b.list(w, bucket, r.URL.Query())
	case key == "":
		w.WriteHeader(http.StatusOK)
	case r.Method == http.MethodPut:
		o := &Object{
			Body: bytes.Clone(body), ContentType: r.Header.Get("Content-Type"),
			StorageClass: r.Header.Get("X-Amz-Storage-Class"), Tags: r.Header.Get("X-Amz-Tagging"), made: time.Now(),
		}
		b.objects[key] = o
		w.Header().Set("ETag", o.etag())
		s.notify(b, bucket, key, "ObjectCreated:Put", o)
	case r.Method == http.MethodDelete:
		if o := b.objects[key]; o != nil {
			delete(b.objects, key)
			s.notify(b, bucket, key, "ObjectRemoved:Delete", o)
		}
		w.WriteHeader(http.StatusNoContent)
	default:
		o := b.objects[key]
		if o == nil {
			return missing("NoSuchKey")
		}
		w.Header().Set("ETag", o.etag())
		w.Header().Set("Content-Type", o.ContentType)
		w.Header().Set("Content-Length", strconv.Itoa(len(o.Body)))
		_, _ = w.Write(o.Body) // the client may be gone
	}
	return nil
}

func (b *fakeBucket) list(w http.ResponseWriter, name string, q url.Values) {
	keys, folders := []string{}, []string{}
	for key := range b.objects {
		rest, ok := strings.CutPrefix(key, q.Get("prefix"))
		if !ok || key <= q.Get("marker") {
			continue
		}
		if d := q.Get("delimiter"); d != "" && strings.Contains(rest, d) {
			folder := q.Get("prefix") + rest[:strings.Index(rest, d)+len(d)]
			if !slices.Contains(folders, folder) {
				folders = append(folders, folder)
			}
			continue
		}
		keys = append(keys, key)
	}
	slices.Sort(keys)
	slices.Sort(folders)
	most := 1000
	if n, err := strconv.Atoi(q.Get("max-keys")); err == nil {
		most = n
	}
	more := len(keys) > most
	keys = keys[:min(len(keys), most)]
	var x strings.Builder
	fmt.Fprintf(&x, "<ListBucketResult><Name>%s</Name><Prefix>%s</Prefix><Marker>%s</Marker><MaxKeys>%d</MaxKeys><IsTruncated>%t</IsTruncated>",
		name, escape(q.Get("prefix")), escape(q.Get("marker")), most, more)
	for _, key := range keys {
		o := b.objects[key]
		fmt.Fprintf(&x, "<Contents><Key>%s</Key><LastModified>%s</LastModified><ETag>%s</ETag><Size>%d</Size><StorageClass>STANDARD</StorageClass></Contents>",
			escape(key), o.made.UTC().Format("2006-01-02T15:04:05.000Z"), escape(o.etag()), len(o.Body))
	}
	for _, folder := range folders {
		fmt.Fprintf(&x, "<CommonPrefixes><Prefix>%s</Prefix></CommonPrefixes>", escape(folder))
	}
	x.WriteString("</ListBucketResult>")
	w.Header().Set("Content-Type", "application/xml")
	_, _ = io.WriteString(w, x.String()) // the client may be gone
}

// notify tells a bucket's queue of an event; the caller holds mu.
func (s *Server) notify(b *fakeBucket, bucket, key, event string, o *Object) {
	q := s.queues[b.queue]
	if q == nil {
		return
	}
	body, err := json.Marshal(map[string]any{"Records": []any{map[string]any{
		"eventVersion": "2.1", "eventSource": "aws:s3", "awsRegion": Region, "eventTime": time.Now().UTC().Format("2006-01-02T15:04:05.000Z"), "eventName": event,
		"responseElements": map[string]string{"x-amz-request-id": rand.Text(), "x-amz-id-2": rand.Text()},
		"s3": map[string]any{
			"bucket": map[string]string{"name": bucket},
			"object": map[string]any{"key": url.QueryEscape(key), "size": len(o.Body), "eTag": sum(string(o.Body)), "sequencer": rand.Text()},
		},
	}}})
	if err != nil {
		return
	}
	_, _ = s.sendOne(q, map[string]any{"MessageBody": string(body)}) // a queue that does not take it gets none
}

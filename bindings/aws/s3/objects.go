package s3

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/penstock-io/penstock/bindings"
	client "github.com/penstock-io/penstock/client/aws"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
)

// presignMost is the longest life of a presigned address that S3 knows.
const presignMost = 7 * 24 * time.Hour

// Operations implements bindings.Invoker.
func (b *binding) Operations() []string { return operations() }

// Invoke implements bindings.Invoker.
func (b *binding) Invoke(ctx context.Context, r *bindings.Request) (*bindings.Response, error) {
	ctx, done, err := b.calls.Begin(ctx)
	if err != nil {
		return nil, fault.Wrap(err, "use bucket")
	}
	defer done()
	switch r.Operation {
	case opCreate:
		return b.create(ctx, r)
	case opList:
		return b.list(ctx, r.Data)
	}
	key := r.Metadata["key"]
	switch {
	case r.Operation != opGet && r.Operation != opDelete && r.Operation != opPresign:
		return nil, fault.New(fault.Invalid, "use bucket: operation %.40q is not supported; use one of %s", r.Operation, strings.Join(operations(), ", "))
	case key == "":
		return nil, fault.New(fault.Invalid, "%s object: metadata key is missing", r.Operation)
	case r.Operation == opGet:
		return b.get(ctx, key, r.Metadata)
	case r.Operation == opPresign:
		return b.address(ctx, key, r.Metadata)
	}
	_, err = b.api.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &b.o.Bucket, Key: &key})
	return nil, client.Wrap(err, "delete object %s", key)
}

// flag reads metadata that says an option for one call.
func flag(metadata map[string]string, name string, otherwise bool) (bool, error) {
	v, set := metadata[name]
	if !set {
		return otherwise, nil
	}
	on, err := strconv.ParseBool(v)
	if err != nil {
		return false, fault.New(fault.Invalid, "read metadata %s %.40q: want true or false", name, v)
	}
	return on, nil
}

// life reads metadata presignTTL.
func life(metadata map[string]string) (time.Duration, error) {
	v := metadata["presignTTL"]
	d, err := time.ParseDuration(v)
	if err != nil || d <= 0 || d > presignMost {
		return 0, fault.New(fault.Invalid, "read metadata presignTTL %.40q: want a duration such as 15m, 168h at most", v)
	}
	return d, nil
}

// created is the answer to create.
type created struct {
	Location   string  `json:"location"`
	VersionID  *string `json:"versionID"`
	PresignURL string  `json:"presignURL,omitempty"`
}

func (b *binding) create(ctx context.Context, r *bindings.Request) (*bindings.Response, error) {
	key := cmp.Or(r.Metadata["key"], cloudevents.NewID())
	var ttl time.Duration
	var err error
	if r.Metadata["presignTTL"] != "" { // before anything is written
		if ttl, err = life(r.Metadata); err != nil {
			return nil, err
		}
	}
	in := &s3.PutObjectInput{
		Bucket: &b.o.Bucket, Key: &key, StorageClass: types.StorageClass(cmp.Or(r.Metadata["storageClass"], b.o.StorageClass)),
		ContentType: given(cmp.Or(r.Metadata["contentType"], r.Metadata["Content-Type"])),
	}
	if in.Tagging, err = tags(r.Metadata["tags"]); err != nil {
		return nil, err
	}
	body, err := b.content(r)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	in.Body = body
	out, err := b.api.PutObject(ctx, in)
	if err != nil {
		return nil, client.Wrap(err, "create object %s", key)
	}
	answer := created{VersionID: out.VersionId}
	if answer.PresignURL, err = b.sign(ctx, key, cmp.Or(ttl, time.Minute)); err != nil {
		return nil, err
	}
	answer.Location, _, _ = strings.Cut(answer.PresignURL, "?")
	if ttl == 0 {
		answer.PresignURL = ""
	}
	return reply(answer)
}

func given(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// tags makes the header of metadata such as project=mill,year=2026.
func tags(text string) (*string, error) {
	if text == "" {
		return nil, nil
	}
	q := url.Values{}
	for pair := range strings.SplitSeq(text, ",") {
		name, value, ok := strings.Cut(strings.TrimSpace(pair), "=")
		if !ok || name == "" {
			return nil, fault.New(fault.Invalid, "read metadata tags %.100q: want name=value, with commas between", text)
		}
		q.Set(name, value)
	}
	return aws.String(q.Encode()), nil
}

// seeker is what the SDK reads an object from, more than once when it tries
// again.
type seeker interface {
	io.ReadSeeker
	io.Closer
}

type inMemory struct{ *bytes.Reader }

func (inMemory) Close() error { return nil }

// content opens what create is to write: a file of this machine, or the data.
func (b *binding) content(r *bindings.Request) (seeker, error) {
	if path := r.Metadata["filePath"]; path != "" {
		info, err := os.Stat(path) // before opening, which would wait for the writer of a pipe
		if err == nil && !info.Mode().IsRegular() {
			err = fault.New(fault.Invalid, "it is not a file")
		}
		var f *os.File
		if err == nil {
			f, err = os.Open(path)
		}
		if err != nil {
			return nil, fault.Wrap(err, "read file %q", path)
		}
		return f, nil
	}
	decode, err := flag(r.Metadata, "decodeBase64", b.o.DecodeBase64)
	if err != nil || !decode {
		return inMemory{bytes.NewReader(r.Data)}, err
	}
	data, err := base64.StdEncoding.DecodeString(strings.Trim(string(r.Data), "\"\r\n "))
	if err != nil {
		return nil, fault.New(fault.Invalid, "decode data from base64: %w", err)
	}
	return inMemory{bytes.NewReader(data)}, nil
}

func (b *binding) get(ctx context.Context, key string, metadata map[string]string) (*bindings.Response, error) {
	encode, err := flag(metadata, "encodeBase64", b.o.EncodeBase64)
	if err != nil {
		return nil, err
	}
	data, _, err := b.fetch(ctx, &s3.GetObjectInput{Bucket: &b.o.Bucket, Key: &key})
	if err != nil {
		return nil, err
	}
	if encode {
		data = base64.StdEncoding.AppendEncode(nil, data)
	}
	return &bindings.Response{Data: data}, nil
}

// errTooLarge is that of an object beyond maxObjectSize.
var errTooLarge = fault.New(fault.Invalid, "larger than maxObjectSize")

// fetch reads an object.
func (b *binding) fetch(ctx context.Context, in *s3.GetObjectInput) (data []byte, contentType string, err error) {
	out, err := b.api.GetObject(ctx, in)
	if err != nil {
		return nil, "", client.Wrap(err, "get object %s", *in.Key)
	}
	defer out.Body.Close()
	limit := int64(b.o.MaxObjectSize)
	if aws.ToInt64(out.ContentLength) > limit {
		return nil, "", fault.Wrap(errTooLarge, "get object %s of %d bytes", *in.Key, *out.ContentLength)
	}
	data, err = io.ReadAll(io.LimitReader(out.Body, limit+1))
	if err != nil {
		return nil, "", client.Wrap(err, "read object %s", *in.Key)
	}
	if int64(len(data)) > limit {
		return nil, "", fault.Wrap(errTooLarge, "get object %s", *in.Key)
	}
	return data, aws.ToString(out.ContentType), nil
}

// sign returns an address that gives the object to whoever has it.
func (b *binding) sign(ctx context.Context, key string, ttl time.Duration) (string, error) {
	r, err := b.presign.PresignGetObject(ctx, &s3.GetObjectInput{Bucket: &b.o.Bucket, Key: &key}, s3.WithPresignExpires(ttl))
	if err != nil {
		return "", client.Wrap(err, "presign object %s", key)
	}
	return r.URL, nil
}

func (b *binding) address(ctx context.Context, key string, metadata map[string]string) (*bindings.Response, error) {
	ttl, err := life(metadata)
	if err != nil {
		return nil, err
	}
	address, err := b.sign(ctx, key, ttl)
	if err != nil {
		return nil, err
	}
	return reply(map[string]string{"presignURL": address})
}

func reply(v any) (*bindings.Response, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, fault.Wrap(err, "encode answer")
	}
	return &bindings.Response{Data: raw}, nil
}

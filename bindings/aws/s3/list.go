package s3

import (
	"bytes"
	"context"
	"encoding/json"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/penstock-io/penstock/bindings"
	client "github.com/penstock-io/penstock/client/aws"
	"github.com/penstock-io/penstock/fault"
)

// question is the data of list.
type question struct {
	MaxResults int32  `json:"maxResults"`
	Prefix     string `json:"prefix"`
	Marker     string `json:"marker"`
	Delimiter  string `json:"delimiter"`
}

// listing is the answer to list, in the form that Dapr gives it.
type listing struct {
	CommonPrefixes []folder
	Contents       []entry
	Delimiter      string
	EncodingType   *string
	IsTruncated    bool
	Marker         string
	MaxKeys        int32
	Name           string
	NextMarker     string
	Prefix         string
}

type folder struct{ Prefix string }

type entry struct {
	ETag         string
	Key          string
	LastModified time.Time
	Owner        *owner
	Size         int64
	StorageClass string
}

type owner struct{ DisplayName, ID string }

const listMost = 1000

func (b *binding) list(ctx context.Context, data []byte) (*bindings.Response, error) {
	q := question{MaxResults: listMost}
	if len(bytes.TrimSpace(data)) > 0 {
		if err := json.Unmarshal(data, &q); err != nil {
			return nil, fault.New(fault.Invalid, "read data of list: want an object with maxResults, prefix, marker, delimiter: %w", err)
		}
	}
	if q.MaxResults <= 0 {
		q.MaxResults = listMost
	}
	out, err := b.api.ListObjects(ctx, &s3.ListObjectsInput{
		Bucket: &b.o.Bucket, MaxKeys: &q.MaxResults, Prefix: given(q.Prefix), Marker: given(q.Marker), Delimiter: given(q.Delimiter),
	})
	if err != nil {
		return nil, client.Wrap(err, "list bucket %s", b.o.Bucket)
	}
	l := listing{
		Delimiter: q.Delimiter, IsTruncated: aws.ToBool(out.IsTruncated), Marker: q.Marker, MaxKeys: q.MaxResults,
		Name: b.o.Bucket, NextMarker: aws.ToString(out.NextMarker), Prefix: q.Prefix,
	}
	for i := range out.Contents {
		l.Contents = append(l.Contents, entryOf(&out.Contents[i]))
	}
	for _, p := range out.CommonPrefixes {
		l.CommonPrefixes = append(l.CommonPrefixes, folder{aws.ToString(p.Prefix)})
	}
	if l.IsTruncated && l.NextMarker == "" && len(l.Contents) > 0 { // S3 says it only where there is a delimiter
		l.NextMarker = l.Contents[len(l.Contents)-1].Key
	}
	return reply(l)
}

func entryOf(o *types.Object) entry {
	e := entry{
		ETag: aws.ToString(o.ETag), Key: aws.ToString(o.Key), LastModified: aws.ToTime(o.LastModified),
		Size: aws.ToInt64(o.Size), StorageClass: string(o.StorageClass),
	}
	if o.Owner != nil {
		e.Owner = &owner{aws.ToString(o.Owner.DisplayName), aws.ToString(o.Owner.ID)}
	}
	return e
}

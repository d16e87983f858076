// Package grpc serves the API over gRPC, as Dapr's service
// dapr.proto.runtime.v1.Dapr with its status codes and error details.
//
// [New] makes a [Server] of an [api.API]; its Run serves on listeners and stops
// in two steps. The methods only translate: what a verb does is in package api.
// Methods of Dapr's that are not there yet are answered with Unimplemented, and
// the server describes itself by reflection.
//
// The package promises that no method, reflection included, is reached without
// the token; that a call is refused before any of its message is read; and that
// nothing is read or kept beyond the limits of [Options]. Web pages cannot call
// it: browsers speak no HTTP/2 without TLS.
package grpc

import (
	"context"
	"strings"
	"sync/atomic"

	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/penstock-io/penstock/api"
	"github.com/penstock-io/penstock/bindings"
	"github.com/penstock-io/penstock/pubsub"
)

// service is Dapr's service. Methods that it does not have are the embedded
// ones, whose answer the interceptors put in our words.
type service struct {
	rtv1.UnimplementedDaprServer
	api     *api.API
	maxBody int
	ending  <-chan struct{} // closed when streams are to end
	working *atomic.Int64
}

// PublishEvent publishes one event.
func (s *service) PublishEvent(ctx context.Context, in *rtv1.PublishEventRequest) (*emptypb.Empty, error) {
	tr, err := traceOf(ctx)
	if err != nil {
		return nil, err
	}
	return new(emptypb.Empty), s.api.Publish(ctx, in.GetPubsubName(), &pubsub.PublishRequest{
		Topic: in.GetTopic(), Data: in.GetData(), ContentType: in.GetDataContentType(), Metadata: tr.Carry(in.GetMetadata()),
		TraceParent: tr.Parent, TraceState: tr.State,
	})
}

// BulkPublishEvent publishes many events. Entries that were not published are
// in the answer; when none could be, the call fails.
func (s *service) BulkPublishEvent(ctx context.Context, in *rtv1.BulkPublishRequest) (*rtv1.BulkPublishResponse, error) {
	tr, err := traceOf(ctx)
	if err != nil {
		return nil, err
	}
	bulk := &api.Bulk{
		PubSub: in.GetPubsubName(), Topic: in.GetTopic(), Metadata: in.GetMetadata(), Trace: tr,
		Entries: make([]api.BulkEntry, len(in.GetEntries())),
	}
	for i, e := range in.GetEntries() {
		bulk.Entries[i] = api.BulkEntry{ID: e.GetEntryId(), Data: e.GetEvent(), ContentType: e.GetContentType(), Metadata: e.GetMetadata()}
	}
	failures, err := s.api.BulkPublish(ctx, bulk)
	if err != nil {
		return nil, err
	}
	out := &rtv1.BulkPublishResponse{FailedEntries: make([]*rtv1.BulkPublishResponseFailedEntry, len(failures))}
	for i, f := range failures {
		out.FailedEntries[i] = &rtv1.BulkPublishResponseFailedEntry{EntryId: f.ID, Error: text(f.Err.Error())}
	}
	return out, nil
}

// BulkPublishEventAlpha1 is the old name of BulkPublishEvent.
func (s *service) BulkPublishEventAlpha1(ctx context.Context, in *rtv1.BulkPublishRequest) (*rtv1.BulkPublishResponse, error) {
	return s.BulkPublishEvent(ctx, in)
}

// InvokeBinding calls an output binding.
func (s *service) InvokeBinding(ctx context.Context, in *rtv1.InvokeBindingRequest) (*rtv1.InvokeBindingResponse, error) {
	tr, err := traceOf(ctx)
	if err != nil {
		return nil, err
	}
	resp, err := s.api.InvokeBinding(ctx, &api.Binding{
		Name: in.GetName(), Trace: tr,
		Request: bindings.Request{Operation: in.GetOperation(), Data: in.GetData(), Metadata: in.GetMetadata()},
	})
	if err != nil || resp == nil {
		return new(rtv1.InvokeBindingResponse), err
	}
	repeat(ctx, resp.Metadata)
	return &rtv1.InvokeBindingResponse{Data: resp.Data, Metadata: texts(resp.Metadata)}, nil
}

// maxRepeated bounds what of a binding's metadata is repeated, in bytes: some
// clients refuse headers of more than 8 KiB, and the reply with them.
const maxRepeated = 4 << 10

// repeat sends the metadata of a binding's reply in the header too, as Dapr
// does: metadata.NAME. What a header cannot carry is in the reply only.
func repeat(ctx context.Context, reply map[string]string) {
	size := 0
	md := make(metadata.MD, len(reply))
	for k, v := range reply {
		const each = 32 // what HTTP/2 counts on top
		if size += len(k) + len(v) + each; size > maxRepeated {
			return
		}
		if isHeader(k, v) {
			md.Append("metadata."+k, v)
		}
	}
	// It fails when the call is over, which the caller sees itself.
	_ = grpc.SetHeader(ctx, md)
}

func isHeader(key, value string) bool {
	inKey := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_.", r)
	}
	return !strings.ContainsFunc(key, func(r rune) bool { return !inKey(r) }) &&
		!strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r > '~' })
}

// GetSecret returns one secret.
func (s *service) GetSecret(ctx context.Context, in *rtv1.GetSecretRequest) (*rtv1.GetSecretResponse, error) {
	pairs, err := s.api.GetSecret(ctx, in.GetStoreName(), in.GetKey(), in.GetMetadata())
	if err != nil {
		return nil, err
	}
	return &rtv1.GetSecretResponse{Data: pairs}, nil
}

// GetBulkSecret returns every secret that the app may read.
func (s *service) GetBulkSecret(ctx context.Context, in *rtv1.GetBulkSecretRequest) (*rtv1.GetBulkSecretResponse, error) {
	all, err := s.api.BulkSecrets(ctx, in.GetStoreName(), in.GetMetadata())
	if err != nil {
		return nil, err
	}
	out := &rtv1.GetBulkSecretResponse{Data: make(map[string]*rtv1.SecretResponse, len(all))}
	for name, pairs := range all {
		out.Data[name] = &rtv1.SecretResponse{Secrets: pairs}
	}
	return out, nil
}

// SetMetadata sets one entry of the metadata document's extended part.
func (s *service) SetMetadata(_ context.Context, in *rtv1.SetMetadataRequest) (*emptypb.Empty, error) {
	return new(emptypb.Empty), s.api.SetMetadata(in.GetKey(), in.GetValue())
}

// forceKey is the call metadata that makes a shutdown a forced one.
const forceKey = "dapr-force-shutdown"

// Shutdown asks the instance to stop. The answer gets out: a stop lets calls
// under way finish, and a forced one leaves them a moment.
func (s *service) Shutdown(ctx context.Context, _ *rtv1.ShutdownRequest) (*emptypb.Empty, error) {
	force := false
	for _, v := range metadata.ValueFromIncomingContext(ctx, forceKey) {
		force = force || strings.EqualFold(v, "true")
	}
	s.api.Shutdown(force)
	return new(emptypb.Empty), nil
}

package grpc

import (
	"context"

	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/penstock-io/penstock/api"
	"github.com/penstock-io/penstock/state"
)

// GetState reads one item; the reply is empty when there is none.
func (s *service) GetState(ctx context.Context, in *rtv1.GetStateRequest) (*rtv1.GetStateResponse, error) {
	it, err := s.api.GetState(ctx, in.GetStoreName(), in.GetKey(), state.Read{
		Strong: in.GetConsistency() == commonv1.StateOptions_CONSISTENCY_STRONG, Metadata: in.GetMetadata(),
	})
	if err != nil {
		return nil, err
	}
	return &rtv1.GetStateResponse{Data: it.Value, Etag: it.ETag, Metadata: api.StateMetadata(&it)}, nil
}

// GetBulkState reads many items. One that could not be read says why.
func (s *service) GetBulkState(ctx context.Context, in *rtv1.GetBulkStateRequest) (*rtv1.GetBulkStateResponse, error) {
	items, err := s.api.BulkGetState(ctx, in.GetStoreName(), in.GetKeys(), state.Read{
		Parallel: int(in.GetParallelism()), Metadata: in.GetMetadata(),
	})
	if err != nil {
		return nil, err
	}
	out := &rtv1.GetBulkStateResponse{Items: make([]*rtv1.BulkStateItem, len(items))}
	for i := range items {
		it := &items[i]
		item := &rtv1.BulkStateItem{Key: in.GetKeys()[i]}
		if it.Err != nil {
			item.Error = text(it.Err.Error())
		} else {
			item.Data, item.Etag, item.Metadata = it.Value, it.ETag, api.StateMetadata(it)
		}
		out.Items[i] = item
	}
	return out, nil
}

// SaveState saves values, each by itself.
func (s *service) SaveState(ctx context.Context, in *rtv1.SaveStateRequest) (*emptypb.Empty, error) {
	return new(emptypb.Empty), s.api.SaveState(ctx, in.GetStoreName(), changes(in.GetStates()))
}

// DeleteState deletes one item.
func (s *service) DeleteState(ctx context.Context, in *rtv1.DeleteStateRequest) (*emptypb.Empty, error) {
	return new(emptypb.Empty), s.api.DeleteState(ctx, in.GetStoreName(), change(&commonv1.StateItem{
		Key: in.GetKey(), Etag: in.GetEtag(), Options: in.GetOptions(), Metadata: in.GetMetadata(),
	}))
}

// DeleteBulkState deletes items, each by itself.
func (s *service) DeleteBulkState(ctx context.Context, in *rtv1.DeleteBulkStateRequest) (*emptypb.Empty, error) {
	return new(emptypb.Empty), s.api.BulkDeleteState(ctx, in.GetStoreName(), changes(in.GetStates()))
}

// ExecuteStateTransaction carries out all operations, in order, or none.
func (s *service) ExecuteStateTransaction(ctx context.Context, in *rtv1.ExecuteStateTransactionRequest) (*emptypb.Empty, error) {
	tr, err := traceOf(ctx)
	if err != nil {
		return nil, err
	}
	ops := in.GetOperations()
	all := make([]state.Change, len(ops))
	for i, op := range ops {
		all[i] = change(op.GetRequest())
		switch op.GetOperationType() {
		case "upsert":
		case "delete":
			all[i].Delete = true
		default:
			return nil, api.Errorf(api.StateOperation, "read transaction: operation %q is neither upsert nor delete", text(op.GetOperationType()))
		}
	}
	return new(emptypb.Empty), s.api.TransactState(ctx, in.GetStoreName(), all, tr)
}

// QueryStateAlpha1 answers a query. An item that could not be read says why.
func (s *service) QueryStateAlpha1(ctx context.Context, in *rtv1.QueryStateRequest) (*rtv1.QueryStateResponse, error) {
	page, err := s.api.QueryState(ctx, in.GetStoreName(), []byte(in.GetQuery()), in.GetMetadata())
	if err != nil {
		return nil, err
	}
	out := &rtv1.QueryStateResponse{Results: make([]*rtv1.QueryStateItem, len(page.Keys)), Token: page.Token}
	for i, key := range page.Keys {
		it, item := &page.Items[i], &rtv1.QueryStateItem{Key: key}
		if it.Err != nil {
			item.Error = text(it.Err.Error())
		} else {
			item.Data, item.Etag = it.Value, it.ETag
		}
		out.Results[i] = item
	}
	return out, nil
}

func changes(items []*commonv1.StateItem) []state.Change {
	all := make([]state.Change, len(items))
	for i, it := range items {
		all[i] = change(it)
	}
	return all
}

// change makes an item a change.
func change(it *commonv1.StateItem) state.Change {
	c := state.Change{
		Key: it.GetKey(), Value: it.GetValue(), Metadata: it.GetMetadata(), Binary: state.IsBytes(it.GetValue(), it.GetMetadata()),
		FirstWrite: it.GetOptions().GetConcurrency() == commonv1.StateOptions_CONCURRENCY_FIRST_WRITE,
		Strong:     it.GetOptions().GetConsistency() == commonv1.StateOptions_CONSISTENCY_STRONG,
	}
	if tag := it.GetEtag(); tag != nil {
		c.ETag = &tag.Value
	}
	return c
}

package grpc

import (
	"context"
	"strconv"

	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/penstock-io/penstock/api"
)

// tokenKey carries the fencing token in the header, since the reply has no
// place for it.
const tokenKey = "penstock-fencing-token"

// TryLockAlpha1 tries once to get a lock.
func (s *service) TryLockAlpha1(ctx context.Context, in *rtv1.TryLockRequest) (*rtv1.TryLockResponse, error) {
	g, err := s.api.TryLock(ctx, &api.Lock{
		Store: in.GetStoreName(), Resource: in.GetResourceId(), Owner: in.GetLockOwner(), Seconds: in.GetExpiryInSeconds(),
	})
	if err != nil {
		return nil, err
	}
	if g.Held {
		// It fails when the call is over, which the caller sees itself.
		_ = grpc.SetHeader(ctx, metadata.Pairs(tokenKey, strconv.FormatInt(g.Token, 10)))
	}
	return &rtv1.TryLockResponse{Success: g.Held}, nil
}

// UnlockAlpha1 lets go of a lock.
func (s *service) UnlockAlpha1(ctx context.Context, in *rtv1.UnlockRequest) (*rtv1.UnlockResponse, error) {
	st, err := s.api.Unlock(ctx, &api.Lock{Store: in.GetStoreName(), Resource: in.GetResourceId(), Owner: in.GetLockOwner()})
	if err != nil {
		return nil, err
	}
	return &rtv1.UnlockResponse{Status: rtv1.UnlockResponse_Status(st)}, nil
}

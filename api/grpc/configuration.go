package grpc

import (
	"context"
	"errors"
	"strings"
	"sync"

	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"

	"github.com/penstock-io/penstock/api"
	"github.com/penstock-io/penstock/configuration"
)

// GetConfiguration reads items.
func (s *service) GetConfiguration(ctx context.Context, in *rtv1.GetConfigurationRequest) (*rtv1.GetConfigurationResponse, error) {
	items, err := s.api.GetConfiguration(ctx, in.GetStoreName(), in.GetKeys(), in.GetMetadata())
	if err != nil {
		return nil, err
	}
	out := &rtv1.GetConfigurationResponse{Items: make(map[string]*commonv1.ConfigurationItem, len(items))}
	for key, item := range items {
		out.Items[valid(key)] = configurationItem(item)
	}
	return out, nil
}

// GetConfigurationAlpha1 is the old name of GetConfiguration.
func (s *service) GetConfigurationAlpha1(ctx context.Context, in *rtv1.GetConfigurationRequest) (*rtv1.GetConfigurationResponse, error) {
	return s.GetConfiguration(ctx, in)
}

func configurationItem(item configuration.Item) *commonv1.ConfigurationItem {
	return &commonv1.ConfigurationItem{Value: valid(item.Value), Version: valid(item.Version), Metadata: texts(item.Metadata)}
}

// valid makes text one that a message may hold, however long.
func valid(text string) string { return strings.ToValidUTF8(text, "\uFFFD") }

// SubscribeConfiguration sends the id of the subscription, and then every change
// until the call ends or somebody unsubscribes.
func (s *service) SubscribeConfiguration(in *rtv1.SubscribeConfigurationRequest, ss rtv1.Dapr_SubscribeConfigurationServer) error {
	ctx, cancel := context.WithCancelCause(ss.Context())
	defer cancel(nil)
	var wg sync.WaitGroup
	wg.Go(func() {
		select {
		case <-s.ending:
			cancel(errEnding)
		case <-ctx.Done():
		}
	})
	err := s.api.WatchConfiguration(ctx, &api.ConfigurationUpdates{
		Store: in.GetStoreName(), Keys: in.GetKeys(), Metadata: in.GetMetadata(),
		Ready: func(id string) error { return ss.Send(&rtv1.SubscribeConfigurationResponse{Id: id}) },
		Deliver: func(_ context.Context, id, key string, item configuration.Item) error {
			return ss.Send(&rtv1.SubscribeConfigurationResponse{
				Id: id, Items: map[string]*commonv1.ConfigurationItem{valid(key): configurationItem(item)},
			})
		},
	})
	if err == nil && errors.Is(context.Cause(ctx), errEnding) {
		err = api.Errorf(api.Subscription, "subscribe to configuration of %s: %w", in.GetStoreName(), errEnding)
	}
	cancel(nil)
	wg.Wait()
	return err
}

// SubscribeConfigurationAlpha1 is the old name of SubscribeConfiguration.
func (s *service) SubscribeConfigurationAlpha1(in *rtv1.SubscribeConfigurationRequest, ss rtv1.Dapr_SubscribeConfigurationAlpha1Server) error {
	return s.SubscribeConfiguration(in, ss)
}

// UnsubscribeConfiguration ends a subscription, and the call that holds it. That
// there is none is in the answer, as under Dapr.
func (s *service) UnsubscribeConfiguration(_ context.Context, in *rtv1.UnsubscribeConfigurationRequest) (*rtv1.UnsubscribeConfigurationResponse, error) {
	err := s.api.UnsubscribeConfiguration(in.GetStoreName(), in.GetId())
	if e, ok := errors.AsType[*api.Error](err); ok && e.Problem == api.ConfigurationUnsubscribe {
		return &rtv1.UnsubscribeConfigurationResponse{Message: text(e.Message)}, nil
	}
	if err != nil {
		return nil, err
	}
	return &rtv1.UnsubscribeConfigurationResponse{Ok: true}, nil
}

// UnsubscribeConfigurationAlpha1 is the old name of UnsubscribeConfiguration.
func (s *service) UnsubscribeConfigurationAlpha1(ctx context.Context, in *rtv1.UnsubscribeConfigurationRequest) (*rtv1.UnsubscribeConfigurationResponse, error) {
	return s.UnsubscribeConfiguration(ctx, in)
}

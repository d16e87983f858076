package grpc_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/penstock-io/penstock/app"
	appgrpc "github.com/penstock-io/penstock/app/grpc"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/resilience"
)

// fake is an app. A function that is nil is a method that the app does not
// implement.
type fake struct {
	rtv1.UnimplementedAppCallbackServer
	event    func(context.Context, *rtv1.TopicEventRequest) (*rtv1.TopicEventResponse, error)
	bulk     func(context.Context, *rtv1.TopicEventBulkRequest) (*rtv1.TopicEventBulkResponse, error)
	binding  func(context.Context, *rtv1.BindingEventRequest) (*rtv1.BindingEventResponse, error)
	topics   func(context.Context) (*rtv1.ListTopicSubscriptionsResponse, error)
	bindings func(context.Context) (*rtv1.ListInputBindingsResponse, error)
	invoke   func(context.Context, *commonv1.InvokeRequest) (*commonv1.InvokeResponse, error)
}

var errUnimplemented = status.Error(codes.Unimplemented, "not here")

// OnTopicEvent implements AppCallback.
func (f *fake) OnTopicEvent(ctx context.Context, r *rtv1.TopicEventRequest) (*rtv1.TopicEventResponse, error) {
	if f.event == nil {
		return nil, errUnimplemented
	}
	return f.event(ctx, r)
}

// OnBulkTopicEvent implements AppCallback.
func (f *fake) OnBulkTopicEvent(ctx context.Context, r *rtv1.TopicEventBulkRequest) (*rtv1.TopicEventBulkResponse, error) {
	if f.bulk == nil {
		return nil, errUnimplemented
	}
	return f.bulk(ctx, r)
}

// OnBindingEvent implements AppCallback.
func (f *fake) OnBindingEvent(ctx context.Context, r *rtv1.BindingEventRequest) (*rtv1.BindingEventResponse, error) {
	if f.binding == nil {
		return nil, errUnimplemented
	}
	return f.binding(ctx, r)
}

// ListTopicSubscriptions implements AppCallback.
func (f *fake) ListTopicSubscriptions(ctx context.Context, _ *emptypb.Empty) (*rtv1.ListTopicSubscriptionsResponse, error) {
	if f.topics == nil {
		return nil, errUnimplemented
	}
	return f.topics(ctx)
}

// ListInputBindings implements AppCallback.
func (f *fake) ListInputBindings(ctx context.Context, _ *emptypb.Empty) (*rtv1.ListInputBindingsResponse, error) {
	if f.bindings == nil {
		return nil, errUnimplemented
	}
	return f.bindings(ctx)
}

// alpha has the older method for a bulk.
type alpha struct {
	rtv1.UnimplementedAppCallbackAlphaServer
	bulk func(context.Context, *rtv1.TopicEventBulkRequest) (*rtv1.TopicEventBulkResponse, error)
}

// OnBulkTopicEventAlpha1 implements AppCallbackAlpha.
func (a *alpha) OnBulkTopicEventAlpha1(ctx context.Context, r *rtv1.TopicEventBulkRequest) (*rtv1.TopicEventBulkResponse, error) {
	return a.bulk(ctx, r)
}

// healthy is an app with the health service; sick makes it fail.
type healthy struct {
	rtv1.UnimplementedAppCallbackHealthCheckServer
	sick atomic.Bool
}

// HealthCheck implements AppCallbackHealthCheck.
func (h *healthy) HealthCheck(context.Context, *emptypb.Empty) (*rtv1.HealthCheckResponse, error) {
	if h.sick.Load() {
		return nil, errors.New("sick")
	}
	return &rtv1.HealthCheckResponse{}, nil
}

// start serves services at address until the test ends; stop ends it before.
func start(t testing.TB, address string, services []any, o ...grpc.ServerOption) (at string, stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(o...)
	for _, service := range services {
		switch v := service.(type) {
		case *fake:
			rtv1.RegisterAppCallbackServer(s, v)
		case *alpha:
			rtv1.RegisterAppCallbackAlphaServer(s, v)
		case *healthy:
			rtv1.RegisterAppCallbackHealthCheckServer(s, v)
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(l)
	}()
	stop = func() { s.Stop(); <-done }
	t.Cleanup(stop)
	return l.Addr().String(), stop
}

func dial(t testing.TB, address string, o appgrpc.Options) *appgrpc.Channel {
	t.Helper()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	o.Address = host
	if o.Port, err = strconv.Atoi(port); err != nil {
		t.Fatal(err)
	}
	c, err := appgrpc.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// connect serves services and makes a channel to them.
func connect(t testing.TB, o appgrpc.Options, services ...any) *appgrpc.Channel {
	t.Helper()
	address, _ := start(t, "127.0.0.1:0", services)
	return dial(t, address, o)
}

// says is an app that answers every event alike.
func says(s rtv1.TopicEventResponse_TopicEventResponseStatus, err error, md metadata.MD) *fake {
	return &fake{event: func(ctx context.Context, _ *rtv1.TopicEventRequest) (*rtv1.TopicEventResponse, error) {
		_ = grpc.SetTrailer(ctx, md)
		return &rtv1.TopicEventResponse{Status: s}, err
	}}
}

var orders = &app.Address{Path: "/orders", PubSub: "bus", Topic: "orders"}

func delivery(t testing.TB, n int) *cloudevents.Delivery {
	t.Helper()
	raw := fmt.Appendf(nil, `{"specversion":"1.0","id":"%d","source":"/s","type":"t","traceparent":"%s","datacontenttype":"text/plain","data":"hello %d"}`, n, parent, n)
	return &cloudevents.Delivery{Body: raw, Event: scan(t, string(raw))}
}

// short is an outcome in one line.
func short(o cloudevents.Outcome) string {
	s := o.Verdict.String()
	if o.Discard {
		s += ", no letter"
	}
	if o.Err != nil {
		s += " (" + fault.KindOf(o.Err).String() + ")"
	}
	if o.After > 0 {
		s += " after " + o.After.Round(time.Second).String()
	}
	if errors.Is(o.Err, resilience.ErrOpen) {
		s += ", no try"
	}
	return s
}

package contract

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
)

// grpcCall is one call that reached a gRPC app: the one message that it had,
// and what came with it.
type grpcCall struct {
	md      metadata.MD
	event   *rtv1.TopicEventRequest
	bulk    *rtv1.TopicEventBulkRequest
	binding *rtv1.BindingEventRequest
	at      time.Time
}

// grpcApp serves Dapr's callbacks. Calls are kept as "event PATH", "bulk PATH",
// "binding NAME", and by their method's name where they carry nothing. A method
// without an answer here is not implemented.
type grpcApp struct {
	rtv1.UnimplementedAppCallbackServer
	rtv1.UnimplementedAppCallbackAlphaServer
	rtv1.UnimplementedAppCallbackHealthCheckServer
	port int

	topics  []*rtv1.TopicSubscription
	inputs  []string
	event   func(ctx context.Context, c grpcCall, n int) (*rtv1.TopicEventResponse, error) // n counts the calls of a key, from 1
	bulk    func(c grpcCall, n int) (*rtv1.TopicEventBulkResponse, error)
	alpha   bool // bulks by the older name only
	binding func(c grpcCall, n int) (*rtv1.BindingEventResponse, error)
	health  func(n int) error
	list    func(n int) error // an error of ListTopicSubscriptions

	mu    sync.Mutex
	calls map[string][]grpcCall
}

// serve starts the app on a port of its own.
func (a *grpcApp) serve(t *testing.T, options ...grpc.ServerOption) *grpcApp {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.serveOn(l, options...))
	return a
}

func (a *grpcApp) serveOn(l net.Listener, options ...grpc.ServerOption) (stop func()) {
	a.port = l.Addr().(*net.TCPAddr).Port
	srv := grpc.NewServer(options...)
	rtv1.RegisterAppCallbackServer(srv, a)
	rtv1.RegisterAppCallbackAlphaServer(srv, a)
	rtv1.RegisterAppCallbackHealthCheckServer(srv, a)
	var wg sync.WaitGroup
	wg.Go(func() { srv.Serve(l) }) // it ends with Stop
	return func() {
		srv.Stop()
		wg.Wait()
	}
}

func (a *grpcApp) keep(ctx context.Context, key string, c grpcCall) (grpcCall, int) {
	c.md, _ = metadata.FromIncomingContext(ctx)
	c.at = time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.calls == nil {
		a.calls = map[string][]grpcCall{}
	}
	a.calls[key] = append(a.calls[key], c)
	return c, len(a.calls[key])
}

func (a *grpcApp) got(key string) []grpcCall {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.calls[key]
}

func (a *grpcApp) wait(t *testing.T, key string, n int) []grpcCall {
	t.Helper()
	eventually(t, key, func() bool { return len(a.got(key)) >= n })
	return a.got(key)
}

func lacking() error { return status.Error(codes.Unimplemented, "no such method") }

func (a *grpcApp) ListTopicSubscriptions(ctx context.Context, _ *emptypb.Empty) (*rtv1.ListTopicSubscriptionsResponse, error) {
	_, n := a.keep(ctx, "ListTopicSubscriptions", grpcCall{})
	if a.list != nil {
		if err := a.list(n); err != nil {
			return nil, err
		}
	}
	if a.topics == nil {
		return nil, lacking()
	}
	return &rtv1.ListTopicSubscriptionsResponse{Subscriptions: a.topics}, nil
}

func (a *grpcApp) ListInputBindings(ctx context.Context, _ *emptypb.Empty) (*rtv1.ListInputBindingsResponse, error) {
	a.keep(ctx, "ListInputBindings", grpcCall{})
	if a.inputs == nil {
		return nil, lacking()
	}
	return &rtv1.ListInputBindingsResponse{Bindings: a.inputs}, nil
}

func (a *grpcApp) OnTopicEvent(ctx context.Context, r *rtv1.TopicEventRequest) (*rtv1.TopicEventResponse, error) {
	c, n := a.keep(ctx, "event "+r.GetPath(), grpcCall{event: r})
	if a.event == nil {
		return &rtv1.TopicEventResponse{}, nil
	}
	return a.event(ctx, c, n)
}

func (a *grpcApp) OnBulkTopicEvent(ctx context.Context, r *rtv1.TopicEventBulkRequest) (*rtv1.TopicEventBulkResponse, error) {
	if a.bulk == nil || a.alpha {
		a.keep(ctx, "no bulk", grpcCall{})
		return nil, lacking()
	}
	return a.bulk(a.keep(ctx, "bulk "+r.GetPath(), grpcCall{bulk: r}))
}

func (a *grpcApp) OnBulkTopicEventAlpha1(ctx context.Context, r *rtv1.TopicEventBulkRequest) (*rtv1.TopicEventBulkResponse, error) {
	if a.bulk == nil || !a.alpha {
		return nil, lacking()
	}
	return a.bulk(a.keep(ctx, "bulk "+r.GetPath(), grpcCall{bulk: r}))
}

func (a *grpcApp) OnBindingEvent(ctx context.Context, r *rtv1.BindingEventRequest) (*rtv1.BindingEventResponse, error) {
	c, n := a.keep(ctx, "binding "+r.GetName(), grpcCall{binding: r})
	if a.binding == nil {
		return &rtv1.BindingEventResponse{}, nil
	}
	return a.binding(c, n)
}

func (a *grpcApp) HealthCheck(ctx context.Context, _ *emptypb.Empty) (*rtv1.HealthCheckResponse, error) {
	_, n := a.keep(ctx, "HealthCheck", grpcCall{})
	if a.health == nil {
		return nil, lacking()
	}
	return &rtv1.HealthCheckResponse{}, a.health(n)
}

// topic is a subscription with one path for everything.
func topic(bus, name, path string) *rtv1.TopicSubscription {
	return &rtv1.TopicSubscription{PubsubName: bus, Topic: name, Routes: &rtv1.TopicRoutes{Default: path}}
}

// said is an answer of OnTopicEvent.
func said(s rtv1.TopicEventResponse_TopicEventResponseStatus) (*rtv1.TopicEventResponse, error) {
	return &rtv1.TopicEventResponse{Status: s}, nil
}

// startGRPC starts a sidecar beside the app and a client of its API.
func startGRPC(t *testing.T, a *grpcApp, s setup) (*sidecar, rtv1.DaprClient) {
	t.Helper()
	if a != nil {
		s.app = a.port
		s.flags = append([]string{"--app-protocol", "grpc"}, s.flags...)
	}
	sc := start(t, s)
	return sc, rtv1.NewDaprClient(sc.dial(t))
}

// dial connects to the gRPC API.
func (sc *sidecar) dial(t *testing.T, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	return dialAt(t, "passthrough:///"+sc.address(t, "gRPC server listening"), options...)
}

func dialAt(t *testing.T, address string, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	options = append([]grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}, options...)
	conn, err := grpc.NewClient(address, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// emit publishes JSON over gRPC.
func emit(t *testing.T, c rtv1.DaprClient, bus, topic, json string) {
	t.Helper()
	_, err := c.PublishEvent(t.Context(), &rtv1.PublishEventRequest{
		PubsubName: bus, Topic: topic, Data: []byte(json), DataContentType: "application/json",
	})
	if err != nil {
		t.Fatalf("publish to %s/%s: %v", bus, topic, err)
	}
}

// want is what an error of the API has to say. Its empty fields are not looked
// at.
type want struct {
	code                       codes.Code
	reason, resource, kind, in string // in: part of the message
}

func (w want) check(t *testing.T, err error) {
	t.Helper()
	s := status.Convert(err)
	if s.Code() != w.code {
		t.Fatalf("code %s, want %s: %v", s.Code(), w.code, err)
	}
	if w.code == codes.OK {
		return
	}
	info, resource := &errdetails.ErrorInfo{}, &errdetails.ResourceInfo{}
	for _, d := range s.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			info = d
		case *errdetails.ResourceInfo:
			resource = d
		}
	}
	if info.GetDomain() != "dapr.io" || w.reason != "" && info.GetReason() != w.reason {
		t.Errorf("reason %q of %q, want %q", info.GetReason(), info.GetDomain(), w.reason)
	}
	if w.kind != "" && (resource.GetResourceType() != w.kind || resource.GetResourceName() != w.resource) {
		t.Errorf("resource %v, want %s %s", resource, w.kind, w.resource)
	}
	if !strings.Contains(s.Message(), w.in) || s.Message() == "" {
		t.Errorf("message %q, want %q in it", s.Message(), w.in)
	}
}

// eachBus makes the subscriptions for both brokers, "/BUS" before their paths.
func eachBus(list ...*rtv1.TopicSubscription) []*rtv1.TopicSubscription {
	var out []*rtv1.TopicSubscription
	for _, bus := range []string{"mem", "db"} {
		for _, s := range list {
			sub := topic(bus, s.GetTopic(), fmt.Sprintf("/%s%s", bus, s.GetRoutes().GetDefault()))
			sub.Metadata, sub.DeadLetterTopic, sub.BulkSubscribe = s.GetMetadata(), s.GetDeadLetterTopic(), s.GetBulkSubscribe()
			out = append(out, sub)
		}
	}
	return out
}

func code(err error) codes.Code { return status.Code(err) }

// infoOf is the metadata in the details of an error.
func infoOf(err error) map[string]string {
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			return info.GetMetadata()
		}
	}
	return nil
}

func setTrailer(ctx context.Context, pairs ...string) {
	if err := grpc.SetTrailer(ctx, metadata.Pairs(pairs...)); err != nil {
		panic(err) // not in a call
	}
}

// oldName is the client under the deprecated name of bulk publish, which apps
// still call.
type oldName interface {
	BulkPublishEventAlpha1(context.Context, *rtv1.BulkPublishRequest, ...grpc.CallOption) (*rtv1.BulkPublishResponse, error)
}

func byOldName(c rtv1.DaprClient) oldName { return c }

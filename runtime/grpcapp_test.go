package runtime_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/penstock-io/penstock/runtime"
)

// grpcApp is a user's program that speaks gRPC.
type grpcApp struct {
	rtv1.UnimplementedAppCallbackServer
	topics   []*rtv1.TopicSubscription
	bindings []string
	reply    *rtv1.BindingEventResponse
	say      func(*rtv1.TopicEventRequest) (rtv1.TopicEventResponse_TopicEventResponseStatus, error)
	events   chan *rtv1.TopicEventRequest
	ticks    chan *rtv1.BindingEventRequest
}

func (a *grpcApp) ListTopicSubscriptions(context.Context, *emptypb.Empty) (*rtv1.ListTopicSubscriptionsResponse, error) {
	return &rtv1.ListTopicSubscriptionsResponse{Subscriptions: a.topics}, nil
}

func (a *grpcApp) ListInputBindings(context.Context, *emptypb.Empty) (*rtv1.ListInputBindingsResponse, error) {
	return &rtv1.ListInputBindingsResponse{Bindings: a.bindings}, nil
}

func (a *grpcApp) OnTopicEvent(_ context.Context, r *rtv1.TopicEventRequest) (*rtv1.TopicEventResponse, error) {
	a.events <- r
	if a.say == nil {
		return &rtv1.TopicEventResponse{}, nil
	}
	word, err := a.say(r)
	return &rtv1.TopicEventResponse{Status: word}, err
}

func (a *grpcApp) OnBindingEvent(_ context.Context, r *rtv1.BindingEventRequest) (*rtv1.BindingEventResponse, error) {
	a.ticks <- r
	if a.reply == nil {
		return &rtv1.BindingEventResponse{}, nil
	}
	return a.reply, nil
}

// startGRPC runs an instance in front of the app.
func startGRPC(t *testing.T, a *grpcApp, documents string) *instance {
	t.Helper()
	a.events, a.ticks = make(chan *rtv1.TopicEventRequest, 100), make(chan *rtv1.BindingEventRequest, 100)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	rtv1.RegisterAppCallbackServer(s, a)
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() { s.Stop(); <-done })
	in, o := prepare(t, nil, documents)
	o.App = runtime.AppOptions{Port: l.Addr().(*net.TCPAddr).Port, Protocol: "grpc"}
	in.run(t, o)
	return in
}

func next[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(30 * time.Second):
		t.Fatal("nothing was delivered")
		panic("unreachable")
	}
}

func TestPublishedEventReachesTheGRPCApp(t *testing.T) {
	t.Parallel()
	a := &grpcApp{
		topics: []*rtv1.TopicSubscription{
			{PubsubName: "bus", Topic: "plain"},
			{PubsubName: "bus", Topic: "orders", DeadLetterTopic: "graves", Routes: &rtv1.TopicRoutes{
				Rules: []*rtv1.TopicRule{{Match: "event.data.total > 100", Path: "large"}}, Default: "small",
			}},
			{PubsubName: "bus", Topic: "graves", Routes: &rtv1.TopicRoutes{Default: "dead"}},
		},
		say: func(r *rtv1.TopicEventRequest) (rtv1.TopicEventResponse_TopicEventResponseStatus, error) {
			if r.GetPath() == "large" {
				return rtv1.TopicEventResponse_DROP, nil
			}
			return 0, nil
		},
	}
	in := startGRPC(t, a, bus)
	in.publish(t, "plain", `{"total": 1.0}`)
	if e := next(t, a.events); e.GetPath() != "" || e.GetTopic() != "plain" || e.GetPubsubName() != "bus" || string(e.GetData()) != `{"total": 1.0}` {
		t.Errorf("event is %v", e)
	}
	in.publish(t, "orders", `{"total":5}`)
	if e := next(t, a.events); e.GetPath() != "small" {
		t.Errorf("event is %v", e)
	}
	in.publish(t, "orders", `{"total":250}`)
	large, dead := next(t, a.events), next(t, a.events)
	if large.GetPath() != "large" || dead.GetPath() != "dead" || dead.GetId() != large.GetId() || dead.GetTopic() != "graves" {
		t.Errorf("dropped %v, dead %v", large, dead)
	}
}

// TestUnimplementedIsDropped wants the event dropped, not dead-lettered, and
// told with its id.
func TestUnimplementedIsDropped(t *testing.T) {
	t.Parallel()
	a := &grpcApp{
		topics: []*rtv1.TopicSubscription{
			{PubsubName: "bus", Topic: "orders", DeadLetterTopic: "graves"},
			{PubsubName: "bus", Topic: "graves"},
		},
		say: func(r *rtv1.TopicEventRequest) (rtv1.TopicEventResponse_TopicEventResponseStatus, error) {
			if r.GetTopic() == "orders" && string(r.GetData()) == "1" {
				return 0, status.Error(codes.Unimplemented, "no handler")
			}
			return 0, nil
		},
	}
	in := startGRPC(t, a, bus)
	in.publish(t, "orders", "1")
	dropped := next(t, a.events)
	in.logged(t, 1, dropped.GetId())
	in.publish(t, "orders", "2")
	if e := next(t, a.events); string(e.GetData()) != "2" {
		t.Errorf("next is %v, want the second event", e)
	}
	if n := strings.Count(in.log.String(), dropped.GetId()); n != 1 || strings.Contains(in.log.String(), "dead-lettered") {
		t.Errorf("told %d times", n)
	}
}

func TestListedBindingReachesTheGRPCApp(t *testing.T) {
	t.Parallel()
	a := &grpcApp{bindings: []string{"tick"}, reply: &rtv1.BindingEventResponse{To: []string{"store"}, Data: []byte("from the app")}}
	in := startGRPC(t, a, tick+store)
	if r := next(t, a.ticks); r.GetName() != "tick" {
		t.Errorf("request is %v", r)
	}
	eventually(t, "the output is written", func() bool {
		files, _ := filepath.Glob(filepath.Join(in.dir, "out", "*"))
		if len(files) == 0 {
			return false
		}
		b, err := os.ReadFile(files[0])
		return err == nil && string(b) == "from the app"
	})
}

func TestOtherBindingsDoNotReachTheGRPCApp(t *testing.T) {
	t.Parallel()
	in := startGRPC(t, &grpcApp{}, tick)
	in.logged(t, 1, "App does not take events of input binding tick")
}

package runtime_test

import (
	"context"
	"net"
	"strings"
	"testing"

	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/penstock-io/penstock/test/fake/collector"
)

// tracedApp is a grpcApp that keeps what stands beside events.
type tracedApp struct {
	grpcApp
	beside chan metadata.MD
}

func (a *tracedApp) OnTopicEvent(ctx context.Context, r *rtv1.TopicEventRequest) (*rtv1.TopicEventResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	a.beside <- md
	return a.grpcApp.OnTopicEvent(ctx, r)
}

// TestOneTraceOverGRPC: the API and the app speak gRPC.
func TestOneTraceOverGRPC(t *testing.T) {
	t.Parallel()
	c := collector.GRPC(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a := &tracedApp{beside: make(chan metadata.MD, 10)}
	a.topics = []*rtv1.TopicSubscription{{PubsubName: "bus", Topic: "orders"}}
	a.events = make(chan *rtv1.TopicEventRequest, 10)
	s := grpc.NewServer()
	rtv1.RegisterAppCallbackServer(s, a)
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() { s.Stop(); <-done })
	in := traced(t, &app{port: l.Addr().(*net.TCPAddr).Port, protocol: "grpc"}, "shop", t.TempDir(), `otel: {endpointAddress: "`+c.URL+`"}`, bus)
	conn, err := grpc.NewClient(in.rpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	for _, pair := range [][]string{
		{"traceparent", "00-" + sentTrace + "-" + sentSpan + "-01", "baggage", "tenant=blue"},
		{"grpc-trace-bin", "\x00\x00\x0a\xf7\x65\x19\x16\xcd\x43\xdd\x84\x48\xeb\x21\x1c\x80\x31\x9c\x01\xb7\xad\x6b\x71\x69\x20\x33\x31\x02\x01"},
	} {
		ctx := metadata.AppendToOutgoingContext(t.Context(), pair...)
		if _, err := rtv1.NewDaprClient(conn).PublishEvent(ctx, &rtv1.PublishEventRequest{PubsubName: "bus", Topic: "orders", Data: []byte(`1`)}); err != nil {
			t.Fatal(err)
		}
		md := next(t, a.beside)
		if parent := strings.Join(md["traceparent"], " "); !strings.HasPrefix(parent, "00-"+sentTrace+"-") || len(md["grpc-trace-bin"]) != 1 {
			t.Errorf("after %s the app got %v", pair[0], md)
		}
		if len(pair) > 2 && strings.Join(md["baggage"], " ") != "tenant=blue" {
			t.Errorf("the app got the baggage %q", md["baggage"])
		}
	}
	// Two traces look alike: of each kind the span that is below the one before.
	server := find(t, c, "shop", "server", "/dapr.proto.runtime.v1.Dapr/PublishEvent")
	below(t, server, sentTrace, sentSpan)
	if a := server.Attributes; a["rpc.system"] != "grpc" || a["rpc.grpc.status_code"] != "0" {
		t.Errorf("attributes %v", a)
	}
	produced := findBelow(t, c, server, "producer", "publish orders")
	findBelow(t, c, produced, "consumer", "pubsub/orders")
}

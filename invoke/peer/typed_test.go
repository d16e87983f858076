package peer_test

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/invoke"
	"github.com/penstock-io/penstock/invoke/names"
	"github.com/penstock-io/penstock/invoke/peer"
	"github.com/penstock-io/penstock/invoke/proxy"
)

// typedApp is an app that passes calls of its own services on.
type typedApp struct {
	appFunc
	forward func(ctx context.Context, c *proxy.Call) error
}

// Forward implements invoke.Forwarder.
func (a typedApp) Forward(ctx context.Context, c *proxy.Call) error { return a.forward(ctx, c) }

// serveGRPC runs a server until the test ends and returns a connection.
func serveGRPC(t *testing.T, srv *grpc.Server) *grpc.ClientConn {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go srv.Serve(l) // it ends with Stop
	t.Cleanup(srv.Stop)
	return dialGRPC(t, l.Addr().String())
}

func dialGRPC(t *testing.T, address string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithIdleTimeout(0))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// listenTyped serves an app called callee.
func listenTyped(t *testing.T, a invoke.App, namespace string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	s := peer.NewServer(peer.ServerOptions{AppID: "callee", Namespace: namespace, App: a, Drain: 10 * time.Second})
	go func() { ended <- s.Run(ctx, l) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

// Metadata as a stock sidecar sends it, which names the type of its messages too.
func TestTypedCallsOfAStockSidecar(t *testing.T) {
	t.Parallel()
	app := serveGRPC(t, grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, ss grpc.ServerStream) error {
		in := new(wrapperspb.StringValue)
		if err := ss.RecvMsg(in); err != nil {
			return err
		}
		md, _ := metadata.FromIncomingContext(ss.Context())
		return ss.SendMsg(wrapperspb.String(in.Value + " of " + strings.Join(md["dapr-caller-app-id"], ",") + strings.Join(md["dapr-app-id"], ",")))
	})))
	callee := typedApp{forward: func(ctx context.Context, c *proxy.Call) error { return c.To(ctx, app, c.Metadata) }}
	in, nowhere := dialGRPC(t, listenTyped(t, callee, "ns")), dialGRPC(t, listenTyped(t, callee, ""))
	for _, row := range []struct {
		conn *grpc.ClientConn
		ids  []string
		want codes.Code
	}{
		{in, []string{"callee"}, codes.OK},
		{in, []string{"callee.ns"}, codes.OK},
		{in, []string{"callee.other"}, codes.NotFound},
		{in, []string{"other"}, codes.NotFound},
		{in, nil, codes.Unimplemented},
		{in, []string{"callee", "other"}, codes.Unimplemented},
		{nowhere, []string{"callee"}, codes.OK},
		{nowhere, []string{"callee.default"}, codes.OK},
		{nowhere, []string{"other.default"}, codes.NotFound},
	} {
		md := metadata.MD{"dapr-app-id": row.ids, "dapr-caller-app-id": {"caller"}}
		out := new(wrapperspb.StringValue)
		err := row.conn.Invoke(metadata.NewOutgoingContext(t.Context(), md), "/a.B/C", wrapperspb.String("hello"), out, grpc.CallContentSubtype("proto"))
		if status.Code(err) != row.want || err == nil && out.Value != "hello of caller" {
			t.Errorf("%q: %q, %v", row.ids, out.Value, err)
		}
	}
}

// Whoever could call them would hand the app events that no broker has seen.
func TestTypedCallsOfCallbacksAreRefused(t *testing.T) {
	t.Parallel()
	callee := typedApp{forward: func(context.Context, *proxy.Call) error { t.Error("the app got it"); return nil }}
	conn := dialGRPC(t, listenTyped(t, callee, ""))
	for method, want := range map[string]codes.Code{
		"/dapr.proto.runtime.v1.AppCallback/OnTopicEvent": codes.PermissionDenied, "/dapr.proto.runtime.v1.AppCallbackHealthCheck/HealthCheck": codes.PermissionDenied,
		"/a.B/%43": codes.InvalidArgument, "/a.B/../C": codes.InvalidArgument, "//a.B/C": codes.InvalidArgument,
	} {
		ctx := metadata.AppendToOutgoingContext(t.Context(), "dapr-app-id", "callee")
		if err := conn.Invoke(ctx, method, wrapperspb.String(""), new(wrapperspb.StringValue), grpc.CallContentSubtype("proto")); status.Code(err) != want {
			t.Errorf("%s: %v, want %s", method, err, want)
		}
	}
}

// From the client of one sidecar through the server of another, and what that one
// says when its app cannot be called.
func TestTypedCallsBetweenSidecars(t *testing.T) {
	t.Parallel()
	c := client(t)
	call := func(at string) error {
		t.Helper()
		conn := serveGRPC(t, grpc.NewServer(grpc.ForceServerCodecV2(proxy.Codec()), grpc.UnknownServiceHandler(func(_ any, ss grpc.ServerStream) error {
			err := c.Forward(ss.Context(), at, names.App{ID: "callee"}, proxy.New(ss))
			if !proxy.IsAnswer(err) && err != nil {
				return status.Errorf(codes.DataLoss, "no answer: %v", err)
			}
			return err
		})))
		return conn.Invoke(t.Context(), "/a.B/C", wrapperspb.String("hello"), new(wrapperspb.StringValue))
	}
	for name, row := range map[string]struct {
		app  invoke.App
		want codes.Code
		text string
	}{
		"no app":       {nil, codes.FailedPrecondition, "app channel is not initialized"},
		"its own":      {typedApp{forward: func(context.Context, *proxy.Call) error { return status.Error(codes.Aborted, "mine") }}, codes.Aborted, "mine"},
		"away":         {typedApp{forward: func(context.Context, *proxy.Call) error { return fault.New(fault.Unavailable, "away") }}, codes.Unavailable, "error invoking app channel: away"},
		"other faults": {typedApp{forward: func(context.Context, *proxy.Call) error { return fault.New(fault.Internal, "odd") }}, codes.Internal, "odd"},
		"a panic":      {typedApp{forward: func(context.Context, *proxy.Call) error { panic("ours") }}, codes.Internal, "internal error"},
	} {
		if err := call(listenTyped(t, row.app, "ns")); status.Code(err) != row.want || !strings.Contains(err.Error(), row.text) {
			t.Errorf("%s: %v", name, err)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := call(l.Addr().String()); status.Code(err) != codes.DataLoss {
		t.Errorf("nobody listens: %v", err)
	}
}

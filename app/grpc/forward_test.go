package grpc_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	appgrpc "github.com/penstock-io/penstock/app/grpc"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/invoke/proxy"
)

// caller returns a connection whose calls go through f.
func caller(t *testing.T, f func(context.Context, *proxy.Call) error) *grpc.ClientConn {
	t.Helper()
	at, _ := start(t, "127.0.0.1:0", nil, grpc.ForceServerCodecV2(proxy.Codec()), grpc.UnknownServiceHandler(func(_ any, ss grpc.ServerStream) error {
		return f(ss.Context(), proxy.New(ss))
	}))
	conn, err := grpc.NewClient("passthrough:///"+at, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func TestForwardToAGRPCApp(t *testing.T) {
	t.Parallel()
	const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	at, stop := start(t, "127.0.0.1:0", nil, grpc.UnknownServiceHandler(func(_ any, ss grpc.ServerStream) error {
		in := new(wrapperspb.StringValue)
		if err := ss.RecvMsg(in); err != nil {
			return err
		}
		md, _ := metadata.FromIncomingContext(ss.Context())
		if diff := cmp.Diff([][]string{{"app-token"}, {trace}, {"1"}}, [][]string{md["dapr-api-token"], md["traceparent"], md["x-a"]}); diff != "" {
			t.Error(diff)
		}
		if len(md["grpc-trace-bin"]) != 1 {
			t.Errorf("binary trace: %q", md["grpc-trace-bin"])
		}
		if method, _ := grpc.MethodFromServerStream(ss); method != "/a.B/C" {
			t.Errorf("method %q", method)
		}
		return ss.SendMsg(wrapperspb.String("got " + in.Value))
	}))
	c := dial(t, at, appgrpc.Options{Token: "app-token"})
	failures := make(chan error, 1)
	conn := caller(t, func(ctx context.Context, call *proxy.Call) error {
		err := c.Forward(ctx, call)
		if err != nil && !proxy.IsAnswer(err) {
			failures <- err
			return status.Error(codes.DataLoss, "no answer")
		}
		return err
	})
	ctx := metadata.AppendToOutgoingContext(t.Context(), "dapr-api-token", "callers", "x-a", "1", "traceparent", trace)
	out := new(wrapperspb.StringValue)
	if err := conn.Invoke(ctx, "/a.B/C", wrapperspb.String("hello"), out); err != nil || out.Value != "got hello" {
		t.Errorf("%q, %v", out.Value, err)
	}
	stop()
	// A call that begins before the end of the connection is seen breaks with it.
	err := conn.Invoke(ctx, "/a.B/C", new(emptypb.Empty), out)
	for until := time.Now().Add(time.Minute); status.Code(err) == codes.Unavailable && time.Now().Before(until); {
		err = conn.Invoke(ctx, "/a.B/C", new(emptypb.Empty), out)
	}
	if status.Code(err) != codes.DataLoss {
		t.Fatalf("an app that is gone: %v", err)
	}
	if err := <-failures; fault.KindOf(err) != fault.Unavailable || !strings.Contains(err.Error(), "call app at /a.B/C") {
		t.Error(err)
	}
}

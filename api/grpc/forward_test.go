package grpc_test

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/penstock-io/penstock/api"
	apigrpc "github.com/penstock-io/penstock/api/grpc"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/invoke/proxy"
)

// Forward implements api.Forwarder.
func (i *instance) Forward(ctx context.Context, target string, c *proxy.Call) error {
	return i.forward(ctx, target, c)
}

func TestCallsOfOtherAppsServices(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		ids     []string
		surface api.Surface
		err     error
		code    codes.Code
		text    string
	}{
		"an answer that fails":  {ids: []string{"other"}, err: status.Error(codes.Unimplemented, "in the app's words"), code: codes.Unimplemented, text: "in the app's words"},
		"not reached":           {ids: []string{"other"}, err: fault.New(fault.Unavailable, "away"), code: codes.Unavailable, text: "failed to invoke, id: other, err: away"},
		"no such app":           {ids: []string{"other"}, err: fault.New(fault.NotFound, "nobody"), code: codes.Internal, text: "failed to invoke, id: other, err: nobody"},
		"no app id":             {ids: []string{"o/r"}, err: fault.New(fault.Invalid, "odd"), code: codes.InvalidArgument, text: "odd"},
		"none named":            {code: codes.Unimplemented, text: "name the app in the metadata dapr-app-id"},
		"two named":             {ids: []string{"a", "b"}, code: codes.Unimplemented, text: "name the app in the metadata dapr-app-id, once"},
		"a rule against invoke": {ids: []string{"other"}, surface: api.Surface{Denied: []api.Rule{{Name: "invoke", Version: "v1", Protocol: "grpc"}}}, code: codes.Unimplemented, text: "forbids"},
	} {
		i := open(t)
		i.surface = row.surface
		i.forward = func(_ context.Context, target string, _ *proxy.Call) error {
			if target != row.ids[0] {
				t.Errorf("%s: target %q", name, target)
			}
			return row.err
		}
		conn := serve(t, i, apigrpc.Options{}).conn(t)
		ctx := metadata.NewOutgoingContext(t.Context(), metadata.MD{"dapr-app-id": row.ids})
		err := conn.Invoke(ctx, "/other.Service/Method", wrapperspb.String("x"), new(wrapperspb.StringValue))
		if status.Code(err) != row.code || !strings.Contains(err.Error(), row.text) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A call through the API's server, whose own services stay what they were.
func TestAnotherAppsAnswer(t *testing.T) {
	t.Parallel()
	i := open(t)
	app := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, ss grpc.ServerStream) error {
		in := new(wrapperspb.StringValue)
		if err := ss.RecvMsg(in); err != nil {
			return err
		}
		return ss.SendMsg(wrapperspb.String("got " + in.Value))
	}))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	var wg sync.WaitGroup
	wg.Go(func() { app.Serve(l) }) // it ends with Stop
	to, err := grpc.NewClient("passthrough:///"+l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	t.Cleanup(func() {
		to.Close()
		app.Stop()
		wg.Wait()
	})
	i.forward = func(ctx context.Context, _ string, c *proxy.Call) error { return c.To(ctx, to, c.Metadata) }
	conn := serve(t, i, apigrpc.Options{MaxBody: 1000}).conn(t)
	ctx := metadata.AppendToOutgoingContext(t.Context(), "dapr-app-id", "other")
	out := new(wrapperspb.StringValue)
	if err := conn.Invoke(ctx, "/other.Service/Method", wrapperspb.String("x"), out); err != nil || out.Value != "got x" {
		t.Errorf("%q, %v", out.Value, err)
	}
	err = conn.Invoke(ctx, "/other.Service/Method", wrapperspb.String(strings.Repeat("x", 2000)), out)
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a message over the limit: %v", err)
	}
	if _, err := services(ctx, conn); err != nil {
		t.Errorf("reflection: %v", err)
	}
}

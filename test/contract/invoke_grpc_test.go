package contract

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// typedApp is an app with a service of its own.
type typedApp struct {
	pb.UnimplementedTestServiceServer
	seen  chan metadata.MD
	ended chan error // how calls that wait for the caller ended
}

// UnaryCall answers with what came, or with the status that it asks for.
func (a *typedApp) UnaryCall(ctx context.Context, in *pb.SimpleRequest) (*pb.SimpleResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	a.seen <- md
	if code := codes.Code(in.GetResponseStatus().GetCode()); code != codes.OK {
		s, err := status.New(code, "as asked for").WithDetails(&errdetails.ErrorInfo{Reason: "R"})
		if err != nil {
			return nil, err
		}
		return nil, s.Err()
	}
	if err := grpc.SetTrailer(ctx, metadata.Pairs("x-tail", "t")); err != nil {
		return nil, err
	}
	return &pb.SimpleResponse{Payload: in.GetPayload()}, nil
}

// StreamingOutputCall sends as many messages as it is asked for.
func (a *typedApp) StreamingOutputCall(in *pb.StreamingOutputCallRequest, s pb.TestService_StreamingOutputCallServer) error {
	for _, p := range in.GetResponseParameters() {
		if err := s.Send(&pb.StreamingOutputCallResponse{Payload: &pb.Payload{Body: make([]byte, p.GetSize())}}); err != nil {
			return err
		}
	}
	return nil
}

// StreamingInputCall counts.
func (a *typedApp) StreamingInputCall(s pb.TestService_StreamingInputCallServer) error {
	sum := 0
	for {
		in, err := s.Recv()
		if err == io.EOF {
			return s.SendAndClose(&pb.StreamingInputCallResponse{AggregatedPayloadSize: int32(sum)})
		}
		if err != nil {
			return err
		}
		sum += len(in.GetPayload().GetBody())
	}
}

// FullDuplexCall answers each message at once.
func (a *typedApp) FullDuplexCall(s pb.TestService_FullDuplexCallServer) error {
	for {
		in, err := s.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			a.ended <- s.Context().Err()
			return err
		}
		if err := s.Send(&pb.StreamingOutputCallResponse{Payload: in.GetPayload()}); err != nil {
			return err
		}
	}
}

// typedPair starts the sidecar of a gRPC app and one without an app, that find
// each other in a database.
func typedPair(t *testing.T) (a *typedApp, caller, callee *sidecar) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a = &typedApp{seen: make(chan metadata.MD, 100), ended: make(chan error, 1)}
	srv := grpc.NewServer()
	pb.RegisterTestServiceServer(srv, a)
	var wg sync.WaitGroup
	wg.Go(func() { srv.Serve(l) }) // it ends with Stop
	t.Cleanup(func() {
		srv.Stop()
		wg.Wait()
	})
	names := "apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: c}\nspec:\n  nameResolution:\n    component: sqlite\n" +
		"    configuration: {connectionString: " + t.TempDir() + "/names.db}\n"
	callee = start(t, setup{
		id: "callee", app: l.Addr().(*net.TCPAddr).Port, config: names, env: []string{"APP_API_TOKEN=app-token", "NAMESPACE=ns"}, flags: []string{"--app-protocol", "grpc"},
	})
	caller = start(t, setup{id: "caller", config: names, env: []string{"NAMESPACE=ns"}})
	return a, caller, callee
}

func to(ctx context.Context, app string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "dapr-app-id", app)
}

// Calls of an app's own service through two sidecars, through its own one alone,
// and of all kinds.
func TestTypedCallsThroughTwoSidecars(t *testing.T) {
	t.Parallel()
	a, caller, callee := typedPair(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	c := pb.NewTestServiceClient(caller.dial(t))
	eventually(t, "the caller finds the callee", func() bool {
		_, err := c.UnaryCall(to(ctx, "callee"), &pb.SimpleRequest{})
		return err == nil
	})
	<-a.seen
	for way, row := range map[string]struct {
		c      pb.TestServiceClient
		id     string
		caller string
	}{
		"two":           {c, "callee", "caller"},
		"own namespace": {c, "callee.ns", "caller"},
		"own":           {pb.NewTestServiceClient(callee.dial(t)), "callee", "callee"},
	} {
		var trailer metadata.MD
		mine := metadata.AppendToOutgoingContext(to(ctx, row.id), "x-mine", "1", "dapr-caller-app-id", "a lie", "dapr-api-token", "callers")
		out, err := row.c.UnaryCall(mine, &pb.SimpleRequest{Payload: &pb.Payload{Body: []byte("hello")}}, grpc.Trailer(&trailer))
		if err != nil || string(out.GetPayload().GetBody()) != "hello" || len(trailer["x-tail"]) != 1 {
			t.Fatalf("%s: %v, %v, %v", way, out, err, trailer)
		}
		md := <-a.seen
		for key, want := range map[string]string{
			"x-mine": "1", "dapr-caller-app-id": row.caller, "dapr-callee-app-id": "callee", "dapr-api-token": "app-token", "dapr-caller-namespace": "ns",
		} {
			if got := strings.Join(md[key], ","); got != want {
				t.Errorf("%s: %s is %q, want %q", way, key, got, want)
			}
		}
		_, err = row.c.UnaryCall(to(ctx, row.id), &pb.SimpleRequest{ResponseStatus: &pb.EchoStatus{Code: int32(codes.Aborted)}})
		if s := status.Convert(err); s.Code() != codes.Aborted || s.Message() != "as asked for" || len(s.Details()) != 1 {
			t.Errorf("%s: %v", way, err)
		}
		<-a.seen
		_, err = row.c.EmptyCall(to(ctx, row.id), &pb.Empty{})
		if status.Code(err) != codes.Unimplemented || !strings.Contains(err.Error(), "EmptyCall") {
			t.Errorf("%s: %v", way, err)
		}
		checkTypedStreams(t, to(ctx, row.id), row.c, a)
	}
	_, err := c.UnaryCall(to(ctx, "nobody"), &pb.SimpleRequest{})
	if status.Code(err) != codes.Internal || !strings.Contains(err.Error(), "failed to invoke, id: nobody") {
		t.Errorf("%v", err)
	}
	if _, err := c.UnaryCall(ctx, &pb.SimpleRequest{}); status.Code(err) != codes.Unimplemented || !strings.Contains(err.Error(), "dapr-app-id") {
		t.Errorf("%v", err)
	}
}

func checkTypedStreams(t *testing.T, ctx context.Context, c pb.TestServiceClient, a *typedApp) {
	t.Helper()
	const count, size = 10, 1 << 20
	request := &pb.StreamingOutputCallRequest{}
	for range count {
		request.ResponseParameters = append(request.ResponseParameters, &pb.ResponseParameters{Size: size})
	}
	out, err := c.StreamingOutputCall(ctx, request)
	if err != nil {
		t.Fatal(err)
	}
	sum := 0
	for {
		m, err := out.Recv()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		sum += len(m.GetPayload().GetBody())
	}
	in, err := c.StreamingInputCall(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for range count {
		if err := in.Send(&pb.StreamingInputCallRequest{Payload: &pb.Payload{Body: make([]byte, size)}}); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := in.CloseAndRecv(); err != nil || got.GetAggregatedPayloadSize() != count*size || sum != count*size {
		t.Errorf("%v up, %d bytes down, %v", got, sum, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	talk, err := c.FullDuplexCall(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := talk.Send(&pb.StreamingOutputCallRequest{Payload: &pb.Payload{Body: []byte("x")}}); err != nil {
			t.Fatal(err)
		}
		if m, err := talk.Recv(); err != nil || string(m.GetPayload().GetBody()) != "x" {
			t.Fatalf("%v, %v", m, err)
		}
	}
	cancel()
	if err := <-a.ended; err != context.Canceled {
		t.Errorf("the app saw %v", err)
	}
}

// An app that speaks HTTP has no services.
func TestATypedCallOfAnAppThatSpeaksHTTP(t *testing.T) {
	t.Parallel()
	caller, _ := pair(t, http.NotFound)
	_, err := pb.NewTestServiceClient(caller.dial(t)).UnaryCall(to(t.Context(), "callee"), &pb.SimpleRequest{})
	if status.Code(err) != codes.Unimplemented || !strings.Contains(err.Error(), "the app speaks HTTP") {
		t.Errorf("%v", err)
	}
}

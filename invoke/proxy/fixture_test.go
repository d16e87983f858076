package proxy_test

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	pb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/penstock-io/penstock/invoke/proxy"
)

// service is an app with methods of all four kinds.
type service struct {
	pb.UnimplementedTestServiceServer
	unary  func(context.Context, *pb.SimpleRequest) (*pb.SimpleResponse, error)
	output func(*pb.StreamingOutputCallRequest, pb.TestService_StreamingOutputCallServer) error
	input  func(pb.TestService_StreamingInputCallServer) error
	duplex func(pb.TestService_FullDuplexCallServer) error
}

// UnaryCall implements the service.
func (s *service) UnaryCall(ctx context.Context, in *pb.SimpleRequest) (*pb.SimpleResponse, error) {
	return s.unary(ctx, in)
}

// StreamingOutputCall implements the service.
func (s *service) StreamingOutputCall(in *pb.StreamingOutputCallRequest, ss pb.TestService_StreamingOutputCallServer) error {
	return s.output(in, ss)
}

// StreamingInputCall implements the service.
func (s *service) StreamingInputCall(ss pb.TestService_StreamingInputCallServer) error {
	return s.input(ss)
}

// FullDuplexCall implements the service.
func (s *service) FullDuplexCall(ss pb.TestService_FullDuplexCallServer) error { return s.duplex(ss) }

// serve runs a server until the test ends and returns a connection to it.
func serve(t testing.TB, srv *grpc.Server) *grpc.ClientConn {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { srv.Serve(l) }) // it ends with Stop
	conn, err := grpc.NewClient("passthrough:///"+l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithIdleTimeout(0))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		srv.Stop()
		wg.Wait()
	})
	return conn
}

// direct serves s and returns a connection to it.
func direct(t testing.TB, s *service) *grpc.ClientConn {
	t.Helper()
	srv := grpc.NewServer(grpc.WaitForHandlers(true))
	pb.RegisterTestServiceServer(srv, s)
	return serve(t, srv)
}

// relay returns a connection to a server that passes everything on to another.
func relay(t testing.TB, to grpc.ClientConnInterface) *grpc.ClientConn {
	t.Helper()
	return serve(t, grpc.NewServer(grpc.WaitForHandlers(true), grpc.ForceServerCodecV2(proxy.Codec()),
		grpc.UnknownServiceHandler(func(_ any, ss grpc.ServerStream) error {
			c := proxy.New(ss)
			return c.To(ss.Context(), to, c.Metadata)
		})))
}

// through is a client that reaches s by two servers that pass on.
func through(t testing.TB, s *service) pb.TestServiceClient {
	t.Helper()
	return pb.NewTestServiceClient(relay(t, relay(t, direct(t, s))))
}

// limited is a context that holds on slow machines.
func limited(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func payload(n int) *pb.Payload { return &pb.Payload{Body: make([]byte, n)} }

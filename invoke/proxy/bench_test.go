package proxy_test

import (
	"context"
	"strconv"
	"testing"

	pb "google.golang.org/grpc/interop/grpc_testing"
)

// One unary call at a time: to the app, and through one and two servers that pass
// it on, as with one sidecar and with two.
func BenchmarkUnary(b *testing.B) {
	for _, size := range []int{100, 64 << 10} {
		app := direct(b, &service{unary: func(_ context.Context, in *pb.SimpleRequest) (*pb.SimpleResponse, error) {
			return &pb.SimpleResponse{Payload: in.GetPayload()}, nil
		}})
		one := relay(b, app)
		for _, way := range []struct {
			name string
			c    pb.TestServiceClient
		}{{"direct", pb.NewTestServiceClient(app)}, {"one", pb.NewTestServiceClient(one)}, {"two", pb.NewTestServiceClient(relay(b, one))}} {
			b.Run(strconv.Itoa(size)+"/"+way.name, func(b *testing.B) {
				b.ReportAllocs()
				in := &pb.SimpleRequest{Payload: payload(size)}
				for b.Loop() {
					if _, err := way.c.UnaryCall(b.Context(), in); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

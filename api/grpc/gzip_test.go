package grpc_test

import (
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"

	apigrpc "github.com/penstock-io/penstock/api/grpc"
)

// A client may compress; what a message unpacks to is bounded all the same.
func TestGzip(t *testing.T) {
	t.Parallel()
	i := open(t)
	c := serve(t, i, apigrpc.Options{MaxBody: 1 << 20}).dial(t, grpc.WithDefaultCallOptions(grpc.UseCompressor(gzip.Name)))
	if err := publish(t.Context(), c, "t", 100_000); err != nil {
		t.Error(err)
	}
	if e := i.broker.events(t); len(e) != 1 || len(e[0].Data()) != 100_000 {
		t.Errorf("%d events arrived", len(e))
	}
	want(t, publish(t.Context(), c, "t", 64<<20), codes.ResourceExhausted, "larger than max")
	if n := len(i.broker.events(t)); n != 1 {
		t.Errorf("%d events arrived", n)
	}
}

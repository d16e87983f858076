package grpc_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"

	appgrpc "github.com/penstock-io/penstock/app/grpc"
	"github.com/penstock-io/penstock/invoke/message"
)

// OnInvoke implements AppCallback.
func (f *fake) OnInvoke(ctx context.Context, r *commonv1.InvokeRequest) (*commonv1.InvokeResponse, error) {
	if f.invoke == nil {
		return nil, errUnimplemented
	}
	return f.invoke(ctx, r)
}

func TestInvokeOfAGRPCApp(t *testing.T) {
	t.Parallel()
	f := &fake{invoke: func(ctx context.Context, r *commonv1.InvokeRequest) (*commonv1.InvokeResponse, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		for key, want := range map[string]string{
			"x-a": "1", "dapr-accept": "*/*", "dapr-api-token": "app-token", "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		} {
			if diff := cmp.Diff([]string{want}, md[key]); diff != "" {
				t.Errorf("%s: %s", key, diff)
			}
		}
		if len(md["grpc-trace-bin"]) != 1 || md["te"] != nil {
			t.Errorf("%v", md)
		}
		if err := grpc.SetHeader(ctx, metadata.Pairs("x-reply", "2")); err != nil {
			t.Error(err)
		}
		switch r.GetMethod() {
		case "fails":
			return nil, status.Error(codes.NotFound, "no such order")
		case "typed":
			return &commonv1.InvokeResponse{Data: &anypb.Any{TypeUrl: "type.test/M", Value: []byte("m")}}, nil
		}
		if r.GetHttpExtension().GetVerb() != commonv1.HTTPExtension_PUT || r.GetHttpExtension().GetQuerystring() != "q=1" || r.GetContentType() != "text/x" {
			t.Errorf("%v", r)
		}
		return &commonv1.InvokeResponse{ContentType: "text/y", Data: &anypb.Any{Value: append([]byte("got "), r.GetData().GetValue()...)}}, nil
	}}
	c := connect(t, appgrpc.Options{Token: "app-token"}, f)
	for method, want := range map[string]struct {
		status     int
		code       codes.Code
		body, kind string
	}{
		"a b":   {200, 0, "got body", "text/y"},
		"fails": {404, codes.NotFound, "", ""},
		"typed": {200, 0, "m", "application/x-protobuf"},
	} {
		path, err := message.Path(method)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := c.Invoke(t.Context(), &message.Request{
			Verb: "PUT", Path: path, Query: "q=1", Body: io.NopCloser(strings.NewReader("body")), Length: 4,
			Header: http.Header{
				"X-A": {"1"}, "Accept": {"*/*"}, "Dapr-Api-Token": {"callers"}, "Te": {"trailers"}, "Content-Type": {"text/x"},
				"Traceparent": {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(answer.Body)
		if err != nil || answer.Status != want.status || answer.RPC.Code() != want.code || string(body) != want.body ||
			answer.Header.Get("Content-Type") != want.kind || answer.Header.Get("X-Reply") != "2" {
			t.Errorf("%s: %d %s %q %v %v", method, answer.Status, answer.RPC.Code(), body, answer.Header, err)
		}
	}
}

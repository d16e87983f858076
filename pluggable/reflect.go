package pluggable

import (
	"context"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	reflection "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"github.com/penstock-io/penstock/fault"
)

// services asks the program what it serves. Both versions of server reflection
// have the same messages; programs of older SDKs have the older one only.
func services(ctx context.Context, conn *grpc.ClientConn) ([]string, error) {
	var err error
	for _, version := range []string{"v1", "v1alpha"} {
		var names []string
		if names, err = listServices(ctx, conn, "/grpc.reflection."+version+".ServerReflection/ServerReflectionInfo"); err == nil {
			return names, nil
		}
		if status.Code(err) != codes.Unimplemented {
			break
		}
	}
	if status.Code(err) == codes.Unimplemented {
		return nil, fault.New(fault.Invalid, "ask what it serves: the program has no gRPC server reflection; register it (in Go: reflection.Register)")
	}
	return nil, failed(err, "ask what it serves")
}

func listServices(ctx context.Context, conn *grpc.ClientConn, method string) ([]string, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method)
	if err != nil {
		return nil, err
	}
	ask := &reflection.ServerReflectionRequest{MessageRequest: &reflection.ServerReflectionRequest_ListServices{}}
	var answer reflection.ServerReflectionResponse
	_ = stream.SendMsg(ask) // RecvMsg has the reason when it fails
	if err := stream.RecvMsg(&answer); err != nil {
		return nil, err
	}
	if e := answer.GetErrorResponse(); e != nil {
		return nil, status.Error(codes.Code(e.GetErrorCode()), e.GetErrorMessage())
	}
	var names []string
	for _, s := range answer.GetListServicesResponse().GetService() {
		names = append(names, s.GetName())
	}
	return names, nil
}

// serves tells which of the wanted services the program has. That it has none of
// them is an error.
func serves(ctx context.Context, conn *grpc.ClientConn, wanted ...string) (map[string]bool, error) {
	names, err := services(ctx, conn)
	if err != nil {
		return nil, err
	}
	has := map[string]bool{}
	for _, name := range wanted {
		if slices.Contains(names, name) {
			has[name] = true
		}
	}
	if len(has) == 0 {
		return nil, fault.New(fault.Invalid, "find %s: the program serves %s", strings.Join(wanted, " or "), line(strings.Join(names, ", ")))
	}
	return has, nil
}

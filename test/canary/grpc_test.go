package canary

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// overGRPC asks the components over gRPC, which says of errors what HTTP does in
// another form, and sends wrong tokens.
func (in *instance) overGRPC(t *testing.T) {
	t.Helper()
	conn, err := grpc.NewClient(in.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	dapr := rtv1.NewDaprClient(conn)
	some := atOnce(48)
	look := func(what string, call func(ctx context.Context) (fmt.Stringer, error)) {
		some.run(func() {
			ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), "dapr-api-token", in.token), 2*time.Second)
			defer cancel()
			got, err := call(ctx)
			in.c.search(t, "the gRPC answer to "+what, fmt.Sprint(got, err, statusDetails(err)), "a request's")
		})
	}
	for _, p := range in.planted {
		in.lookAt(dapr, p, look)
	}
	look("metadata", func(ctx context.Context) (fmt.Stringer, error) {
		return dapr.GetMetadata(ctx, &rtv1.GetMetadataRequest{})
	})
	wrong := metadata.AppendToOutgoingContext(t.Context(), "dapr-api-token", in.c.plant("a request's wrong token"), "authorization", "Bearer "+in.c.plant("a request's bearer token"))
	look("metadata", func(context.Context) (fmt.Stringer, error) {
		return dapr.GetMetadata(wrong, &rtv1.GetMetadataRequest{})
	})
	look("shutdown", func(context.Context) (fmt.Stringer, error) { return dapr.Shutdown(wrong, &rtv1.ShutdownRequest{}) })
	some.wait()
}

// lookAt asks one component.
func (in *instance) lookAt(dapr rtv1.DaprClient, p planted, look func(string, func(context.Context) (fmt.Stringer, error))) {
	switch kind, _, _ := strings.Cut(p.def.Type, "."); kind {
	case "state":
		if works(p) {
			return // it gives back what was saved
		}
		look("get of "+p.name, func(ctx context.Context) (fmt.Stringer, error) {
			return dapr.GetState(ctx, &rtv1.GetStateRequest{StoreName: p.name, Key: "k"})
		})
		look("save in "+p.name, func(ctx context.Context) (fmt.Stringer, error) {
			return dapr.SaveState(ctx, &rtv1.SaveStateRequest{StoreName: p.name, States: []*commonv1.StateItem{{Key: "k", Value: []byte(in.payload())}}})
		})
	case "pubsub":
		look("publish to "+p.name, func(ctx context.Context) (fmt.Stringer, error) {
			return dapr.PublishEvent(ctx, &rtv1.PublishEventRequest{PubsubName: p.name, Topic: "t", Data: []byte(in.payload())})
		})
	case "bindings":
		for _, op := range p.def.About.Operations {
			look(op+" of "+p.name, func(ctx context.Context) (fmt.Stringer, error) {
				return dapr.InvokeBinding(ctx, &rtv1.InvokeBindingRequest{Name: p.name, Operation: op, Data: []byte(in.payload())})
			})
		}
	case "secretstores":
		look("secret of "+p.name, func(ctx context.Context) (fmt.Stringer, error) {
			return dapr.GetSecret(ctx, &rtv1.GetSecretRequest{StoreName: p.name, Key: "k"})
		})
	case "configuration":
		look("items of "+p.name, func(ctx context.Context) (fmt.Stringer, error) {
			return dapr.GetConfiguration(ctx, &rtv1.GetConfigurationRequest{StoreName: p.name, Keys: []string{"a"}})
		})
	}
}

// statusDetails are those of an error of gRPC, which its text does not have.
func statusDetails(err error) string { return fmt.Sprint(status.Convert(err).Details()) }

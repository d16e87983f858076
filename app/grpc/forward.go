package grpc

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"

	"github.com/penstock-io/penstock/app"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/invoke/proxy"
)

var _ app.Forwarder = (*Channel)(nil)

// Forward makes a call of one of the app's own services, with the app's token and
// the trace in both forms. It implements [app.Forwarder].
func (c *Channel) Forward(ctx context.Context, call *proxy.Call) error {
	md := call.Metadata.Copy()
	if parent := md["traceparent"]; len(parent) == 1 && len(md["grpc-trace-bin"]) == 0 && cloudevents.ValidTraceParent(parent[0]) {
		md["grpc-trace-bin"] = []string{traceBin(parent[0])}
	}
	if c.token != nil {
		md["dapr-api-token"] = c.token
	}
	err := call.To(ctx, c.conn, md)
	if u, ok := errors.AsType[proxy.Unsent](err); ok && ctx.Err() == nil && codes.Code(u.GRPCCode()) == codes.Unavailable {
		return fault.Wrap(app.Unreachable(err), "call app at %.200s", call.Method)
	}
	return err
}

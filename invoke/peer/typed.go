package peer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/invoke"
	"github.com/penstock-io/penstock/invoke/identity"
	"github.com/penstock-io/penstock/invoke/message"
	"github.com/penstock-io/penstock/invoke/names"
	"github.com/penstock-io/penstock/invoke/proxy"
	"github.com/penstock-io/penstock/telemetry/trace"
)

var _ invoke.PeerForwarder = (*Client)(nil)

// Forward implements [invoke.PeerForwarder]. The other sidecar learns the app from
// the metadata, as this one did.
func (c *Client) Forward(ctx context.Context, address string, app names.App, call *proxy.Call) error {
	k, err := c.take(address, app)
	if err != nil {
		return err
	}
	defer c.give(k)
	md := metadata.Join(call.Metadata, metadata.Pairs(proxy.AppID, app.ID))
	err = call.To(ctx, k, md)
	if u, ok := errors.AsType[proxy.Unsent](err); ok && codes.Code(u.GRPCCode()) == codes.Unavailable {
		k.ResetConnectBackoff()
		if hint := advice(u.Error()); hint != "" {
			err = fmt.Errorf("%w%s", err, hint)
		}
	}
	return err
}

// forward takes a call of a service that is the app's own.
func (s *Server) forward(_ any, in grpc.ServerStream) (err error) {
	defer s.recovered(&err)
	c := proxy.New(in)
	id, namespace, named := strings.Cut(c.Target, ".")
	switch {
	case c.Target == "":
		return status.Errorf(codes.Unimplemented, "unknown method %.200s, and no metadata %s names one app", c.Method, proxy.AppID)
	case id != s.o.AppID || named && s.o.Namespace != "" && namespace != s.o.Namespace: // who has no namespace is in any
		return status.Errorf(codes.NotFound, "app %.200s is not here: this is the sidecar of %s in namespace %q", c.Target, s.o.AppID, s.o.Namespace)
	}
	app, ok := s.o.App.(invoke.Forwarder)
	if !ok {
		return status.Error(codes.FailedPrecondition, "app channel is not initialized")
	}
	caller, proven := identity.Caller(in.Context())
	if err := s.o.Access.CheckService(caller, false, c.Method); err != nil {
		return statusOf(in.Context(), err)
	}
	if proven { // whatever the other sidecar wrote there
		c.Introduce(caller.App, caller.Namespace, id)
	}
	ctx, span := s.begin(in.Context(), trace.FromMetadata(c.Metadata))
	span.Context().Metadata(c.Metadata)
	from := cmp.Or(strings.Join(c.Metadata[strings.ToLower(message.CallerID)], ","), nobody)
	s.o.Metrics.CallReceived(from)
	err = app.Forward(ctx, c)
	s.o.Metrics.AnswerSent(from, int(status.Code(err)))
	if span.Recording() {
		invoke.EndRPC(span, err)
	}
	if err != nil && !proxy.IsAnswer(err) && in.Context().Err() == nil && fault.KindOf(err) == fault.Unavailable {
		return status.Error(codes.Unavailable, "error invoking app channel: "+text(err))
	}
	if err != nil && !proxy.IsAnswer(err) {
		return statusOf(in.Context(), err)
	}
	return err
}

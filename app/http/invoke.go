package http

import (
	"context"
	"net/http"

	"github.com/penstock-io/penstock/app"
	"github.com/penstock-io/penstock/fault"
	msg "github.com/penstock-io/penstock/invoke/message"
)

var _ app.Invoker = (*Channel)(nil)

// Invoke calls the app's method for another app: path and query byte for byte,
// bodies and trailers as they come, with the app's token and no other. It
// implements [app.Invoker].
func (c *Channel) Invoke(ctx context.Context, r *msg.Request) (*msg.Response, error) {
	msg.Clean(r.Header)
	if !c.o.Pipeline.Empty() && r.Verb != "" {
		return c.stream(ctx, r)
	}
	return c.direct(ctx, r)
}

// direct is Invoke without the pipeline.
func (c *Channel) direct(ctx context.Context, r *msg.Request) (*msg.Response, error) {
	msg.Clean(r.Header)
	switch {
	case r.Verb == "" || r.Verb == http.MethodConnect:
		if r.Body != nil {
			_ = r.Body.Close() // nothing is read from it
		}
		return nil, fault.New(fault.Invalid, "call app at /%s: missing HTTP extension field: a call over gRPC of an app that speaks HTTP needs a verb", r.Path)
	case c.token != nil:
		r.Header["Dapr-Api-Token"] = c.token
	}
	if err := msg.Hold(r); err != nil {
		return nil, fault.Wrap(err, "call app at /%s", r.Path)
	}
	answer, err := msg.RoundTrip(ctx, c.transport, c.method(r), r)
	if err != nil {
		return nil, callError(ctx, "/"+r.Path, err)
	}
	return answer, nil
}

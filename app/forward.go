package app

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/penstock-io/penstock/invoke/proxy"
)

// Forwarder is implemented by channels to apps that have gRPC services.
type Forwarder interface {
	// Forward makes a call of one of the app's own services. It returns what
	// [proxy.Call.To] does; a call that did not get to the app is an [Unreachable]
	// error.
	Forward(ctx context.Context, c *proxy.Call) error
}

// Forward makes a call of one of the app's own services for another app, and holds
// one of the app's slots until the call is over. An app that speaks HTTP has none,
// which is the status Unimplemented; one that is probed and not well is not
// called.
func (a *App) Forward(ctx context.Context, c *proxy.Call) error {
	f, ok := a.channel.(Forwarder)
	if !ok {
		return status.Errorf(codes.Unimplemented,
			"call the app at %.200s: the app speaks HTTP; start its sidecar with --app-protocol grpc, or call InvokeService", c.Method)
	}
	leave, err := a.admit(ctx)
	if err != nil {
		return err
	}
	defer leave()
	err = f.Forward(ctx, c)
	if err != nil && ctx.Err() == nil && errors.Is(err, errUnreached) {
		a.noteLost()
	}
	return err
}

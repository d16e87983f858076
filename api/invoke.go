package api

import (
	"context"
	"errors"

	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/invoke/message"
	"github.com/penstock-io/penstock/invoke/proxy"
)

// Caller is a [Runtime] that can call other apps.
type Caller interface {
	// Invoke sends r to an app, an endpoint or the URL of a web server, and closes
	// r's body. The answer's body must be closed.
	Invoke(ctx context.Context, target string, r *message.Request) (*message.Response, error)
}

// Invoke calls a method of an app, of an HTTPEndpoint or of a web server. It
// closes r's body. Any answer, also one that is a failure, is no error; its body
// must be closed.
func (a *API) Invoke(ctx context.Context, target string, r *message.Request) (*message.Response, error) {
	caller, able := a.rt.(Caller)
	if target != "" && able {
		answer, err := caller.Invoke(ctx, target, r)
		if err != nil {
			return nil, invokeProblem(target, err)
		}
		return answer, nil
	}
	if r.Body != nil {
		_ = r.Body.Close() // nothing is read from it
	}
	if target == "" {
		return nil, Errorf(InvokeNoTarget, "failed getting app id either from the URL path or the header dapr-app-id")
	}
	return nil, Errorf(InvokeFailed, "invoke API is not ready")
}

// Forwarder is a [Caller] that passes on calls of services that only apps know.
type Forwarder interface {
	// Forward is that of invoke.Invoker.
	Forward(ctx context.Context, target string, c *proxy.Call) error
}

// Forward makes a call of another app's own gRPC service. The status that the call
// ended with, whoever it is of, is returned as it is; calls that did not get to the
// app are errors of this package.
func (a *API) Forward(ctx context.Context, c *proxy.Call) error {
	forwarder, able := a.rt.(Forwarder)
	if !able {
		return Errorf(InvokeFailed, "invoke API is not ready")
	}
	err := forwarder.Forward(ctx, c.Target, c)
	switch {
	case err == nil || proxy.IsAnswer(err):
		return err
	case fault.KindOf(err) == fault.Unavailable:
		return Errorf(InvokeUnreached, "failed to invoke, id: %.200s, err: %w", c.Target, err)
	}
	return invokeProblem(c.Target, err)
}

func invokeProblem(target string, err error) error {
	p := InvokeFailed
	switch kind := fault.KindOf(err); {
	case errors.Is(err, message.ErrNoUpgrade):
		p = InvokeNoUpgrade
	case kind == fault.Denied:
		p = InvokeDenied
	case kind == fault.Invalid:
		p = InvokeInvalid
	}
	return Errorf(p, "failed to invoke, id: %.200s, err: %w", target, err)
}

// InvokePath returns the one spelling of a method that is called; see
// [message.Path].
func InvokePath(raw string) (string, error) {
	path, err := message.Path(raw)
	if err != nil {
		return "", Errorf(InvokeInvalid, "failed to invoke: %w", err)
	}
	return path, nil
}

// invokeRow is the part of the table about calls of other apps.
func invokeRow(p Problem) row {
	return map[Problem]row{
		InvokeNoTarget:  {"ERR_DIRECT_INVOKE", "", 404, grpcNotFound, fault.NotFound},
		InvokeInvalid:   {"ERR_DIRECT_INVOKE", "", 400, grpcInvalidArgument, fault.Invalid},
		InvokeDenied:    {"ERR_DIRECT_INVOKE", "", 403, grpcPermissionDenied, fault.Denied},
		InvokeFailed:    {"ERR_DIRECT_INVOKE", "", 500, grpcInternal, fault.Internal},
		InvokeNoUpgrade: {"ERR_DIRECT_INVOKE", "", 501, grpcUnimplemented, fault.Invalid},
		InvokeUnreached: {"ERR_DIRECT_INVOKE", "", 500, grpcUnavailable, fault.Unavailable},
	}[p]
}

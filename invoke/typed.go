package invoke

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc/status"

	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/invoke/identity"
	"github.com/penstock-io/penstock/invoke/message"
	"github.com/penstock-io/penstock/invoke/names"
	"github.com/penstock-io/penstock/invoke/proxy"
	"github.com/penstock-io/penstock/telemetry/trace"
)

// Forwarder is an [App] that takes calls of its own services.
type Forwarder interface {
	// Forward makes the call. Its errors are those of [proxy.Call.To], and others of
	// which nothing was sent.
	Forward(ctx context.Context, c *proxy.Call) error
}

// PeerForwarder is a [Peers] that passes such calls on.
type PeerForwarder interface {
	// Forward is Forwarder's, through the sidecar at an address, which serves the
	// app.
	Forward(ctx context.Context, address string, app names.App, c *proxy.Call) error
}

// Forward makes a call of a service of the target's own: an app id, or one with a
// namespace behind a dot. It returns nil or the status that the call ended with,
// which is the caller's as it is (see [proxy.IsAnswer]); other errors are of calls
// that did not get to the app.
//
// Only a call of which nothing was sent is tried again: with another instance at
// once, else as a policy says. The time-out of a policy bounds the whole call,
// unless the call is a lasting one.
func (v *Invoker) Forward(ctx context.Context, target string, c *proxy.Call) error {
	id, namespace, err := v.split(target)
	if err != nil {
		return err
	}
	local := id == v.o.AppID && namespace == v.o.Namespace
	c.Introduce(v.o.AppID, v.o.Namespace, id)
	app := names.App{ID: id, Namespace: namespace}
	from := trace.FromMetadata(c.Metadata)
	tries := call[*ending]{
		send: func(ctx context.Context, not []string) (*ending, error) {
			ctx, span := v.begin(ctx, target, from)
			span.Context().Metadata(c.Metadata)
			answer, err := ended(v.forwardOnce(ctx, local, app, c, not))
			switch {
			case !span.Recording() || errors.Is(err, errNoOther):
			case answer != nil:
				EndRPC(span, answer.status)
			default:
				span.Done(err)
			}
			return answer, err
		},
		failure: (*ending).failure,
		over:    func(_ *ending, end func()) { end() },
		again:   func(answer *ending, err error) bool { return answer == nil && message.IsUnsent(err) },
	}
	p, judged := v.policy(target, c.Method[min(1, len(c.Method)):], local)
	if c.Lasting {
		p.Timeout = 0
	}
	answer, err := tries.run(ctx, p, judged)
	if answer != nil {
		return answer.status
	}
	return err
}

// ending is how a call ended that got to the app: nil, or a status that is the
// caller's as it is.
type ending struct{ status error }

// ended splits what a call returned into an answer and an error.
func ended(err error) (*ending, error) {
	if err == nil || proxy.IsAnswer(err) {
		return &ending{err}, nil
	}
	return nil, err
}

func (e *ending) failure() error {
	if e.status == nil {
		return nil
	}
	return fault.As(fault.Unavailable, rpcAnswered{uint32(status.Code(e.status))})
}

// forwardOnce is one try.
func (v *Invoker) forwardOnce(ctx context.Context, local bool, app names.App, c *proxy.Call, not []string) error {
	if local {
		return v.forwardToApp(ctx, c)
	}
	return v.forwardToPeer(ctx, app, c, not)
}

func (v *Invoker) forwardToApp(ctx context.Context, c *proxy.Call) error {
	f, ok := v.o.App.(Forwarder)
	if !ok {
		return ErrNoApp
	}
	if err := v.o.Access.CheckService(identity.ID{}, true, c.Method); err != nil {
		return err
	}
	return f.Forward(ctx, c)
}

// forwardToPeer makes the call through an instance whose address is not among
// those of not; without one it is errNoOther.
func (v *Invoker) forwardToPeer(ctx context.Context, app names.App, c *proxy.Call, not []string) error {
	peers, ok := v.o.Peers.(PeerForwarder)
	at, err := v.pick(ctx, app, ok, not)
	if err != nil {
		return err
	}
	began := time.Now()
	v.o.Metrics.CallSent(app.ID, c.Lasting)
	err = peers.Forward(ctx, at.address, app, c)
	if err == nil || proxy.IsAnswer(err) {
		v.o.Metrics.CallAnswered(app.ID, c.Lasting, int(status.Code(err)), time.Since(began))
	}
	switch {
	case err == nil:
		at.done(nil)
	case !proxy.IsAnswer(err):
		return at.missed(ctx, err)
	case isSlow(ctx):
		at.done(errSlow)
	default:
		at.done(nil)
	}
	return err
}

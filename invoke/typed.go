package invoke

import (
	"context"
	"errors"

	"google.golang.org/grpc/status"

	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/invoke/message"
	"github.com/penstock-io/penstock/invoke/names"
	"github.com/penstock-io/penstock/invoke/proxy"
	"github.com/penstock-io/penstock/resilience"
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
	// app called id.
	Forward(ctx context.Context, address, id string, c *proxy.Call) error
}

// Forward makes a call of a service of the target's own: an app id, or one with a
// namespace behind a dot. It returns nil or the status that the call ended with,
// which is the caller's as it is (see [proxy.IsAnswer]); other errors are of calls
// that did not get to the app.
//
// Only a call of which nothing was sent is tried again. The time-out of a policy
// bounds the whole call, unless the call is a lasting one.
func (v *Invoker) Forward(ctx context.Context, target string, c *proxy.Call) error {
	id, namespace, err := v.split(target)
	if err != nil {
		return err
	}
	local := id == v.o.AppID && namespace == v.o.Namespace
	c.Introduce(v.o.AppID, v.o.Namespace, id)
	p, judged := v.policy(target, c.Method[min(1, len(c.Method)):])
	if local && !judged {
		p = resilience.Policy{}
	}
	if c.Lasting {
		p.Timeout = 0
	}
	var before error
	for n := 1; ; n++ {
		var answer error
		err := p.Try(ctx, func(tried context.Context) error {
			var err error
			if local {
				err = v.forwardToApp(tried, c)
			} else {
				err = v.forwardToPeer(tried, ctx, names.App{ID: id, Namespace: namespace}, c)
			}
			if !proxy.IsAnswer(err) {
				return err
			}
			if answer = err; judged {
				return fault.As(fault.Unavailable, rpcAnswered{uint32(status.Code(err))})
			}
			return nil
		})
		if answer != nil {
			return answer
		}
		if before != nil && errors.Is(err, resilience.ErrOpen) {
			return before // what opened the breaker says more
		}
		before = err
		pause, again := p.Next(n, err)
		if err == nil || !again || !message.IsUnsent(err) || ctx.Err() != nil || resilience.Sleep(ctx, pause) != nil {
			return err
		}
	}
}

func (v *Invoker) forwardToApp(ctx context.Context, c *proxy.Call) error {
	f, ok := v.o.App.(Forwarder)
	if !ok {
		return ErrNoApp
	}
	return f.Forward(ctx, c)
}

// forwardToPeer makes one try, which ctx bounds; outer is the caller's.
func (v *Invoker) forwardToPeer(ctx, outer context.Context, app names.App, c *proxy.Call) error {
	peers, ok := v.o.Peers.(PeerForwarder)
	if v.o.Finder == nil || !ok {
		return fault.New(fault.Unavailable, "find app %s: name resolution is not set up", app.ID)
	}
	address, done, err := v.o.Finder.Pick(ctx, app)
	if err != nil {
		return lookFor(app, err)
	}
	err = peers.Forward(ctx, address, app.ID, c)
	slow := outer.Err() == nil && errors.Is(ctx.Err(), context.DeadlineExceeded)
	switch {
	case slow:
		done(fault.New(fault.Timeout, "wait for the answer: time is up"))
	case message.IsUnsent(err):
		done(blame(outer, err))
	default:
		done(nil)
	}
	if err == nil || proxy.IsAnswer(err) {
		return err
	}
	return fault.Wrap(err, "call app %s at %s", app.ID, address)
}

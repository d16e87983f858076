package app

import (
	"context"
	"errors"
	"sync"

	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/invoke/message"
)

// Invoker is implemented by channels that can call a method of the app.
type Invoker interface {
	// Invoke calls the app's method and returns its answer, whatever its status.
	// It closes r's body and may change r. A call that did not get to the app is an
	// [Unreachable] error.
	Invoke(ctx context.Context, r *message.Request) (*message.Response, error)
}

// errUnwell is the error of a call while the app says that it is not well.
var errUnwell = fault.New(fault.Unavailable, "call the app: app is not in a healthy state")

// Invoke calls a method of the app for another app. Only ctx bounds the call. The
// answer holds one of the app's slots until its body is closed. An app that is
// probed and not well is not called.
func (a *App) Invoke(ctx context.Context, r *message.Request) (*message.Response, error) {
	leave, err := a.admit(ctx)
	if err == nil {
		var answer *message.Response
		if answer, err = a.channel.(Invoker).Invoke(ctx, r); err == nil {
			answer.OnClose(leave)
			return answer, nil
		}
		leave()
		if ctx.Err() == nil && errors.Is(err, errUnreached) {
			a.noteLost()
		}
		return nil, err
	}
	if r.Body != nil {
		_ = r.Body.Close() // nothing is read from it
	}
	return nil, err
}

// admit waits for one of the app's slots; without an error, leave must follow.
func (a *App) admit(ctx context.Context) (leave func(), err error) {
	if _, ok := a.channel.(Invoker); !ok {
		return nil, fault.New(fault.Invalid, "call the app: its channel cannot")
	}
	if !a.well() {
		return nil, errUnwell
	}
	if err := a.slots.call(ctx); err != nil {
		return nil, fault.Wrap(err, "wait for one of the app's slots")
	}
	return sync.OnceFunc(a.slots.release), nil
}

// well tells whether the app, where it is probed, says that it is well.
func (g *gate) well() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.healthy
}

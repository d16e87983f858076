package app_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/penstock-io/penstock/app"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/invoke/proxy"
)

// typed is a channel to an app with services of its own, whose calls last until
// end is closed.
type typed struct {
	callee
	begun chan struct{}
	end   chan struct{}
}

// Forward implements [app.Forwarder].
func (c typed) Forward(context.Context, *proxy.Call) error {
	close(c.begun)
	<-c.end
	return nil
}

func TestATypedCallHoldsASlotUntilItIsOver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ch := typed{begun: make(chan struct{}), end: make(chan struct{})}
		a := app.New(app.Options{Channel: ch, MaxConcurrency: 1})
		over := make(chan error, 1)
		go func() { over <- a.Forward(t.Context(), &proxy.Call{Method: "/a.B/C"}) }()
		<-ch.begun
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := a.Forward(ctx, &proxy.Call{Method: "/a.B/C"}); fault.KindOf(err) != fault.Timeout {
			t.Errorf("a second call: %v", err)
		}
		close(ch.end)
		if err := <-over; err != nil {
			t.Error(err)
		}
	})
}

func TestATypedCallOfAnAppThatCannotTakeIt(t *testing.T) {
	t.Parallel()
	a := app.New(app.Options{Channel: callee{}})
	if err := a.Forward(t.Context(), &proxy.Call{Method: "/a.B/C"}); status.Code(err) != codes.Unimplemented || !proxy.IsAnswer(err) {
		t.Errorf("an app that speaks HTTP: %v", err)
	}
	a = app.New(app.Options{Channel: typed{}, Health: app.HealthOptions{Enabled: true}})
	if err := a.Forward(t.Context(), &proxy.Call{Method: "/a.B/C"}); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("an app that is not well: %v", err)
	}
}

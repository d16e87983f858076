package app_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-io/penstock/app"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/invoke/message"
)

// callee is a channel that answers calls.
type callee struct{ app.Channel }

// Invoke implements [app.Invoker].
func (callee) Invoke(context.Context, *message.Request) (*message.Response, error) {
	return &message.Response{Status: 200, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("x"))}, nil
}

func TestACallHoldsASlotUntilItsAnswerIsRead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := app.New(app.Options{Channel: callee{}, MaxConcurrency: 1})
		first, err := a.Invoke(t.Context(), &message.Request{})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := a.Invoke(ctx, &message.Request{}); fault.KindOf(err) != fault.Timeout {
			t.Errorf("a second call: %v", err)
		}
		first.Body.Close()
		second, err := a.Invoke(t.Context(), &message.Request{})
		if err != nil {
			t.Fatal(err)
		}
		second.Body.Close()
	})
}

func TestAnAppThatIsNotWellIsNotCalled(t *testing.T) {
	t.Parallel()
	a := app.New(app.Options{Channel: callee{}, Health: app.HealthOptions{Enabled: true}})
	if _, err := a.Invoke(t.Context(), &message.Request{}); fault.KindOf(err) != fault.Unavailable || !strings.Contains(err.Error(), "not in a healthy state") {
		t.Errorf("%v", err)
	}
}

package app

import (
	"context"
	"net/url"
	"strings"
	"time"

	"github.com/penstock-io/penstock/fault"
)

// Teller is implemented by channels that can tell the app of configuration
// changes.
type Teller interface {
	// Tell calls the app's method with a body of JSON and returns nil when the
	// app has taken it. The limit is as that of [Deliverer].
	Tell(ctx context.Context, method string, body []byte, limit time.Duration) error
}

// Configuration tells the app that the item under key of a store has changed.
func (a *App) Configuration(ctx context.Context, store, key string, body []byte) error {
	t, ok := a.channel.(Teller)
	if !ok {
		return fault.New(fault.Invalid, "tell the app of a change: its channel cannot")
	}
	inner, limit, cancel, err := a.enter(ctx)
	if err != nil {
		return err
	}
	defer a.leave(cancel)
	// A slash in a key separates steps of the path, as it does under Dapr.
	steps := strings.Split(key, "/")
	for i, step := range steps {
		steps[i] = url.PathEscape(step)
	}
	return t.Tell(inner, "/configuration/"+url.PathEscape(store)+"/"+strings.Join(steps, "/"), body, limit)
}

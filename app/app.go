// Package app is the user's program as Penstock sees it: where events are
// delivered to, who is asked for subscriptions, whose health is watched.
//
// [Channel] is the contract; app/http implements it. Everybody else uses the
// [App] in front of it, made with [New]: Event and Binding deliver, Call asks
// anything else, Ready is the gate of routes that deliver to the app, and
// RunHealth, which must run as long as the App is used, watches it.
//
// It promises that an outcome follows the contract's table for every answer
// there can be, that the app never gets more calls at once than it wants, and
// that a delivery which did not reach the app at all is not counted as a try.
package app

import (
	"context"
	"net/http"
	"time"

	"github.com/penstock-io/penstock/config"
)

// Channel is one way to talk to the app.
type Channel interface {
	// Call sends one request and returns the whole answer. An error means that
	// there is no usable answer: refused, timed out, cut off, too large.
	Call(ctx context.Context, r *Request) (*Answer, error)
	// Subscriptions asks which topics the app wants; an app without an opinion
	// returns none.
	Subscriptions(ctx context.Context) ([]config.Subscription, error)
	// WantsBinding asks whether the app takes events of an input binding at
	// this path.
	WantsBinding(ctx context.Context, path string) (bool, error)
	// Health returns nil when the app says it is well.
	Health(ctx context.Context) error
}

// Request is one call to the app. Body and Metadata are not changed; Body may
// still be read a moment after Call returned.
type Request struct {
	Method      string // empty: POST
	Path        string // "/orders"; may hold a query
	ContentType string
	Header      http.Header // may be nil; Call adds to it and keeps it
	// Metadata is sent as headers as far as they can carry it; names that mean
	// something to the transport itself are left out.
	Metadata map[string]string
	Body     []byte
	// Timeout bounds the call beside ctx; zero leaves it to ctx alone. It costs
	// less than a context with a deadline.
	Timeout time.Duration
}

// Reacher is implemented by channels that can tell whether anything listens
// where the app should be, without a call.
type Reacher interface {
	// Reach returns nil when something listens.
	Reach(ctx context.Context) error
}

// Answer is what the app answered. Body is at most the limit of the channel.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

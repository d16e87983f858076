// Package app is the user's program as Penstock sees it: where events are
// delivered to, who is asked for subscriptions, whose health is watched.
//
// [Channel] is the contract; app/http implements it (app/grpc follows). The
// [App] in front adds the concurrency limit, the health gate and the reading of
// outcomes.
package app

import (
	"context"
	"net/http"

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

// Request is one call to the app.
type Request struct {
	Method      string // empty: POST
	Path        string // "/orders"; may hold a query
	ContentType string
	Header      http.Header // may be nil
	Metadata    map[string]string
	Body        []byte
}

// Answer is what the app answered. Body is at most the limit of the channel.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

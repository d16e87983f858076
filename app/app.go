// Package app is the user's program as Penstock sees it: where events are
// delivered to, who is asked for subscriptions, whose health is watched.
//
// [Channel] is the contract; app/http and app/grpc implement it. Everybody else
// uses the [App] in front of it, made with [New]: Event, Binding and the Event
// of a [Bulk] deliver, Ready is the gate of routes that deliver to the app, and
// RunHealth, which must run as long as the App is used, watches it.
//
// It promises that an outcome follows the contract's table for every answer
// there can be, that the app never gets more calls at once than it wants, and
// that a delivery which did not reach the app at all is not counted as a try.
package app

import (
	"context"
	"time"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/config"
)

// Channel is one way to talk to the app. It is safe for concurrent use.
type Channel interface {
	Deliverer
	Discoverer
	// Health returns nil when the app says it is well.
	Health(ctx context.Context) error
}

// Deliverer hands events over and reads what the app made of them. A limit
// bounds one call beside ctx; zero leaves it to ctx alone. It costs less than a
// context with a deadline. A call that did not get to the app is a Retry with an
// [Unreachable] error, one whose ctx was cancelled a Leave.
type Deliverer interface {
	// Event delivers the event of d, which it has.
	Event(ctx context.Context, to *Address, d *cloudevents.Delivery, limit time.Duration) cloudevents.Outcome
	// Bulk delivers several in one call and returns an outcome for each.
	Bulk(ctx context.Context, to *Address, ds []*cloudevents.Delivery, limit time.Duration) []cloudevents.Outcome
	// Binding delivers what an input binding read. The reply is nil when the
	// app asks for nothing, and unless the outcome is Ack.
	Binding(ctx context.Context, to *Address, d *cloudevents.Delivery, limit time.Duration) (*Reply, cloudevents.Outcome)
}

// Discoverer asks the app what it wants.
type Discoverer interface {
	// Subscriptions asks which topics the app wants; an app without an opinion
	// returns none. It begins anew: what was learned about bindings before is
	// forgotten.
	Subscriptions(ctx context.Context) ([]config.Subscription, error)
	// WantsBinding asks whether the app takes events of the input binding.
	WantsBinding(ctx context.Context, to *Address) (bool, error)
}

// Address says where a delivery comes from and where in the app it goes.
// Nobody changes it once it is used.
type Address struct {
	// Path is the route in the app: a path that may hold a query over HTTP, a
	// word for the app over gRPC.
	Path string
	// PubSub and Topic are where a topic's event was read.
	PubSub, Topic string
	// Binding is the name of the input binding that read it.
	Binding string
	// Raw tells that the topic holds payloads without an envelope.
	Raw bool
}

// Reacher is implemented by channels that can tell whether the app listens where
// it should be, without a call.
type Reacher interface {
	// Reach returns nil when a call would get to the app, as far as can be told.
	Reach(ctx context.Context) error
}

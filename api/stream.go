package api

import (
	"context"
	"errors"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
)

// Stream is a subscription that lives as long as the call that asked for it.
type Stream struct {
	// PubSub and Topic say what to read.
	PubSub, Topic string
	// DeadLetterTopic is where events go that were given up; may be empty.
	DeadLetterTopic string
	// Metadata is that of a Subscription document.
	Metadata map[string]string
	// Ready is called once, when every event published from now on reaches the
	// stream and before the first does. An error ends the stream.
	Ready func() error
	// Deliver hands one event over and returns how that ended. It is called for
	// many at once. It returns Leave, at once, when the stream has ended.
	Deliver func(ctx context.Context, d *cloudevents.Delivery) cloudevents.Outcome
}

// Streams runs streams.
type Streams interface {
	// Subscribe runs a stream until ctx ends, which is no error, or the
	// subscription is over. What is not settled then stays with the broker.
	// Kinds: NotFound for the pub/sub, Denied, Invalid, Exhausted, and
	// Unavailable when trying again will help.
	Subscribe(ctx context.Context, s *Stream) error
}

// Subscribe runs a stream until ctx ends, which is no error, or the
// subscription is over.
func (a *API) Subscribe(ctx context.Context, s *Stream) error {
	switch {
	case s.PubSub == "":
		return noName(s.Metadata)
	case s.Topic == "":
		return noTopic(s.PubSub, s.Metadata)
	}
	err := a.rt.Subscribe(ctx, s)
	if _, ok := errors.AsType[*Error](err); ok || err == nil {
		return err
	}
	return a.subscribeError(s, err)
}

func (a *API) subscribeError(s *Stream, err error) *Error {
	p := Subscription
	switch fault.KindOf(err) {
	case fault.NotFound:
		return a.noBus(s.PubSub, err)
	case fault.Denied:
		return a.forbidden(s.PubSub, s.Topic, err)
	case fault.Invalid:
		p = PublishMetadata
	case fault.Exhausted:
		p = LimitReached
	}
	return wrap(p, err).on("pubsub", s.PubSub).with("appID", a.app).with("topic", s.Topic)
}

package pubsub

import (
	"context"

	"github.com/penstock-io/penstock/cloudevents"
)

// Bus is one configured broker: the type everybody but implementations uses.
type Bus struct{}

// PublishRequest is one event to publish, as an app sends it.
type PublishRequest struct {
	Topic       string
	Data        []byte
	ContentType string            // empty: text/plain
	Metadata    map[string]string // Dapr's request metadata: rawPayload, ttlInSeconds, cloudevent.*, ...
	TraceParent string            // W3C trace context of the request, may be empty
	TraceState  string
}

// Name returns the component's name.
func (b *Bus) Name() string { panic("being written") }

// Publish wraps the data into an envelope (unless rawPayload or already a
// CloudEvent) and returns when the broker has it. Kinds: Denied when the topic
// is out of scope, NotFound when the topic is empty, Invalid for bad metadata,
// Unavailable and the rest from the broker.
func (b *Bus) Publish(ctx context.Context, r *PublishRequest) error { panic("being written") }

// BulkPublish publishes many events to one topic; errs has one entry per
// request, nil where it was published. err is set when nothing was tried.
func (b *Bus) BulkPublish(ctx context.Context, topic string, rs []PublishRequest) (errs []error, err error) {
	panic("being written")
}

// Source is one subscription's events; it has the shape of router.Source.
type Source struct{}

// Run implements router.Source.
func (s *Source) Run(ctx context.Context, emit cloudevents.EmitFunc) error { panic("being written") }

// Package pubsub is the contract of brokers: topics that apps publish to and
// subscribe to.
//
// An implementation lives in a folder below this one and returns a [Driver].
// Everybody else uses [Bus], which adds what all brokers share: the CloudEvents
// envelope, topic scopes, time to live, opening in the background, error kinds
// and restart of a broken subscription.
//
// Delivery: at least once. A publish that returned nil is durable as far as the
// broker can make it; a delivery stays owned by the broker until it is settled.
package pubsub

import (
	"context"
	"fmt"
	"time"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
)

// Driver is what an implementation returns from its open function.
type Driver interface {
	// Publish writes the batch in order. It returns nil when all of it is
	// durable, a *BatchError when part of it is not, and any other error when
	// none of it is known to be.
	Publish(ctx context.Context, topic string, batch []Message) error
	// Subscribe fetches messages of s and hands each to emit until ctx ends,
	// then returns nil without waiting for outcomes: they may still arrive
	// until Close. An error means that the connection broke; Subscribe is then
	// called again after a pause.
	Subscribe(ctx context.Context, s Subscription, emit cloudevents.EmitFunc) error
	// Close frees everything. What is not settled stays with the broker.
	Close(ctx context.Context) error
}

// Message is one message on its way to the broker. Data is not changed.
type Message struct {
	Data        []byte
	ContentType string
	Metadata    map[string]string
	// Key orders messages: those of one key are delivered one after the other.
	Key string
	// DeliverAt is when to deliver; zero is now.
	DeliverAt time.Time
	// Expires is when the message is worth nothing any more; zero is never.
	Expires time.Time
}

// Subscription says what to fetch.
type Subscription struct {
	Topic string
	// Group shares the messages of a topic between its members; each group
	// gets every message once. Never empty.
	Group string
	// Metadata is that of the Subscription document.
	Metadata map[string]string
	// Key returns the ordering key of a delivery whose Body, Metadata and
	// (transport) Key are filled in; nil means the transport's key. Drivers
	// that hold back keys in flight call it once per message; it must be cheap.
	Key func(*cloudevents.Delivery) string
}

// Features is what a driver can do beyond the contract; without it the Bus
// makes up for what is missing. A driver that has some implements Featured.
type Features struct {
	// TTL: the broker drops messages after Message.Expires.
	TTL bool
	// Delay: the broker honours Message.DeliverAt.
	Delay bool
	// GiveBack: a Retry outcome makes the broker deliver again after a delay.
	GiveBack bool
}

// Featured is implemented by drivers that have features.
type Featured interface{ Features() Features }

// Preparer is implemented by drivers that can make a subscription's group
// before anybody reads from it, so that nothing published in between is missed.
type Preparer interface {
	Prepare(ctx context.Context, s Subscription) error
}

// BatchError says which messages of a batch were not published.
type BatchError struct {
	// Errs has one entry per message, nil where it was published.
	Errs []error
}

// Error counts the failed messages and shows the first failure.
func (e *BatchError) Error() string {
	failed, first := 0, error(nil)
	for _, err := range e.Errs {
		if err == nil {
			continue
		}
		if failed++; first == nil {
			first = err
		}
	}
	return fmt.Sprintf("publish batch: %d of %d messages: %v", failed, len(e.Errs), first)
}

// common are the options that every pub/sub component has.
type common struct {
	ConsumerID         string   `meta:"consumerID"         doc:"Consumer group; the app id when empty."`
	AllowedTopics      []string `meta:"allowedTopics"      doc:"The only topics that may be used."`
	ProtectedTopics    []string `meta:"protectedTopics"    doc:"Topics that an app may use only when a scope names them."`
	PublishingScopes   string   `meta:"publishingScopes"   doc:"Who may publish what." example:"app1=topic1,topic2;app2="`
	SubscriptionScopes string   `meta:"subscriptionScopes" doc:"Who may subscribe to what." example:"app1=topic1;app2="`
}

// Define makes the definition of a broker called "pubsub.<name>".
func Define[O any](name string, about component.About, open func(context.Context, component.Env, O) (Driver, error)) component.Definition {
	return component.Define("pubsub."+name, about, component.OptionsOf(common{}), open)
}

// Package pubsub is the contract of brokers: topics that apps publish to and
// subscribe to.
//
// An implementation lives in a folder below this one and returns a [Driver].
// Everybody else uses [Bus], which adds what all brokers share: the CloudEvents
// envelope, topic scopes, topics by namespace, time to live, delays, the outbound
// policy, opening in the background, error kinds and restart of a broken
// subscription.
//
// Delivery: at least once. A publish that returned nil is durable as far as the
// broker can make it; a delivery stays owned by the broker until it is settled.
package pubsub

import (
	"context"
	"fmt"
	"strings"
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
	// Expires is when the message is worth nothing any more; zero is never. It
	// counts, not the ttlInSeconds in Metadata, which is from when the app
	// published: the message may have waited for its DeliverAt since.
	Expires time.Time
}

// Subscription says what to fetch.
type Subscription struct {
	// Topic ends in * to have all topics that begin with what stands before it,
	// where the broker has Features.Wildcards: each such delivery has its Topic
	// set.
	Topic string
	// Except is a topic that a wildcard leaves out: its own dead letters'. The
	// Bus sees to that, not the driver.
	Except string
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
	// Wildcards: a subscription's topic may end in *.
	Wildcards bool
}

// Featured is implemented by drivers that have features.
type Featured interface{ Features() Features }

// Preparer is implemented by drivers that can make a subscription's group
// before anybody reads from it, so that nothing published in between is missed.
type Preparer interface {
	Prepare(ctx context.Context, s Subscription) error
}

// Backlogged is implemented by drivers whose broker knows what waits for a group. It
// may ask the broker, and is called every ten seconds at most.
type Backlogged interface {
	Backlog(ctx context.Context, s Subscription) (cloudevents.Backlog, error)
}

// Matches tells whether a subscription's topic, which may end in *, has the
// messages of a topic: * stands for at least one character, as under Dapr.
func Matches(pattern, topic string) bool {
	if !Wildcard(pattern) {
		return pattern == topic
	}
	prefix := pattern[:len(pattern)-1]
	return len(topic) > len(prefix) && strings.HasPrefix(topic, prefix)
}

// Wildcard tells whether a subscription's topic is a pattern: it ends in *.
func Wildcard(topic string) bool { return strings.HasSuffix(topic, "*") }

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
	ConsumerID         string   `meta:"consumerID"         doc:"Consumer group; the app id when empty. With {namespace} in it, or in any other value, the namespace is put before every topic on the broker."`
	AllowedTopics      []string `meta:"allowedTopics"      doc:"The only topics that may be used."`
	ProtectedTopics    []string `meta:"protectedTopics"    doc:"Topics that an app may use only when a scope names them."`
	PublishingScopes   string   `meta:"publishingScopes"   doc:"Who may publish what." example:"app1=topic1,topic2;app2="`
	SubscriptionScopes string   `meta:"subscriptionScopes" doc:"Who may subscribe to what." example:"app1=topic1;app2="`
}

// Check implements component.Checker.
func (o common) Check() error {
	_, err := newScopes(o, "")
	return err
}

// Define makes the definition of a broker called "pubsub.<name>".
func Define[O any](name string, about component.About, open func(context.Context, component.Env, O) (Driver, error)) component.Definition {
	return component.WithCommon[common](component.Define("pubsub."+name, about, component.OptionsOf(common{}), open))
}

// DefineAny makes the definition of a broker that lives outside this process and
// alone knows its options; see [component.DefineAny].
func DefineAny(name string, about component.About, open func(context.Context, component.Env, map[string]string) (Driver, error)) component.Definition {
	return component.WithCommon[common](component.DefineAny("pubsub."+name, about, component.OptionsOf(common{}), open))
}

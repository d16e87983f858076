package conform

import (
	"context"
	"crypto/rand"
	"strings"
	"testing"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/pubsub"
)

// Unique returns a name that nobody else uses on a server that is shared: short,
// lower case, letters and digits.
func Unique(t testing.TB) string {
	t.Helper()
	return "t" + strings.ToLower(rand.Text()[:12])
}

// Apart gives a driver topics of its own on a server that is shared: a prefix
// stands before each.
func Apart(d pubsub.Driver, prefix string) pubsub.Driver { return apart{d, prefix} }

type apart struct {
	pubsub.Driver
	prefix string
}

func (a apart) Publish(ctx context.Context, topic string, batch []pubsub.Message) error {
	return a.Driver.Publish(ctx, a.prefix+topic, batch)
}

func (a apart) Subscribe(ctx context.Context, s pubsub.Subscription, emit cloudevents.EmitFunc) error {
	s.Topic = a.prefix + s.Topic
	return a.Driver.Subscribe(ctx, s, func(ctx context.Context, d *cloudevents.Delivery) error {
		d.Topic = strings.TrimPrefix(d.Topic, a.prefix)
		return emit(ctx, d)
	})
}

// Features implements pubsub.Featured.
func (a apart) Features() pubsub.Features {
	if f, ok := a.Driver.(pubsub.Featured); ok {
		return f.Features()
	}
	return pubsub.Features{}
}

// Prepare implements pubsub.Preparer.
func (a apart) Prepare(ctx context.Context, s pubsub.Subscription) error {
	s.Topic = a.prefix + s.Topic
	if p, ok := a.Driver.(pubsub.Preparer); ok {
		return p.Prepare(ctx, s)
	}
	return nil
}

// Backlog implements pubsub.Backlogged.
func (a apart) Backlog(ctx context.Context, s pubsub.Subscription) (cloudevents.Backlog, error) {
	s.Topic = a.prefix + s.Topic
	if b, ok := a.Driver.(pubsub.Backlogged); ok {
		return b.Backlog(ctx, s)
	}
	return cloudevents.Backlog{}, errNoBacklog
}

// ApartGroups is Apart for a broker whose groups are the same for all topics: the
// prefix stands before each group too.
func ApartGroups(d pubsub.Driver, prefix string) pubsub.Driver {
	return apartGroups{apart{d, prefix}}
}

type apartGroups struct{ apart }

func (a apartGroups) Subscribe(ctx context.Context, s pubsub.Subscription, emit cloudevents.EmitFunc) error {
	s.Group = a.prefix + s.Group
	return a.apart.Subscribe(ctx, s, emit)
}

// Prepare implements pubsub.Preparer.
func (a apartGroups) Prepare(ctx context.Context, s pubsub.Subscription) error {
	s.Group = a.prefix + s.Group
	return a.apart.Prepare(ctx, s)
}

// Backlog implements pubsub.Backlogged.
func (a apartGroups) Backlog(ctx context.Context, s pubsub.Subscription) (cloudevents.Backlog, error) {
	s.Group = a.prefix + s.Group
	return a.apart.Backlog(ctx, s)
}

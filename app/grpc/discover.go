package grpc

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"

	"github.com/penstock-io/penstock/app"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
)

// Subscriptions asks the app with ListTopicSubscriptions which topics it wants.
// Unimplemented means none. Any other failure is tried again three times, after
// 500 ms and then longer. Entries without a pub/sub or topic are left out and
// logged. A subscription without routes gets all events of its topic, with an
// empty path.
func (c *Channel) Subscriptions(ctx context.Context) ([]config.Subscription, error) {
	c.mu.Lock()
	c.bindings = nil
	c.mu.Unlock()
	if slices.Contains(c.o.Disable, "subscribe") {
		return nil, nil
	}
	answer, err := app.Ask(ctx, c.o.DiscoveryTimeout, func(ctx context.Context) (*rtv1.ListTopicSubscriptionsResponse, error) {
		m := &rtv1.ListTopicSubscriptionsResponse{}
		if err := c.ask(ctx, topicsMethod(), m); !isUnimplemented(err) {
			return m, err
		}
		return nil, nil
	})
	if err != nil {
		return nil, fault.Wrap(err, "ask app for subscriptions")
	}
	return c.readSubscriptions(answer.GetSubscriptions())
}

func (c *Channel) readSubscriptions(list []*rtv1.TopicSubscription) ([]config.Subscription, error) {
	if len(list) > app.MaxSubscriptions {
		return nil, fault.New(fault.Invalid, "read subscriptions: %d of them, the limit is %d", len(list), app.MaxSubscriptions)
	}
	subs := make([]config.Subscription, 0, len(list))
	rules := 0
	for i, s := range list {
		if rules += len(s.GetRoutes().GetRules()); rules > app.MaxRules {
			return nil, fault.New(fault.Invalid, "read subscriptions: more than %d rules up to entry %d of %s", app.MaxRules, i+1, topicsMethod().name)
		}
		if why := useless(s); why != "" {
			c.log.Warn("Subscription of the app is left out: "+why, "entry", i+1, "pubsub", s.GetPubsubName(), "topic", s.GetTopic())
			continue
		}
		subs = append(subs, subscription(s, i+1))
	}
	return subs, nil
}

func useless(s *rtv1.TopicSubscription) string {
	switch {
	case s.GetPubsubName() == "":
		return "it has no pubsub_name"
	case s.GetTopic() == "":
		return "it has no topic"
	}
	return ""
}

func subscription(s *rtv1.TopicSubscription, entry int) config.Subscription {
	place := config.Place{File: fmt.Sprintf("%s, entry %d", topicsMethod().name, entry)}
	out := config.Subscription{
		PubSub: s.GetPubsubName(), Topic: s.GetTopic(), Rules: rules(s.GetRoutes(), place),
		DeadLetterTopic: s.GetDeadLetterTopic(), Metadata: s.GetMetadata(), Place: place,
	}
	if b := s.GetBulkSubscribe(); b.GetEnabled() {
		out.Bulk = config.Bulk{Enabled: true, MaxMessages: app.DefaultBulkMessages, MaxAwait: app.DefaultBulkWait}
		if b.GetMaxMessagesCount() > 0 {
			out.Bulk.MaxMessages = int(b.GetMaxMessagesCount())
		}
		if b.GetMaxAwaitDurationMs() > 0 {
			out.Bulk.MaxAwait = time.Duration(b.GetMaxAwaitDurationMs()) * time.Millisecond
		}
	}
	return out
}

// rules are the routes in order. A path is a word for the app, which may be
// empty; without any, everything goes to the empty path.
func rules(r *rtv1.TopicRoutes, place config.Place) []config.Rule {
	out := make([]config.Rule, 0, len(r.GetRules())+1)
	for _, rule := range r.GetRules() {
		out = append(out, config.Rule{Match: strings.TrimSpace(rule.GetMatch()), Path: rule.GetPath(), Place: place})
	}
	if r.GetDefault() != "" || len(out) == 0 {
		out = append(out, config.Rule{Path: r.GetDefault(), Place: place})
	}
	return out
}

// WantsBinding tells whether the app lists the binding. The list is asked for
// once, with ListInputBindings, and again after Subscriptions was called;
// Unimplemented means none.
func (c *Channel) WantsBinding(ctx context.Context, to *app.Address) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, c.o.ProbeTimeout)
	defer cancel()
	c.mu.Lock()
	known := c.bindings
	c.mu.Unlock()
	if known != nil {
		return known[to.Binding], nil
	}
	var m rtv1.ListInputBindingsResponse
	if err := c.ask(ctx, bindingsMethod(), &m); err != nil && !isUnimplemented(err) {
		return false, fault.Wrap(err, "ask app for its input bindings")
	}
	known = make(map[string]bool, len(m.GetBindings()))
	for _, name := range m.GetBindings() {
		known[name] = true
	}
	c.mu.Lock()
	c.bindings = known
	c.mu.Unlock()
	return known[to.Binding], nil
}

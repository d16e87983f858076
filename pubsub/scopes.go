package pubsub

import (
	"slices"
	"strings"

	"github.com/penstock-io/penstock/fault"
)

// scopes says which topics this app may use.
type scopes struct {
	allowed, protected []string
	publish, subscribe []string
	// scoped tells that a list above speaks of this app; an empty list then
	// means no topic at all.
	publishScoped, subscribeScoped bool
}

func newScopes(o common, app string) (scopes, error) {
	s := scopes{allowed: o.AllowedTopics, protected: o.ProtectedTopics}
	var err error
	if s.publish, s.publishScoped, err = scopeOf("publishingScopes", o.PublishingScopes, app); err != nil {
		return s, err
	}
	s.subscribe, s.subscribeScoped, err = scopeOf("subscriptionScopes", o.SubscriptionScopes, app)
	return s, err
}

func (s scopes) mayPublish(topic string) bool {
	return s.may(topic, s.publish, s.publishScoped)
}

func (s scopes) maySubscribe(topic string) bool {
	return s.may(topic, s.subscribe, s.subscribeScoped)
}

// mayReceive tells whether a wildcard subscription, which is allowed as such,
// may have the events of one topic that it matches.
func (s scopes) mayReceive(topic string) bool {
	return !slices.Contains(s.protected, topic) || slices.Contains(s.subscribe, topic)
}

func (s scopes) may(topic string, scope []string, scoped bool) bool {
	if len(s.allowed) > 0 && !slices.Contains(s.allowed, topic) {
		return false
	}
	if scoped || slices.Contains(s.protected, topic) {
		return slices.Contains(scope, topic)
	}
	return true
}

// scopeOf reads "app1=topic1,topic2;app2=" for one app.
func scopeOf(option, text, app string) (topics []string, scoped bool, err error) {
	for part := range strings.SplitSeq(text, ";") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		name, list, ok := strings.Cut(part, "=")
		if !ok {
			return nil, false, fault.New(fault.Invalid, "read option %s: %q has no \"=\"; write app=topic1,topic2", option, part)
		}
		if strings.TrimSpace(name) != app {
			continue
		}
		scoped = true
		for t := range strings.SplitSeq(list, ",") {
			if t = strings.TrimSpace(t); t != "" {
				topics = append(topics, t)
			}
		}
	}
	return topics, scoped, nil
}

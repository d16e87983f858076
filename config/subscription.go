package config

import (
	"fmt"
	"math"
	"time"
)

// Defaults of Dapr's bulkSubscribe block.
const (
	bulkMessages = 100
	bulkAwaitMs  = 1000
)

// subscription reads either version; usable is false when it has no route.
func (r *reader) subscription(d *fields, h header, version string) (s Subscription, usable bool) {
	s = Subscription{Name: h.name, Scopes: h.scopes, Place: h.at}
	spec := d.table("spec")
	s.PubSub = spec.need("pubsubname")
	s.Topic = spec.need("topic")
	s.DeadLetterTopic = spec.text("deadLetterTopic")
	s.Metadata = spec.values("metadata")
	bulk := spec.table("bulkSubscribe")
	s.Bulk = Bulk{
		Enabled:     bulk.bool("enabled"),
		MaxMessages: bulk.int("maxMessagesCount", bulkMessages, 0, math.MaxInt32),
		MaxAwait:    time.Duration(bulk.int("maxAwaitDurationMs", bulkAwaitMs, 0, math.MaxInt32)) * time.Millisecond,
	}
	if s.Bulk.MaxMessages == 0 {
		s.Bulk.MaxMessages = bulkMessages
	}
	if s.Bulk.MaxAwait == 0 {
		s.Bulk.MaxAwait = bulkAwaitMs * time.Millisecond
	}
	bulk.done()
	field := "routes"
	if version == daprV1 {
		field = "route"
		if path := spec.text(field); path != "" {
			s.Rules = []Rule{{Path: path, Place: spec.place(field)}}
		}
	} else {
		s.Rules = r.routes(spec.table(field))
	}
	spec.done()
	if len(s.Rules) == 0 {
		r.lenient(spec.place(field), "say where its events go, or remove it", "spec.%s names no path: the subscription is not used", field)
	}
	return s, len(s.Rules) > 0
}

// routes reads the rules; the default comes last.
func (r *reader) routes(f *fields) (rules []Rule) {
	for i, n := range f.items("rules") {
		one := r.table(n, fmt.Sprintf("spec.routes.rules[%d]", i), n.at, false)
		rule := Rule{Match: one.text("match"), Path: one.need("path"), Place: one.place("match")}
		one.done()
		rules = append(rules, rule)
	}
	if path := f.text("default"); path != "" {
		rules = append(rules, Rule{Path: path, Place: f.place("default")})
	}
	f.done()
	return rules
}

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
	s.PubSubPlace = spec.place("pubsubname")
	s.Topic = spec.need("topic")
	s.DeadLetterTopic = spec.text("deadLetterTopic")
	var places map[string]Place
	s.Metadata, places = spec.values("metadata")
	s.Flow = r.flow(spec)
	r.flowMetadata(s.Metadata, places)
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
	other := spec.otherVersion(version)
	if len(s.Rules) == 0 {
		spec.vital = []string{field} // read as if it were absent, its misspelling would end a route that runs
	}
	spec.done()
	if len(spec.vital) > 0 && !other {
		r.lenient(spec.place(field), "say where its events go, or remove it", "spec.%s names no path: the subscription is not used", field)
	}
	return s, len(s.Rules) > 0
}

// otherVersion reports the field that only the other version of subscriptions
// has, and tells whether there is one.
func (f *fields) otherVersion(version string) bool {
	field, where := "route", daprV1
	hint := "write routes: {default: PATH}, or use that apiVersion"
	if version == daprV1 {
		field, where, hint = "routes", daprV2, "use that apiVersion, or write route: PATH"
	}
	if f.n == nil || f.n.pair(field) == nil {
		return false
	}
	f.get(field)
	f.r.lenient(f.n.pair(field).at, hint, "spec.%s belongs to apiVersion %s: the subscription is not used", field, where)
	return true
}

// routes reads the rules; the default comes last.
func (r *reader) routes(f *fields) (rules []Rule) {
	for i, n := range f.items("rules") {
		one := r.table(n, fmt.Sprintf("spec.routes.rules[%d]", i), n.at, false)
		rule := Rule{Match: one.text("match"), Path: one.need("path")}
		rule.Place = r.span(one.place("match"), rule.Match)
		one.done()
		rules = append(rules, rule)
	}
	if path := f.text("default"); path != "" {
		rules = append(rules, Rule{Path: path, Place: f.place("default")})
	}
	f.done()
	return rules
}

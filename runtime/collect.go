package runtime

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/deadletters"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/pubsub"
	"github.com/penstock-io/penstock/resilience"
	"github.com/penstock-io/penstock/router"
	"github.com/penstock-io/penstock/telemetry"
)

// topic is one of a pub/sub.
type topic struct{ pubsub, name string }

// deadLetterTopicOf is where a subscription's dead letters go; the zero topic
// when it has none.
func deadLetterTopicOf(s config.Subscription) topic {
	if s.DeadLetterTopic == "" {
		return topic{}
	}
	return topic{s.PubSub, s.DeadLetterTopic}
}

// deadLettersOf is where a pipeline's dead letters go, when that is a topic.
func deadLettersOf(p config.Pipeline) topic {
	if p.DeadLetter == nil || p.DeadLetter.PubSub == "" {
		return topic{}
	}
	return topic{p.DeadLetter.PubSub, p.DeadLetter.Topic}
}

// newKeeper makes what keeps dead letters, with the ways back out of it.
func (r *Runtime) newKeeper() *deadletters.Keeper {
	return deadletters.New(deadletters.Options{
		App: r.o.AppID, Env: r.parts.env, Expr: r.routes.expr, Logger: telemetry.Part(r.log, "deadletters"),
		Inject: r.inject, Routes: r.routesWith,
		Publish: func(ctx context.Context, name, topic string, body []byte, metadata map[string]string) error {
			bus, err := r.parts.bus(name)
			if err != nil {
				return err
			}
			return bus.Republish(ctx, topic, body, metadata)
		},
	})
}

// inject hands a dead letter back to its route. One that does not take it while
// routes are being replaced is waited for: it may be one of them.
func (r *Runtime) inject(ctx context.Context, route string, d *cloudevents.Delivery) error {
	for {
		changing := r.changing.Load() > 0 // asked first: it may end in between
		err := r.injectNow(ctx, route, d)
		kind := fault.KindOf(err)
		if !changing || kind != fault.NotFound && kind != fault.Unavailable || ctx.Err() != nil || r.stopping.Load() {
			return err
		}
		if serr := resilience.Sleep(ctx, injectPause); serr != nil {
			return serr
		}
	}
}

// injectPause is the time between two looks for a route that is being replaced.
const injectPause = 20 * time.Millisecond

// injectNow hands a dead letter to its route, or to another stream of the topic
// when it was that of a stream which has ended.
func (r *Runtime) injectNow(ctx context.Context, route string, d *cloudevents.Delivery) error {
	err := r.router.Inject(ctx, route, d)
	if fault.KindOf(err) == fault.NotFound {
		if next := r.streams.insteadOf(route); next != "" {
			return r.router.Inject(ctx, next, d)
		}
	}
	return err
}

// DeadLetters implements api.DeadLetters.
func (r *Runtime) DeadLetters() *deadletters.Keeper { return r.keeper }

// routesWith names the routes whose dead letters go to the topic.
func (r *Runtime) routesWith(pubsub, name string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var names []string
	for route, is := range r.running {
		if is.letters == (topic{pubsub, name}) {
			names = append(names, route)
		}
	}
	for route, is := range r.streams.running() {
		if is.letters == (topic{pubsub, name}) {
			names = append(names, route)
		}
	}
	slices.Sort(names)
	return names
}

// wishCollectors adds a route for every topic that routes write dead letters to.
func (r *Runtime) wishCollectors(out map[string]wish, waiting map[string]error) {
	topics := deadLetterTopics(out)
	for _, is := range r.streams.running() {
		if is.letters != (topic{}) {
			topics[is.letters] = true
		}
	}
	for t := range topics {
		name := "deadletters/" + t.pubsub + "/" + t.name
		if p := r.parts.find(t.pubsub); p == nil || p.bus == nil || r.isClosed(waiting, name, t.pubsub) {
			continue
		}
		out[name] = wish{
			running: running{sum: r.sumOf(t.pubsub)},
			make:    func(ctx context.Context) (router.Route, error) { return r.collector(ctx, name, t) },
		}
	}
}

func deadLetterTopics(wishes map[string]wish) map[topic]bool {
	topics := map[topic]bool{}
	for _, w := range wishes {
		if w.letters != (topic{}) {
			topics[w.letters] = true
		}
	}
	return topics
}

// collectors is what the consumer group of collecting routes has behind the
// component's own.
const collectors = "-deadletters-store"

// collector makes the route that brings the dead letters of a topic to the
// keeper. It is a reader of its own: whoever else reads the topic gets all.
func (r *Runtime) collector(ctx context.Context, name string, t topic) (router.Route, error) {
	bus, err := r.parts.bus(t.pubsub)
	if err != nil {
		return router.Route{}, err
	}
	if err := r.keeper.Open(ctx); err != nil {
		return router.Route{}, err
	}
	src := bus.Forwarded(pubsub.Subscription{Topic: t.name, Group: bus.Group() + collectors})
	return router.Route{
		Name: name, From: fromTopic(t.pubsub, t.name), Source: src, Lanes: defaultLanes, GiveBack: bus.Features().GiveBack, Gate: r.keeper.Room, Key: deadletters.Key,
		Targets: []router.Target{{Name: "deadletters", Send: r.keeper.Collect(t.pubsub, t.name)}},
	}, src.Prepare(ctx)
}

// deadLetterCounts says how many are kept of each topic: "bus/orders-failed: 3".
func (r *Runtime) deadLetterCounts() string {
	counts, full, err := r.keeper.Counts()
	if err != nil {
		return "unknown: " + err.Error()
	}
	var parts []string
	for _, c := range counts {
		parts = append(parts, fmt.Sprintf("%s/%s: %d", c.PubSub, c.Topic, c.Letters))
	}
	if full {
		parts = append(parts, "full, no more are taken")
	}
	return strings.Join(parts, ", ")
}

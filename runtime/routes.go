package runtime

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/penstock-io/penstock/app"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/cloudevents/expr"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/pubsub"
	"github.com/penstock-io/penstock/resilience"
	"github.com/penstock-io/penstock/router"
)

// defaultLanes is how many deliveries of one route are under way at once when
// nothing else is said.
const defaultLanes = 64

// defaultTimeout bounds one try at one target of a pipeline.
const defaultTimeout = 60 * time.Second

// routes makes routes out of what is configured.
type routes struct {
	parts *parts
	app   *app.App // nil without an app
	expr  *expr.Compiler
	// delivered remembers events of routes that deliver once.
	delivered *memory
}

// subscription makes the route of a topic to the app.
func (rs *routes) subscription(ctx context.Context, s config.Subscription) (router.Route, error) {
	c := &compiler{expr: rs.expr}
	rules := c.rules(s)
	if err := c.problems.Err(); err != nil {
		return router.Route{}, fault.As(fault.Invalid, err)
	}
	r, err := rs.topic(ctx, subscriptionName(s), s)
	if err != nil {
		return router.Route{}, err
	}
	r.Gate = rs.app.Ready
	r.Targets[0].Name, r.Targets[0].Send = "app", toRules(rules)
	if s.Bulk.Enabled { // its calls are bounded, not the wait for company
		r.Targets[0].Policy.Timeout = 0
	}
	raw := pubsub.Subscription{Metadata: s.Metadata}.Raw()
	for i := range rules {
		to := app.Address{Path: rules[i].path, PubSub: s.PubSub, Topic: s.Topic, Raw: raw}
		rules[i].send = toApp(rs.app, &to)
		if s.Bulk.Enabled {
			rules[i].send = rs.bulk(s, to)
			// A call fills up only with what is under way at once.
			r.Lanes = max(r.Lanes, s.Bulk.MaxMessages)
		}
	}
	return r, nil
}

// topic makes what the routes of all subscriptions have in common, whoever gets
// the events: the one target has its policy and neither a name nor a Send.
func (rs *routes) topic(ctx context.Context, name string, s config.Subscription) (r router.Route, err error) {
	flow, err := s.Flow.Metadata(s.Metadata)
	if err != nil {
		return r, fault.Wrap(err, "subscribe to %s/%s", s.PubSub, s.Topic)
	}
	c := &compiler{expr: rs.expr}
	order, identity := c.flow(flow)
	if err := c.problems.Err(); err != nil {
		return r, fault.As(fault.Invalid, err)
	}
	bus, err := rs.parts.bus(s.PubSub)
	if err != nil {
		return r, err
	}
	r = router.Route{
		Name: name, From: fromTopic(s.PubSub, s.Topic), Lanes: cmp.Or(flow.Concurrency, defaultLanes), Window: flow.MaxInFlight,
		GiveBack: bus.Features().GiveBack,
		Steps:    []router.Step{expiryStep()},
		Targets:  []router.Target{{Policy: rs.inbound(s.PubSub, pubsubPolicies)}},
	}
	if order != nil {
		r.Key = orderBy(order)
	}
	if flow.Retry.Set {
		r.Targets[0].Policy.Retry = ownRetry(flow.Retry)
	}
	if r.Once, err = rs.delivered.once(ctx, name, flow.Dedupe, identity); err != nil {
		return r, err
	}
	if s.DeadLetterTopic != "" {
		r.DeadLetter = deadLetterTopic(rs.parts, s.PubSub, s.DeadLetterTopic)
	}
	src, err := source(ctx, bus, pubsub.Subscription{Topic: s.Topic, Except: s.DeadLetterTopic, Metadata: s.Metadata, Key: keyOf(r.Key)})
	if err != nil {
		return r, err
	}
	r.Source, r.Decode = src, src.Decode
	return r, nil
}

// inbound is the policy of what a component brings to the app.
func (rs *routes) inbound(name, kind string) resilience.Policy {
	if p := rs.parts.policies.of(way{name, kind, config.Inbound}); p != nil {
		return *p
	}
	return resilience.Policy{}
}

// bulk delivers a subscription's events to the app, several at once.
func (rs *routes) bulk(s config.Subscription, to app.Address) sendFunc {
	return rs.app.NewBulk(app.BulkOptions{
		To: to, Max: s.Bulk.MaxMessages, Wait: s.Bulk.MaxAwait, Timeout: rs.inbound(s.PubSub, pubsubPolicies).Timeout,
	}).Event
}

// source returns a subscription's events and makes sure that none published
// from now on is missed.
func source(ctx context.Context, bus *pubsub.Bus, s pubsub.Subscription) (*pubsub.Source, error) {
	src, err := bus.Source(s)
	if err != nil {
		return nil, err
	}
	return src, src.Prepare(ctx)
}

// fromTopic and fromBinding are how people read where events come from; targets
// are named alike.
func fromTopic(bus, topic string) string { return "pubsub:" + bus + "/" + topic }

func fromBinding(name string) string { return "binding:" + name }

func subscriptionName(s config.Subscription) string {
	return "subscription/" + s.PubSub + "/" + s.Topic
}

// expiryStep drops events that outlived their time to live on a broker that
// does not do that itself.
func expiryStep() router.Step {
	return router.Step{Name: "expiry", Do: func(_ context.Context, e *cloudevents.Event) (*cloudevents.Event, *cloudevents.Outcome) {
		return e, pubsub.Expired(e, time.Now())
	}}
}

// input makes the route of an input binding to the app.
func (rs *routes) input(name string) (router.Route, error) {
	p := rs.parts.find(name)
	if p == nil || p.binding == nil || !p.binding.Input() {
		return router.Route{}, fault.New(fault.NotFound, "read binding %s: it has no input", name)
	}
	to := inputAddress(p)
	return router.Route{
		Name: "binding/" + name, From: fromBinding(name), Source: rs.sourceOf(p), Lanes: defaultLanes, GiveBack: true,
		Gate: rs.app.Ready,
		Targets: []router.Target{{
			Name: "app:" + to.Path, Send: toHandler(rs.app, rs.parts, to, p.binding.Replies()),
			Policy: rs.inbound(name, bindingPolicies),
		}},
	}, nil
}

// inputAddress is where an input binding's events go in the app.
func inputAddress(p *part) *app.Address {
	return &app.Address{Path: p.binding.Route(), Binding: p.config.Name}
}

// pipeline makes the route of a Pipeline document.
func (rs *routes) pipeline(ctx context.Context, p config.Pipeline) (router.Route, error) {
	r, problems := rs.plan(p)
	if err := problems.Err(); err != nil {
		return r, fault.As(fault.Invalid, err)
	}
	if err := rs.reachAll(p); err != nil {
		return r, err
	}
	if p.From.Binding != "" {
		from := rs.parts.find(p.From.Binding)
		if from == nil || from.binding == nil {
			return r, fault.New(fault.NotFound, "read binding %s: no such component", p.From.Binding)
		}
		r.Source, r.From, r.GiveBack = rs.sourceOf(from), fromBinding(p.From.Binding), true
		return r, rs.deliverOnce(ctx, &r, p)
	}
	bus, err := rs.parts.bus(p.From.PubSub)
	if err != nil {
		return r, err
	}
	sub := pubsub.Subscription{Topic: p.From.Topic, Group: bus.Group() + "-" + p.Name, Key: keyOf(r.Key)}
	if p.DeadLetter != nil && p.DeadLetter.PubSub == p.From.PubSub {
		sub.Except = p.DeadLetter.Topic
	}
	src, err := source(ctx, bus, sub)
	if err != nil {
		return r, err
	}
	r.Source, r.Decode, r.GiveBack = src, src.Decode, bus.Features().GiveBack
	r.From = fromTopic(p.From.PubSub, p.From.Topic)
	r.Steps = append([]router.Step{expiryStep()}, r.Steps...)
	return r, rs.deliverOnce(ctx, &r, p)
}

// deliverOnce gives a pipeline's route its memory of delivered events.
func (rs *routes) deliverOnce(ctx context.Context, r *router.Route, p config.Pipeline) (err error) {
	r.Once, err = rs.delivered.once(ctx, r.Name, p.Dedupe, (&compiler{expr: rs.expr}).identity(p.Dedupe))
	return err
}

// reachAll makes sure that everything the pipeline sends to is there: what is
// left out because it may fail would hold every event up.
func (rs *routes) reachAll(p config.Pipeline) error {
	ends := p.To
	if p.DeadLetter != nil {
		ends = append(slices.Clone(ends), *p.DeadLetter)
	}
	for _, to := range ends {
		name := cmp.Or(to.Binding, to.PubSub)
		if name != "" && rs.parts.find(name) == nil {
			return fault.New(fault.NotFound, "send to %s: no such component", name)
		}
	}
	for _, name := range storesOf(p) {
		if rs.parts.find(name) == nil {
			return fault.New(fault.NotFound, "use store %s: no such component", name)
		}
	}
	return nil
}

// keyOf lets the broker hold back what the route orders: it decodes early, and
// an undecodable message has no order.
func keyOf(key func(*cloudevents.Delivery) string) func(*cloudevents.Delivery) string {
	if key == nil {
		return nil
	}
	return func(d *cloudevents.Delivery) string {
		if d.Event == nil {
			e, err := cloudevents.Scan(d.Body)
			if err != nil {
				return ""
			}
			d.Event = e
		}
		return key(d)
	}
}

// plan compiles a pipeline but its source. It touches no component, so that
// check can use it.
func (rs *routes) plan(p config.Pipeline) (router.Route, config.Problems) {
	c := &compiler{expr: rs.expr}
	r := router.Route{Name: "pipeline/" + p.Name, Steps: c.steps(p, rs.parts), Lanes: p.Concurrency, Window: p.MaxInFlight}
	if r.Lanes <= 0 {
		r.Lanes = defaultLanes
	}
	if p.OrderingKey.Text != "" {
		r.Key = orderBy(c.value(p.OrderingKey, "orderingKey"))
	}
	c.identity(p.Dedupe)
	for _, to := range p.To {
		r.Targets = append(r.Targets, rs.target(c, p, to))
		if to.Route != "" && rs.app != nil {
			r.Gate = rs.app.Ready
		}
	}
	if p.DeadLetter != nil {
		r.DeadLetter = rs.deadLetter(c, p)
	}
	return r, c.problems
}

// orderBy is the ordering key of an expression; an event on which it fails has
// no order.
func orderBy(v *expr.Value) func(*cloudevents.Delivery) string {
	return func(d *cloudevents.Delivery) string {
		if d.Event == nil {
			return d.Key
		}
		key, err := v.String(d.Event)
		if err != nil {
			return ""
		}
		return key
	}
}

func (rs *routes) target(c *compiler, p config.Pipeline, to config.Endpoint) router.Target {
	t := router.Target{Policy: policyOf(p)}
	switch {
	case to.Binding != "":
		t.Name = "binding:" + to.Binding
		t.Send = toBinding(rs.parts, to.Binding, operationOf(to), c.templates(to))
	case to.PubSub != "":
		t.Name = fmt.Sprintf("pubsub:%s/%s", to.PubSub, to.Topic)
		topic, metadata := c.template(to.Topic, to.TopicPlace, "topic"), c.templates(to)
		t.Send = toTopic(rs.parts, to.PubSub, topic, metadata)
		t.SendAll = toTopicAll(rs.parts, to.PubSub, topic, metadata)
	default:
		t.Name = "app:" + to.Route
		t.Send = toApp(rs.app, &app.Address{Path: to.Route, PubSub: p.From.PubSub, Topic: p.From.Topic, Binding: p.From.Binding})
	}
	return t
}

func policyOf(p config.Pipeline) resilience.Policy {
	pol := resilience.Policy{Timeout: p.Timeout}
	if pol.Timeout == 0 {
		pol.Timeout = defaultTimeout
	}
	// A subscription follows Dapr's rule instead: without a policy its first
	// failure goes to the dead letter topic.
	pol.Retry.Limit = config.DefaultRetries
	if p.Retry.Set {
		pol.Retry = ownRetry(p.Retry)
	}
	return pol
}

func (rs *routes) deadLetter(c *compiler, p config.Pipeline) func(context.Context, *router.DeadLetter) error {
	to := *p.DeadLetter
	if to.PubSub != "" {
		return deadLetterTopic(rs.parts, to.PubSub, to.Topic)
	}
	return deadLetterBinding(rs.parts, to.Binding, operationOf(to), c.templates(to))
}

// operationOf is the operation that an endpoint asks of its binding.
func operationOf(to config.Endpoint) string {
	if to.Operation == "" {
		return "create"
	}
	return to.Operation
}

// merge returns a and b in one map, b winning.
func merge(a, b map[string]string) map[string]string {
	out := make(map[string]string, len(a)+len(b))
	maps.Copy(out, a)
	maps.Copy(out, b)
	return out
}

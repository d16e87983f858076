package runtime

import (
	"context"
	"maps"
	"strings"

	"github.com/penstock-io/penstock/app"
	"github.com/penstock-io/penstock/bindings"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/cloudevents/expr"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/pubsub"
	"github.com/penstock-io/penstock/router"
)

// sendFunc is the Send of a router.Target.
type sendFunc = func(ctx context.Context, d *cloudevents.Delivery) cloudevents.Outcome

// sendAllFunc is the SendAll of a router.Target.
type sendAllFunc = func(ctx context.Context, ds []*cloudevents.Delivery) []cloudevents.Outcome

// rule sends events that match to a path of the app.
type rule struct {
	filter *expr.Filter // nil matches everything
	path   string
	send   sendFunc
}

// toApp delivers an event to the app.
func toApp(a *app.App, to *app.Address) sendFunc {
	return func(ctx context.Context, d *cloudevents.Delivery) cloudevents.Outcome {
		return a.Event(ctx, to, d)
	}
}

// toRules delivers a topic's event by the first rule that matches.
func toRules(rules []rule) sendFunc {
	return func(ctx context.Context, d *cloudevents.Delivery) cloudevents.Outcome {
		for _, r := range rules {
			ok, err := matches(r.filter, d.Event)
			if err != nil {
				// Not the event is wrong but the rule, which a person can mend:
				// without a dead letter the event waits for that.
				return cloudevents.Retried(fault.New(fault.Invalid, "routing rule: %w", err), 0)
			}
			if ok {
				return r.send(ctx, d)
			}
		}
		return cloudevents.Dropped("no routing rule matched", nil)
	}
}

func matches(f *expr.Filter, e *cloudevents.Event) (bool, error) {
	if f == nil {
		return true, nil
	}
	return f.Match(e)
}

// toBinding invokes an output binding with the event's data. Metadata values
// are templates over the event.
func toBinding(ps *parts, name, operation string, metadata map[string]*expr.Template) sendFunc {
	return func(ctx context.Context, d *cloudevents.Delivery) cloudevents.Outcome {
		rendered, err := render(metadata, d.Event)
		if err != nil {
			return outcomeOf(err)
		}
		resp, err := invoke(ctx, ps, name, &bindings.Request{Operation: operation, Data: d.Event.Data(), Metadata: along(rendered, d)})
		if resp != nil && d.Answer != nil {
			d.Answer("", resp.Data)
		}
		return outcomeOf(ps.held(name, err))
	}
}

// render fills in the templates of an endpoint's metadata. A template that
// fails is wrong for this event and stays so.
func render(templates map[string]*expr.Template, e *cloudevents.Event) (map[string]string, error) {
	if len(templates) == 0 {
		return nil, nil
	}
	out := make(map[string]string, len(templates))
	for k, t := range templates {
		v, err := t.Render(e)
		if err != nil {
			return nil, fault.New(fault.Invalid, "render metadata %s: %w", k, err)
		}
		out[k] = v
	}
	return out, nil
}

// toTopic publishes the event to a topic, whose name is a template, as are the
// values of the request metadata.
func toTopic(ps *parts, name string, topic *expr.Template, metadata map[string]*expr.Template) sendFunc {
	return func(ctx context.Context, d *cloudevents.Delivery) cloudevents.Outcome {
		r, err := onward(d, topic, metadata)
		if err != nil {
			return outcomeOf(err)
		}
		bus, err := ps.bus(name)
		if err == nil {
			err = bus.Publish(ctx, &r)
		}
		return outcomeOf(ps.held(name, err))
	}
}

// toTopicAll is toTopic for several events in one call: one publish for each of
// the topics they go to.
func toTopicAll(ps *parts, name string, topic *expr.Template, metadata map[string]*expr.Template) sendAllFunc {
	return func(ctx context.Context, ds []*cloudevents.Delivery) []cloudevents.Outcome {
		outcomes := make([]cloudevents.Outcome, len(ds))
		var topics []string
		lots := map[string]*lot{}
		for i, d := range ds {
			r, err := onward(d, topic, metadata)
			if err != nil {
				outcomes[i] = outcomeOf(err)
				continue
			}
			l := lots[r.Topic]
			if l == nil {
				l = &lot{}
				lots[r.Topic] = l
				topics = append(topics, r.Topic)
			}
			l.requests, l.at = append(l.requests, r), append(l.at, i)
		}
		for _, t := range topics {
			l := lots[t]
			for j, err := range l.publish(ctx, ps, name, t) {
				outcomes[l.at[j]] = outcomeOf(ps.held(name, err))
			}
		}
		return outcomes
	}
}

// lot is what goes to one topic, with its place among the deliveries.
type lot struct {
	requests []pubsub.PublishRequest
	at       []int
}

// publish returns one error for each of the lot.
func (l *lot) publish(ctx context.Context, ps *parts, name, topic string) []error {
	bus, err := ps.bus(name)
	if err == nil {
		var errs []error
		if errs, err = bus.BulkPublish(ctx, topic, l.requests); errs != nil {
			return errs
		}
	}
	errs := make([]error, len(l.requests))
	for i := range errs {
		errs[i] = err
	}
	return errs
}

// onward is the request that publishes an event once more.
func onward(d *cloudevents.Delivery, topic *expr.Template, metadata map[string]*expr.Template) (r pubsub.PublishRequest, err error) {
	e := d.Event
	if r.Topic, err = topic.Render(e); err != nil {
		return r, fault.New(fault.Invalid, "render topic: %w", err)
	}
	if r.Metadata, err = render(metadata, e); err != nil {
		return r, err
	}
	if own, _ := e.Attr(traceParent); own == "" {
		r.TraceParent, r.TraceState = d.Trace()
	}
	if bag := baggageOf(d); bag != "" {
		r.Metadata = with(r.Metadata, map[string]string{baggage: bag})
	}
	r.Event, err = router.Hop(e)
	return r, err
}

// What W3C calls the parts of a trace context.
const (
	traceParent = "traceparent"
	traceState  = "tracestate"
	baggage     = "baggage"
)

// maxBaggage is what the recommendation has everybody hand on, in bytes.
const maxBaggage = 8192

// baggageOf returns the baggage that stands beside an event; what is too much or no
// header is none.
func baggageOf(d *cloudevents.Delivery) string {
	bag := d.Metadata[baggage]
	if len(bag) > maxBaggage || strings.ContainsFunc(bag, func(c rune) bool { return c < ' ' || c > '~' }) {
		return ""
	}
	return bag
}

// along returns the metadata of a request that hands an event on to a binding, with
// the trace and the baggage that it came with.
func along(metadata map[string]string, d *cloudevents.Delivery) map[string]string {
	parent, state := d.Trace()
	bag := baggageOf(d)
	if parent == "" && bag == "" {
		return metadata
	}
	return with(metadata, map[string]string{traceParent: parent, traceState: state, baggage: bag})
}

// with returns metadata with what is not empty of some more; what they say
// themselves wins.
func with(metadata, more map[string]string) map[string]string {
	maps.DeleteFunc(more, func(_, v string) bool { return v == "" })
	maps.Copy(more, metadata)
	return more
}

// invoke calls an output binding by name.
func invoke(ctx context.Context, ps *parts, name string, r *bindings.Request) (*bindings.Response, error) {
	b, err := ps.outputOf(name)
	if err != nil {
		return nil, err
	}
	return b.Invoke(ctx, r)
}

// outcomeOf turns a target's error into an outcome: what cannot succeed by
// trying again is dropped, which dead-letters it where a dead letter is
// configured.
func outcomeOf(err error) cloudevents.Outcome {
	switch {
	case err == nil:
		return cloudevents.Acked()
	case fault.Retriable(err):
		return cloudevents.Retried(err, fault.RetryAfter(err))
	default:
		return cloudevents.Dropped(err.Error(), err)
	}
}

// toHandler delivers an input binding's event to the app and carries out what
// the app's reply asks for, as part of the same delivery.
func toHandler(a *app.App, ps *parts, to *app.Address, replies bool) sendFunc {
	return func(ctx context.Context, d *cloudevents.Delivery) cloudevents.Outcome {
		reply, o := a.Binding(ctx, to, d)
		if o.Verdict != cloudevents.Ack || reply == nil || !replies {
			return o
		}
		return outcomeOf(carryOut(ctx, ps, d, reply))
	}
}

// carryOut does what the app's reply asks for. A failure that may pass makes the
// whole delivery be tried again, so outputs may see an event twice; one that
// cannot pass gives it up like that of any other target.
func carryOut(ctx context.Context, ps *parts, d *cloudevents.Delivery, r *app.Reply) error {
	if r.Err != nil {
		return fault.New(fault.Unavailable, "carry out the app's reply: %w", r.Err)
	}
	if len(r.State) > 0 {
		if err := saveReply(ctx, ps, r); err != nil {
			return err
		}
	}
	send := func(ctx context.Context, name string) error {
		_, err := invoke(ctx, ps, name, &bindings.Request{Operation: r.Operation, Data: r.Data, Metadata: along(r.Metadata, d)})
		return fault.Wrap(ps.held(name, err), "send the app's reply to %s", name)
	}
	if strings.EqualFold(r.Concurrency, "parallel") {
		return inParallel(ctx, r.To, send)
	}
	for _, name := range r.To {
		if err := send(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// saveReply saves the state of a reply.
func saveReply(ctx context.Context, ps *parts, r *app.Reply) error {
	s, err := ps.stateOf(r.StoreName)
	if err == nil {
		err = s.Apply(ctx, r.State)
	}
	return fault.Wrap(ps.held(r.StoreName, err), "save state of the app's reply")
}

package grpc

import (
	"context"
	"maps"
	"time"
	"unicode/utf8"

	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"

	"github.com/penstock-io/penstock/app"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/state"
)

// Event delivers an event with OnTopicEvent. Unimplemented is a drop without a
// dead letter, any other failure a retry, whose error is a [*StatusError] of the
// kind the code stands for. With RETRY and with a failure, the app may say in
// the metadata retry-after how long to wait: "30s", or a number of seconds.
func (c *Channel) Event(ctx context.Context, to *app.Address, d *cloudevents.Delivery, limit time.Duration) cloudevents.Outcome {
	ctx, cancel := limited(ctx, limit)
	defer cancel()
	var k call
	var answer rtv1.TopicEventResponse
	m := eventMethod()
	if err := c.invoke(c.outgoing(ctx, d.Event, d.Metadata), m, TopicEvent(d.Event, to.PubSub, to.Topic, to.Path), &answer, &k); err != nil {
		return eventFailed(ctx, m.name, err)
	}
	if answer.GetStatus() == rtv1.TopicEventResponse_SUCCESS {
		return cloudevents.Acked()
	}
	return StatusOutcome(m.name, answer.GetStatus(), k.pause())
}

// eventFailed is the outcome of a topic's event whose call failed.
func eventFailed(ctx context.Context, method string, err error) cloudevents.Outcome {
	if isUnimplemented(err) {
		o := cloudevents.Dropped("app does not implement "+method, err)
		o.Discard = true
		return o
	}
	return app.Unanswered(ctx, method, err)
}

// Binding delivers the payload alone with OnBindingEvent. Any failure is a
// retry. The reply is nil unless the app's answer names outputs or states.
func (c *Channel) Binding(ctx context.Context, to *app.Address, d *cloudevents.Delivery, limit time.Duration) (*app.Reply, cloudevents.Outcome) {
	ctx, cancel := limited(ctx, limit)
	defer cancel()
	r := &rtv1.BindingEventRequest{Name: to.Binding, Data: d.Body, Metadata: text(d.Metadata)}
	if d.Event != nil {
		r.Data = d.Event.Data()
	}
	var answer rtv1.BindingEventResponse
	m := bindingMethod()
	if err := c.invoke(c.outgoing(ctx, d.Event, d.Metadata), m, r, &answer, &call{}); err != nil {
		return nil, app.Unanswered(ctx, m.name, err)
	}
	if d.Answer != nil {
		d.Answer("", answer.GetData())
	}
	return readReply(&answer), cloudevents.Acked()
}

// readReply returns what an answer asks for, or nil.
func readReply(m *rtv1.BindingEventResponse) *app.Reply {
	if len(m.GetTo()) == 0 && len(m.GetStates()) == 0 {
		return nil
	}
	r := &app.Reply{StoreName: m.GetStoreName(), To: m.GetTo(), Data: m.GetData(), Operation: "create"}
	if m.GetConcurrency() == rtv1.BindingEventResponse_PARALLEL {
		r.Concurrency = "parallel"
	}
	for _, it := range m.GetStates() {
		r.State = append(r.State, change(it))
	}
	return r
}

// change is one value that an answer asks to save.
func change(it *commonv1.StateItem) state.Change {
	c := state.Change{
		Key: it.GetKey(), Value: it.GetValue(), Metadata: it.GetMetadata(), Binary: state.IsBytes(it.GetValue(), it.GetMetadata()),
		FirstWrite: it.GetOptions().GetConcurrency() == commonv1.StateOptions_CONCURRENCY_FIRST_WRITE,
		Strong:     it.GetOptions().GetConsistency() == commonv1.StateOptions_CONSISTENCY_STRONG,
	}
	if tag := it.GetEtag(); tag != nil {
		c.ETag = new(tag.GetValue())
	}
	return c
}

// text is metadata as a message can carry it: a string that is not UTF-8 would
// make the whole message fail.
func text(metadata map[string]string) map[string]string {
	valid := true
	for name, value := range metadata {
		valid = valid && utf8.ValidString(name) && utf8.ValidString(value)
	}
	if valid {
		return metadata
	}
	metadata = maps.Clone(metadata)
	for name, value := range metadata {
		switch {
		case !utf8.ValidString(name):
			delete(metadata, name)
		case !utf8.ValidString(value):
			metadata[name] = app.Escape(value, isPlain)
		}
	}
	return metadata
}

package grpc

import (
	"cmp"
	"context"
	"time"

	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"

	"github.com/penstock-io/penstock/app"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
)

// Bulk delivers several events with OnBulkTopicEvent, or with its older name
// OnBulkTopicEventAlpha1 where the app has only that, and one by one with
// OnTopicEvent where it has neither. An entry that the answer
// leaves out is a retry; a failure is the outcome of all, as it is for a single
// event. More than [Options.MaxBody] goes out in several calls, one after the
// other; what there is no time left for was not tried.
func (c *Channel) Bulk(ctx context.Context, to *app.Address, ds []*cloudevents.Delivery, limit time.Duration) []cloudevents.Outcome {
	ctx, cancel := limited(ctx, limit)
	defer cancel()
	outcomes := make([]cloudevents.Outcome, 0, len(ds))
	for len(ds) > 0 {
		if len(outcomes) > 0 && isSpent(ctx) {
			return append(outcomes, fill(make([]cloudevents.Outcome, len(ds)), untried(ctx))...)
		}
		n := c.fitting(ds)
		outcomes = append(outcomes, c.bulk(ctx, to, ds[:n])...)
		ds = ds[n:]
	}
	return outcomes
}

// fitting is how many of the deliveries one call carries, at least one.
func (c *Channel) fitting(ds []*cloudevents.Delivery) int {
	var size int64
	for n, d := range ds {
		if size += int64(d.Event.Size()); size > c.o.MaxBody && n > 0 {
			return n
		}
	}
	return len(ds)
}

func (c *Channel) bulk(ctx context.Context, to *app.Address, ds []*cloudevents.Delivery) []cloudevents.Outcome {
	outcomes := make([]cloudevents.Outcome, len(ds))
	request, ids := bulkRequest(to, ds)
	name := bulkMethod(false).name
	var k call
	var answer rtv1.TopicEventBulkResponse
	switch err := c.sendBulk(ctx, request, &answer, &k); {
	case isUnimplemented(err):
		return c.single(ctx, to, ds)
	case err != nil:
		return fill(outcomes, eventFailed(ctx, name, err))
	}
	fill(outcomes, app.Retried(fault.New(fault.Internal, "call app at %s: its answer has no status for this entry", name)))
	for _, s := range answer.GetStatuses() {
		if i, ok := ids[s.GetEntryId()]; ok {
			outcomes[i] = StatusOutcome(name, s.GetStatus(), k.pause())
		}
	}
	return outcomes
}

// single delivers the events one after the other: the app does not do bulk, or
// not for this topic. The bulk has one place of the app's, so not all at once.
func (c *Channel) single(ctx context.Context, to *app.Address, ds []*cloudevents.Delivery) []cloudevents.Outcome {
	outcomes := make([]cloudevents.Outcome, len(ds))
	for i, d := range ds {
		if i > 0 && isSpent(ctx) {
			fill(outcomes[i:], untried(ctx))
			break
		}
		outcomes[i] = c.Event(ctx, to, d, 0)
	}
	return outcomes
}

// leastTime is what a call must have left to be made. The app may say that its
// time is up a moment before we do.
const leastTime = 10 * time.Millisecond

func isSpent(ctx context.Context) bool {
	end, bounded := ctx.Deadline()
	return ctx.Err() != nil || bounded && time.Until(end) < leastTime
}

// untried is the outcome of what a call before it has left no time for.
func untried(ctx context.Context) cloudevents.Outcome {
	name := bulkMethod(false).name
	return app.Unanswered(ctx, name, app.Untried(fault.Wrap(cmp.Or(context.Cause(ctx), context.DeadlineExceeded), "call app at %s: no time is left", name)))
}

func fill(list []cloudevents.Outcome, o cloudevents.Outcome) []cloudevents.Outcome {
	for i := range list {
		list[i] = o
	}
	return list
}

// sendBulk calls the method that worked last, and the other one when the app
// does not implement it.
func (c *Channel) sendBulk(ctx context.Context, r *rtv1.TopicEventBulkRequest, answer *rtv1.TopicEventBulkResponse, k *call) error {
	ctx = c.outgoing(ctx, nil, nil)
	alpha := c.useAlpha.Load()
	err := c.invoke(ctx, bulkMethod(alpha), r, answer, k)
	if !isUnimplemented(err) {
		return err
	}
	*k = call{}
	if err = c.invoke(ctx, bulkMethod(!alpha), r, answer, k); !isUnimplemented(err) {
		c.useAlpha.Store(!alpha)
	}
	return err
}

// bulkRequest makes the message and returns where each entry id belongs.
func bulkRequest(to *app.Address, ds []*cloudevents.Delivery) (r *rtv1.TopicEventBulkRequest, ids map[string]int) {
	ids = make(map[string]int, len(ds))
	r = &rtv1.TopicEventBulkRequest{
		Id: cloudevents.NewID(), Type: "com.dapr.event.sent.bulk",
		Topic: to.Topic, PubsubName: to.PubSub, Path: to.Path,
		Entries: make([]*rtv1.TopicEventBulkRequestEntry, len(ds)),
	}
	for i, d := range ds {
		entry := &rtv1.TopicEventBulkRequestEntry{EntryId: cloudevents.NewID(), Metadata: text(d.Metadata)}
		ids[entry.EntryId] = i
		if to.Raw {
			entry.ContentType = "application/octet-stream"
			entry.Event = &rtv1.TopicEventBulkRequestEntry_Bytes{Bytes: d.Body}
		} else {
			entry.ContentType = cloudevents.ContentType
			entry.Event = &rtv1.TopicEventBulkRequestEntry_CloudEvent{CloudEvent: bulkEvent(d.Event)}
		}
		r.Entries[i] = entry
	}
	return r, ids
}

func bulkEvent(e *cloudevents.Event) *rtv1.TopicEventCERequest {
	return &rtv1.TopicEventCERequest{
		Id: e.ID(), Source: e.Source(), Type: e.Type(), SpecVersion: specVersion(e),
		DataContentType: e.DataContentType(), Data: e.Data(), Extensions: extensions(e),
	}
}

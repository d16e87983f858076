package queue

import (
	"context"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	client "github.com/penstock-io/penstock/client/aws"
	"github.com/penstock-io/penstock/client/batch"
	"github.com/penstock-io/penstock/fault"
)

// change makes a message visible after a delay.
type change struct {
	m     *Message
	after time.Duration
}

func (q *Queue) changes(cs []change) *sqs.ChangeMessageVisibilityBatchInput {
	in := &sqs.ChangeMessageVisibilityBatchInput{QueueUrl: &q.url, Entries: make([]types.ChangeMessageVisibilityBatchRequestEntry, len(cs))}
	for i, c := range cs {
		in.Entries[i] = types.ChangeMessageVisibilityBatchRequestEntry{
			Id: aws.String(strconv.Itoa(i)), ReceiptHandle: &c.m.handle, VisibilityTimeout: int32((c.after + time.Second - 1) / time.Second),
		}
	}
	return in
}

// showBatch gives messages back. When SQS cannot be reached they come again by
// themselves soon enough; but a delay would be lost, so that is tried for as
// long as the message is hidden.
func (q *Queue) showBatch(ctx context.Context, cs []change) []error {
	return q.settle(ctx, len(cs), func(ctx context.Context) ([]types.BatchResultErrorEntry, error) {
		out, err := q.api.ChangeMessageVisibilityBatch(ctx, q.changes(cs))
		if err != nil {
			return nil, client.Wrap(err, "give messages back to queue %s", q.url)
		}
		return out.Failed, nil
	})
}

// deleteBatch acknowledges messages.
func (q *Queue) deleteBatch(ctx context.Context, ms []*Message) []error {
	in := &sqs.DeleteMessageBatchInput{QueueUrl: &q.url, Entries: make([]types.DeleteMessageBatchRequestEntry, len(ms))}
	for i, m := range ms {
		in.Entries[i] = types.DeleteMessageBatchRequestEntry{Id: aws.String(strconv.Itoa(i)), ReceiptHandle: &m.handle}
	}
	all := in.Entries
	return q.settle(ctx, len(ms), func(ctx context.Context) ([]types.BatchResultErrorEntry, error) {
		in.Entries = all
		out, err := q.api.DeleteMessageBatch(ctx, in)
		if err != nil {
			return nil, client.Wrap(err, "delete messages from queue %s", q.url)
		}
		return out.Failed, nil
	})
}

// settle does a settlement until SQS has taken it or refuses it for good. The
// messages stay hidden meanwhile; doing it twice for some of them is harmless.
func (q *Queue) settle(ctx context.Context, n int, do func(context.Context) ([]types.BatchResultErrorEntry, error)) []error {
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, pauseTop) {
		failed, err := do(ctx)
		if err != nil && !fault.Retriable(err) {
			return batch.All(n, err)
		}
		errs, again := entryErrors(n, failed)
		if err == nil && !again {
			return errs
		}
		select {
		case <-ctx.Done():
			return batch.All(n, fault.Wrap(ctx.Err(), "settle messages of queue %s", q.url))
		case <-time.After(max(pause, min(fault.RetryAfter(err), pauseTop))):
		}
	}
}

// entryErrors makes the result of a batch; again tells that some may succeed
// when tried once more.
func entryErrors(n int, failed []types.BatchResultErrorEntry) (errs []error, again bool) {
	for _, f := range failed {
		if errs == nil {
			errs = make([]error, n)
		}
		k := client.KindOfCode(aws.ToString(f.Code), f.SenderFault)
		again = again || k.Retriable()
		if i := index(f.Id); i < n {
			errs[i] = fault.New(k, "%s: %s", aws.ToString(f.Code), aws.ToString(f.Message))
		}
	}
	return errs, again
}

// Outgoing is one message to send.
type Outgoing struct {
	client.Packed
	// Group and Dedupe are those of a FIFO queue; empty elsewhere, though Group
	// may share a standard queue fairly.
	Group, Dedupe string
	// Delay hides it at first, 15 minutes at most; not of a FIFO queue.
	Delay time.Duration
}

// Send puts a message into the queue together with what others send at the same
// time, and returns nil when SQS has it.
func (q *Queue) Send(ctx context.Context, o Outgoing) error {
	errs := q.send.Do(ctx, o)
	if errs == nil {
		return nil
	}
	return fault.Wrap(errs[0], "send to queue %s", q.url)
}

func (q *Queue) sendBatch(ctx context.Context, os []Outgoing) []error {
	in := &sqs.SendMessageBatchInput{QueueUrl: &q.url, Entries: make([]types.SendMessageBatchRequestEntry, len(os))}
	for i := range os {
		o := &os[i]
		e := types.SendMessageBatchRequestEntry{
			Id: aws.String(strconv.Itoa(i)), MessageBody: &o.Body, MessageAttributes: values(o.Attributes),
			DelaySeconds: int32((min(o.Delay, MaxLater) + time.Second - 1) / time.Second),
		}
		if o.Group != "" {
			e.MessageGroupId = &o.Group
		}
		if o.Dedupe != "" {
			e.MessageDeduplicationId = &o.Dedupe
		}
		in.Entries[i] = e
	}
	out, err := q.api.SendMessageBatch(ctx, in)
	if err != nil {
		return batch.All(len(os), client.Wrap(err, "send"))
	}
	errs, _ := entryErrors(len(os), out.Failed)
	return errs
}

func values(texts map[string]string) map[string]types.MessageAttributeValue {
	all := make(map[string]types.MessageAttributeValue, len(texts))
	for name, v := range texts {
		all[name] = types.MessageAttributeValue{DataType: aws.String("String"), StringValue: &v}
	}
	return all
}

package queue

import (
	"context"
	"strconv"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	client "github.com/penstock-io/penstock/client/aws"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
)

// Backlog counts the messages of the queue, whoever holds them and delayed ones
// too, about as well as SQS knows it: its numbers are some seconds old. It tells no
// age.
func (q *Queue) Backlog(ctx context.Context) (cloudevents.Backlog, error) {
	names := []types.QueueAttributeName{
		types.QueueAttributeNameApproximateNumberOfMessages, types.QueueAttributeNameApproximateNumberOfMessagesNotVisible,
		types.QueueAttributeNameApproximateNumberOfMessagesDelayed,
	}
	out, err := q.api.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{QueueUrl: &q.url, AttributeNames: names})
	if err != nil {
		return cloudevents.Backlog{}, client.Wrap(err, "count messages of queue %s", q.url)
	}
	var b cloudevents.Backlog
	for _, name := range names {
		n, err := strconv.ParseInt(out.Attributes[string(name)], 10, 64)
		if err != nil {
			return cloudevents.Backlog{}, fault.New(fault.Internal, "count messages of queue %s: %s: %w", q.url, name, err)
		}
		b.Messages += n
	}
	return b, nil
}

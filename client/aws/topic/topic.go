// Package topic publishes to topics of SNS, ten messages in one request.
//
// Make messages with [client.Pack] and call [Publish] with up to [Entries] of
// them that are [Bytes] together at most; package batch gathers them so.
//
// Entries of a batch fail one by one: the others are published all the same, so
// Publish tells the result of each.
package topic

import (
	"context"
	"strconv"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/aws/aws-sdk-go-v2/service/sns/types"

	client "github.com/penstock-io/penstock/client/aws"
	"github.com/penstock-io/penstock/fault"
)

// Limits of SNS.
const (
	Entries = 10        // in one request
	Bytes   = 256 << 10 // of one message and of one request
)

// Message is one message to publish.
type Message struct {
	client.Packed
	// Subject is that of a mail; empty is none.
	Subject string
	// Group and Dedupe are those of a FIFO topic; empty elsewhere.
	Group, Dedupe string
}

// Check refuses a message that SNS does not take for its size.
func (m Message) Check() error {
	if n := m.Bytes(); n > Bytes {
		return fault.New(fault.Invalid, "message of %d bytes with its metadata: SNS takes %d", n, Bytes)
	}
	return nil
}

// Publish returns nil when SNS has all of the messages, else one error for each,
// nil where it has it. The second error is that of the request as a whole.
func Publish(ctx context.Context, api *sns.Client, arn string, ms []Message) ([]error, error) {
	in := &sns.PublishBatchInput{TopicArn: &arn, PublishBatchRequestEntries: make([]types.PublishBatchRequestEntry, len(ms))}
	for i := range ms {
		m := &ms[i]
		in.PublishBatchRequestEntries[i] = types.PublishBatchRequestEntry{
			Id: aws.String(strconv.Itoa(i)), Message: &m.Body, MessageAttributes: attributes(m.Attributes),
			Subject: given(m.Subject), MessageGroupId: given(m.Group), MessageDeduplicationId: given(m.Dedupe),
		}
	}
	out, err := api.PublishBatch(ctx, in)
	if err != nil {
		return nil, client.Wrap(err, "publish to %s", arn)
	}
	var errs []error
	for _, f := range out.Failed {
		if errs == nil {
			errs = make([]error, len(ms))
		}
		if i, err := strconv.Atoi(aws.ToString(f.Id)); err == nil && i < len(errs) {
			errs[i] = fault.New(client.KindOfCode(aws.ToString(f.Code), f.SenderFault), "publish to %s: %s: %s", arn, aws.ToString(f.Code), aws.ToString(f.Message))
		}
	}
	return errs, nil
}

func given(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func attributes(texts map[string]string) map[string]types.MessageAttributeValue {
	all := make(map[string]types.MessageAttributeValue, len(texts))
	for name, v := range texts {
		all[name] = types.MessageAttributeValue{DataType: aws.String("String"), StringValue: &v}
	}
	return all
}

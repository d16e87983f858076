package snssqs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	snstypes "github.com/aws/aws-sdk-go-v2/service/sns/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	client "github.com/penstock-io/penstock/client/aws"
	"github.com/penstock-io/penstock/client/aws/queue"
	"github.com/penstock-io/penstock/fault"
)

// Tags that Dapr puts on what it makes.
const (
	topicTag = "dapr-topic-name"
	queueTag = "dapr-queue-name"
)

// attach makes sure that a group's queue exists and gets the messages of a
// topic, and returns the topic's ARN.
func (d *driver) attach(ctx context.Context, g *group, topic string) (arn string, err error) {
	d.entities.Lock()
	defer d.entities.Unlock()
	name := awsName(topic, d.o.FIFO)
	if name == "" {
		return "", fault.New(fault.Invalid, "topic %q has no letter or digit that SNS allows", topic)
	}
	if arn, err = d.topicARN(ctx, name); err != nil {
		return "", err
	}
	queueARN, fresh, err := d.queueOf(ctx, g)
	if err != nil {
		return "", err
	}
	g.mu.Lock()
	done := !fresh && time.Since(g.checked[arn]) < checkInterval/2
	g.mu.Unlock()
	if done {
		return arn, nil
	}
	if err := d.connect(ctx, g, queueARN, arn); err != nil {
		return "", err
	}
	g.mu.Lock()
	g.checked[arn] = time.Now()
	g.mu.Unlock()
	return arn, nil
}

// connect lets the topic write to the queue and subscribes the queue to it.
func (d *driver) connect(ctx context.Context, g *group, queueARN, topicARN string) error {
	ctx, cancel := context.WithTimeout(ctx, 4*d.o.AssetsTimeout)
	defer cancel()
	if d.o.DisableManagement {
		return nil
	}
	if err := d.permit(ctx, g, queueARN, topicARN); err != nil {
		return err
	}
	_, err := d.sns.Subscribe(ctx, &sns.SubscribeInput{Endpoint: &queueARN, Protocol: sdk.String("sqs"), TopicArn: &topicARN})
	return client.Wrap(err, "subscribe queue %s to topic %s", queueARN, topicARN)
}

// topicARN makes a topic, or makes up the ARN of one that must exist.
func (d *driver) topicARN(ctx context.Context, name string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, d.o.AssetsTimeout)
	defer cancel()
	if !d.o.DisableManagement {
		in := &sns.CreateTopicInput{Name: &name, Tags: []snstypes.Tag{{Key: sdk.String(topicTag), Value: &name}}}
		if d.o.FIFO {
			in.Attributes = map[string]string{"FifoTopic": "true", "ContentBasedDeduplication": "true"}
		}
		out, err := d.sns.CreateTopic(ctx, in)
		if err != nil {
			return "", client.Wrap(err, "make topic %s", name)
		}
		return sdk.ToString(out.TopicArn), nil
	}
	if d.account == "" {
		account, err := client.Account(ctx, d.cfg)
		if err != nil {
			return "", err
		}
		d.account = account
	}
	arn := fmt.Sprintf("arn:%s:sns:%s:%s:%s", client.Partition(d.cfg.Region), d.cfg.Region, d.account, name)
	_, err := d.sns.GetTopicAttributes(ctx, &sns.GetTopicAttributesInput{TopicArn: &arn})
	return arn, client.Wrap(err, "find topic %s", arn)
}

// queueOf makes or finds the queue of a group; fresh tells that it was not known
// to exist.
func (d *driver) queueOf(ctx context.Context, g *group) (arn string, fresh bool, err error) {
	g.mu.Lock()
	arn, fresh = g.arn, g.q == nil || g.gone
	g.mu.Unlock()
	if !fresh {
		return arn, false, nil
	}
	url, arn, err := d.makeQueue(ctx, g.name)
	if err == nil && d.o.DeadLetters != "" {
		err = d.redrive(ctx, url)
	}
	if err != nil {
		return "", false, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return "", false, errClosed
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.arn, g.gone = arn, false
	if g.q == nil {
		g.q = queue.New(ctx, d.sqs, url, queue.Options{
			Visibility: d.o.Visibility, Wait: d.o.WaitTime, Batch: d.o.MaxNumber, Held: d.o.held(), FIFO: d.o.FIFO, Logger: d.log,
		})
	}
	return arn, true, nil
}

// makeQueue makes or finds a queue.
func (d *driver) makeQueue(ctx context.Context, name string) (url, arn string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*d.o.AssetsTimeout)
	defer cancel()
	if d.o.DisableManagement {
		in := &sqs.GetQueueUrlInput{QueueName: &name}
		if d.o.AccountID != "" {
			in.QueueOwnerAWSAccountId = &d.o.AccountID
		}
		out, err := d.sqs.GetQueueUrl(ctx, in)
		if err != nil {
			return "", "", client.Wrap(err, "find queue %s", name)
		}
		url = sdk.ToString(out.QueueUrl)
	} else {
		in := &sqs.CreateQueueInput{QueueName: &name, Tags: map[string]string{queueTag: name}}
		if d.o.FIFO {
			in.Attributes = map[string]string{"FifoQueue": "true", "ContentBasedDeduplication": "true"}
		}
		out, err := d.sqs.CreateQueue(ctx, in)
		if err != nil {
			return "", "", client.Wrap(err, "make queue %s", name)
		}
		url = sdk.ToString(out.QueueUrl)
	}
	out, err := d.sqs.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{
		QueueUrl: &url, AttributeNames: []types.QueueAttributeName{types.QueueAttributeNameQueueArn},
	})
	if err != nil {
		return "", "", client.Wrap(err, "ask for the ARN of queue %s", name)
	}
	return url, out.Attributes[string(types.QueueAttributeNameQueueArn)], nil
}

// redrive lets SQS move what was received too often to the dead letters queue.
func (d *driver) redrive(ctx context.Context, url string) error {
	if d.o.DisableManagement {
		return nil
	}
	_, arn, err := d.makeQueue(ctx, awsName(d.o.DeadLetters, d.o.FIFO))
	if err != nil {
		return err
	}
	policy, err := json.Marshal(map[string]string{"deadLetterTargetArn": arn, "maxReceiveCount": strconv.Itoa(d.o.ReceiveLimit)})
	if err != nil {
		return fault.Wrap(err, "encode redrive policy")
	}
	ctx, cancel := context.WithTimeout(ctx, d.o.AssetsTimeout)
	defer cancel()
	_, err = d.sqs.SetQueueAttributes(ctx, &sqs.SetQueueAttributesInput{QueueUrl: &url, Attributes: map[string]string{"RedrivePolicy": string(policy)}})
	return client.Wrap(err, "set dead letters queue of %s", url)
}

// permit lets a topic write to a queue, and leaves what else stands in the
// queue's policy.
func (d *driver) permit(ctx context.Context, g *group, queueARN, topicARN string) error {
	g.mu.Lock()
	q := g.q
	g.mu.Unlock()
	if q == nil {
		return errClosed
	}
	url := q.URL()
	out, err := d.sqs.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{
		QueueUrl: &url, AttributeNames: []types.QueueAttributeName{types.QueueAttributeNamePolicy},
	})
	if err != nil {
		return client.Wrap(err, "read policy of queue %s", g.name)
	}
	policy, changed, err := permission(out.Attributes[string(types.QueueAttributeNamePolicy)], queueARN, topicARN)
	if err != nil {
		return fault.Wrap(err, "read policy of queue %s", g.name)
	}
	if !changed {
		return nil
	}
	_, err = d.sqs.SetQueueAttributes(ctx, &sqs.SetQueueAttributesInput{QueueUrl: &url, Attributes: map[string]string{"Policy": policy}})
	return client.Wrap(err, "set policy of queue %s", g.name)
}

// statement is the part of a policy that lets topics write, in the form that
// Dapr gives it and finds it by.
type statement struct {
	Effect    string
	Principal struct{ Service string }
	Action    string
	Resource  string
	Condition struct {
		Arn struct {
			Source []string `json:"aws:SourceArn"`
		} `json:"ForAllValues:ArnEquals"`
	}
}

// permission puts a topic into a policy; changed is false when it is there.
func permission(policy, queueARN, topicARN string) (text string, changed bool, err error) {
	doc := struct {
		Version   string            `json:"Version"`
		ID        string            `json:"Id,omitempty"`
		Statement []json.RawMessage `json:"Statement"`
	}{Version: "2012-10-17"}
	if policy != "" {
		if err := json.Unmarshal([]byte(policy), &doc); err != nil {
			return "", false, fault.New(fault.Invalid, "decode policy: %w", err)
		}
	}
	s := statement{Effect: "Allow", Action: "sqs:SendMessage", Resource: queueARN}
	s.Principal.Service = "sns.amazonaws.com"
	at := len(doc.Statement)
	for i, raw := range doc.Statement {
		var have statement
		if json.Unmarshal(raw, &have) == nil && have.Resource == queueARN && have.Effect == s.Effect && have.Principal == s.Principal && len(have.Condition.Arn.Source) > 0 {
			s, at = have, i
			break
		}
	}
	if slices.Contains(s.Condition.Arn.Source, topicARN) {
		return policy, false, nil
	}
	s.Condition.Arn.Source = append(s.Condition.Arn.Source, topicARN)
	raw, err := json.Marshal(s)
	if at == len(doc.Statement) {
		doc.Statement = append(doc.Statement, raw)
	} else {
		doc.Statement[at] = raw
	}
	out, err2 := json.Marshal(doc)
	return string(out), true, errors.Join(err, err2)
}

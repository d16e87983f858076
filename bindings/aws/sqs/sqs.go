// Package sqs is the binding "bindings.aws.sqs": it takes messages out of one
// queue of SQS and puts messages into it, ten in one request both ways.
//
// Metadata of an invocation are the attributes of its message, and attributes
// of a message the metadata of its event. Bodies that are no text travel in
// base64 and arrive as they were.
//
// Promises: an invocation returns when SQS has the message. A message that came
// in is hidden from others for as long as it is held, and deleted when it is
// settled; a retry waits in the queue for its delay and comes back with attempt+1;
// what was left comes with the next Read.
package sqs

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/penstock-io/penstock/bindings"
	client "github.com/penstock-io/penstock/client/aws"
	"github.com/penstock-io/penstock/client/aws/queue"
	"github.com/penstock-io/penstock/component"
)

// Component is listed in package all.
var Component = bindings.Define("aws.sqs", component.About{
	Summary: "Takes messages out of a queue of Amazon SQS, and puts messages into it",
	Ack: "Deletes the message, ten in one request. An invocation returns when SQS has the message. " +
		"A retry stays in the queue, hidden for its delay",
	Order: "None on a standard queue. On a FIFO queue the messages of a group come one at a time and in order, across retries too",
	Limits: "1 MiB for a message with its metadata; a retry is delayed by 12 hours at most and by whole seconds; " +
		"a message may be held for 12 hours; a count of attempts made by several processes includes deliveries that were left",
	Scale: "Processes share the queue; what a killed one held comes to another within visibilityTimeout (30s)",
	Dapr: "Messages are received by several requests side by side, ten in one, and sent and deleted ten in one, instead of one at a time with a pause of 50 ms after each. " +
		"Attributes of a message reach the app, and metadata of an invocation become attributes. " +
		"What fails is tried again with a growing delay and an attempt count. FIFO queues work. The queue is looked up when the binding is opened, not for each message.",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: orders
spec:
  type: bindings.aws.sqs
  version: v1
  metadata:
    - name: queueName
      value: orders
    - name: region
      value: us-east-1
`,
	Capabilities: []string{bindings.InputCapability, bindings.OutputCapability},
	Operations:   operations(),
}, open)

func operations() []string { return []string{"create"} }

type options struct {
	client.Options
	QueueName  string        `meta:"queueName,required" doc:"The queue, which must exist; it is a FIFO queue when its name ends in .fifo." example:"orders"`
	AccountID  string        `meta:"accountId" doc:"Number of the account that the queue belongs to; that of the credentials when empty." example:"123456789012"`
	Visibility time.Duration `meta:"visibilityTimeout" default:"30s" doc:"How long a message stays hidden from others after the process that holds it was last heard of; whole seconds from 2s to 12h. Extended while the message is held."`
	WaitTime   time.Duration `meta:"waitTime" default:"20s" doc:"How long one request waits for messages; whole seconds from 1s to 20s. Longer means fewer requests."`
	GroupID    string        `meta:"messageGroupId" doc:"Group of messages sent to a FIFO queue whose invocation has no metadata messageGroupId; the component's name when empty."`
}

// Check implements component.Checker.
func (o options) Check() error {
	errs := []error{o.Options.Check()}
	within := func(name string, d, least, most time.Duration) {
		if d < least || d > most || d%time.Second != 0 {
			errs = append(errs, component.OptionErrorf(name, "must be whole seconds from %s to %s", least, most))
		}
	}
	within("visibilityTimeout", o.Visibility, 2*time.Second, queue.MaxDelay)
	within("waitTime", o.WaitTime, time.Second, queue.MaxWait)
	return errors.Join(errs...)
}

type binding struct {
	o       options
	name    string // of the component
	queue   *queue.Queue
	release func() error
}

func open(ctx context.Context, env component.Env, o options) (bindings.Driver, error) {
	cfg, release, err := client.Open(ctx, env, o.Options, client.Transport{})
	if err != nil {
		return nil, err
	}
	api := sqs.NewFromConfig(cfg)
	in := &sqs.GetQueueUrlInput{QueueName: &o.QueueName}
	if o.AccountID != "" {
		in.QueueOwnerAWSAccountId = &o.AccountID
	}
	out, err := api.GetQueueUrl(ctx, in)
	if err != nil {
		return nil, errors.Join(client.Wrap(err, "find queue %s", o.QueueName), release())
	}
	return &binding{o: o, name: env.Name, release: release, queue: queue.New(ctx, api, aws.ToString(out.QueueUrl), queue.Options{
		Visibility: o.Visibility, Wait: o.WaitTime, Batch: queue.Entries, FIFO: o.fifo(), Logger: env.Logger,
	})}, nil
}

func (o options) fifo() bool { return strings.HasSuffix(o.QueueName, ".fifo") }

// Close implements bindings.Driver: it waits for what is sent and settled to be
// written until ctx ends, and gives the rest back.
func (b *binding) Close(ctx context.Context) error {
	return errors.Join(b.queue.Close(ctx), b.release())
}

// Package snssqs is the broker "pubsub.aws.snssqs": topics of SNS, and a queue
// of SQS for each consumer group.
//
// It is opened through [Component]. Topics, queues, subscriptions and the rights
// between them are made when first used, with the names and tags that Dapr gives
// them, so that both read what the other wrote: a group has one queue, which all
// of its topics are delivered to in the envelope of SNS. Messages whose delivery
// is raw are read too.
//
// Promises: a publish returns when SNS has the message. A message stays in the
// queue until it was acknowledged or dropped; a retry waits in the queue for its
// delay, rounded up to a second. While it is held its invisibility is extended,
// so that what a killed process held comes to another one within
// messageVisibilityTimeout. With fifo, messages of one key are delivered one at
// a time and in order, whatever happens in between.
package snssqs

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	client "github.com/penstock-io/penstock/client/aws"
	"github.com/penstock-io/penstock/client/aws/queue"
	"github.com/penstock-io/penstock/client/aws/topic"
	"github.com/penstock-io/penstock/client/batch"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/pubsub"
)

// Component is "pubsub.aws.snssqs".
var Component = pubsub.Define("aws.snssqs", component.About{
	Summary: "Topics of Amazon SNS with a queue of Amazon SQS for each consumer group",
	Ack:     "Deletes the message from the group's queue, ten in one request; a publish is with SNS when it returns",
	Order:   "None, unless fifo is on: then messages of one key come one at a time and in order",
	Limits: "256 KiB for a message with its metadata; a retry is delayed by 12 hours at most and by whole seconds; " +
		"a message may be held for 12 hours; a count of attempts made by several processes includes deliveries that were left",
	Scale: "Processes of one group share its queue; what a killed one held comes again within messageVisibilityTimeout (4s)",
	Dapr: "Messages are received by several requests side by side, published and deleted ten at a time, and extended while they are held, " +
		"so messageVisibilityTimeout need not be longer than the app takes; its default is 4s instead of 10s. " +
		"Nothing is deleted because it failed too often: messageRetryLimit and disableDeleteOnRetryLimit have no effect; use a dead letter topic or sqsDeadLettersQueueName. " +
		"A FIFO message is never taken for a duplicate because its bytes are those of another; its group is its topic with its key, else fifoMessageGroupID, else its topic with the app id. " +
		"Metadata of a message and bodies that are no text arrive. The type pubsub.snssqs means the same.",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: bus
spec:
  type: pubsub.aws.snssqs
  version: v1
  metadata:
    - name: region
      value: us-east-1
`,
	Also: []string{"pubsub.snssqs"}, // its name before the others of AWS came
}, open)

type options struct {
	client.Options
	Visibility        time.Duration     `meta:"messageVisibilityTimeout" default:"4s" doc:"How long a message stays hidden from others after the process that holds it was last heard of; whole seconds from 2s to 12h. Extended while the message is held."`
	ReceiveLimit      int               `meta:"messageReceiveLimit" default:"10" doc:"Deliveries after which SQS itself moves a message to sqsDeadLettersQueueName; those that were left count too."`
	RetryLimit        component.Ignored `meta:"messageRetryLimit" doc:"Nothing is deleted because it failed; how often to try is said by a resiliency policy."`
	DeadLetters       string            `meta:"sqsDeadLettersQueueName" doc:"Queue that SQS itself moves messages to after messageReceiveLimit deliveries." example:"orders-dead"`
	WaitTime          time.Duration     `meta:"messageWaitTimeSeconds" default:"1s" doc:"How long one request waits for messages; whole seconds from 1s to 20s. Longer means fewer requests."`
	MaxNumber         int               `meta:"messageMaxNumber" default:"10" doc:"Most messages received by one request, 1 to 10."`
	FIFO              bool              `meta:"fifo" doc:"Use FIFO topics and queues, which keep the order of each key."`
	GroupID           string            `meta:"fifoMessageGroupID" doc:"Group of FIFO messages that have no key, whatever their topic: one of them that waits holds up all. The topic with the app id when empty."`
	DisableManagement bool              `meta:"disableEntityManagement" doc:"Make no topics, queues, subscriptions and policies: they must exist."`
	DisableDelete     component.Ignored `meta:"disableDeleteOnRetryLimit" doc:"Nothing is deleted because it failed."`
	AssetsTimeout     time.Duration     `meta:"assetsManagementTimeoutSeconds" default:"5s" doc:"Longest wait for one request that makes or finds a topic, queue or subscription."`
	ConcurrencyMode   string            `meta:"concurrencyMode" default:"parallel" enum:"parallel|single" doc:"With single one message of the group is held at a time."`
	ConcurrencyLimit  int               `meta:"concurrencyLimit" default:"0" doc:"Most messages of the group held at a time; 0 leaves it to the route."`
	AccountID         string            `meta:"accountId" doc:"Number of the account; asked for when empty and disableEntityManagement is on." example:"123456789012"`
}

// Check implements component.Checker.
func (o options) Check() error {
	errs := []error{o.Options.Check()}
	within := func(name string, d, least, most time.Duration) {
		if d < least || d > most || d%time.Second != 0 {
			errs = append(errs, component.OptionErrorf(name, "must be whole seconds from %s to %s", least, most))
		}
	}
	within("messageVisibilityTimeout", o.Visibility, 2*time.Second, queue.MaxDelay)
	within("messageWaitTimeSeconds", o.WaitTime, time.Second, queue.MaxWait)
	if o.MaxNumber < 1 || o.MaxNumber > queue.Entries {
		errs = append(errs, component.OptionErrorf("messageMaxNumber", "must be 1 to %d", queue.Entries))
	}
	if o.ReceiveLimit < 1 || o.ReceiveLimit > 1000 {
		errs = append(errs, component.OptionErrorf("messageReceiveLimit", "must be 1 to 1000"))
	}
	if o.AssetsTimeout <= 0 {
		errs = append(errs, component.OptionErrorf("assetsManagementTimeoutSeconds", "must be more than 0"))
	}
	if o.ConcurrencyLimit < 0 {
		errs = append(errs, component.OptionErrorf("concurrencyLimit", "must not be negative"))
	}
	return errors.Join(errs...)
}

// held returns how many messages may be out at a time.
func (o options) held() int {
	if o.ConcurrencyMode == "single" {
		return 1
	}
	return o.ConcurrencyLimit
}

var errClosed = fault.New(fault.Unavailable, "the broker is closed")

type driver struct {
	o       options
	app     string
	log     *slog.Logger
	cfg     sdk.Config
	sns     *sns.Client
	sqs     *sqs.Client
	release func() error
	work    sync.WaitGroup

	entities sync.Mutex // held while entities are made
	account  string     // guarded by entities

	mu     sync.Mutex // guards what follows
	closed bool
	topics map[string]*target // by name on SNS
	groups map[string]*group  // by name of the queue
}

// target is one topic of SNS that this process publishes to.
type target struct {
	name string
	send *batch.Writer[topic.Message]

	mu  sync.Mutex
	arn string // empty: not known
}

func open(ctx context.Context, env component.Env, o options) (pubsub.Driver, error) {
	cfg, release, err := client.Open(ctx, env, o.Options, client.Transport{})
	if err != nil {
		return nil, err
	}
	log := env.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	d := &driver{
		o: o, app: env.AppID, log: log, cfg: cfg, sns: sns.NewFromConfig(cfg), sqs: sqs.NewFromConfig(cfg), release: release,
		account: o.AccountID, topics: map[string]*target{}, groups: map[string]*group{},
	}
	_, err = d.sqs.ListQueues(ctx, &sqs.ListQueuesInput{MaxResults: sdk.Int32(1)})
	if err = client.Reached(client.Wrap(err, "reach SQS")); err != nil {
		return nil, errors.Join(err, release())
	}
	return d, nil
}

// Features implements pubsub.Featured.
func (d *driver) Features() pubsub.Features { return pubsub.Features{GiveBack: true} }

// Publish sends the batch to SNS, ten messages in one request.
func (d *driver) Publish(ctx context.Context, name string, batch []pubsub.Message) error {
	if len(batch) == 0 {
		return nil
	}
	t, err := d.target(ctx, name)
	if err != nil {
		return err
	}
	items := make([]topic.Message, len(batch))
	for i := range batch {
		if items[i], err = d.outgoing(t.name, &batch[i]); err != nil {
			return err
		}
	}
	errs := t.send.Do(ctx, items...)
	if errs == nil {
		return nil
	}
	return &pubsub.BatchError{Errs: errs}
}

// target finds or makes the topic to publish to.
func (d *driver) target(ctx context.Context, name string) (*target, error) {
	key := awsName(name, d.o.FIFO)
	if key == "" {
		return nil, fault.New(fault.Invalid, "topic %q has no letter or digit that SNS allows", name)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, errClosed
	}
	t := d.topics[key]
	if t == nil {
		t = &target{name: key}
		parallel := 4
		if d.o.FIFO {
			parallel = 1 // the order
		}
		write := func(ctx context.Context, items []topic.Message) []error { return d.publish(ctx, t, items) }
		t.send = batch.NewWriter(ctx, batch.Options[topic.Message]{
			Write: write, Most: topic.Entries, Bytes: topic.Bytes, Size: func(m topic.Message) int { return m.Bytes() }, Parallel: parallel,
		})
		d.topics[key] = t
	}
	return t, nil
}

// Prepare implements pubsub.Preparer.
func (d *driver) Prepare(ctx context.Context, s pubsub.Subscription) error {
	g, err := d.group(s.Group)
	if err != nil {
		return err
	}
	_, err = d.attach(ctx, g, s.Topic)
	return err
}

// Subscribe hands the messages of a topic to emit.
func (d *driver) Subscribe(ctx context.Context, s pubsub.Subscription, emit cloudevents.EmitFunc) error {
	g, err := d.group(s.Group)
	if err != nil {
		return err
	}
	arn, err := d.attach(ctx, g, s.Topic)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	return g.serve(ctx, arn, s.Topic, emit)
}

// Backlog implements pubsub.Backlogged. It is that of all topics of the group, which
// share a queue.
func (d *driver) Backlog(ctx context.Context, s pubsub.Subscription) (cloudevents.Backlog, error) {
	g, err := d.group(s.Group)
	if err != nil {
		return cloudevents.Backlog{}, err
	}
	return g.backlog(ctx)
}

// Close settles what has its outcome and gives the rest back.
func (d *driver) Close(ctx context.Context) error {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return nil
	}
	d.closed = true
	topics, groups := d.topics, d.groups
	d.mu.Unlock()
	var errs []error
	for _, t := range topics {
		errs = append(errs, t.send.Close(ctx))
	}
	for _, g := range groups {
		errs = append(errs, g.close(ctx))
	}
	d.work.Wait()
	return errors.Join(append(errs, d.release())...)
}

// awsName makes a name that SNS and SQS allow the way Dapr does: what they do
// not allow is left out.
func awsName(name string, fifo bool) string {
	most := nameLimit
	if fifo {
		name = strings.TrimSuffix(name, fifoSuffix)
		most -= len(fifoSuffix)
	}
	var b strings.Builder
	for i := 0; i < len(name) && b.Len() < most; i++ {
		c := name[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' {
			b.WriteByte(c)
		}
	}
	if fifo && b.Len() > 0 {
		b.WriteString(fifoSuffix)
	}
	return b.String()
}

const (
	nameLimit  = 80
	fifoSuffix = ".fifo"
)

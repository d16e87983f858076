// Package sns is the binding "bindings.aws.sns": it publishes to one topic of
// SNS.
//
// It is an output only; create publishes. Data of Dapr's form, an object with
// message and subject, is taken apart; other data is the message as it stands.
// Metadata of an invocation are attributes of its message, which filters of SNS
// can use.
//
// Promises: an invocation returns when SNS has the message. What is invoked side
// by side is published ten in one request, and each has its own result.
package sns

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"maps"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sns"

	"github.com/penstock-io/penstock/bindings"
	client "github.com/penstock-io/penstock/client/aws"
	"github.com/penstock-io/penstock/client/aws/topic"
	"github.com/penstock-io/penstock/client/batch"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
)

// Component is listed in package all.
var Component = bindings.Define("aws.sns", component.About{
	Summary: "Publishes to a topic of Amazon SNS",
	Ack:     "An invocation returns when SNS has the message",
	Order:   "None on a standard topic. Of a FIFO topic, calls made one after the other stay in order in their group",
	Limits:  "256 KiB for a message with its metadata; 4 requests under way, one of a FIFO topic; 60 s for an invocation",
	Scale:   "Any number of processes may publish to the topic",
	Dapr: "Messages of calls made side by side go ten in one request. Metadata of an invocation become attributes of the message. " +
		"Data that is no object with message is published as it stands instead of being refused. FIFO topics work.",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: alarms
spec:
  type: bindings.aws.sns
  version: v1
  metadata:
    - name: topicArn
      value: arn:aws:sns:us-east-1:123456789012:alarms
    - name: region
      value: us-east-1
`,
	Capabilities: []string{bindings.OutputCapability},
	Operations:   operations(),
}, open)

func operations() []string { return []string{"create"} }

type options struct {
	client.Options
	TopicArn string `meta:"topicArn,required" doc:"ARN of the topic; it is a FIFO topic when it ends in .fifo." example:"arn:aws:sns:us-east-1:123456789012:alarms"`
	GroupID  string `meta:"messageGroupId" doc:"Group of messages for a FIFO topic whose invocation has no metadata messageGroupId; the component's name when empty."`
}

// Check implements component.Checker.
func (o options) Check() error {
	errs := []error{o.Options.Check()}
	if parts := strings.Split(o.TopicArn, ":"); len(parts) != 6 || parts[0] != "arn" || parts[2] != "sns" || parts[5] == "" {
		errs = append(errs, component.OptionErrorf("topicArn", "%q is not an ARN such as arn:aws:sns:us-east-1:123456789012:alarms", o.TopicArn))
	}
	return errors.Join(errs...)
}

func (o options) fifo() bool { return strings.HasSuffix(o.TopicArn, ".fifo") }

type binding struct {
	o       options
	name    string // of the component
	send    *batch.Writer[topic.Message]
	release func() error
}

func open(ctx context.Context, env component.Env, o options) (bindings.Driver, error) {
	cfg, release, err := client.Open(ctx, env, o.Options, client.Transport{})
	if err != nil {
		return nil, err
	}
	api := sns.NewFromConfig(cfg)
	_, err = api.GetTopicAttributes(ctx, &sns.GetTopicAttributesInput{TopicArn: &o.TopicArn})
	if err = client.Wrap(err, "find topic %s", o.TopicArn); err != nil && fault.KindOf(err) != fault.Denied || client.BadCredentials(err) {
		return nil, errors.Join(err, release())
	}
	parallel := 4
	if o.fifo() {
		parallel = 1 // the order
	}
	return &binding{o: o, name: env.Name, release: release, send: batch.NewWriter(ctx, batch.Options[topic.Message]{
		Write: func(ctx context.Context, ms []topic.Message) []error {
			errs, err := topic.Publish(ctx, api, o.TopicArn, ms)
			if err != nil {
				return batch.All(len(ms), err)
			}
			return errs
		},
		Most: topic.Entries, Bytes: topic.Bytes, Size: func(m topic.Message) int { return m.Bytes() }, Parallel: parallel,
	})}, nil
}

// Operations returns create.
func (b *binding) Operations() []string { return operations() }

// invokeTimeout is how long an invocation may take whose caller does not say.
const invokeTimeout = 60 * time.Second

// Invoke implements bindings.Invoker.
func (b *binding) Invoke(ctx context.Context, r *bindings.Request) (*bindings.Response, error) {
	if r.Operation != "create" {
		return nil, fault.New(fault.Invalid, "publish message: operation %.40q is not supported; use create", r.Operation)
	}
	m, err := b.message(r)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, invokeTimeout)
	defer cancel()
	for _, err := range b.send.Do(ctx, m) {
		return nil, err
	}
	return nil, nil
}

// message makes the message of a request. The metadata that says how to publish
// it is not sent.
func (b *binding) message(r *bindings.Request) (m topic.Message, err error) {
	data := r.Data
	data, m.Subject = dapr(data)
	rest := maps.Clone(r.Metadata)
	for name, value := range r.Metadata {
		switch strings.ToLower(name) {
		case "messagegroupid":
			m.Group = client.GroupID(value)
		case "messagededuplicationid":
			m.Dedupe = client.GroupID(value)
		case "subject":
			m.Subject = value
		default:
			continue
		}
		delete(rest, name)
	}
	if b.o.fifo() {
		m.Group = cmp.Or(m.Group, client.GroupID(b.o.GroupID), client.GroupID(b.name), "penstock")
		m.Dedupe = cmp.Or(m.Dedupe, rand.Text())
	}
	if m.Packed, err = client.Pack(data, rest, ""); err != nil {
		return m, err
	}
	return m, m.Check()
}

// dapr takes apart data in the form that Dapr's binding wants: a JSON object with
// message and, if wanted, subject. Other data is the message.
func dapr(data []byte) (message []byte, subject string) {
	if len(data) == 0 || data[0] != '{' {
		return data, ""
	}
	var form struct{ Message, Subject json.RawMessage }
	if json.Unmarshal(data, &form) != nil || form.Message == nil {
		return data, ""
	}
	return text(form.Message), string(text(form.Subject))
}

// text returns what a JSON string says, and other JSON as it stands.
func text(raw json.RawMessage) []byte {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return []byte(s)
	}
	return raw
}

// Close implements bindings.Driver: it waits for what is being published until
// ctx ends.
func (b *binding) Close(ctx context.Context) error {
	return errors.Join(b.send.Close(ctx), b.release())
}

// Package rabbitmq is the binding "bindings.rabbitmq": it takes messages out of
// one queue of RabbitMQ and puts messages into it.
//
// The queue is declared as Dapr declares it. A message's headers are the metadata
// of its event, escaped as in a query, and the metadata of an invocation are the
// headers of its message.
//
// Promises: an invocation returns when the server has confirmed the message and
// put it into the queue, which is made again when it has gone. A message that
// came in is acknowledged when it is settled; a retry waits in a queue beside it
// and comes back with attempt+1; what was left comes with the next Read.
package rabbitmq

import (
	"context"
	"errors"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/penstock-io/penstock/bindings"
	client "github.com/penstock-io/penstock/client/rabbitmq"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
)

// Component is listed in package all.
var Component = bindings.Define("rabbitmq", component.About{
	Summary: "Takes messages out of a queue of RabbitMQ, and puts messages into it",
	Ack: "Acknowledges the message to the queue, in batches. An invocation returns when the server has confirmed that the message is in the queue. " +
		"A retry is confirmed in a queue beside it, called the same with .retry. and its delay in milliseconds, before the message is acknowledged; the server moves it back after the delay",
	Order: "A process gets the messages in their order, and the route keeps that of each key; a retry without a key is overtaken",
	Limits: "prefetchCount (256) messages under way; 1024 invocations without a confirm for each server, 30 s for a confirm. " +
		"A retry waits 7 days at most, its delay rounded up by up to a third. Without durable, which is Dapr's default, the queue and all that is in it are lost when the server restarts, " +
		"with deleteWhenUnused a minute after its last reader, with exclusive when the connection breaks",
	Scale: "Processes share the queue; when one dies the server gives its messages to the others at once",
	Dapr: "Invocations wait for a confirm, and a message that no queue takes is an error. Many messages are under way at once; one that fails is tried again with a growing delay " +
		"and an attempt count instead of at once. Headers that are not text reach the app too. caCert, clientCert and clientKey need not be given together",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: orders
spec:
  type: bindings.rabbitmq
  version: v1
  metadata:
    - name: host
      value: amqp://user:password@rabbitmq:5672/
    - name: queueName
      value: orders
    - name: durable
      value: "true"
`,
	Capabilities: []string{bindings.InputCapability, bindings.OutputCapability},
	Operations:   operations(),
}, open)

func operations() []string { return []string{"create"} }

type options struct {
	client.Options
	Host             component.Secret `meta:"host,required" alias:"connectionString" doc:"Address as amqp://user:password@host:port/vhost, or amqps:// for TLS." example:"amqp://user:password@rabbitmq:5672/"`
	ExternalSasl     bool             `meta:"externalSasl" alias:"saslExternal" default:"false" doc:"Takes the identity from clientCert."`
	QueueName        string           `meta:"queueName,required" doc:"The queue." example:"orders"`
	Durable          bool             `meta:"durable"          default:"false" doc:"Keeps the queue, and what is in it, when the server restarts."`
	DeleteWhenUnused bool             `meta:"deleteWhenUnused" default:"false" doc:"Has the server delete the queue, with all that is in it, after its last reader."`
	Exclusive        bool             `meta:"exclusive"        default:"false" doc:"Lets nobody else read the queue, and has the server delete it when the connection ends."`
	TTL              time.Duration    `meta:"ttlInSeconds"     alias:"ttl"     default:"0s" doc:"How long messages live in the queue; 0 is for ever. Metadata ttlInSeconds of an invocation is for one message."`
	MaxPriority      int              `meta:"maxPriority"      default:"0"     doc:"Makes it a queue with priorities up to this, at most 255; metadata priority of an invocation says which. 0 is without."`
	ContentType      string           `meta:"contentType"      default:"text/plain" doc:"Type of messages whose invocation has no metadata contentType."`
	PrefetchCount    int              `meta:"prefetchCount"    default:"0"     doc:"Most messages under way; 0 is 256."`
	ReconnectWait    time.Duration    `meta:"reconnectWaitInSeconds" default:"5s" doc:"Longest pause between two tries to connect; the first ones are shorter."`
}

// Check implements component.Checker.
func (o options) Check() error {
	errs := []error{o.config().Check("host", "externalSasl")}
	if o.MaxPriority < 0 {
		errs = append(errs, component.OptionErrorf("maxPriority", "must be between 0 and 255"))
	}
	if o.PrefetchCount < 0 || o.PrefetchCount > 65535 {
		errs = append(errs, component.OptionErrorf("prefetchCount", "must be between 0 and 65535"))
	}
	if o.TTL < 0 {
		errs = append(errs, component.OptionErrorf("ttlInSeconds", "must not be negative"))
	}
	return errors.Join(errs...)
}

func (o options) config() client.Config {
	return client.Config{Options: o.Options, URL: o.Host.Reveal(), External: o.ExternalSasl, ReconnectWait: o.ReconnectWait}
}

type binding struct {
	options options
	name    string // of the component
	client  *client.Client
	reader  *client.Reader
	release func() error
	queue   *client.Topology
	calls   client.Calls
}

func open(ctx context.Context, env component.Env, o options) (bindings.Driver, error) {
	c, release, err := client.Open(ctx, env, o.config())
	if err != nil {
		return nil, err
	}
	b := &binding{options: o, name: env.Name, client: c, release: release}
	b.queue = &client.Topology{Name: o.QueueName, Make: b.declare}
	if o.Exclusive { // it belongs to the connection that reads it
		b.queue.Make = func(*amqp.Channel) error { return c.Declare(ctx, true, b.declare) }
	}
	if err := c.Declare(ctx, o.Exclusive, b.declare); err != nil {
		return nil, errors.Join(fault.Wrap(err, "declare queue %s", o.QueueName), release())
	}
	b.reader = c.NewReader(ctx)
	return b, nil
}

// declare makes the queue.
func (b *binding) declare(ch *amqp.Channel) error {
	o := b.options
	args := amqp.Table{}
	if o.TTL > 0 {
		args["x-message-ttl"] = o.TTL.Milliseconds()
	}
	if o.MaxPriority > 0 {
		args["x-max-priority"] = uint8(min(o.MaxPriority, 255))
	}
	_, err := ch.QueueDeclare(o.QueueName, o.Durable, o.DeleteWhenUnused, o.Exclusive, false, args)
	return err
}

// Close implements bindings.Driver: it waits for invocations and for outcomes to
// be written until ctx ends.
func (b *binding) Close(ctx context.Context) error {
	if !b.calls.Close() {
		return nil
	}
	return errors.Join(b.reader.Close(ctx), b.calls.Wait(ctx), b.release())
}

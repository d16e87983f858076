// Package rabbitmq is the broker "pubsub.rabbitmq": each topic is an exchange,
// and each group of it a queue, laid out as Dapr does it.
//
// It is opened through [Component]. The exchange is called like the topic, the
// queue <consumerID>-<topic> unless the subscription's metadata has a queueName;
// enableDeadLetter adds an exchange dlx-<queue> and a queue dlq-<queue>. A message's
// metadata are its headers, its ordering key the header x-penstock-key.
//
// Promises: a publish that returned nil was confirmed by the server; one that no
// queue wants is confirmed too, since nobody has subscribed. A message is
// acknowledged when it is settled, in batches. A retry waits in a queue beside
// the group's and comes back with attempt+1. What is under way when a connection
// breaks comes again uncounted, and an outcome that comes too late changes nothing.
package rabbitmq

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	client "github.com/penstock-io/penstock/client/rabbitmq"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/pubsub"
)

// Component is "pubsub.rabbitmq".
var Component = pubsub.Define("rabbitmq", component.About{
	Summary: "Topics on RabbitMQ, as exchanges and queues laid out like Dapr's",
	Ack: "Acknowledges the message to the queue, in batches; a publish returns when the server has confirmed it. " +
		"A retry is confirmed in a queue beside it, called the same with .retry. and its delay in milliseconds, before the message is acknowledged; the server moves it back after the delay",
	Order: "A process gets the messages of a queue in their order, and the route keeps that of each key. Across processes and across retries without a key " +
		"only concurrency: single together with the subscription's singleActiveConsumer keeps it",
	Limits: "prefetchCount (256) messages under way for each subscription; 1024 publishes without a confirm for each server, 30 s for a confirm. " +
		"A retry waits 7 days at most, its delay rounded up by up to a third. " +
		"With deletedWhenUnused, which is Dapr's default, the server deletes the queue and all that is in it when its last consumer has gone for a minute, or at once when the process ends: " +
		"what is published while no process runs is lost. Set deletedWhenUnused: false to keep it. maxLen and maxLenBytes make the server drop the oldest messages. " +
		"RabbitMQ 4 drops a message of a quorum queue that was requeued 20 times, as when processes die, unless a policy says otherwise",
	Scale: "Processes of one consumerID share its queues; when one dies the server gives its messages to the others at once",
	Dapr: "publisherConfirm is always on, autoAck always off, and messages are persistent unless deliveryMode is 1. A message that fails is tried again with a growing delay and an attempt count, " +
		"instead of being dropped or requeued at once; with enableDeadLetter it goes to the dead letter queue, as under Dapr, unless requeueInFailure is set. " +
		"Metadata of a publish become headers. A topic's exchange that was deleted is made again",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: bus
spec:
  type: pubsub.rabbitmq
  version: v1
  metadata:
    - name: connectionString
      value: amqp://user:password@rabbitmq:5672/
    # Keeps what is published while no process runs.
    - name: durable
      value: "true"
    - name: deletedWhenUnused
      value: "false"
`,
}, open)

type options struct {
	client.Options
	ConnectionString component.Secret `meta:"connectionString" alias:"host" doc:"Address as amqp://user:password@host:port/vhost, or amqps:// for TLS." example:"amqp://user:password@rabbitmq:5672/"`
	Protocol         string           `meta:"protocol"   doc:"amqp or amqps, with hostname; with connectionString it must be the same as there." enum:"amqp|amqps"`
	Hostname         string           `meta:"hostname"   default:"localhost" doc:"Host, and port if it is not the usual one, where there is no connectionString." example:"rabbitmq:5672"`
	Username         string           `meta:"username"   doc:"User, with hostname; guest when empty."`
	Password         component.Secret `meta:"password"   doc:"Password of username."`
	SaslExternal     bool             `meta:"saslExternal" default:"false" doc:"Takes the identity from clientCert."`

	Durable             bool          `meta:"durable"             default:"true"   doc:"Keeps exchanges and queues when the server restarts."`
	DeletedWhenUnused   bool          `meta:"deletedWhenUnused"   default:"true"   doc:"Has the server delete a queue, with all that is in it, after its last consumer, and an exchange after its last queue. Set it to false to lose nothing while no process runs."`
	ExchangeKind        string        `meta:"exchangeKind"        default:"fanout" doc:"Kind of the topics' exchanges: fanout, topic, direct, headers or x-consistent-hash; any with exchangeDeclareMode passive."`
	ExchangeDeclareMode string        `meta:"exchangeDeclareMode" default:"declare" doc:"Makes the topics' exchanges, or only checks that they are there." enum:"declare|passive"`
	EnableDeadLetter    bool          `meta:"enableDeadLetter"    default:"false"  doc:"Has the server put messages that failed into the queue of the same name after dlq-, and those that expired or were pushed out."`
	RequeueInFailure    bool          `meta:"requeueInFailure"    default:"false"  doc:"Tries messages that failed again, with a delay, also when enableDeadLetter is on."`
	MaxLen              int64         `meta:"maxLen"              default:"0"      doc:"Most messages of a queue and of its dead letter queue; the server drops the oldest. 0 is no limit."`
	MaxLenBytes         int64         `meta:"maxLenBytes"         default:"0"      doc:"Most bytes of a queue and of its dead letter queue; the server drops the oldest messages. 0 is no limit."`
	TTL                 time.Duration `meta:"ttlInSeconds"        default:"0s"     doc:"How long messages live whose publisher does not say; 0 is for ever."`
	DeliveryMode        int           `meta:"deliveryMode"        default:"2"      doc:"2 keeps messages on disk; 1 loses them when the server restarts. 0 is 2."`

	PrefetchCount int           `meta:"prefetchCount"        default:"0"        doc:"Most messages that a subscription has under way; 0 is 256."`
	Concurrency   string        `meta:"concurrency"          default:"parallel" doc:"single delivers one message of a subscription after the other, in strict order." enum:"parallel|single"`
	Properties    bool          `meta:"publishMessagePropertiesToMetadata" default:"false" doc:"Adds messageid, correlationid, type and contenttype of a message to its metadata."`
	ReconnectWait time.Duration `meta:"reconnectWaitSeconds" alias:"reconnectWait" default:"3s" doc:"Longest pause between two tries to connect; the first ones are shorter."`

	PublisherConfirm component.Ignored `meta:"publisherConfirm" doc:"Confirms are always waited for."`
	AutoAck          component.Ignored `meta:"autoAck"          doc:"A message is acknowledged when it is done with, never before."`
}

// Check implements component.Checker.
func (o options) Check() error {
	errs := []error{o.config().Check("connectionString", "saslExternal")}
	if !o.ConnectionString.IsZero() && o.Protocol != "" {
		if u, err := url.Parse(o.ConnectionString.Reveal()); err == nil && u.Scheme != o.Protocol {
			errs = append(errs, component.OptionErrorf("protocol", "is not that of connectionString"))
		}
	}
	kinds := []string{amqp.ExchangeFanout, amqp.ExchangeTopic, amqp.ExchangeDirect, amqp.ExchangeHeaders, "x-consistent-hash"}
	if o.ExchangeDeclareMode != "passive" && !slices.Contains(kinds, o.ExchangeKind) {
		errs = append(errs, component.OptionErrorf("exchangeKind", "%.40q is none of %s; others need exchangeDeclareMode passive", o.ExchangeKind, strings.Join(kinds, ", ")))
	}
	if o.DeliveryMode < 0 || o.DeliveryMode > 2 {
		errs = append(errs, component.OptionErrorf("deliveryMode", "must be 0, 1 or 2"))
	}
	if o.PrefetchCount < 0 || o.PrefetchCount > 65535 {
		errs = append(errs, component.OptionErrorf("prefetchCount", "must be between 0 and 65535"))
	}
	for name, n := range map[string]int64{"maxLen": o.MaxLen, "maxLenBytes": o.MaxLenBytes, "ttlInSeconds": int64(o.TTL)} {
		if n < 0 {
			errs = append(errs, component.OptionErrorf(name, "must not be negative"))
		}
	}
	return errors.Join(errs...)
}

func (o options) config() client.Config {
	c := client.Config{Options: o.Options, URL: o.ConnectionString.Reveal(), External: o.SaslExternal, ReconnectWait: o.ReconnectWait}
	if c.URL != "" {
		return c
	}
	u := url.URL{Scheme: o.Protocol, Host: o.Hostname}
	if u.Scheme == "" {
		u.Scheme = "amqp"
	}
	if o.Username != "" {
		u.User = url.User(o.Username)
		if !o.Password.IsZero() {
			u.User = url.UserPassword(o.Username, o.Password.Reveal())
		}
	}
	c.URL = u.String()
	return c
}

var errClosed = fault.New(fault.Unavailable, "the broker is closed")

// driver is one opened component.
type driver struct {
	options options
	client  *client.Client
	reader  *client.Reader
	release func() error
	calls   client.Calls
	latest  atomic.Pointer[client.Topology] // the exchange of the topic that was published to last
}

func open(ctx context.Context, env component.Env, o options) (pubsub.Driver, error) {
	c, release, err := client.Open(ctx, env, o.config())
	if err != nil {
		return nil, err
	}
	return &driver{options: o, client: c, reader: c.NewReader(ctx), release: release}, nil
}

// Features implements pubsub.Featured.
func (d *driver) Features() pubsub.Features { return pubsub.Features{TTL: true, GiveBack: true} }

// Subscribe implements pubsub.Driver.
func (d *driver) Subscribe(ctx context.Context, s pubsub.Subscription, emit cloudevents.EmitFunc) error {
	q, err := d.queue(s)
	if err != nil {
		return err
	}
	return d.reader.Read(ctx, d.feed(q), emit)
}

// Prepare implements pubsub.Preparer.
func (d *driver) Prepare(ctx context.Context, s pubsub.Subscription) error {
	q, err := d.queue(s)
	if err != nil {
		return err
	}
	return fault.Wrap(d.client.Declare(ctx, false, q.declare), "declare queue %s", q.name)
}

// Backlog implements pubsub.Backlogged.
func (d *driver) Backlog(ctx context.Context, s pubsub.Subscription) (cloudevents.Backlog, error) {
	q, err := d.queue(s)
	if err != nil {
		return cloudevents.Backlog{}, err
	}
	return d.reader.Backlog(ctx, q.name, false)
}

// Close implements pubsub.Driver: it waits for publishes and for outcomes to be
// written until ctx ends.
func (d *driver) Close(ctx context.Context) error {
	if !d.calls.Close() {
		return nil
	}
	return errors.Join(d.reader.Close(ctx), d.calls.Wait(ctx), d.release())
}

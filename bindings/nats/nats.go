// Package nats is the binding "bindings.nats": it takes messages of NATS
// subjects as events, publishes messages, and asks and answers requests.
//
// Without the option jetStream it is core NATS, which keeps nothing: a message
// goes to who listens at that moment. With it messages are read from a stream
// through a durable consumer, and create waits for the stream.
//
// Promises, core: at most once. What came in is held in memory until it is
// settled and delivered again after a retry; it is lost when this process ends.
// A message that wants a reply gets the app's answer, or an error of which the
// sender knows whether to try again. A create returns when the server has the
// message, whoever listens. Promises, stream: at least once. A message is
// acknowledged when it is settled, extended as long as it is held, and a retry
// comes from the server after its delay, also after a crash.
package nats

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/penstock-io/penstock/bindings"
	client "github.com/penstock-io/penstock/client/nats"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
)

// Component is "bindings.nats".
var Component = bindings.Define("nats", component.About{
	Summary: "Takes messages of NATS subjects as events, publishes messages, and asks and answers requests; with or without JetStream",
	Ack: "Core NATS knows no acknowledgement: what this process has not settled is lost when it ends. A message with a reply subject gets the app's answer when the event is settled; " +
		"when it cannot be delivered, an empty answer with the headers Nats-Service-Error and Nats-Service-Error-Code. create returns when the server has the message. " +
		"With jetStream the message is acknowledged to the stream, and create returns when the stream has it",
	Order: "Messages are handed out as they come, and the route keeps the order of each key (header Penstock-Key). A retry without a key is overtaken",
	Limits: "Core: maxPending messages and maxPendingBytes in memory, those under way and those that wait for a retry included; what comes beyond that is lost, and the log says how many. " +
		"jetStream: 1024 messages and 8 MiB beyond what the route holds. max_payload of the server, 1 MiB usually, for messages and answers",
	Scale: "Processes with the same queueGroup share the messages, unless broadcast is set. With jetStream they share the durable consumer, and a process that died is replaced within ackWait (4s)",
	Dapr:  "Dapr has no binding for NATS",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: prices
spec:
  type: bindings.nats
  version: v1
  metadata:
    - name: natsURL
      value: nats://localhost:4222
    - name: subject
      value: prices.get
    - name: publishSubject
      value: prices.changed
`,
	Capabilities: []string{bindings.InputCapability, bindings.OutputCapability},
	Operations:   operations(),
}, open)

func operations() []string { return []string{"create", "request"} }

type options struct {
	client.Options
	Subject         string         `meta:"subject"         doc:"Subject to read; may hold the wildcards of NATS, as in orders.* or orders.>. Empty: output only." example:"orders.*"`
	PublishSubject  string         `meta:"publishSubject"  doc:"Subject that create and request write to; metadata subject of the request comes first."`
	JetStream       bool           `meta:"jetStream"       doc:"Reads from a stream, and has create wait until a stream has the message." default:"false"`
	QueueGroup      string         `meta:"queueGroup"      doc:"Processes of one group share the messages. The app id and the component's name when empty."`
	Broadcast       bool           `meta:"broadcast"       doc:"Every process gets every message. Not with jetStream." default:"false"`
	Answer          bool           `meta:"answer"          doc:"Answers messages that have a reply subject. Turn it off for a subject that a stream takes too: its publishers would take the answer for the stream's." default:"true"`
	RequestTimeout  time.Duration  `meta:"requestTimeout"  doc:"Longest wait for the reply to a request." default:"10s"`
	MaxPending      int            `meta:"maxPending"      doc:"Most messages of core NATS in memory." default:"65536"`
	MaxPendingBytes component.Size `meta:"maxPendingBytes" doc:"Most bytes of them." default:"64Mi"`
	StreamName      string         `meta:"streamName"      doc:"The only stream to use, with jetStream; when empty the one that has the subject."`
	DurableName     string         `meta:"durableName"     doc:"Name of the durable consumer, with jetStream. The queue group and the subject when empty."`
	DeliverPolicy   string         `meta:"deliverPolicy"   doc:"Where a new consumer begins." enum:"all|last|new" default:"all"`
	AckWait         time.Duration  `meta:"ackWait"         doc:"How long a process that died keeps its messages. Empty: 4s for a new consumer; one that exists keeps its own."`
	MaxDeliver      int            `meta:"maxDeliver"      doc:"Attempts of a message of a stream until it is given up; 0 is without limit." default:"0"`
	BackOff         []string       `meta:"backOff"         doc:"Shortest pauses before the retries of a message of a stream, one after the other." example:"1s, 5s, 30s"`
	MaxAckPending   int            `meta:"maxAckPending"   doc:"Messages of a consumer without an answer, those that wait for a retry among them; 0 is 20000 for a new consumer."`
	Replicas        int            `meta:"replicas"        doc:"Copies of a consumer, and of a stream that is made; 0 is one, or those of the stream."`
	MemoryStorage   bool           `meta:"memoryStorage"   doc:"Keeps the state of the consumer, and a stream that is made, in memory only."`
	CreateStream    bool           `meta:"createStream"    doc:"Makes a stream for a subject that none has, with jetStream." default:"true"`
	StreamMaxAge    time.Duration  `meta:"streamMaxAge"    doc:"How long a stream that is made keeps messages; 0 is until they are deleted." default:"0s"`
}

const minAckWait = 20 * time.Millisecond

// Check implements component.Checker.
func (o options) Check() error {
	errs := []error{o.Options.Check()}
	wrong := func(bad bool, name, text string, args ...any) {
		if bad {
			errs = append(errs, component.OptionErrorf(name, text, args...))
		}
	}
	if o.Subject != "" {
		err := client.ValidPattern(o.Subject)
		wrong(err != nil, "subject", "%w", err)
	}
	if o.PublishSubject != "" {
		err := client.ValidSubject(o.PublishSubject)
		wrong(err != nil, "publishSubject", "%w", err)
	}
	wrong(o.Subject == "" && o.PublishSubject == "" && o.StreamName != "", "streamName", "needs subject or publishSubject")
	wrong(o.Broadcast && o.JetStream, "broadcast", "cannot be set together with jetStream: a durable consumer is shared")
	wrong(!o.JetStream && o.DurableName != "", "durableName", "needs jetStream")
	wrong(!o.JetStream && o.StreamName != "", "streamName", "needs jetStream")
	wrong(o.MaxPending < 1, "maxPending", "must be at least 1")
	wrong(o.MaxPendingBytes < 1, "maxPendingBytes", "must be at least 1")
	wrong(o.RequestTimeout <= 0, "requestTimeout", "must be more than 0")
	wrong(o.MaxAckPending < 0, "maxAckPending", "must not be negative")
	wrong(o.MaxDeliver < 0, "maxDeliver", "must not be negative")
	wrong(o.Replicas < 0, "replicas", "must not be negative")
	wrong(o.AckWait > 0 && o.AckWait < minAckWait, "ackWait", "must be at least %s", minAckWait)
	_, err := o.backOff()
	return errors.Join(append(errs, err)...)
}

func (o options) backOff() (list []time.Duration, err error) {
	for _, text := range o.BackOff {
		d, err := config.ParseDuration(text)
		if err != nil || d < 0 {
			return nil, component.OptionErrorf("backOff", "%q is not a duration", text)
		}
		list = append(list, d)
	}
	return list, nil
}

func (o options) streams() client.StreamOptions {
	return client.StreamOptions{
		Stream: o.StreamName, Replicas: o.Replicas, Memory: o.MemoryStorage, MaxAge: o.StreamMaxAge, CreateNever: !o.CreateStream,
	}
}

func (o options) consumer() (client.ConsumerOptions, error) {
	pauses, err := o.backOff()
	c := client.ConsumerOptions{
		Streams: o.streams(), Name: o.DurableName, AckWait: o.AckWait, MaxDeliver: o.MaxDeliver, MaxAckPending: o.MaxAckPending,
		Replicas: o.Replicas, Memory: o.MemoryStorage, BackOff: pauses, LeftStays: true,
	}
	switch o.DeliverPolicy {
	case "last":
		c.Deliver = jetstream.DeliverLastPolicy
	case "new":
		c.Deliver = jetstream.DeliverNewPolicy
	}
	return c, err
}

// group is who shares the messages: the processes of this app, and not its
// pub/sub, which may read the same stream.
func (o options) group(env component.Env) string {
	if o.QueueGroup != "" {
		return o.QueueGroup
	}
	return client.Name(env.AppID, env.Name)
}

// output writes; core and stream read as well.
type output struct {
	o      options
	name   string // of the component
	group  string
	conn   *client.Conn
	writer *client.Publisher // nil without jetStream
	sender *sender
}

func open(ctx context.Context, env component.Env, o options) (bindings.Driver, error) {
	reading, err := o.consumer()
	if err != nil {
		return nil, fault.As(fault.Invalid, err)
	}
	conn, err := client.Open(ctx, env, o.Options)
	if err != nil {
		return nil, err
	}
	out := &output{o: o, name: env.Name, group: o.group(env), conn: conn, sender: newSender(ctx, conn)}
	if o.JetStream {
		out.writer = conn.Publisher(o.streams())
	}
	switch {
	case o.Subject == "":
		return out, nil
	case o.JetStream:
		reading.Build = out.build
		return &stream{output: out, reader: conn.Consumer(ctx, reading, env.Logger.Warn)}, nil
	}
	return &core{output: out, inbox: newInbox(o.MaxPending, int64(o.MaxPendingBytes), env.Logger)}, nil
}

// Close implements bindings.Driver.
func (b *output) Close(ctx context.Context) error {
	return errors.Join(b.sender.close(ctx), b.conn.Close())
}

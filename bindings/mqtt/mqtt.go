// Package mqtt is the binding "bindings.mqtt3": it reads the messages of topics
// of an MQTT 3.1.1 server as events, and publishes messages.
//
// Input: the body of a message is the event's data; its topic is the event's
// subject and metadata topic. Output: the operation create publishes one message
// to the topic, or to that of the request's metadata.
//
// Promises: as of pubsub.mqtt3. A message is acknowledged when its event is
// settled, in the order of receipt; the server keeps what comes while nobody is
// connected. A create that returned nil is with the server.
package mqtt

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/url"
	"strconv"
	"strings"

	"github.com/penstock-io/penstock/bindings"
	client "github.com/penstock-io/penstock/client/mqtt"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
)

// Component is "bindings.mqtt3".
var Component = bindings.Define("mqtt3", component.About{
	Summary: "Reads messages of MQTT topics as events and publishes messages",
	Ack: "Sent to the server when the event is settled and all that came before it are; create returns when the server has the message (qos 1 or 2). " +
		"How much of that outlives the server is its own business",
	Order: "In the order in which the server sends. What is tried again comes late, and after a crash everything comes again that came after the oldest event that was not settled",
	Limits: "maxInFlight (256) messages without an acknowledgement, or what the server allows (20 with Mosquitto): when the oldest fails again and again, those after it are delivered up to that number and then wait. " +
		"The protocol has no ids: an event's is made of the number that the server gave the message, topic and body, so a later message that is the same may have the same id; do not dedupe by it",
	Scale: "One process of a consumerID reads and the others stand by: one takes over at once when it ends or crashes, and within 5 s when it hangs. Processes share the topic $share/<any name>/<topic>",
	Dapr: "cleanSession is false unless it is set: the server keeps what comes while nobody is connected, and consumerID is the app id and the component's name when empty. " +
		"An event that failed is tried again with a growing delay, as long as the route says, instead of backOffMaxRetries times. The event's metadata have topic and retained",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: sensors
spec:
  type: bindings.mqtt3
  version: v1
  metadata:
    - name: url
      value: mqtt://localhost:1883
    - name: topic
      value: sensors/+/temperature
    - name: consumerID
      value: sensors
`,
	Capabilities: []string{bindings.InputCapability, bindings.OutputCapability},
	Operations:   operations(),
}, open)

func operations() []string { return []string{"create"} }

type options struct {
	client.Options
	Topic      string            `meta:"topic,required" doc:"Topic to read, maybe with + and #, and to publish to when the request's metadata has no topic." example:"sensors/+/temperature"`
	ConsumerID string            `meta:"consumerID" doc:"Name of the session that the server keeps; the app id and the component's name when empty."`
	Retries    component.Ignored `meta:"backOffMaxRetries" doc:"How often an event is tried is the route's policy."`
}

// Check implements component.Checker.
func (o options) Check() error {
	err := o.Options.Check()
	if terr := client.CheckFilter(o.Topic); terr != nil {
		err = errors.Join(err, component.OptionErrorf("topic", "%w", terr))
	}
	return err
}

type binding struct {
	options options
	name    string // of the component
	group   string
	client  *client.Client
}

func open(ctx context.Context, env component.Env, o options) (bindings.Driver, error) {
	c, err := client.Open(ctx, env, client.Config{Options: o.Options, Version: 3})
	if err != nil {
		return nil, err
	}
	group := o.ConsumerID
	if group == "" {
		group = env.AppID + "-" + env.Name
	}
	return &binding{options: o, name: env.Name, group: group, client: c}, nil
}

// Read implements bindings.Reader.
func (b *binding) Read(ctx context.Context, emit cloudevents.EmitFunc) error {
	return b.client.Read(ctx, b.feed(), emit)
}

func (b *binding) feed() client.Feed {
	return client.Feed{Filter: b.options.Topic, Group: b.group, KeepLeft: true, Decode: b.decode}
}

// decode makes the event of a message.
func (b *binding) decode(m *client.Received, to *cloudevents.Delivery) error {
	event, err := bindings.Received{
		ID: b.id(m), Source: "mqtt:" + url.PathEscape(b.group), Type: "io.penstock.mqtt.message",
		Subject: m.Topic, Data: m.Body,
	}.Event()
	if err != nil {
		return err
	}
	to.Event, to.Topic, to.Origin = event, m.Topic, b.name
	to.Metadata = map[string]string{"topic": m.Topic, "retained": strconv.FormatBool(m.Retained)}
	return nil
}

// id is the same when the server sends a message again.
func (b *binding) id(m *client.Received) string {
	h := sha256.New()
	_, _ = h.Write([]byte(strconv.Itoa(m.Number()) + "\x00" + m.Topic + "\x00")) // never fails
	_, _ = h.Write(m.Body)
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// Operations returns create.
func (b *binding) Operations() []string { return operations() }

// Invoke implements bindings.Invoker.
func (b *binding) Invoke(ctx context.Context, r *bindings.Request) (*bindings.Response, error) {
	if r.Operation != "create" {
		return nil, fault.New(fault.Invalid, "publish message: operation %.40q is not supported; use create", r.Operation)
	}
	m := client.Message{Topic: b.options.Topic, Body: r.Data, QoS: byte(b.options.QoS), Retain: b.options.Retain}
	for name, value := range r.Metadata {
		switch strings.ToLower(name) {
		case "topic":
			m.Topic = value
		case "retain":
			retain, err := config.ParseBool(value)
			if err != nil {
				return nil, fault.New(fault.Invalid, "read metadata retain: %.40q is not a boolean, use true or false", value)
			}
			m.Retain = retain
		}
	}
	if err := client.CheckTopic(m.Topic); err != nil {
		return nil, fault.Wrap(err, "publish message (metadata topic says where to)")
	}
	for _, err := range b.client.Publish(ctx, []client.Message{m}) {
		return nil, err
	}
	return nil, nil
}

// Close implements bindings.Driver.
func (b *binding) Close(ctx context.Context) error { return b.client.Close(ctx) }

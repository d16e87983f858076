// Package mqtt is the brokers "pubsub.mqtt3" and "pubsub.mqtt5": topics of a
// server of MQTT, in version 3.1.1 and 5 of the protocol.
//
// They are opened through [Component3] and [Component5]. A topic of the protocol is a topic here; a
// subscription's may hold + for one level and # at the end for all that follow,
// or be $share/group/topic for the server to share out.
//
// Promises: a publish is with the server when it returns, with qos 1 or 2. Each
// subscription of a group is a session that the server keeps while nobody is
// connected. A message is acknowledged when it is settled, in the order in which
// the server sent them: one that fails is tried again here, and holds back the
// acknowledgements of what came after it, though not those messages. After a crash
// the server sends all of that again. Of the processes of a group one reads a
// topic; another takes over within 5 s.
package mqtt

import (
	"bytes"
	"context"
	"errors"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	client "github.com/penstock-io/penstock/client/mqtt"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/pubsub"
)

const (
	ack = "Sent to the server when the event is settled and all that came before it are; a publish with qos 1 or 2 is with the server when it returns. " +
		"How much of that outlives the server is its own business: Mosquitto writes it to the disk only with persistence on, and every half hour unless autosave_interval says otherwise."
	order = "In the order in which the server sends to one process, and those of one key one after the other there. What is tried again comes late. " +
		"Acknowledgements go to the server in that order as the protocol asks, so after a crash everything comes again that came after the oldest message that was not settled."
	limits = "maxInFlight (256) messages of a subscription without an acknowledgement, or what the server allows (20 with Mosquitto): when the oldest fails again and again, " +
		"the ones after it are delivered up to that number and then wait. What the server keeps for a process that is away is bounded by its own options."
	scale = "One process of a group reads a topic and the others stand by: one takes over at once when it ends or crashes, and within 5 s when it hangs. They agree through messages below leaseTopic. " +
		"Processes share the topic $share/<any name>/<topic>, each with a session of its own; what one had that is gone for good waits for the next one that starts."
	dapr = "A subscription is a connection and a session of its own, called after consumerID and topic, instead of one for all called consumerID; with it goes a second connection for the lease unless leaseTopic is none. " +
		"A message that failed is tried again with a growing delay instead of after the next reconnect only. " +
		"Processes of one consumerID stand by instead of cutting each other's connection. " +
		"The lease is a retained message below leaseTopic every 0.8 s, which other programs that subscribe to # see."
)

// Component3 is "pubsub.mqtt3".
var Component3 = pubsub.Define("mqtt3", component.About{
	Summary: "Topics of an MQTT 3.1.1 server",
	Ack:     ack,
	Order:   order + " The key travels as the event's partitionkey; messages with rawPayload have none.",
	Limits: limits + " The protocol has no place for metadata beside the body: rawPayload messages arrive without, and a dead letter is the original bytes alone. " +
		"It does not tell that a publish was refused either.",
	Scale: scale,
	Dapr:  dapr,
	Example: `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: bus
spec:
  type: pubsub.mqtt3
  version: v1
  metadata:
    - name: url
      value: mqtt://localhost:1883
    - name: consumerID
      value: orders
`,
}, open3)

// Component5 is "pubsub.mqtt5".
var Component5 = pubsub.Define("mqtt5", component.About{
	Summary: "Topics of an MQTT 5 server",
	Ack:     ack,
	Order:   order,
	Limits:  limits + " Metadata travels as user properties; text that is not UTF-8 or holds zeros is changed.",
	Scale:   scale,
	Dapr: "Dapr has no such component; options and behaviour are those of pubsub.mqtt3, and metadata, content type, the ordering key and ttlInSeconds travel with the message. " +
		"CloudEvents in binary mode are read: their attributes are user properties without a prefix.",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: bus
spec:
  type: pubsub.mqtt5
  version: v1
  metadata:
    - name: url
      value: mqtt://localhost:1883
    - name: consumerID
      value: orders
`,
}, open5)

type options5 struct {
	client.Options
	SessionExpiry time.Duration `meta:"sessionExpiry" doc:"How long the server keeps the session of a subscription, and what waits in it, while nobody is connected; 0 is for ever." default:"0s"`
}

// Check implements component.Checker.
func (o options5) Check() error {
	err := o.Options.Check()
	if o.SessionExpiry != 0 && o.SessionExpiry < time.Second {
		err = errors.Join(err, component.OptionErrorf("sessionExpiry", "must be at least 1s, or 0"))
	}
	return err
}

func open5(ctx context.Context, env component.Env, o options5) (pubsub.Driver, error) {
	return open(ctx, env, client.Config{Options: o.Options, Version: 5, Expiry: o.SessionExpiry})
}

type options3 struct {
	client.Options
}

func open3(ctx context.Context, env component.Env, o options3) (pubsub.Driver, error) {
	return open(ctx, env, client.Config{Options: o.Options, Version: 3})
}

// driver is one component's use of a server.
type driver struct {
	client *client.Client
	config client.Config
	closed atomic.Bool
}

func open(ctx context.Context, env component.Env, conf client.Config) (*driver, error) {
	c, err := client.Open(ctx, env, conf)
	if err != nil {
		return nil, err
	}
	return &driver{client: c, config: conf}, nil
}

func (d *driver) five() bool { return d.config.Version == 5 }

// Features implements pubsub.Featured. Wildcards are those of MQTT.
func (d *driver) Features() pubsub.Features {
	return pubsub.Features{GiveBack: true, TTL: d.five()}
}

// Publish writes the batch in order.
func (d *driver) Publish(ctx context.Context, topic string, ms []pubsub.Message) error {
	if d.closed.Load() {
		return fault.New(fault.Unavailable, "publish: already closed")
	}
	if err := client.CheckTopic(topic); err != nil {
		return err
	}
	list := make([]client.Message, 0, len(ms))
	at := make([]int, 0, len(ms)) // where they stand in ms
	for i := range ms {
		m, err := d.message(topic, &ms[i])
		if err != nil {
			return err
		}
		if d.five() && !ms[i].Expires.IsZero() && !ms[i].Expires.After(time.Now()) {
			continue // the server keeps none that is over
		}
		list, at = append(list, m), append(at, i)
	}
	errs := d.client.Publish(ctx, list)
	if errs == nil {
		return nil
	}
	all := make([]error, len(ms))
	for i, err := range errs {
		all[at[i]] = err
	}
	return &pubsub.BatchError{Errs: all}
}

// message makes the message of one to publish.
func (d *driver) message(topic string, m *pubsub.Message) (client.Message, error) {
	to := client.Message{Topic: topic, Body: m.Data, QoS: byte(d.config.QoS), Retain: d.config.Retain}
	for name, value := range m.Metadata {
		if !strings.EqualFold(name, "retain") {
			continue
		}
		retain, err := config.ParseBool(value)
		if err != nil {
			return to, fault.New(fault.Invalid, "read metadata retain: %.40q is not a boolean, use true or false", value)
		}
		to.Retain = retain
	}
	if d.five() {
		to.ContentType, to.Properties, to.Key, to.Expires = m.ContentType, m.Metadata, m.Key, m.Expires
	} else if m.Key != "" {
		to.Body = keyed(m)
	}
	return to, nil
}

// keyed is an event with its key, which has no other place in version 3: the
// attribute that CloudEvents have for it. What is no event is left as it is.
func keyed(m *pubsub.Message) []byte {
	if !strings.HasPrefix(m.ContentType, cloudevents.ContentType) {
		return m.Data
	}
	e, err := cloudevents.Scan(m.Data)
	if err != nil {
		return m.Data
	}
	if own, _ := e.Attr("partitionkey"); own != "" {
		return m.Data
	}
	return e.With(cloudevents.Attr{Name: "partitionkey", Value: m.Key}).JSON()
}

// feed says what a subscription reads.
func (d *driver) feed(s *pubsub.Subscription) (client.Feed, error) {
	f := client.Feed{Filter: s.Topic, Group: s.Group, Decode: decode}
	for name, value := range s.Metadata {
		if !strings.EqualFold(name, "unsubscribeOnClose") {
			continue
		}
		forget, err := config.ParseBool(value)
		if err != nil {
			return f, fault.New(fault.Invalid, "read metadata unsubscribeOnClose: %.40q is not a boolean, use true or false", value)
		}
		f.Forget = forget
	}
	return f, nil
}

// decode fills a delivery in.
func decode(m *client.Received, to *cloudevents.Delivery) error {
	to.Topic, to.Key = m.Topic, m.Key
	if to.Key == "" { // which a message of version 3 has only in its event
		to.Key = partitionKey(m.Body)
	}
	to.Metadata = metadata(m)
	return nil
}

// partitionKey of the event that a message is; empty when it is none.
func partitionKey(body []byte) string {
	if !bytes.Contains(body, []byte(`"partitionkey"`)) {
		return ""
	}
	e, err := cloudevents.Scan(body)
	if err != nil {
		return ""
	}
	key, _ := e.Attr("partitionkey")
	return key
}

// metadata of a message: whether it was retained, and its properties. A
// CloudEvent in binary mode has its attributes as properties without a prefix;
// they get the prefix that they have with other brokers.
func metadata(m *client.Received) map[string]string {
	to := make(map[string]string, len(m.Properties)+2)
	binary := m.Properties["specversion"] != "" && m.Properties["id"] != "" && m.Properties["source"] != "" && m.Properties["type"] != "" &&
		!strings.HasPrefix(m.ContentType, "application/cloudevents")
	for name, value := range m.Properties {
		if binary {
			name = "ce_" + name
		}
		to[name] = value
	}
	if binary {
		to["content-type"] = m.ContentType
		if m.ContentType == "" {
			to["content-type"] = "application/octet-stream"
		}
	} else if m.ContentType != "" && !strings.HasPrefix(m.ContentType, "application/cloudevents") {
		to["content-type"] = m.ContentType
	}
	to["retained"] = strconv.FormatBool(m.Retained)
	return to
}

// Prepare implements pubsub.Preparer.
func (d *driver) Prepare(ctx context.Context, s pubsub.Subscription) error {
	f, err := d.feed(&s)
	if err != nil {
		return err
	}
	return d.client.Prepare(ctx, f)
}

// Subscribe implements pubsub.Driver.
func (d *driver) Subscribe(ctx context.Context, s pubsub.Subscription, emit cloudevents.EmitFunc) error {
	f, err := d.feed(&s)
	if err != nil {
		return err
	}
	return d.client.Read(ctx, f, emit)
}

// Close implements pubsub.Driver.
func (d *driver) Close(ctx context.Context) error {
	if d.closed.Swap(true) {
		return nil
	}
	return d.client.Close(ctx)
}

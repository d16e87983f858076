package snssqs

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"strings"

	client "github.com/penstock-io/penstock/client/aws"
	"github.com/penstock-io/penstock/client/aws/queue"
	"github.com/penstock-io/penstock/client/aws/topic"
	"github.com/penstock-io/penstock/client/batch"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/pubsub"
)

func (d *driver) outgoing(name string, m *pubsub.Message) (topic.Message, error) {
	p, err := client.Pack(m.Data, m.Metadata, m.Key)
	if err != nil {
		return topic.Message{}, err
	}
	o := topic.Message{Packed: p}
	if d.o.FIFO {
		o.Group, o.Dedupe = d.groupOf(name, m.Key), rand.Text()
	}
	return o, o.Check()
}

// groupOf returns the message group of a key. Topics have groups apart: they
// share the queue of a consumer group, where a message that waits for its
// subscription holds up all of its message group.
func (d *driver) groupOf(topic, key string) string {
	switch {
	case key == "" && d.o.GroupID != "":
		return client.GroupID(d.o.GroupID)
	case key == "":
		key = d.app
	}
	return client.GroupID(topic + "/" + key)
}

// publish sends up to ten messages to a topic. One that is not there any more is
// made again, with the subscriptions of this process, before anything is sent to
// it.
func (d *driver) publish(ctx context.Context, t *target, items []topic.Message) []error {
	for again := false; ; again = true {
		arn, err := d.known(ctx, t)
		if err != nil {
			return batch.All(len(items), err)
		}
		errs, err := topic.Publish(ctx, d.sns, arn, items)
		if err == nil {
			return errs
		}
		if !client.Missing(err) || again || d.o.DisableManagement {
			return batch.All(len(items), err)
		}
		t.mu.Lock()
		t.arn = ""
		t.mu.Unlock()
	}
}

// known returns the topic's ARN, making the topic when it is not known.
func (d *driver) known(ctx context.Context, t *target) (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.arn != "" {
		return t.arn, nil
	}
	d.entities.Lock()
	defer d.entities.Unlock()
	arn, err := d.topicARN(ctx, t.name)
	if err != nil {
		return "", err
	}
	for _, g := range d.subscribed(arn) {
		g.mu.Lock()
		queueARN := g.arn
		g.mu.Unlock()
		if err := d.connect(ctx, g, queueARN, arn); err != nil {
			return "", err
		}
	}
	t.arn = arn
	return arn, nil
}

// subscribed lists the groups that this process reads a topic for.
func (d *driver) subscribed(arn string) (list []*group) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, g := range d.groups {
		g.mu.Lock()
		if g.inboxes[arn] != nil {
			list = append(list, g)
		}
		g.mu.Unlock()
	}
	return list
}

// envelope is what SNS wraps a message into.
type envelope struct {
	Type, TopicArn    string
	Message           *string
	MessageAttributes map[string]struct{ Type, Value string }
}

// unwrap reads the envelope of SNS; nil when the body is none.
func unwrap(m *queue.Message) *envelope {
	var e envelope
	if !strings.HasPrefix(m.Body, "{") || json.Unmarshal([]byte(m.Body), &e) != nil || e.Type != "Notification" || e.TopicArn == "" || e.Message == nil {
		return nil
	}
	return &e
}

// topicOf returns the ARN of the topic that a message was published to; empty
// when it does not say.
func topicOf(m *queue.Message) string {
	const mark = `"TopicArn"`
	i := strings.Index(m.Body, mark)
	if i < 0 {
		return ""
	}
	if e := unwrap(m); e != nil {
		return e.TopicArn
	}
	return ""
}

// delivery makes what subscriptions get of a message. What cannot be decoded goes
// on as it stands: whoever reads it finds that it is no event.
func delivery(m *queue.Message) *cloudevents.Delivery {
	body, all := m.Body, map[string]string{}
	if e := unwrap(m); e != nil {
		body = *e.Message
		for name, v := range e.MessageAttributes {
			all[name] = v.Value
		}
	} else {
		all = m.Texts()
	}
	data, metadata, key := client.Unpack(body, all)
	return &cloudevents.Delivery{Body: data, Metadata: metadata, Key: cmp.Or(key, m.Group), Attempt: m.Attempt}
}

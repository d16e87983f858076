package snssqs

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	snstypes "github.com/aws/aws-sdk-go-v2/service/sns/types"

	client "github.com/penstock-io/penstock/client/aws"
	"github.com/penstock-io/penstock/client/aws/queue"
	"github.com/penstock-io/penstock/client/batch"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/pubsub"
)

// Attributes of ours on a message. What of the metadata fits goes as attributes
// of its own name, so that filters of SNS can use it; the rest in metadataAttr as
// one JSON object.
const (
	metadataAttr = "penstock-metadata"
	encodingAttr = "penstock-encoding" // of the body: base64 when it is no text
	keyAttr      = "penstock-key"
	plainMost    = 7 // SQS takes ten; three are ours
)

// outgoing is one message on its way to SNS.
type outgoing struct {
	body       string
	attributes map[string]snstypes.MessageAttributeValue
	group      string
	bytes      int
}

func (o outgoing) size() int { return o.bytes }

func (d *driver) outgoing(m *pubsub.Message) (outgoing, error) {
	o := outgoing{body: string(m.Data), attributes: map[string]snstypes.MessageAttributeValue{}}
	if !textual(o.body) {
		o.body = base64.StdEncoding.EncodeToString(m.Data)
		o.set(encodingAttr, "base64")
		if o.body == "" {
			o.body = "=" // SNS takes no empty message
		}
	}
	if m.Key != "" {
		if d.o.FIFO {
			o.group = groupID(m.Key)
		}
		if o.group != m.Key && textual(m.Key) {
			o.set(keyAttr, m.Key)
		}
	}
	if d.o.FIFO && o.group == "" {
		if o.group = groupID(d.o.GroupID); o.group == "" {
			o.group = groupID(d.app)
		}
		if o.group == "" {
			o.group = "penstock"
		}
	}
	var rest map[string]string
	for _, name := range slices.Sorted(maps.Keys(m.Metadata)) {
		v := m.Metadata[name]
		if len(o.attributes) < plainMost && attributeName(name) && textual(v) {
			o.set(name, v)
			continue
		}
		if rest == nil {
			rest = map[string]string{}
		}
		rest[name] = v
	}
	if rest != nil {
		raw, err := json.Marshal(rest)
		if err != nil {
			return o, fault.Wrap(err, "encode metadata")
		}
		o.set(metadataAttr, string(raw))
	}
	o.bytes += len(o.body)
	if o.bytes > queue.Bytes {
		return o, fault.New(fault.Invalid, "message of %d bytes with its metadata: SNS takes %d", o.bytes, queue.Bytes)
	}
	return o, nil
}

func (o *outgoing) set(name, value string) {
	o.attributes[name] = snstypes.MessageAttributeValue{DataType: sdk.String("String"), StringValue: sdk.String(value)}
	o.bytes += len(name) + len(value) + len("String")
}

// textual tells whether SNS and SQS take a text: not empty, and of characters
// that XML 1.0 has.
func textual(s string) bool {
	for _, r := range s {
		switch {
		case r == utf8.RuneError, r < ' ' && r != '\t' && r != '\n' && r != '\r', r == 0xFFFE, r == 0xFFFF:
			return false
		}
	}
	// A carriage return does not survive XML, in which SNS answers and asks.
	return s != "" && utf8.ValidString(s) && !strings.ContainsRune(s, '\r')
}

// attributeName tells whether a name can be that of a message attribute.
func attributeName(name string) bool {
	lower := strings.ToLower(name)
	if name == "" || len(name) > 256 || strings.HasPrefix(lower, "aws.") || strings.HasPrefix(lower, "amazon.") || strings.HasPrefix(lower, "penstock-") ||
		name[0] == '.' || name[len(name)-1] == '.' || strings.Contains(name, "..") {
		return false
	}
	for i := range len(name) {
		c := name[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.' {
			return false
		}
	}
	return true
}

// groupID makes a message group of a key: 128 characters of ASCII without a
// space. Keys that are cut share a group, which costs speed and not order.
func groupID(key string) string {
	var b strings.Builder
	for i := 0; i < len(key) && b.Len() < 128; i++ {
		if c := key[i]; c > ' ' && c < 0x7F {
			b.WriteByte(c)
		} else {
			b.WriteByte('_')
		}
	}
	return b.String()
}

// publish sends up to ten messages to a topic. One that is not there any more is
// made again, with the subscriptions of this process, before anything is sent to
// it.
func (d *driver) publish(ctx context.Context, t *topic, items []outgoing) []error {
	for again := false; ; again = true {
		arn, err := d.known(ctx, t)
		if err != nil {
			return batch.All(len(items), err)
		}
		errs, err := d.publishTo(ctx, arn, items)
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
func (d *driver) known(ctx context.Context, t *topic) (string, error) {
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

func (d *driver) publishTo(ctx context.Context, arn string, items []outgoing) ([]error, error) {
	in := &sns.PublishBatchInput{TopicArn: &arn, PublishBatchRequestEntries: make([]snstypes.PublishBatchRequestEntry, len(items))}
	for i := range items {
		e := snstypes.PublishBatchRequestEntry{Id: sdk.String(strconv.Itoa(i)), Message: &items[i].body, MessageAttributes: items[i].attributes}
		if d.o.FIFO {
			e.MessageGroupId, e.MessageDeduplicationId = &items[i].group, sdk.String(rand.Text())
		}
		in.PublishBatchRequestEntries[i] = e
	}
	out, err := d.sns.PublishBatch(ctx, in)
	if err != nil {
		return nil, client.Wrap(err, "publish to %s", arn)
	}
	var errs []error
	for _, f := range out.Failed {
		if errs == nil {
			errs = make([]error, len(items))
		}
		if i, err := strconv.Atoi(sdk.ToString(f.Id)); err == nil && i < len(errs) {
			errs[i] = fault.New(client.KindOfCode(sdk.ToString(f.Code), f.SenderFault), "publish to %s: %s: %s", arn, sdk.ToString(f.Code), sdk.ToString(f.Message))
		}
	}
	return errs, nil
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
		for name, v := range m.Attributes {
			all[name] = sdk.ToString(v.StringValue)
		}
	}
	d := &cloudevents.Delivery{Body: []byte(body), Key: m.Group, Attempt: m.Attempt}
	if all[encodingAttr] == "base64" {
		if raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(body, "=")); err == nil {
			d.Body = raw
			delete(all, encodingAttr)
		}
	}
	if k := all[keyAttr]; k != "" {
		d.Key = k
		delete(all, keyAttr)
	}
	if rest := all[metadataAttr]; rest != "" && json.Unmarshal([]byte(rest), &all) == nil {
		delete(all, metadataAttr)
	}
	if len(all) > 0 {
		d.Metadata = all
	}
	return d
}

package queue

import (
	"context"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/penstock-io/penstock/cloudevents"
)

// Message is one message that was received.
type Message struct {
	// ID is that of SQS, the same for every delivery.
	ID   string
	Body string
	// Attributes are the sender's, System those of SQS.
	Attributes map[string]types.MessageAttributeValue
	System     map[string]string
	// Group is the message group of a FIFO queue, else what the sender said.
	Group string
	// Attempt counts deliveries from 1, without those that this process took
	// and gave back untried.
	Attempt int
	// Sent is when it was sent.
	Sent time.Time

	q      *Queue
	handle string
	// guarded by q.mu
	until   time.Time // it is hidden
	taken   bool
	settled bool
	// back tells that it is to be made visible: it is not extended any more.
	// While an extension is under way, which could come to SQS after it, that
	// waits in pending.
	back, extending bool
	pending         *change
}

func (q *Queue) message(m *types.Message, until time.Time) *Message {
	x := &Message{
		ID: aws.ToString(m.MessageId), Body: aws.ToString(m.Body), Attributes: m.MessageAttributes, System: m.Attributes,
		Group: m.Attributes["MessageGroupId"], Attempt: 1, q: q, handle: aws.ToString(m.ReceiptHandle), until: until,
	}
	if n, err := strconv.Atoi(m.Attributes["ApproximateReceiveCount"]); err == nil {
		x.Attempt = n
	}
	if ms, err := strconv.ParseInt(m.Attributes["SentTimestamp"], 10, 64); err == nil {
		x.Sent = time.UnixMilli(ms)
	}
	return x
}

// Texts returns the attributes of a message that came straight from its sender;
// bytes as they are.
func (m *Message) Texts() map[string]string {
	all := make(map[string]string, len(m.Attributes))
	for name, v := range m.Attributes {
		if v.StringValue == nil {
			all[name] = string(v.BinaryValue)
			continue
		}
		all[name] = aws.ToString(v.StringValue)
	}
	return all
}

// leavePause is how long a message that was left while somebody still reads
// stays hidden, so that it does not go round in circles.
const leavePause = time.Second

// Settle gives the message its outcome. It does not block; only the first call
// counts. A retry comes after its delay rounded up to a second, 12 hours at
// most.
func (m *Message) Settle(o cloudevents.Outcome) {
	q := m.q
	q.mu.Lock()
	if m.settled {
		q.mu.Unlock()
		return
	}
	m.settled = true
	if m.taken {
		q.out--
	}
	done := o.Verdict == cloudevents.Ack || o.Verdict == cloudevents.Drop
	behind := q.follow(m, done)
	reading := q.reading > 0
	q.notify()
	q.mu.Unlock()
	for _, b := range behind { // first, so that their group stays closed meanwhile
		q.giveBack(b, 0, true)
	}
	switch {
	case done:
		q.acks.Add(m, func(error) { q.gone(m) })
	case o.Verdict == cloudevents.Retry:
		q.giveBack(m, min(max(o.After, 0), MaxDelay-time.Minute), false)
	case reading:
		q.giveBack(m, leavePause, true)
	default:
		q.giveBack(m, 0, true)
	}
}

// follow lets the next message of a group go, or returns those to give back,
// which must not overtake the one in front. The caller holds mu.
func (q *Queue) follow(m *Message, done bool) (behind []*Message) {
	if !q.o.FIFO {
		return nil
	}
	behind = q.groups[m.Group]
	if done && len(behind) > 0 && q.reading > 0 {
		q.groups[m.Group] = behind[1:]
		q.ready = append(q.ready, behind[0])
		return nil
	}
	delete(q.groups, m.Group)
	for _, b := range behind {
		b.settled = true
	}
	return behind
}

// Untake gives back a message that was offered and not taken: at once when ctx
// has ended, for then nobody here takes it.
func (m *Message) Untake(ctx context.Context) {
	if ctx.Err() != nil {
		m.Defer(0)
		return
	}
	m.Defer(leavePause)
}

// Defer gives a message back untried, to come again after a delay.
func (m *Message) Defer(after time.Duration) {
	q := m.q
	q.mu.Lock()
	if m.settled {
		q.mu.Unlock()
		return
	}
	m.settled = true
	if m.taken {
		q.out--
	}
	behind := q.follow(m, false)
	q.notify()
	q.mu.Unlock()
	for _, b := range behind {
		q.giveBack(b, after, true)
	}
	q.giveBack(m, after, true)
}

// giveBack makes a message visible after a delay. Uncounted says that the
// delivery was none.
func (q *Queue) giveBack(m *Message, after time.Duration, uncounted bool) {
	q.mu.Lock()
	if uncounted {
		if _, known := q.again[m.ID]; !known && len(q.again) >= recalled {
			for id := range q.again { // any: it is only a count
				delete(q.again, id)
				break
			}
		}
		q.again[m.ID]++
	}
	m.back = true
	c := change{m, after}
	if m.extending {
		m.pending = &c
		q.mu.Unlock()
		return
	}
	q.mu.Unlock()
	q.show.Add(c, func(error) { q.drop1(m) })
}

// drop1 ends the holding of a message that is with SQS again.
func (q *Queue) drop1(m *Message) {
	q.mu.Lock()
	delete(q.held, m)
	q.notify()
	q.mu.Unlock()
}

// gone ends the holding of a message that is deleted.
func (q *Queue) gone(m *Message) {
	q.mu.Lock()
	delete(q.held, m)
	delete(q.again, m.ID)
	q.notify()
	q.mu.Unlock()
}

package awsfake

import (
	"context"
	"crypto/md5"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"strconv"
	"strings"
	"time"
)

const sqsBytes = 1 << 20 // of a message and of a request

type fakeQueue struct {
	name       string
	fifo       bool
	attributes map[string]string
	messages   []*fakeMessage
	dedupe     map[string]time.Time
}

type fakeMessage struct {
	id, body, group string
	attributes      map[string]any
	sent, visible   time.Time
	received        int
	handle          string // of the last receive
}

func (q *fakeQueue) arn() string {
	return fmt.Sprintf("arn:aws:sqs:%s:%s:%s", Region, Account, q.name)
}

func (s *Server) queueURL(name string) string { return s.URL + "/" + Account + "/" + name }

// sqs carries out an operation of SQS.
func (s *Server) sqs(ctx context.Context, operation string, in map[string]any) (any, *Failure) {
	if operation == "ReceiveMessage" {
		return s.receive(ctx, in)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch operation {
	case "ListQueues":
		return nil, nil
	case "CreateQueue":
		return s.createQueue(in)
	case "GetQueueUrl":
		if q := s.queues[str(in, "QueueName")]; q != nil {
			return map[string]any{"QueueUrl": s.queueURL(q.name)}, nil
		}
		return nil, bad("QueueDoesNotExist", "The specified queue does not exist.")
	}
	q := s.queues[path.Base(str(in, "QueueUrl"))]
	if q == nil {
		return nil, bad("QueueDoesNotExist", "The specified queue does not exist.")
	}
	switch operation {
	case "DeleteQueue":
		delete(s.queues, q.name)
		s.changed()
		return nil, nil
	case "GetQueueAttributes":
		all := q.counts()
		all["QueueArn"] = q.arn()
		maps.Copy(all, q.attributes)
		return map[string]any{"Attributes": all}, nil
	case "SetQueueAttributes":
		for k, v := range in["Attributes"].(map[string]any) {
			q.attributes[k], _ = v.(string)
		}
		return nil, nil
	case "SendMessage":
		return s.sendOne(q, in)
	case "SendMessageBatch":
		return batchOf(in, func(e map[string]any) (map[string]any, *Failure) { return s.sendOne(q, e) })
	case "DeleteMessage":
		return q.remove(in)
	case "DeleteMessageBatch":
		defer s.changed()
		return batchOf(in, q.remove)
	case "ChangeMessageVisibilityBatch":
		defer s.changed()
		return batchOf(in, q.hide)
	}
	return nil, bad("UnknownOperationException", "%s", operation)
}

func (s *Server) createQueue(in map[string]any) (any, *Failure) {
	name := str(in, "QueueName")
	q := s.queues[name]
	if q == nil {
		q = &fakeQueue{name: name, fifo: strings.HasSuffix(name, ".fifo"), attributes: map[string]string{}, dedupe: map[string]time.Time{}}
		if a, ok := in["Attributes"].(map[string]any); ok {
			for k, v := range a {
				q.attributes[k], _ = v.(string)
			}
		}
		s.queues[name] = q
	}
	return map[string]any{"QueueUrl": s.queueURL(name)}, nil
}

// batchOf does the entries of a batch one by one.
func batchOf(in map[string]any, do func(map[string]any) (map[string]any, *Failure)) (any, *Failure) {
	entries := list(in, "Entries")
	if len(entries) == 0 || len(entries) > 10 {
		return nil, bad("TooManyEntriesInBatchRequest", "%d entries", len(entries))
	}
	size, seen := 0, map[string]bool{}
	done, failed := []any{}, []any{}
	for _, e := range entries {
		size += len(str(e, "MessageBody"))
		if id := str(e, "Id"); seen[id] {
			return nil, bad("BatchEntryIdsNotDistinct", "%s", id)
		}
		seen[str(e, "Id")] = true
	}
	if size > sqsBytes {
		return nil, bad("BatchRequestTooLong", "%d bytes", size)
	}
	for _, e := range entries {
		out, f := do(e)
		if f != nil {
			failed = append(failed, map[string]any{"Id": str(e, "Id"), "Code": f.Code, "Message": f.Message, "SenderFault": f.Status < 500})
			continue
		}
		if out == nil {
			out = map[string]any{}
		}
		out["Id"] = str(e, "Id")
		done = append(done, out)
	}
	return map[string]any{"Successful": done, "Failed": failed}, nil
}

func (s *Server) sendOne(q *fakeQueue, in map[string]any) (map[string]any, *Failure) {
	attributes, _ := in["MessageAttributes"].(map[string]any)
	m := &fakeMessage{id: rand.Text(), body: str(in, "MessageBody"), group: str(in, "MessageGroupId"), attributes: attributes, sent: time.Now()}
	switch {
	case !textual(m.body):
		return nil, bad("InvalidMessageContents", "characters")
	case len(m.body) > sqsBytes:
		return nil, bad("InvalidParameterValue", "One or more parameters are invalid. Reason: Message must be shorter than %d bytes.", sqsBytes)
	case q.fifo && m.group == "":
		return nil, bad("MissingParameter", "The request must contain the parameter MessageGroupId.")
	case len(attributes) > 10:
		return nil, bad("InvalidParameterValue", "%d attributes", len(attributes))
	}
	m.visible = m.sent.Add(time.Duration(num(in, "DelaySeconds", 0)) * time.Second)
	if q.fifo {
		id := str(in, "MessageDeduplicationId")
		if id == "" {
			id = m.body
		}
		if time.Since(q.dedupe[id]) < 5*time.Minute {
			return sent(m), nil
		}
		q.dedupe[id] = m.sent
	}
	q.messages = append(q.messages, m)
	s.changed()
	return sent(m), nil
}

func sent(m *fakeMessage) map[string]any {
	return map[string]any{"MessageId": m.id, "MD5OfMessageBody": sum(m.body)}
}

func sum(text string) string {
	h := md5.Sum([]byte(text))
	return hex.EncodeToString(h[:])
}

// find returns the message of a receipt handle.
func (q *fakeQueue) find(handle string) (int, *fakeMessage) {
	for i, m := range q.messages {
		if m.handle == handle {
			return i, m
		}
	}
	return -1, nil
}

func (q *fakeQueue) remove(in map[string]any) (map[string]any, *Failure) {
	i, m := q.find(str(in, "ReceiptHandle"))
	if m == nil {
		if q.fifo {
			return nil, bad("InvalidParameterValue", "The receipt handle has expired.")
		}
		return nil, nil // deleted already, or received by somebody else since
	}
	if q.fifo && time.Now().After(m.visible) {
		return nil, bad("InvalidParameterValue", "The receipt handle has expired.")
	}
	q.messages = append(q.messages[:i], q.messages[i+1:]...)
	return nil, nil
}

// counts are the numbers of messages: those that can be received, those that were,
// and those that wait for their delay.
func (q *fakeQueue) counts() map[string]string {
	n := map[string]int{"ApproximateNumberOfMessages": 0, "ApproximateNumberOfMessagesNotVisible": 0, "ApproximateNumberOfMessagesDelayed": 0}
	for _, m := range q.messages {
		switch {
		case !m.visible.After(time.Now()):
			n["ApproximateNumberOfMessages"]++
		case m.received > 0:
			n["ApproximateNumberOfMessagesNotVisible"]++
		default:
			n["ApproximateNumberOfMessagesDelayed"]++
		}
	}
	all := make(map[string]string, len(n)+1)
	for name, count := range n {
		all[name] = strconv.Itoa(count)
	}
	return all
}

func (q *fakeQueue) hide(in map[string]any) (map[string]any, *Failure) {
	_, m := q.find(str(in, "ReceiptHandle"))
	if m == nil || time.Now().After(m.visible) {
		return nil, bad("MessageNotInflight", "The message is not in flight.")
	}
	n := num(in, "VisibilityTimeout", -1)
	if n < 0 || n > 43200 {
		return nil, bad("InvalidParameterValue", "VisibilityTimeout %d", n)
	}
	m.visible = time.Now().Add(time.Duration(n) * time.Second)
	return nil, nil
}

func (s *Server) receive(ctx context.Context, in map[string]any) (any, *Failure) {
	last := time.Now().Add(time.Duration(num(in, "WaitTimeSeconds", 0)) * time.Second)
	hidden := time.Duration(num(in, "VisibilityTimeout", 30)) * time.Second
	for {
		s.mu.Lock()
		q := s.queues[path.Base(str(in, "QueueUrl"))]
		if q == nil {
			s.mu.Unlock()
			return nil, bad("QueueDoesNotExist", "The specified queue does not exist.")
		}
		out, next := []any{}, last
		if ctx.Err() == nil {
			out, next = s.take(q, num(in, "MaxNumberOfMessages", 1), hidden, last)
		}
		wake := s.wake
		s.mu.Unlock()
		if len(out) > 0 || !time.Now().Before(last) || ctx.Err() != nil {
			return map[string]any{"Messages": out}, nil
		}
		timer := time.NewTimer(time.Until(next))
		select {
		case <-wake:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// take receives what is visible, and says when there may be more.
func (s *Server) take(q *fakeQueue, most int, hidden time.Duration, last time.Time) (out []any, next time.Time) {
	now := time.Now()
	next = last
	out = []any{}
	closed := map[string]bool{} // groups with a message that is out or waits
	for i := 0; i < len(q.messages) && len(out) < most; i++ {
		m := q.messages[i]
		if m.visible.After(now) {
			if m.visible.Before(next) {
				next = m.visible
			}
			closed[m.group] = q.fifo
		}
	}
	for i := 0; i < len(q.messages) && len(out) < most; i++ {
		m := q.messages[i]
		if closed[m.group] || m.visible.After(now) {
			continue
		}
		if s.redriven(q, m) {
			i--
			continue
		}
		m.received++
		m.handle = rand.Text()
		m.visible = now.Add(hidden)
		system := map[string]string{
			"ApproximateReceiveCount": strconv.Itoa(m.received), "SentTimestamp": strconv.FormatInt(m.sent.UnixMilli(), 10),
		}
		if m.group != "" {
			system["MessageGroupId"] = m.group
		}
		out = append(out, map[string]any{
			"MessageId": m.id, "Body": m.body, "MD5OfBody": sum(m.body), "ReceiptHandle": m.handle, "Attributes": system, "MessageAttributes": m.attributes,
		})
	}
	return out, next
}

// redriven moves a message that was received too often to the dead letters.
func (s *Server) redriven(q *fakeQueue, m *fakeMessage) bool {
	var policy struct {
		Target string `json:"deadLetterTargetArn"`
		Max    string `json:"maxReceiveCount"`
	}
	if q.attributes["RedrivePolicy"] == "" || json.Unmarshal([]byte(q.attributes["RedrivePolicy"]), &policy) != nil {
		return false
	}
	most, _ := strconv.Atoi(policy.Max)
	dead := s.queues[policy.Target[strings.LastIndexByte(policy.Target, ':')+1:]]
	if dead == nil || m.received < most {
		return false
	}
	for i, x := range q.messages {
		if x == m {
			q.messages = append(q.messages[:i], q.messages[i+1:]...)
			break
		}
	}
	m.received, m.handle = 0, ""
	dead.messages = append(dead.messages, m)
	return true
}

// DeleteQueue deletes a queue under whoever reads it.
func (s *Server) DeleteQueue(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.queues, name)
	s.changed()
}

// Bodies returns what is in a queue, hidden or not.
func (s *Server) Bodies(name string) (bodies []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if q := s.queues[name]; q != nil {
		for _, m := range q.messages {
			bodies = append(bodies, m.body)
		}
	}
	return bodies
}

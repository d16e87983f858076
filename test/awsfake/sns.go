package awsfake

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
)

const snsBytes = 256 << 10 // of a message and of a request

type fakeTopic struct {
	name  string
	fifo  bool
	names []string // of queues that are subscribed
}

func (t *fakeTopic) arn() string {
	return fmt.Sprintf("arn:aws:sns:%s:%s:%s", Region, Account, t.name)
}

func escape(text string) string {
	var b bytes.Buffer
	_ = xml.EscapeText(&b, []byte(text)) // a buffer takes everything
	return b.String()
}

func last(arn string) string { return arn[strings.LastIndexByte(arn, ':')+1:] }

// sns carries out an operation of SNS, or of STS, and returns the result as XML.
func (s *Server) sns(operation string, form url.Values) (string, *Failure) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch operation {
	case "GetCallerIdentity":
		return "<Account>" + Account + "</Account>", nil
	case "CreateTopic":
		name := form.Get("Name")
		if s.topics[name] == nil {
			s.topics[name] = &fakeTopic{name: name, fifo: strings.HasSuffix(name, ".fifo")}
		}
		return "<TopicArn>" + s.topics[name].arn() + "</TopicArn>", nil
	}
	t := s.topics[last(form.Get("TopicArn"))]
	if t == nil {
		return "", &Failure{Status: 404, Code: "NotFound", Message: "Topic does not exist"}
	}
	switch operation {
	case "GetTopicAttributes":
		return "", nil
	case "Subscribe":
		name := last(form.Get("Endpoint"))
		if slices.Contains(t.names, name) {
			return "<SubscriptionArn>" + t.arn() + ":" + name + "</SubscriptionArn>", nil
		}
		t.names = append(t.names, name)
		return "<SubscriptionArn>" + t.arn() + ":" + name + "</SubscriptionArn>", nil
	case "PublishBatch":
		return s.publishBatch(t, form)
	}
	return "", bad("InvalidAction", "%s", operation)
}

func (s *Server) publishBatch(t *fakeTopic, form url.Values) (string, *Failure) {
	var ok, failed strings.Builder
	size := 0
	for i := 1; i <= 11; i++ {
		size += len(form.Get(fmt.Sprintf("PublishBatchRequestEntries.member.%d.Message", i)))
	}
	if form.Has("PublishBatchRequestEntries.member.11.Id") {
		return "", bad("TooManyEntriesInBatchRequest", "more than 10")
	}
	if size > snsBytes {
		return "", bad("BatchRequestTooLong", "%d bytes", size)
	}
	for i := 1; i <= 10; i++ {
		p := fmt.Sprintf("PublishBatchRequestEntries.member.%d.", i)
		id := form.Get(p + "Id")
		if id == "" {
			break
		}
		if f := s.publish(t, form, p); f != nil {
			fmt.Fprintf(&failed, "<member><Id>%s</Id><Code>%s</Code><Message>%s</Message><SenderFault>true</SenderFault></member>", id, f.Code, f.Message)
			continue
		}
		fmt.Fprintf(&ok, "<member><Id>%s</Id><MessageId>%s</MessageId></member>", id, rand.Text())
	}
	return "<Successful>" + ok.String() + "</Successful><Failed>" + failed.String() + "</Failed>", nil
}

func (s *Server) publish(t *fakeTopic, form url.Values, p string) *Failure {
	text := form.Get(p + "Message")
	attributes := map[string]map[string]string{}
	for i := 1; ; i++ {
		a := fmt.Sprintf("%sMessageAttributes.entry.%d.", p, i)
		name := form.Get(a + "Name")
		if name == "" {
			break
		}
		v := form.Get(a + "Value.StringValue")
		if !textual(v) {
			return bad("InvalidParameterValue", "The message attribute '%s' is empty or has invalid characters.", name)
		}
		attributes[name] = map[string]string{"Type": form.Get(a + "Value.DataType"), "Value": v}
	}
	group := form.Get(p + "MessageGroupId")
	switch {
	case !textual(text):
		return bad("InvalidParameter", "Invalid parameter: Message")
	case form.Has(p+"Subject") && (!textual(form.Get(p+"Subject")) || len(form.Get(p+"Subject")) > 100 || strings.ContainsAny(form.Get(p+"Subject"), "\r\n")):
		return bad("InvalidParameter", "Invalid parameter: Subject")
	case t.fifo && group == "":
		return bad("InvalidParameter", "Invalid parameter: The MessageGroupId parameter is required for FIFO topics")
	}
	all := map[string]any{
		"Type": "Notification", "MessageId": rand.Text(), "TopicArn": t.arn(), "Message": text, "Timestamp": time.Now().UTC().Format(time.RFC3339Nano),
	}
	if form.Has(p + "Subject") {
		all["Subject"] = form.Get(p + "Subject")
	}
	if len(attributes) > 0 {
		all["MessageAttributes"] = attributes
	}
	body, err := json.Marshal(all)
	if err != nil {
		return bad("InternalError", "%v", err)
	}
	for _, name := range t.names {
		q := s.queues[name]
		if q == nil || !strings.Contains(q.attributes["Policy"], t.arn()) {
			continue // SNS may not write there, and says so to nobody
		}
		in := map[string]any{"MessageBody": string(body), "MessageGroupId": group, "MessageDeduplicationId": form.Get(p + "MessageDeduplicationId")}
		if _, f := s.sendOne(q, in); f != nil {
			return f
		}
	}
	return nil
}

// DeleteTopic deletes a topic with its subscriptions.
func (s *Server) DeleteTopic(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.topics, name)
}

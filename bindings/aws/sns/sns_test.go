package sns

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/bindings"
	client "github.com/penstock-io/penstock/client/aws"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/test/awsfake"
	"github.com/penstock-io/penstock/test/conform"
)

// side is what stands beside the component: clients of the same server.
type side struct {
	sns *sns.Client
	sqs *sqs.Client
}

func beside(url string) side {
	cfg := aws.Config{
		HTTPClient:   &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}, // the suite counts goroutines
		BaseEndpoint: &url, Region: awsfake.Region, Credentials: credentials.NewStaticCredentialsProvider("key", "secret", ""),
	}
	return side{sns.NewFromConfig(cfg), sqs.NewFromConfig(cfg)}
}

// fresh makes a topic with a queue of the same name that gets its messages, and
// returns the options for it.
func fresh(t testing.TB, url, suffix string) map[string]string {
	t.Helper()
	b, name := beside(url), conform.Unique(t)+suffix
	topic, queue := &sns.CreateTopicInput{Name: &name}, &sqs.CreateQueueInput{QueueName: &name}
	if suffix != "" {
		topic.Attributes, queue.Attributes = map[string]string{"FifoTopic": "true"}, map[string]string{"FifoQueue": "true"}
	}
	made, err := b.sns.CreateTopic(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	q, err := b.sqs.CreateQueue(t.Context(), queue)
	if err != nil {
		t.Fatal(err)
	}
	policy := fmt.Sprintf(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"sqs:SendMessage","Resource":"*",`+
		`"Condition":{"ArnEquals":{"aws:SourceArn":%q}}}]}`, *made.TopicArn)
	if _, err := b.sqs.SetQueueAttributes(t.Context(), &sqs.SetQueueAttributesInput{QueueUrl: q.QueueUrl, Attributes: map[string]string{"Policy": policy}}); err != nil {
		t.Fatal(err)
	}
	arn := fmt.Sprintf("arn:aws:sqs:%s:%s:%s", awsfake.Region, awsfake.Account, name)
	if _, err := b.sns.Subscribe(t.Context(), &sns.SubscribeInput{TopicArn: made.TopicArn, Protocol: aws.String("sqs"), Endpoint: &arn}); err != nil {
		t.Fatal(err)
	}
	o := maps.Clone((&awsfake.Server{URL: url}).Options())
	o["topicArn"] = *made.TopicArn
	return o
}

// arrived is a message as it comes out of the queue.
type arrived struct {
	Message, Subject  string
	MessageAttributes map[string]struct{ Value string }
	group             string
}

// receive waits for a message in the queue of a topic.
func receive(t testing.TB, url string, o map[string]string) (arrived, error) {
	t.Helper()
	api := beside(url).sqs
	name := o["topicArn"][strings.LastIndexByte(o["topicArn"], ':')+1:]
	found, err := api.GetQueueUrl(t.Context(), &sqs.GetQueueUrlInput{QueueName: &name})
	if err != nil {
		return arrived{}, err
	}
	for {
		got, err := api.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{
			QueueUrl: found.QueueUrl, WaitTimeSeconds: 5,
			MessageSystemAttributeNames: []types.MessageSystemAttributeName{types.MessageSystemAttributeNameAll},
		})
		if err != nil {
			return arrived{}, err
		}
		for _, m := range got.Messages {
			a := arrived{group: m.Attributes["MessageGroupId"]}
			if err := json.Unmarshal([]byte(aws.ToString(m.Body)), &a); err != nil {
				return a, err
			}
			_, err := api.DeleteMessage(t.Context(), &sqs.DeleteMessageInput{QueueUrl: found.QueueUrl, ReceiptHandle: m.ReceiptHandle})
			return a, err
		}
	}
}

func (a arrived) unpack() (data []byte, metadata map[string]string) {
	all := map[string]string{}
	for name, v := range a.MessageAttributes {
		all[name] = v.Value
	}
	data, metadata, _ = client.Unpack(a.Message, all)
	return data, metadata
}

// suite runs what every binding promises on a server.
func suite(t *testing.T, url, suffix string) {
	t.Helper()
	var alone sync.Mutex
	conform.Binding(t, Component, conform.BindingSetup{
		Options: func(t *testing.T) map[string]string { return fresh(t, url, suffix) },
		Wrong: map[string]map[string]string{
			"topicArn":  {"topicArn": "alarms"},
			"accessKey": {"accessKey": ""},
		},
		MaxBody: 190_000,
		Requests: func(map[string]string) []bindings.Request {
			return []bindings.Request{{Operation: "create", Data: []byte("x"), Metadata: map[string]string{"a": "b"}}}
		},
		RoundTrip: func(t *testing.T, out bindings.Invoker, options map[string]string, data []byte) ([]byte, error) {
			alone.Lock() // so that the message that arrives is this one
			defer alone.Unlock()
			if _, err := out.Invoke(t.Context(), &bindings.Request{Operation: "create", Data: data}); err != nil {
				return nil, err
			}
			a, err := receive(t, url, options)
			got, _ := a.unpack()
			return got, err
		},
		Fails: []conform.BindingFailure{
			{Name: "too long", Kind: fault.Invalid, Request: bindings.Request{Operation: "create", Data: []byte(strings.Repeat("x", 256<<10+1))}},
		},
	})
}

func TestConform(t *testing.T) { // not parallel: the suite counts goroutines
	for name, suffix := range map[string]string{"standard": "", "fifo": ".fifo"} {
		t.Run(name, func(t *testing.T) { suite(t, awsfake.Start(t).URL, suffix) })
	}
}

func opened(t testing.TB, options map[string]string) *binding {
	t.Helper()
	var items []config.Item
	for _, name := range slices.Sorted(maps.Keys(options)) {
		items = append(items, config.Item{Name: name, Value: options[name]})
	}
	d, err := Component.Open(t.Context(), component.Env{Name: "alarms", Shared: &component.Shared{}}, items)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close(t.Context()) })
	return d.(*binding)
}

func TestForms(t *testing.T) {
	t.Parallel()
	s := awsfake.Start(t)
	for name, row := range map[string]struct {
		data     string
		metadata map[string]string
		want     arrived
		rest     map[string]string
	}{
		"Dapr's":          {data: `{"message":"hot","subject":"Alarm"}`, want: arrived{Message: "hot", Subject: "Alarm"}},
		"Dapr's, JSON":    {data: `{"message":{"t":90.50}}`, want: arrived{Message: `{"t":90.50}`}},
		"any JSON":        {data: `{"t":90}`, want: arrived{Message: `{"t":90}`}},
		"broken JSON":     {data: `{"message":`, want: arrived{Message: `{"message":`}},
		"text":            {data: "hot", metadata: map[string]string{"subject": "S", "k": "v"}, want: arrived{Message: "hot", Subject: "S"}, rest: map[string]string{"k": "v"}},
		"group on a FIFO": {data: "hot", metadata: map[string]string{"messageGroupId": "g 1"}, want: arrived{Message: "hot", group: "g_1"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			suffix := ""
			if row.want.group != "" {
				suffix = ".fifo"
			}
			o := fresh(t, s.URL, suffix)
			if _, err := opened(t, o).Invoke(t.Context(), &bindings.Request{Operation: "create", Data: []byte(row.data), Metadata: row.metadata}); err != nil {
				t.Fatal(err)
			}
			got, err := receive(t, s.URL, o)
			if err != nil {
				t.Fatal(err)
			}
			_, rest := got.unpack()
			if got.Message != row.want.Message || got.Subject != row.want.Subject || got.group != row.want.group {
				t.Errorf("got %+v, want %+v", got, row.want)
			}
			if diff := cmp.Diff(row.rest, rest); diff != "" {
				t.Errorf("attributes (-want +got)\n%s", diff)
			}
		})
	}
}

func TestBatches(t *testing.T) {
	t.Parallel()
	const n = 200
	s := awsfake.Start(t)
	b := opened(t, fresh(t, s.URL, ""))
	s.Delay(20 * time.Millisecond)
	var calls sync.WaitGroup
	for range n {
		calls.Go(func() {
			if _, err := b.Invoke(t.Context(), &bindings.Request{Operation: "create", Data: []byte("x")}); err != nil {
				t.Error(err)
			}
		})
	}
	calls.Wait()
	if got := s.Calls("PublishBatch"); got < n/10 || got > n/2 {
		t.Errorf("%d requests for %d messages", got, n)
	}
}

// One of a batch that SNS refuses does not fail the others.
func TestOneFails(t *testing.T) {
	t.Parallel()
	s := awsfake.Start(t)
	b := opened(t, fresh(t, s.URL, ""))
	s.Delay(50 * time.Millisecond)
	var calls sync.WaitGroup
	for i := range 20 {
		calls.Go(func() {
			subject := "ok"
			if i%2 == 1 {
				subject = "two\nlines"
			}
			_, err := b.Invoke(t.Context(), &bindings.Request{Operation: "create", Data: []byte("x"), Metadata: map[string]string{"subject": subject}})
			if (i%2 == 1) != (fault.KindOf(err) == fault.Invalid && err != nil) {
				t.Errorf("subject %q: %v", subject, err)
			}
		})
	}
	calls.Wait()
}

func TestMissingTopic(t *testing.T) {
	t.Parallel()
	s := awsfake.Start(t)
	var items []config.Item
	o := s.Options()
	o["topicArn"] = "arn:aws:sns:us-east-1:123456789012:none"
	for name, value := range o {
		items = append(items, config.Item{Name: name, Value: value})
	}
	_, err := Component.Open(t.Context(), component.Env{Name: "alarms", Shared: &component.Shared{}}, items)
	if fault.KindOf(err) != fault.NotFound || err == nil {
		t.Fatalf("got %v", err)
	}
}

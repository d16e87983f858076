package sqs

import (
	"context"
	"maps"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/penstock-io/penstock/bindings"
	client "github.com/penstock-io/penstock/client/aws"
	"github.com/penstock-io/penstock/client/aws/queue"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/test/awsfake"
	"github.com/penstock-io/penstock/test/conform"
)

func TestConform(t *testing.T) { // not parallel: the suite counts goroutines
	for name, suffix := range map[string]string{"standard": "", "fifo": ".fifo"} {
		t.Run(name, func(t *testing.T) { suite(t, awsfake.Start(t).URL, suffix, true) })
	}
}

// direct is a client of a server beside the component.
func direct(url string) *sqs.Client {
	return sqs.New(sqs.Options{
		HTTPClient:   &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}, // the suite counts goroutines
		BaseEndpoint: &url, Region: awsfake.Region, Credentials: credentials.NewStaticCredentialsProvider("key", "secret", ""),
	})
}

// fresh makes a queue and returns the options for it.
func fresh(t testing.TB, url, suffix string) map[string]string {
	t.Helper()
	name := conform.Unique(t) + suffix
	in := &sqs.CreateQueueInput{QueueName: &name}
	if suffix != "" {
		in.Attributes = map[string]string{"FifoQueue": "true"}
	}
	out, err := direct(url).CreateQueue(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_, _ = direct(url).DeleteQueue(context.WithoutCancel(t.Context()), &sqs.DeleteQueueInput{QueueUrl: out.QueueUrl})
	})
	o := maps.Clone((&awsfake.Server{URL: url}).Options())
	o["queueName"], o["waitTime"], o["visibilityTimeout"] = name, "1s", "5s"
	return o
}

// suite runs what every binding promises on a server. Notices tells that it does
// not hand out messages to a receive whose client has gone.
func suite(t *testing.T, url, suffix string, notices bool) {
	t.Helper()
	var alone sync.Mutex
	conform.Binding(t, Component, conform.BindingSetup{
		Options: func(t *testing.T) map[string]string { return fresh(t, url, suffix) },
		Wrong: map[string]map[string]string{
			"visibilityTimeout": {"visibilityTimeout": "1s"},
			"waitTime":          {"waitTime": "21s"},
			"secretKey":         {"secretKey": ""},
			"endpoint":          {"endpoint": "ftp://x"},
		},
		KeepsDelay: notices,
		Delay:      3 * time.Second,
		Forgets:    !notices,
		Feed: func(t *testing.T, options map[string]string, bodies ...string) {
			api := direct(url)
			out, err := api.GetQueueUrl(t.Context(), &sqs.GetQueueUrlInput{QueueName: aws.String(options["queueName"])})
			if err != nil {
				t.Fatal(err)
			}
			q := queue.New(t.Context(), api, aws.ToString(out.QueueUrl), queue.Options{FIFO: suffix != ""})
			defer q.Close(t.Context())
			for _, body := range bodies {
				p, err := client.Pack([]byte(body), nil, "")
				if err != nil {
					t.Fatal(err)
				}
				o := queue.Outgoing{Packed: p}
				if suffix != "" {
					o.Group, o.Dedupe = conform.Unique(t), conform.Unique(t)
				}
				if err := q.Send(t.Context(), o); err != nil {
					t.Fatal(err)
				}
			}
		},
		Requests: func(map[string]string) []bindings.Request {
			return []bindings.Request{{Operation: "create", Data: []byte("x"), Metadata: map[string]string{"a": "b"}}}
		},
		RoundTrip: func(t *testing.T, out bindings.Invoker, options map[string]string, data []byte) ([]byte, error) {
			alone.Lock() // so that the message that comes back is this one
			defer alone.Unlock()
			return roundTrip(t, out, url, options["queueName"], data)
		},
		Fails: []conform.BindingFailure{
			{Name: "delay", Kind: fault.Invalid, Request: bindings.Request{Operation: "create", Metadata: map[string]string{"delaySeconds": "901"}}},
			{Name: "too long", Kind: fault.Invalid, Request: bindings.Request{Operation: "create", Data: []byte(strings.Repeat("x", queue.Bytes+1))}},
		},
	})
}

// roundTrip sends a message and receives it.
func roundTrip(t *testing.T, out bindings.Invoker, url, name string, data []byte) ([]byte, error) {
	t.Helper()
	if _, err := out.Invoke(t.Context(), &bindings.Request{Operation: "create", Data: data}); err != nil {
		return nil, err
	}
	api := direct(url)
	found, err := api.GetQueueUrl(t.Context(), &sqs.GetQueueUrlInput{QueueName: &name})
	if err != nil {
		return nil, err
	}
	for {
		got, err := api.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{
			QueueUrl: found.QueueUrl, WaitTimeSeconds: 5, MessageAttributeNames: []string{"All"},
		})
		if err != nil {
			return nil, err
		}
		for _, m := range got.Messages {
			body, _, _ := client.Unpack(aws.ToString(m.Body), (&queue.Message{Attributes: m.MessageAttributes}).Texts())
			_, err := api.DeleteMessage(t.Context(), &sqs.DeleteMessageInput{QueueUrl: found.QueueUrl, ReceiptHandle: m.ReceiptHandle})
			return body, err
		}
	}
}

package sqs

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/bindings"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/test/awsfake"
)

// opened opens the binding.
func opened(t testing.TB, options map[string]string) *binding {
	t.Helper()
	var items []config.Item
	for name, value := range options {
		items = append(items, config.Item{Name: name, Value: value})
	}
	d, err := Component.Open(t.Context(), component.Env{Name: "orders", Shared: &component.Shared{}}, items)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return d.(*binding)
}

// create invokes the binding side by side.
func create(t testing.TB, b *binding, n int) {
	t.Helper()
	var calls sync.WaitGroup
	for i := range n {
		calls.Go(func() {
			if _, err := b.Invoke(t.Context(), &bindings.Request{Operation: "create", Data: fmt.Appendf(nil, "message %d", i)}); err != nil {
				t.Error(err)
			}
		})
	}
	calls.Wait()
}

// take reads n messages and returns them with the function that ends the Read.
func take(t testing.TB, b *binding, n int, settle func(*cloudevents.Delivery)) []*cloudevents.Delivery {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var got []*cloudevents.Delivery
	if err := b.Read(ctx, func(_ context.Context, d *cloudevents.Delivery) error {
		if len(got) == n {
			return context.Canceled
		}
		got = append(got, d)
		settle(d)
		if len(got) == n {
			cancel()
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return got
}

func TestEverythingGoesInBatches(t *testing.T) {
	t.Parallel()
	const n = 200
	s := awsfake.Start(t)
	b := opened(t, fresh(t, s.URL, ""))
	s.Delay(20 * time.Millisecond)
	create(t, b, n)
	for _, d := range take(t, b, n, func(*cloudevents.Delivery) {}) {
		d.Settle(cloudevents.Acked())
	}
	if err := b.queue.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, operation := range []string{"SendMessageBatch", "DeleteMessageBatch"} {
		if calls := s.Calls(operation); calls < n/10 || calls > n/2 {
			t.Errorf("%d requests %s for %d messages", calls, operation, n)
		}
	}
	if calls := s.Calls("SendMessage") + s.Calls("DeleteMessage"); calls > 0 {
		t.Errorf("%d requests for a single message", calls)
	}
}

func TestAttributesAndMetadata(t *testing.T) {
	t.Parallel()
	s := awsfake.Start(t)
	o := fresh(t, s.URL, "")
	b := opened(t, o)
	metadata := map[string]string{"a": "1", "not a name": "2", "long": "\x00", "delaySeconds": "0"}
	if _, err := b.Invoke(t.Context(), &bindings.Request{Operation: "create", Data: []byte(`{"n":1}`), Metadata: metadata}); err != nil {
		t.Fatal(err)
	}
	got := take(t, b, 1, func(d *cloudevents.Delivery) { d.Settle(cloudevents.Acked()) })[0]
	if diff := cmp.Diff(map[string]string{"a": "1", "not a name": "2", "long": "\x00"}, got.Metadata); diff != "" {
		t.Errorf("metadata (-want +got)\n%s", diff)
	}
	if e := got.Event; e.DataContentType() != "application/json" || e.Source() != "sqs:"+o["queueName"] {
		t.Errorf("event %s", e.JSON())
	}
	// What somebody else sends has attributes of other types.
	api := direct(s.URL)
	if _, err := api.SendMessage(t.Context(), &sqs.SendMessageInput{
		QueueUrl: aws.String(b.queue.URL()), MessageBody: aws.String("text"),
		MessageAttributes: map[string]types.MessageAttributeValue{
			"n": {DataType: aws.String("Number"), StringValue: aws.String("7")},
			"b": {DataType: aws.String("Binary"), BinaryValue: []byte{1, 2}},
		},
	}); err != nil {
		t.Fatal(err)
	}
	got = take(t, b, 1, func(d *cloudevents.Delivery) { d.Settle(cloudevents.Acked()) })[0]
	if diff := cmp.Diff(map[string]string{"n": "7", "b": "\x01\x02"}, got.Metadata); diff != "" {
		t.Errorf("metadata (-want +got)\n%s", diff)
	}
}

// A message is held for longer than it is hidden at first.
func TestHeldMessageIsNotReceivedTwice(t *testing.T) {
	t.Parallel()
	s := awsfake.Start(t)
	o := fresh(t, s.URL, "")
	o["visibilityTimeout"] = "5s"
	b := opened(t, o)
	create(t, b, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	held := make(chan *cloudevents.Delivery, 10)
	done := make(chan error, 1)
	go func() {
		done <- b.Read(ctx, func(_ context.Context, d *cloudevents.Delivery) error { held <- d; return nil })
	}()
	d := <-held
	for deadline := time.After(30 * time.Second); s.Calls("ChangeMessageVisibilityBatch") < 4; { // every 5/3 s
		select {
		case again := <-held:
			t.Fatalf("attempt %d came while the first was held", again.Attempt)
		case <-deadline:
			t.Fatal("the message is not extended")
		case <-time.After(50 * time.Millisecond):
		}
	}
	d.Settle(cloudevents.Acked())
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// BenchmarkAgainstOneAtATime reads with the binding, and the way that Dapr's
// does: look up the queue, receive one, delete one, wait 50 ms. A request takes
// 5 ms, as in one region.
func BenchmarkAgainstOneAtATime(b *testing.B) {
	const many, few = 4000, 40
	s := awsfake.Start(b)
	o := fresh(b, s.URL, "")
	in := opened(b, o)
	for b.Loop() {
		create(b, in, many)
		s.Delay(5 * time.Millisecond)
		began := time.Now()
		take(b, in, many, func(d *cloudevents.Delivery) { d.Settle(cloudevents.Acked()) })
		ours := many / time.Since(began).Seconds()
		s.Delay(0)
		create(b, in, few)
		s.Delay(5 * time.Millisecond)
		began = time.Now()
		oneAtATime(b, s.URL, o["queueName"], few)
		bare := few / time.Since(began).Seconds()
		s.Delay(0)
		b.ReportMetric(ours, "events/s")
		b.ReportMetric(bare, "one-at-a-time/s")
		b.ReportMetric(ours/bare, "ratio")
	}
}

func oneAtATime(b *testing.B, url, name string, n int) {
	b.Helper()
	api := direct(url)
	pause := time.NewTicker(50 * time.Millisecond)
	defer pause.Stop()
	for range n {
		found, err := api.GetQueueUrl(b.Context(), &sqs.GetQueueUrlInput{QueueName: &name})
		if err != nil {
			b.Fatal(err)
		}
		got, err := api.ReceiveMessage(b.Context(), &sqs.ReceiveMessageInput{QueueUrl: found.QueueUrl, MaxNumberOfMessages: 1, WaitTimeSeconds: 20})
		if err != nil {
			b.Fatal(err)
		}
		for _, m := range got.Messages {
			if _, err := api.DeleteMessage(b.Context(), &sqs.DeleteMessageInput{QueueUrl: found.QueueUrl, ReceiptHandle: m.ReceiptHandle}); err != nil {
				b.Fatal(err)
			}
		}
		<-pause.C
	}
}

package snssqs

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/pubsub"
	"github.com/penstock-io/penstock/test/awsfake"
	"github.com/penstock-io/penstock/test/conform"
)

func TestDeadLetters(t *testing.T) {
	t.Parallel()
	deadLetters(t, awsfake.Start(t).Options())
}

// deadLetters checks the options that say what becomes of what fails too often.
func deadLetters(t *testing.T, options map[string]string) {
	t.Helper()
	for name, fifo := range map[string]string{"standard": "false", "fifo": "true"} {
		t.Run(name+", the queue takes what was received too often", func(t *testing.T) {
			t.Parallel()
			movedTooOften(t, options, fifo)
		})
	}
	t.Run("nothing is deleted without such a queue", func(t *testing.T) {
		t.Parallel()
		neverDeleted(t, options)
	})
}

func movedTooOften(t *testing.T, options map[string]string, fifo string) {
	t.Helper()
	topic, dead := conform.Unique(t), conform.Unique(t)
	d := opened(t, options, map[string]string{"fifo": fifo, "sqsDeadLettersQueueName": dead, "messageReceiveLimit": "2", "messageRetryLimit": "9", "disableDeleteOnRetryLimit": "true"})
	closes(t, d)
	attempts := consume(t, d, topic, func(x *cloudevents.Delivery) cloudevents.Outcome {
		if string(x.Body) == "poison" {
			return cloudevents.Retried(nil, 0)
		}
		return cloudevents.Acked()
	})
	publish := func(data string) {
		t.Helper()
		if err := d.Publish(t.Context(), topic, []pubsub.Message{{Key: "k", Data: []byte(data)}}); err != nil {
			t.Fatal(err)
		}
	}
	publish("poison")
	got := map[string]int{<-attempts: 1}
	// Not before: what SQS hands out together with a message of its group that
	// fails is received as often, and moved with it.
	publish("fine")
	body := received(t, d, awsName(dead, fifo == "true"))
	var e struct{ Message string }
	if err := json.Unmarshal([]byte(body), &e); err != nil || e.Message != "poison" {
		t.Errorf("the dead letters queue has %q, want what SNS wraps poison into", body)
	}
	for got["fine"] == 0 || got["poison"] < 2 {
		select {
		case x := <-attempts:
			got[x]++
		case <-time.After(30 * time.Second):
			t.Fatalf("delivered %v", got)
		}
	}
	if diff := cmp.Diff(map[string]int{"fine": 1, "poison": 2}, got); diff != "" {
		t.Error(diff)
	}
}

// neverDeleted: Dapr's component deletes what failed messageRetryLimit times.
func neverDeleted(t *testing.T, options map[string]string) {
	t.Helper()
	topic := conform.Unique(t)
	d := opened(t, options, map[string]string{"messageRetryLimit": "1", "messageReceiveLimit": "1", "disableDeleteOnRetryLimit": "false"})
	closes(t, d)
	attempts := consume(t, d, topic, func(x *cloudevents.Delivery) cloudevents.Outcome {
		if x.Attempt < 4 {
			return cloudevents.Retried(nil, 0)
		}
		return cloudevents.Acked()
	})
	if err := d.Publish(t.Context(), topic, []pubsub.Message{{Data: []byte("x")}}); err != nil {
		t.Fatal(err)
	}
	for n := range 4 {
		select {
		case <-attempts:
		case <-time.After(30 * time.Second):
			t.Fatalf("delivered %d times, want 4", n)
		}
	}
}

func TestDeadLetterOptionsAreChecked(t *testing.T) {
	t.Parallel()
	for value, words := range map[string]string{"0": "must be 1 to 1000", "1001": "must be 1 to 1000", "many": "messageReceiveLimit"} {
		items := []config.Item{{Name: "region", Value: "us-east-1"}, {Name: "messageReceiveLimit", Value: value}}
		_, err := Component.Open(t.Context(), component.Env{Name: "bus", Shared: &component.Shared{}}, items)
		if err == nil || !strings.Contains(err.Error(), words) || !strings.Contains(err.Error(), "messageReceiveLimit") {
			t.Errorf("messageReceiveLimit %s: %v, want %q", value, err, words)
		}
	}
}

func closes(t *testing.T, d pubsub.Driver) {
	t.Helper()
	t.Cleanup(func() {
		if err := d.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
}

// consume subscribes a group of the topic's name, gives each delivery the outcome
// that decide says, and tells the bodies. It returns when the group exists.
func consume(t *testing.T, d *driver, topic string, decide func(*cloudevents.Delivery) cloudevents.Outcome) <-chan string {
	t.Helper()
	sub := pubsub.Subscription{Topic: topic, Group: topic}
	if err := d.Prepare(t.Context(), sub); err != nil {
		t.Fatal(err)
	}
	bodies, done := make(chan string, 100), make(chan error, 1)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	go func() {
		done <- d.Subscribe(ctx, sub, func(_ context.Context, x *cloudevents.Delivery) error {
			bodies <- string(x.Body)
			x.Settle(decide(x))
			return nil
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return bodies
}

// received waits for a message of a queue, and returns its body.
func received(t *testing.T, d *driver, queue string) string {
	t.Helper()
	out, err := d.sqs.GetQueueUrl(t.Context(), &sqs.GetQueueUrlInput{QueueName: &queue})
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); {
		got, err := d.sqs.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{
			QueueUrl: out.QueueUrl, WaitTimeSeconds: 5, MessageSystemAttributeNames: []types.MessageSystemAttributeName{types.MessageSystemAttributeNameAll},
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range got.Messages {
			return sdk.ToString(m.Body)
		}
	}
	t.Fatalf("nothing came to the queue %s", queue)
	return ""
}

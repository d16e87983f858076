package rabbitmq

import (
	"context"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/penstock-io/penstock/bindings"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/test/conform"
)

// suite runs what every binding promises on a server.
func suite(t *testing.T, url string) {
	t.Helper()
	conform.Binding(t, Component, conform.BindingSetup{
		Options: func(t *testing.T) map[string]string {
			queue := conform.Unique(t)
			t.Cleanup(func() {
				if _, err := server(t, url).QueueDelete(queue, false, false, false); err != nil {
					t.Error(err)
				}
			})
			return map[string]string{"host": url, "queueName": queue, "durable": "true"}
		},
		Wrong: map[string]map[string]string{
			"host":          {"host": "http://x"},
			"clientCert":    {"clientCert": "x"},
			"externalSasl":  {"externalSasl": "true"},
			"prefetchCount": {"prefetchCount": "-1"},
			"maxPriority":   {"maxPriority": "-1"},
			"ttlInSeconds":  {"ttlInSeconds": "-1"},
			"heartBeat":     {"heartBeat": "1ms"},
		},
		KeepsDelay: true,
		Feed: func(t *testing.T, options map[string]string, bodies ...string) {
			ch := server(t, url)
			if _, err := ch.QueueDeclare(options["queueName"], true, false, false, false, nil); err != nil {
				t.Fatal(err)
			}
			if err := ch.Confirm(false); err != nil {
				t.Fatal(err)
			}
			for _, body := range bodies {
				c, err := ch.PublishWithDeferredConfirm("", options["queueName"], true, false, amqp.Publishing{
					MessageId: conform.Unique(t), Body: []byte(body),
				})
				if err != nil || !c.Wait() {
					t.Fatal("not published", err)
				}
			}
		},
		Requests: func(map[string]string) []bindings.Request {
			return []bindings.Request{{Operation: "create", Data: []byte("x"), Metadata: map[string]string{"a": "b"}}}
		},
		RoundTrip: func(t *testing.T, out bindings.Invoker, options map[string]string, data []byte) ([]byte, error) {
			return roundTrip(t, out, url, options["queueName"], data)
		},
		Fails: []conform.BindingFailure{{
			Name: "priority", Kind: fault.Invalid,
			Request: bindings.Request{Operation: "create", Metadata: map[string]string{"priority": "high"}},
		}},
	})
}

// roundTrip finds its own message among those of others.
func roundTrip(t *testing.T, out bindings.Invoker, url, queue string, data []byte) ([]byte, error) {
	t.Helper()
	id := conform.Unique(t)
	_, err := out.Invoke(t.Context(), &bindings.Request{Operation: "create", Data: data, Metadata: map[string]string{"messageId": id}})
	if err != nil {
		return nil, err
	}
	conn, err := amqp.Dial(url)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	messages, err := ch.Consume(queue, "", false, false, false, false, nil)
	if err != nil {
		return nil, err
	}
	for {
		select {
		case m := <-messages:
			if m.MessageId == id {
				return m.Body, m.Ack(false)
			}
			if err := m.Nack(false, true); err != nil {
				return nil, err
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func server(t testing.TB, url string) *amqp.Channel {
	t.Helper()
	conn, err := amqp.Dial(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	return ch
}

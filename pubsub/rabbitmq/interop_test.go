package rabbitmq

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/rabbitmq/amqp091-go"

	"github.com/penstock-io/penstock/test/conform"
	"github.com/penstock-io/penstock/test/fake/amqp"
)

func TestInterop(t *testing.T) {
	t.Parallel()
	url := amqp.Start(t).URL()
	d := opened(t, url, map[string]string{"deletedWhenUnused": "false"})
	defer shut(t, d)
	conn, err := amqp091.Dial(url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	conform.Interop(t, "rabbitmq", conform.InteropSetup{
		Driver: d,
		Write: func(t *testing.T, l conform.Layout) {
			t.Helper()
			mode, err := strconv.ParseUint(l.Fields["deliveryMode"], 10, 8)
			if err != nil {
				t.Fatal(err)
			}
			err = ch.PublishWithContext(t.Context(), l.Fields["exchange"], l.Fields["routingKey"], true, false, amqp091.Publishing{
				ContentType: l.Fields["contentType"], DeliveryMode: uint8(mode), Body: []byte(l.Body),
			})
			if err != nil {
				t.Fatal(err)
			}
		},
		Look: func(t *testing.T) func() conform.Layout { return look(t, ch) },
	})
}

// look binds a queue of its own to the topic's exchange.
func look(t *testing.T, ch *amqp091.Channel) func() conform.Layout {
	t.Helper()
	if _, err := ch.QueueDeclare("look", false, true, true, false, nil); err != nil {
		t.Fatal(err)
	}
	if err := ch.QueueBind("look", "", conform.InteropTopic, false, nil); err != nil {
		t.Fatal(err)
	}
	messages, err := ch.Consume("look", "", true, true, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	return func() conform.Layout {
		select {
		case m := <-messages:
			fields := map[string]string{
				"exchange": m.Exchange, "routingKey": m.RoutingKey, "contentType": m.ContentType, "contentEncoding": m.ContentEncoding,
				"deliveryMode": fmt.Sprint(m.DeliveryMode), "priority": fmt.Sprint(m.Priority), "expiration": m.Expiration,
				"messageId": m.MessageId, "correlationId": m.CorrelationId, "type": m.Type, "appId": m.AppId,
			}
			for name, value := range m.Headers {
				fields["header "+name] = fmt.Sprintf("%T %v", value, value)
			}
			return conform.Layout{Fields: fields, Body: string(m.Body)}
		case <-time.After(while):
			t.Fatal("no message")
			return conform.Layout{}
		}
	}
}

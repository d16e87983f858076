package cloudevents_test

import (
	"fmt"
	"net/http"

	"github.com/penstock-io/penstock/cloudevents"
)

func ExampleScan() {
	raw := []byte(`{"specversion":"1.0","id":"1","source":"/shop","type":"order.placed","data":{"total": 9.90}}`)
	e, err := cloudevents.Scan(raw)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(e.Type(), string(e.Data()))

	_, err = cloudevents.Scan([]byte(`{"specversion":"1.0","id":1}`))
	fmt.Println(err)
	// Output:
	// order.placed {"total": 9.90}
	// scan event: byte 26: attribute "id": must be a string
}

func ExampleEvent_With() {
	e, err := cloudevents.Scan([]byte(`{"specversion":"1.0", "id":"1", "source":"/shop", "type":"order.placed", "data":{"total": 9.90}}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	e = e.With(cloudevents.Attr{Name: "type", Value: "order.paid"}, cloudevents.Attr{Name: "topic", Value: "orders"})
	fmt.Println(string(e.JSON()))
	// Output:
	// {"specversion":"1.0", "id":"1", "source":"/shop", "type":"order.paid", "data":{"total": 9.90},"topic":"orders"}
}

func ExampleEnvelope_Wrap() {
	v := cloudevents.Envelope{Source: "checkout", Topic: "orders", PubSub: "bus", ContentType: "application/json"}
	e, err := v.Wrap([]byte(`{"total": 9.90}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	topic, _ := e.Attr("topic")
	fmt.Println(e.Source(), e.Type(), topic, string(e.Data()))
	// Output:
	// checkout com.dapr.event.sent orders {"total": 9.90}
}

func ExampleFromHTTP() {
	header := http.Header{}
	for name, value := range map[string]string{
		"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/shop", "ce-type": "order.placed",
		"ce-subject": "caf%C3%A9", "content-type": "text/plain",
	} {
		header.Set(name, value)
	}
	events, err := cloudevents.FromHTTP(header, []byte("two cups"))
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, e := range events {
		fmt.Println(e.Subject(), string(e.Data()))
	}
	// Output:
	// café two cups
}

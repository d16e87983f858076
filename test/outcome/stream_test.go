package outcome

import (
	"testing"

	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// openStreams subscribes to each topic with a stream of its own and returns when
// all are live. A stream that the row ends is opened again.
func openStreams(t *testing.T, c *calls, address string, topics []string) {
	t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	client := rtv1.NewDaprClient(conn)
	done := make(chan struct{}, len(topics))
	live := make(chan struct{}, len(topics))
	for _, topic := range topics {
		go func() {
			defer func() { done <- struct{}{} }()
			for hold(t, client, c, topic, live) {
			}
		}()
	}
	t.Cleanup(func() {
		conn.Close()
		for range topics {
			<-done
		}
	})
	for range topics {
		<-live
	}
}

// hold answers the events of one stream until it ends. It tells whether to open
// another.
func hold(t *testing.T, client rtv1.DaprClient, c *calls, topic string, live chan<- struct{}) (again bool) {
	stream, err := client.SubscribeTopicEventsAlpha1(t.Context())
	if err != nil {
		return false
	}
	initial := &rtv1.SubscribeTopicEventsRequestInitialAlpha1{PubsubName: "bus", Topic: topic}
	if topic[0] == 'l' {
		dead := "dead-" + topic
		initial.DeadLetterTopic = &dead
	}
	err = stream.Send(&rtv1.SubscribeTopicEventsRequestAlpha1{
		SubscribeTopicEventsRequestType: &rtv1.SubscribeTopicEventsRequestAlpha1_InitialRequest{InitialRequest: initial},
	})
	if err != nil {
		return false
	}
	for {
		m, err := stream.Recv()
		if err != nil {
			return false
		}
		e := m.GetEventMessage()
		if e == nil {
			select {
			case live <- struct{}{}:
			default: // opened again
			}
			continue
		}
		s := c.next("/" + topic)
		if s.hangUp {
			stream.CloseSend()
			return true
		}
		answer := &rtv1.SubscribeTopicEventsRequestProcessedAlpha1{
			Id: e.GetId(), Status: &rtv1.TopicEventResponse{Status: rtv1.TopicEventResponse_TopicEventResponseStatus(s.word)},
		}
		err = stream.Send(&rtv1.SubscribeTopicEventsRequestAlpha1{
			SubscribeTopicEventsRequestType: &rtv1.SubscribeTopicEventsRequestAlpha1_EventProcessed{EventProcessed: answer},
		})
		if err != nil {
			return false
		}
	}
}

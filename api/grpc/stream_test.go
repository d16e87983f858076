package grpc_test

import (
	"context"
	"io"
	"testing"
	"time"

	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/penstock-io/penstock/api"
	apigrpc "github.com/penstock-io/penstock/api/grpc"
	"github.com/penstock-io/penstock/cloudevents"
)

type eventStream = rtv1.Dapr_SubscribeTopicEventsAlpha1Client

func initial(bus, topic string) *rtv1.SubscribeTopicEventsRequestAlpha1 {
	dead := "dead"
	return &rtv1.SubscribeTopicEventsRequestAlpha1{
		SubscribeTopicEventsRequestType: &rtv1.SubscribeTopicEventsRequestAlpha1_InitialRequest{
			InitialRequest: &rtv1.SubscribeTopicEventsRequestInitialAlpha1{
				PubsubName: bus, Topic: topic, Metadata: map[string]string{"k": "v"}, DeadLetterTopic: &dead,
			},
		},
	}
}

func answer(id string, status rtv1.TopicEventResponse_TopicEventResponseStatus) *rtv1.SubscribeTopicEventsRequestAlpha1 {
	return &rtv1.SubscribeTopicEventsRequestAlpha1{
		SubscribeTopicEventsRequestType: &rtv1.SubscribeTopicEventsRequestAlpha1_EventProcessed{
			EventProcessed: &rtv1.SubscribeTopicEventsRequestProcessedAlpha1{Id: id, Status: &rtv1.TopicEventResponse{Status: status}},
		},
	}
}

// subscribe opens a stream and waits until it is live.
func subscribe(t *testing.T, c rtv1.DaprClient, i *instance) (eventStream, *api.Stream) {
	t.Helper()
	s, err := c.SubscribeTopicEventsAlpha1(t.Context())
	must(t, err)
	must(t, s.Send(initial("bus", "orders")))
	got, err := s.Recv()
	must(t, err)
	if got.GetInitialResponse() == nil {
		t.Fatalf("first message is %v", got)
	}
	return s, <-i.streams
}

// event is a delivery of an event with that id.
func event(t *testing.T, id string) *cloudevents.Delivery {
	t.Helper()
	e, err := cloudevents.Scan([]byte(`{"specversion":"1.0","id":"` + id + `","source":"s","type":"t","datacontenttype":"application/json","colour":"red","data":{"n":1.0}}`))
	must(t, err)
	return &cloudevents.Delivery{Event: e}
}

// deliver hands an event over and returns where its outcome comes.
func deliver(ctx context.Context, s *api.Stream, d *cloudevents.Delivery) <-chan cloudevents.Outcome {
	out := make(chan cloudevents.Outcome, 1)
	go func() { out <- s.Deliver(ctx, d) }()
	return out
}

func recv(t *testing.T, s eventStream) *rtv1.TopicEventRequest {
	t.Helper()
	got, err := s.Recv()
	must(t, err)
	if got.GetEventMessage() == nil {
		t.Fatalf("message is %v", got)
	}
	return got.GetEventMessage()
}

// verdict waits for an outcome.
func verdict(t *testing.T, o <-chan cloudevents.Outcome, want cloudevents.Verdict) {
	t.Helper()
	select {
	case got := <-o:
		if got.Verdict != want {
			t.Errorf("outcome %v (%s), want %v", got.Verdict, got.Reason, want)
		}
	case <-time.After(time.Minute):
		t.Fatal("no outcome")
	}
}

func TestStream(t *testing.T) {
	t.Parallel()
	c, i := client(t)
	s, live := subscribe(t, c, i)
	if live.PubSub != "bus" || live.Topic != "orders" || live.DeadLetterTopic != "dead" || live.Metadata["k"] != "v" {
		t.Errorf("asked for %+v", live)
	}
	ids := []string{"1", "2", "3", "4"}
	outcomes := map[string]<-chan cloudevents.Outcome{}
	for _, id := range ids {
		outcomes[id] = deliver(t.Context(), live, event(t, id))
	}
	for range ids {
		got := recv(t, s)
		got.Extensions = nil
		want := &rtv1.TopicEventRequest{
			Id: got.GetId(), Source: "s", Type: "t", SpecVersion: "1.0", DataContentType: "application/json", Data: []byte(`{"n":1.0}`),
			Topic: "orders", PubsubName: "bus", Path: "/",
		}
		if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
	}
	must(t, s.Send(answer("nobody's", rtv1.TopicEventResponse_SUCCESS)))
	must(t, s.Send(answer("4", 99)))
	must(t, s.Send(answer("3", rtv1.TopicEventResponse_DROP)))
	must(t, s.Send(answer("2", rtv1.TopicEventResponse_RETRY)))
	must(t, s.Send(answer("1", rtv1.TopicEventResponse_SUCCESS)))
	verdict(t, outcomes["1"], cloudevents.Ack)
	verdict(t, outcomes["2"], cloudevents.Retry)
	verdict(t, outcomes["3"], cloudevents.Drop)
	verdict(t, outcomes["4"], cloudevents.Retry)
}

// Two events of one id are told apart by the order in which they were sent.
func TestStreamSameID(t *testing.T) {
	t.Parallel()
	c, i := client(t)
	s, live := subscribe(t, c, i)
	first := deliver(t.Context(), live, event(t, "1"))
	recv(t, s)
	second := deliver(t.Context(), live, event(t, "1"))
	recv(t, s)
	must(t, s.Send(answer("1", rtv1.TopicEventResponse_DROP)))
	verdict(t, first, cloudevents.Drop)
	must(t, s.Send(answer("1", rtv1.TopicEventResponse_SUCCESS)))
	verdict(t, second, cloudevents.Ack)
}

// What is under way when the stream ends is left, however it ends, and so is
// what comes after.
func TestStreamEnds(t *testing.T) {
	t.Parallel()
	c, i := client(t)
	ends := map[string]func(eventStream, context.CancelFunc){
		"closed":    func(s eventStream, _ context.CancelFunc) { must(t, s.CloseSend()) },
		"cancelled": func(_ eventStream, cancel context.CancelFunc) { cancel() },
		"misused":   func(s eventStream, _ context.CancelFunc) { must(t, s.Send(initial("bus", "orders"))) },
	}
	codes := map[string]codes.Code{"closed": codes.OK, "cancelled": codes.Canceled, "misused": codes.InvalidArgument}
	for name, end := range ends {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		s, err := c.SubscribeTopicEventsAlpha1(ctx)
		must(t, err)
		must(t, s.Send(initial("bus", "orders")))
		_, err = s.Recv()
		must(t, err)
		live := <-i.streams
		o := deliver(t.Context(), live, event(t, "1"))
		recv(t, s)
		end(s, cancel)
		verdict(t, o, cloudevents.Leave)
		verdict(t, deliver(t.Context(), live, event(t, "2")), cloudevents.Leave)
		if _, err := s.Recv(); status.Code(err) != codes[name] && !(name == "closed" && err == io.EOF) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A delivery whose route stops is left; one that took too long is tried again.
// The stream goes on.
func TestStreamDeliveryEnds(t *testing.T) {
	t.Parallel()
	c, i := client(t)
	s, live := subscribe(t, c, i)
	ctx, cancel := context.WithCancel(t.Context())
	stopped := deliver(ctx, live, event(t, "1"))
	recv(t, s)
	cancel()
	verdict(t, stopped, cloudevents.Leave)
	ctx, cancel = context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	verdict(t, deliver(ctx, live, event(t, "2")), cloudevents.Retry)
	again := deliver(t.Context(), live, event(t, "3"))
	for recv(t, s).GetId() != "3" {
	}
	must(t, s.Send(answer("3", rtv1.TopicEventResponse_SUCCESS)))
	verdict(t, again, cloudevents.Ack)
}

// An event that is too large for a message does not end the stream.
func TestStreamTooLarge(t *testing.T) {
	t.Parallel()
	i := open(t)
	s, live := subscribe(t, serve(t, i, apigrpc.Options{MaxBody: 300}).dial(t), i)
	e, err := cloudevents.New("text/plain", make([]byte, 300), cloudevents.Attr{Name: "id", Value: "1"}, cloudevents.Attr{Name: "source", Value: "s"}, cloudevents.Attr{Name: "type", Value: "t"})
	must(t, err)
	verdict(t, deliver(t.Context(), live, &cloudevents.Delivery{Event: e}), cloudevents.Retry)
	o := deliver(t.Context(), live, event(t, "2"))
	recv(t, s)
	must(t, s.Send(answer("2", rtv1.TopicEventResponse_SUCCESS)))
	verdict(t, o, cloudevents.Ack)
}

// A server that stops ends its streams with a code that makes clients connect
// again.
func TestStreamShutdown(t *testing.T) {
	t.Parallel()
	i := open(t)
	server := serve(t, i, apigrpc.Options{Drain: time.Hour})
	s, live := subscribe(t, server.dial(t), i)
	o := deliver(t.Context(), live, event(t, "1"))
	recv(t, s)
	server.stop()
	_, err := s.Recv()
	want(t, err, codes.Unavailable, "connect again")
	verdict(t, o, cloudevents.Leave)
	must(t, <-server.done)
}

func TestStreamRefused(t *testing.T) {
	t.Parallel()
	c, _ := client(t)
	tests := []struct {
		name  string
		first *rtv1.SubscribeTopicEventsRequestAlpha1
		code  codes.Code
		word  string
	}{
		{"no initial request", answer("1", 0), codes.InvalidArgument, "initial request"},
		{"pubsub empty", initial("", "t"), codes.InvalidArgument, "name is empty"},
		{"topic empty", initial("bus", ""), codes.InvalidArgument, "topic is empty"},
		{"pubsub unknown", initial("gone", "t"), codes.InvalidArgument, "pubsub gone is not found"},
		{"topic denied", initial("bus", "secret"), codes.PermissionDenied, "not allowed"},
		{"not yet", initial("bus", "later"), codes.Unavailable, "not open"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s, err := c.SubscribeTopicEventsAlpha1(t.Context())
			must(t, err)
			must(t, s.Send(tt.first))
			_, err = s.Recv()
			want(t, err, tt.code, tt.word)
		})
	}
}

package grpc

import (
	"context"
	"errors"
	"io"
	"sync"

	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/protobuf/proto"

	"github.com/penstock-io/penstock/api"
	appgrpc "github.com/penstock-io/penstock/app/grpc"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
)

// errEnding ends streams when the server stops. Clients take its code as a
// reason to come again.
var errEnding = errors.New("this instance is stopping; connect again")

// SubscribeTopicEventsAlpha1 is a subscription that lives as long as the call.
func (s *service) SubscribeTopicEventsAlpha1(ss rtv1.Dapr_SubscribeTopicEventsAlpha1Server) error {
	first, err := ss.Recv()
	if err != nil {
		return err
	}
	arrived(ss.Context())
	in := first.GetInitialRequest()
	if in == nil {
		return api.Errorf(api.BadRequest, "subscribe: the first message is not an initial request")
	}
	ctx, cancel := context.WithCancelCause(ss.Context())
	defer cancel(nil)
	st := &stream{
		ss: ss, over: ctx.Done(), pubsub: in.GetPubsubName(), topic: in.GetTopic(), maxBody: s.maxBody,
		sending: make(chan struct{}, 1), waiting: map[string][]chan cloudevents.Outcome{},
	}
	// Reading ends when the call has, which is after this method has returned;
	// the server waits for it.
	s.working.Add(1)
	go func() {
		defer s.working.Add(-1)
		cancel(st.read())
	}()
	var wg sync.WaitGroup
	wg.Go(func() {
		select {
		case <-s.ending:
			cancel(errEnding)
		case <-ctx.Done():
		}
	})
	err = s.api.Subscribe(ctx, &api.Stream{
		PubSub: st.pubsub, Topic: st.topic, DeadLetterTopic: in.GetDeadLetterTopic(), Metadata: in.GetMetadata(),
		Ready: st.ready, Deliver: st.deliver,
	})
	if err == nil {
		err = context.Cause(ctx)
	}
	cancel(nil)
	wg.Wait()
	switch {
	case errors.Is(err, io.EOF): // the client wants no more
		return nil
	case errors.Is(err, errEnding):
		return api.Errorf(api.Subscription, "subscribe to %s/%s: %w", st.pubsub, st.topic, err)
	}
	return err
}

// stream is one subscription as its client sees it.
type stream struct {
	ss            rtv1.Dapr_SubscribeTopicEventsAlpha1Server
	over          <-chan struct{} // closed with the subscription
	pubsub, topic string
	maxBody       int
	sending       chan struct{} // holds one while a message is being sent

	mu sync.Mutex
	// Who waits for an answer, by event id, in the order of sending. Under mu.
	waiting map[string][]chan cloudevents.Outcome
}

func (st *stream) ready() error {
	return st.ss.Send(&rtv1.SubscribeTopicEventsResponseAlpha1{
		SubscribeTopicEventsResponseType: &rtv1.SubscribeTopicEventsResponseAlpha1_InitialResponse{
			InitialResponse: new(rtv1.SubscribeTopicEventsResponseInitialAlpha1),
		},
	})
}

// read takes answers until the client ends the stream. Those that nobody waits
// for are ignored.
func (st *stream) read() error {
	for {
		in, err := st.ss.Recv()
		if err != nil {
			return err
		}
		processed := in.GetEventProcessed()
		if processed == nil {
			return api.Errorf(api.BadRequest, "subscribe: a message is no answer to an event; there is one initial request in a stream")
		}
		if w := st.next(processed.GetId()); w != nil {
			w <- appgrpc.StatusOutcome("the app's stream", processed.GetStatus().GetStatus(), 0)
		}
	}
}

const streamEnded = "the app's stream has ended"

// deliver sends one event and waits for its answer.
func (st *stream) deliver(ctx context.Context, d *cloudevents.Delivery) cloudevents.Outcome {
	event := appgrpc.TopicEvent(d.Event, st.pubsub, st.topic, "/")
	out := &rtv1.SubscribeTopicEventsResponseAlpha1{
		SubscribeTopicEventsResponseType: &rtv1.SubscribeTopicEventsResponseAlpha1_EventMessage{EventMessage: event},
	}
	// Sending it would end the stream, and again when it is next delivered.
	if size := proto.Size(out); size > st.maxBody {
		return cloudevents.Retried(fault.New(fault.Exhausted,
			"send event to the app's stream: it has %d bytes, more than the %d of --max-body-size", size, st.maxBody), 0)
	}
	select {
	case st.sending <- struct{}{}:
	case <-ctx.Done():
		return cutShort(ctx)
	case <-st.over:
		return cloudevents.Left(streamEnded)
	}
	select {
	case <-st.over: // it is not for a message to be the last
		<-st.sending
		return cloudevents.Left(streamEnded)
	default:
	}
	w := st.wait(event.GetId())
	defer st.forget(event.GetId(), w)
	err := st.ss.Send(out)
	<-st.sending
	if err != nil {
		return cloudevents.Left(streamEnded)
	}
	select {
	case o := <-w:
		return o
	case <-ctx.Done():
		return cutShort(ctx)
	case <-st.over:
		return cloudevents.Left(streamEnded)
	}
}

// cutShort is the outcome of a delivery whose context ended: it took too long,
// or its route stops.
func cutShort(ctx context.Context) cloudevents.Outcome {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return cloudevents.Retried(fault.New(fault.Timeout, "deliver to the app's stream: no answer in time"), 0)
	}
	return cloudevents.Left("the delivery was cut short")
}

// wait puts down that the answer to an event is waited for.
func (st *stream) wait(id string) chan cloudevents.Outcome {
	w := make(chan cloudevents.Outcome, 1)
	st.mu.Lock()
	defer st.mu.Unlock()
	st.waiting[id] = append(st.waiting[id], w)
	return w
}

// next takes out who waits longest for the answer to an event, if anybody does.
func (st *stream) next(id string) chan cloudevents.Outcome {
	st.mu.Lock()
	defer st.mu.Unlock()
	list := st.waiting[id]
	if len(list) == 0 {
		return nil
	}
	st.keep(id, list[1:])
	return list[0]
}

// forget takes w out, if it is still there.
func (st *stream) forget(id string, w chan cloudevents.Outcome) {
	st.mu.Lock()
	defer st.mu.Unlock()
	for i, other := range st.waiting[id] {
		if other == w {
			st.keep(id, append(st.waiting[id][:i:i], st.waiting[id][i+1:]...))
			return
		}
	}
}

func (st *stream) keep(id string, list []chan cloudevents.Outcome) {
	if len(list) == 0 {
		delete(st.waiting, id)
		return
	}
	st.waiting[id] = list
}

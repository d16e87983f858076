package runtime_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

const streamBus = `
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: bus}
spec:
  type: pubsub.in-memory
  version: v1
  metadata:
    - {name: subscriptionScopes, value: "shop=orders,dead,other"}
`

// stream is a subscription of a gRPC client.
type stream struct {
	t *testing.T
	c rtv1.Dapr_SubscribeTopicEventsAlpha1Client
	// leave ends it as a lost connection does.
	leave context.CancelFunc
}

func (in *instance) dial(t *testing.T) rtv1.DaprClient {
	t.Helper()
	c, err := grpc.NewClient(in.rpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return rtv1.NewDaprClient(c)
}

// open opens a stream and returns what the first answer was.
func open(t *testing.T, c rtv1.DaprClient, topic, dead string, metadata map[string]string) (*stream, error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	s, err := c.SubscribeTopicEventsAlpha1(ctx)
	if err != nil {
		t.Fatal(err)
	}
	bus, topic, found := strings.Cut(topic, "/")
	if !found {
		bus, topic = "bus", bus
	}
	err = s.Send(&rtv1.SubscribeTopicEventsRequestAlpha1{
		SubscribeTopicEventsRequestType: &rtv1.SubscribeTopicEventsRequestAlpha1_InitialRequest{
			InitialRequest: &rtv1.SubscribeTopicEventsRequestInitialAlpha1{PubsubName: bus, Topic: topic, DeadLetterTopic: &dead, Metadata: metadata},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.Recv()
	if err == nil && got.GetInitialResponse() == nil {
		t.Fatalf("first message is %v", got)
	}
	return &stream{t, s, cancel}, err
}

// live opens a stream that works.
func live(t *testing.T, c rtv1.DaprClient, topic, dead string) *stream {
	t.Helper()
	s, err := open(t, c, topic, dead, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *stream) next() *rtv1.TopicEventRequest {
	s.t.Helper()
	got, err := s.c.Recv()
	if err != nil {
		s.t.Fatal(err)
	}
	return got.GetEventMessage()
}

func (s *stream) answer(id string, status rtv1.TopicEventResponse_TopicEventResponseStatus) {
	s.t.Helper()
	err := s.c.Send(&rtv1.SubscribeTopicEventsRequestAlpha1{
		SubscribeTopicEventsRequestType: &rtv1.SubscribeTopicEventsRequestAlpha1_EventProcessed{
			EventProcessed: &rtv1.SubscribeTopicEventsRequestProcessedAlpha1{Id: id, Status: &rtv1.TopicEventResponse{Status: status}},
		},
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

// streamsListed counts the streams in the metadata document.
func (in *instance) streamsListed(t *testing.T) int {
	return strings.Count(in.text(t, "/metadata"), `"STREAMING"`)
}

// Streams of one topic share its events, without an app, and are listed while
// they last.
func TestStreamsShare(t *testing.T) {
	t.Parallel()
	in := start(t, nil, streamBus)
	c := in.dial(t)
	a, b := live(t, c, "orders", ""), live(t, c, "orders", "")
	if n := in.streamsListed(t); n != 2 {
		t.Errorf("%d streams listed, want 2", n)
	}
	const events = 200
	got := make(chan string, 2*events)
	for _, s := range []*stream{a, b} {
		go func() {
			for {
				m, err := s.c.Recv()
				if err != nil {
					return
				}
				got <- string(m.GetEventMessage().GetData())
				s.answer(m.GetEventMessage().GetId(), rtv1.TopicEventResponse_SUCCESS)
			}
		}()
	}
	var want, seen []string
	for n := range events {
		want = append(want, fmt.Sprint(n))
		in.publish(t, "orders", fmt.Sprint(n))
	}
	for range events {
		seen = append(seen, <-got)
	}
	slices.Sort(want)
	slices.Sort(seen)
	if !slices.Equal(want, seen) {
		t.Errorf("got %v", seen)
	}
	a.leave()
	b.leave()
	eventually(t, "no stream is listed", func() bool { return in.streamsListed(t) == 0 })
}

// What a stream left is for the next one at once, and no failed attempt: with
// a dead letter topic the first would have ended there.
func TestStreamLeaves(t *testing.T) {
	t.Parallel()
	in := start(t, nil, streamBus)
	c := in.dial(t)
	dead := live(t, c, "dead", "")
	first := live(t, c, "orders", "dead")
	in.publish(t, "orders", `{"n":1}`)
	id := first.next().GetId()
	first.leave()
	second := live(t, c, "orders", "dead")
	if got := second.next(); got.GetId() != id {
		t.Errorf("the second stream got %s, want %s", got.GetId(), id)
	}
	second.answer(id, rtv1.TopicEventResponse_DROP)
	if got := dead.next(); got.GetId() != id || got.GetTopic() != "dead" || string(got.GetData()) != `{"n":1}` {
		t.Errorf("dead letter is %v", got)
	}
}

// A retry comes again on the same stream.
func TestStreamRetries(t *testing.T) {
	t.Parallel()
	in := start(t, nil, streamBus)
	s := live(t, in.dial(t), "orders", "")
	in.publish(t, "orders", `{"n":1}`)
	id := s.next().GetId()
	s.answer(id, rtv1.TopicEventResponse_RETRY)
	if got := s.next(); got.GetId() != id {
		t.Errorf("got %s, want %s again", got.GetId(), id)
	}
	s.answer(id, rtv1.TopicEventResponse_SUCCESS)
}

func TestStreamRefused(t *testing.T) {
	t.Parallel()
	in := start(t, nil, streamBus)
	c := in.dial(t)
	for topic, code := range map[string]codes.Code{"gone/orders": codes.InvalidArgument, "secret": codes.PermissionDenied, "": codes.InvalidArgument} {
		if _, err := open(t, c, topic, "", nil); status.Code(err) != code {
			t.Errorf("topic %q: %v, want %v", topic, err, code)
		}
	}
	if _, err := open(t, c, "orders", "", map[string]string{"rawPayload": "true"}); err != nil {
		t.Error(err)
	}
}

// A stream goes on when its component is replaced, and ends when it is removed.
func TestStreamReload(t *testing.T) {
	t.Parallel()
	in := start(t, nil, streamBus)
	s := live(t, in.dial(t), "orders", "")
	in.write(t, "resources.yaml", streamBus+"    - {name: consumerID, value: another}\n")
	in.logged(t, 1, "Configuration reloaded")
	in.publish(t, "orders", `{"n":1}`)
	s.answer(s.next().GetId(), rtv1.TopicEventResponse_SUCCESS)
	in.write(t, "resources.yaml", strings.ReplaceAll(streamBus, "name: bus", "name: renamed"))
	if _, err := s.c.Recv(); status.Code(err) != codes.InvalidArgument {
		t.Errorf("after its component was removed: %v", err)
	}
}

// A stop waits for answers to what is under way, and then ends the stream.
func TestStreamStop(t *testing.T) {
	t.Parallel()
	in := start(t, nil, streamBus)
	s := live(t, in.dial(t), "orders", "")
	in.publish(t, "orders", `{"n":1}`)
	id := s.next().GetId()
	ended := make(chan error, 1)
	go func() { ended <- in.end() }()
	eventually(t, "it stops", func() bool { return in.get(t, "/healthz") != 204 })
	s.answer(id, rtv1.TopicEventResponse_SUCCESS)
	if _, err := s.c.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("after the stop: %v", err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// The metadata document says of a stream what it says of other subscriptions.
func TestStreamListed(t *testing.T) {
	t.Parallel()
	in := start(t, nil, streamBus)
	live(t, in.dial(t), "orders", "dead")
	var doc struct {
		Subscriptions []struct {
			PubSub, Topic, DeadLetterTopic, Type string
			Rules                                []struct{ Path string }
		}
	}
	if err := json.Unmarshal([]byte(in.text(t, "/metadata")), &doc); err != nil {
		t.Fatal(err)
	}
	if len(doc.Subscriptions) != 1 || doc.Subscriptions[0].DeadLetterTopic != "dead" || doc.Subscriptions[0].Rules[0].Path != "/" {
		t.Errorf("subscriptions: %+v", doc.Subscriptions)
	}
}

// TestStreamPaused pauses the route of a stream, which nobody declared.
func TestStreamPaused(t *testing.T) {
	t.Parallel()
	in := start(t, nil, streamBus)
	s := live(t, in.dial(t), "orders", "")
	const route = "/stream/bus/orders/1"
	if status, text := in.post(t, "-penstock/routes/pause"+route, ""); status != http.StatusNoContent {
		t.Fatalf("pause: %d %s", status, text)
	}
	in.publish(t, "orders", `{"n":1}`)
	in.routeIs(t, `"state":"paused"`, `"held":1`)
	if status, text := in.post(t, "-penstock/routes/resume"+route, ""); status != http.StatusNoContent {
		t.Fatalf("resume: %d %s", status, text)
	}
	s.answer(s.next().GetId(), rtv1.TopicEventResponse_SUCCESS)
	in.routeIs(t, `"state":"running"`, `"delivered":1`)
}

// routeIs waits until the list of routes says all words.
func (in *instance) routeIs(t *testing.T, words ...string) {
	t.Helper()
	eventually(t, strings.Join(words, " and "), func() bool {
		text := in.text(t, "-penstock/routes")
		return !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(text, w) })
	})
}

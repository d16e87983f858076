package contract

import (
	"context"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// stream is a subscription of a client, which answers when it is told to.
type stream struct {
	rtv1.Dapr_SubscribeTopicEventsAlpha1Client
	cancel context.CancelFunc
}

// subscribe opens a stream and waits for the first answer.
func subscribe(t *testing.T, c rtv1.DaprClient, in *rtv1.SubscribeTopicEventsRequestInitialAlpha1) *stream {
	t.Helper()
	s := open(t, c)
	s.send(t, &rtv1.SubscribeTopicEventsRequestAlpha1{SubscribeTopicEventsRequestType: &rtv1.SubscribeTopicEventsRequestAlpha1_InitialRequest{InitialRequest: in}})
	r, err := s.Recv()
	if err != nil || r.GetInitialResponse() == nil {
		t.Fatalf("first answer %v: %v", r, err)
	}
	return s
}

// open opens a stream and says nothing.
func open(t *testing.T, c rtv1.DaprClient) *stream {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	s, err := c.SubscribeTopicEventsAlpha1(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return &stream{s, cancel}
}

func (s *stream) send(t *testing.T, m *rtv1.SubscribeTopicEventsRequestAlpha1) {
	t.Helper()
	if err := s.Send(m); err != nil {
		t.Fatal(err)
	}
}

// next is the next event.
func (s *stream) next(t *testing.T) *rtv1.TopicEventRequest {
	t.Helper()
	r, err := s.Recv()
	if err != nil || r.GetEventMessage() == nil {
		t.Fatalf("got %v: %v", r, err)
	}
	return r.GetEventMessage()
}

func (s *stream) answer(t *testing.T, id string, status rtv1.TopicEventResponse_TopicEventResponseStatus) {
	t.Helper()
	s.send(t, processed(id, status))
}

func processed(id string, status rtv1.TopicEventResponse_TopicEventResponseStatus) *rtv1.SubscribeTopicEventsRequestAlpha1 {
	return &rtv1.SubscribeTopicEventsRequestAlpha1{SubscribeTopicEventsRequestType: &rtv1.SubscribeTopicEventsRequestAlpha1_EventProcessed{
		EventProcessed: &rtv1.SubscribeTopicEventsRequestProcessedAlpha1{Id: id, Status: &rtv1.TopicEventResponse{Status: status}},
	}}
}

func initial(bus, topic string) *rtv1.SubscribeTopicEventsRequestInitialAlpha1 {
	return &rtv1.SubscribeTopicEventsRequestInitialAlpha1{PubsubName: bus, Topic: topic}
}

const (
	success = rtv1.TopicEventResponse_SUCCESS
	again   = rtv1.TopicEventResponse_RETRY
	dropped = rtv1.TopicEventResponse_DROP
)

// Without any app port: each event is answered by its id, in any order, and an
// answer nobody waits for does no harm.
func TestStreamAnswers(t *testing.T) {
	t.Parallel()
	_, client := startGRPC(t, nil, setup{resources: buses})
	both(t, func(t *testing.T, bus string) {
		dead := "dead"
		in := initial(bus, "a")
		in.DeadLetterTopic = &dead
		s, letters := subscribe(t, client, in), subscribe(t, client, initial(bus, dead))
		var events []*rtv1.TopicEventRequest
		for i := range 4 {
			emit(t, client, bus, "a", fmt.Sprint(i))
		}
		for range 4 { // all are there before one is answered
			events = append(events, s.next(t))
		}
		s.answer(t, "nobody's", success)
		for i := len(events) - 1; i >= 0; i-- {
			s.answer(t, events[i].GetId(), map[string]rtv1.TopicEventResponse_TopicEventResponseStatus{"1": dropped, "2": again, "3": 42}[string(events[i].GetData())])
		}
		got := map[string]bool{}
		for range 3 {
			e := letters.next(t)
			got[string(e.GetData())] = true
			letters.answer(t, e.GetId(), success)
		}
		if !got["1"] || !got["2"] || !got["3"] {
			t.Errorf("dead letters %v", got)
		}
		e := events[0]
		if e.GetPath() != "/" || e.GetTopic() != "a" || e.GetPubsubName() != bus || e.GetSource() != "shop" || e.GetType() != "com.dapr.event.sent" ||
			e.GetSpecVersion() != "1.0" || e.GetDataContentType() != "application/json" || e.GetExtensions().AsMap()["traceparent"] == nil {
			t.Errorf("event %v", e)
		}
	})
}

// Without a dead letter topic a retry comes again; a raw payload arrives in an
// envelope.
func TestStreamRetryAndRaw(t *testing.T) {
	t.Parallel()
	_, client := startGRPC(t, nil, setup{resources: buses})
	both(t, func(t *testing.T, bus string) {
		in := initial(bus, "raw")
		in.Metadata = map[string]string{"rawPayload": "true"}
		s := subscribe(t, client, in)
		_, err := client.PublishEvent(t.Context(), &rtv1.PublishEventRequest{PubsubName: bus, Topic: "raw", Data: []byte("\xff\x00raw"), Metadata: map[string]string{"rawPayload": "true"}})
		want{}.check(t, err)
		e := s.next(t)
		s.answer(t, e.GetId(), again)
		e = s.next(t)
		s.answer(t, e.GetId(), success)
		if string(e.GetData()) != "\xff\x00raw" || e.GetDataContentType() != "application/octet-stream" {
			t.Errorf("got %v", e)
		}
	})
}

// What a stream is refused for.
func TestStreamRefused(t *testing.T) {
	t.Parallel()
	_, client := startGRPC(t, nil, setup{resources: buses + scoped})
	_, none := startGRPC(t, nil, setup{resources: noBus})
	first := func(in *rtv1.SubscribeTopicEventsRequestInitialAlpha1) *rtv1.SubscribeTopicEventsRequestAlpha1 {
		return &rtv1.SubscribeTopicEventsRequestAlpha1{SubscribeTopicEventsRequestType: &rtv1.SubscribeTopicEventsRequestAlpha1_InitialRequest{InitialRequest: in}}
	}
	for _, row := range []struct {
		name   string
		client rtv1.DaprClient
		in     *rtv1.SubscribeTopicEventsRequestAlpha1
		want   want
	}{
		{"nothing in the message", client, &rtv1.SubscribeTopicEventsRequestAlpha1{}, want{code: codes.InvalidArgument, in: "initial request"}},
		{"an answer first", client, processed("1", success), want{code: codes.InvalidArgument, in: "initial request"}},
		{"no pubsub", client, first(initial("", "a")), want{code: codes.InvalidArgument, reason: "DAPR_PUBSUB_NAME_EMPTY"}},
		{"no topic", client, first(initial("mem", "")), want{code: codes.InvalidArgument, reason: "DAPR_PUBSUB_TOPIC_NAME_EMPTY"}},
		{"unknown pubsub", client, first(initial("nope", "a")), want{code: codes.InvalidArgument, reason: "DAPR_PUBSUB_NOT_FOUND", in: "pubsub nope is not found"}},
		{"denied", client, first(initial("scoped", "gone")), want{code: codes.PermissionDenied, reason: "DAPR_PUBSUB_FORBIDDEN"}},
		{"no pubsub at all", none, first(initial("mem", "a")), want{code: codes.FailedPrecondition, reason: "DAPR_PUBSUB_NOT_CONFIGURED"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := open(t, row.client)
			s.send(t, row.in)
			_, err := s.Recv()
			row.want.check(t, err)
		})
	}
	t.Run("second initial request", func(t *testing.T) {
		t.Parallel()
		s := subscribe(t, client, initial("mem", "b"))
		s.send(t, first(initial("mem", "b")))
		_, err := s.Recv()
		want{code: codes.InvalidArgument}.check(t, err)
	})
	t.Run("the client ends it", func(t *testing.T) {
		t.Parallel()
		s := subscribe(t, client, initial("mem", "c"))
		if err := s.CloseSend(); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Recv(); code(err) == codes.Internal {
			t.Errorf("ended with %v", err)
		}
	})
}

// Many streams at once, of one topic and of many; they share the events of one
// topic or each gets them, but none is lost and each is answered.
func TestStreamsAtOnce(t *testing.T) {
	t.Parallel()
	_, client := startGRPC(t, nil, setup{resources: buses})
	const topics, each = 20, 3
	var wg sync.WaitGroup
	var mu sync.Mutex
	got := map[string]bool{}
	for i := range topics {
		name := fmt.Sprintf("t%d", i)
		for range 2 {
			s := subscribe(t, client, initial([]string{"mem", "db"}[i%2], name))
			wg.Go(func() {
				for {
					r, err := s.Recv()
					if err != nil {
						return
					}
					e := r.GetEventMessage()
					mu.Lock()
					got[e.GetTopic()+" "+string(e.GetData())] = true
					mu.Unlock()
					if s.Send(processed(e.GetId(), success)) != nil {
						return
					}
				}
			})
			t.Cleanup(func() { s.cancel(); wg.Wait() })
		}
	}
	for i := range topics {
		for n := range each {
			emit(t, client, []string{"mem", "db"}[i%2], fmt.Sprintf("t%d", i), fmt.Sprint(n))
		}
	}
	eventually(t, "all events", func() bool { mu.Lock(); defer mu.Unlock(); return len(got) == topics*each })
}

// An event that is not answered goes to the next stream when its own ends, and
// is no failed attempt.
func TestStreamReconnects(t *testing.T) {
	t.Parallel()
	_, client := startGRPC(t, nil, setup{resources: buses})
	dead := "dead"
	in := initial("db", "a")
	in.DeadLetterTopic = &dead
	for i := range 3 {
		s := subscribe(t, client, in)
		if i == 0 {
			emit(t, client, "db", "a", `"kept"`)
		}
		if e := s.next(t); string(e.GetData()) != `"kept"` {
			t.Fatalf("stream %d got %v", i, e)
		}
		s.cancel()
	}
	s := subscribe(t, client, in)
	s.answer(t, s.next(t).GetId(), success)
	letters := subscribe(t, client, initial("db", dead))
	emit(t, client, "db", dead, `"first"`)
	if e := letters.next(t); string(e.GetData()) != `"first"` {
		t.Errorf("dead letter %v", e)
	}
}

// A consumer that answers nothing holds up nobody else.
func TestStreamSlowConsumer(t *testing.T) {
	t.Parallel()
	_, client := startGRPC(t, nil, setup{resources: buses})
	subscribe(t, client, initial("mem", "slow"))
	quick := subscribe(t, client, initial("mem", "quick"))
	for i := range 200 {
		emit(t, client, "mem", "slow", quote(strings.Repeat("x", 1<<10)))
		emit(t, client, "mem", "quick", fmt.Sprint(i))
		quick.answer(t, quick.next(t).GetId(), success)
	}
}

// The stream is in the metadata, beside a declared subscription to its topic.
// They are one group, so they share the events.
func TestStreamBesideADeclaredSubscription(t *testing.T) {
	t.Parallel()
	a := (&grpcApp{}).serve(t)
	_, client := startGRPC(t, a, setup{resources: buses + declared})
	s := subscribe(t, client, initial("mem", "one"))
	doc, err := client.GetMetadata(t.Context(), &rtv1.GetMetadataRequest{})
	want{}.check(t, err)
	kinds := map[string]int{}
	for _, sub := range doc.GetSubscriptions() {
		if sub.GetTopic() == "one" {
			kinds[sub.GetType().String()+" "+sub.GetRules().GetRules()[0].GetPath()]++
		}
	}
	if kinds["STREAMING /"] != 1 || kinds["DECLARATIVE /one"] != 1 {
		t.Errorf("subscriptions %v", kinds)
	}
	var streamed atomic.Int64
	go func() {
		for {
			r, err := s.Recv()
			if err != nil {
				return
			}
			streamed.Add(1)
			if s.Send(processed(r.GetEventMessage().GetId(), success)) != nil {
				return
			}
		}
	}()
	const n = 20
	for i := range n {
		emit(t, client, "mem", "one", fmt.Sprint(i))
	}
	eventually(t, "all events, some on each", func() bool {
		own := len(a.got("event /one"))
		return own > 0 && streamed.Load() > 0 && own+int(streamed.Load()) >= n
	})
	if got := len(a.got("event /one")) + int(streamed.Load()); got != n {
		t.Errorf("%d deliveries of %d events", got, n)
	}
	s.cancel()
	eventually(t, "the stream is gone from the metadata", func() bool {
		doc, err := client.GetMetadata(t.Context(), &rtv1.GetMetadataRequest{})
		if err != nil {
			t.Fatal(err)
		}
		for _, sub := range doc.GetSubscriptions() {
			if sub.GetType() == rtv1.PubsubSubscriptionType_STREAMING {
				return false
			}
		}
		return true
	})
}

// A stream's route is paused and resumed like others.
func TestStreamPause(t *testing.T) {
	t.Parallel()
	sc, client := startGRPC(t, nil, setup{resources: buses})
	s := subscribe(t, client, initial("db", "a"))
	own := sc.api + "-penstock/routes"
	name := regexp.MustCompile(`"name":"([^"]*db/a[^"]*)"`).FindStringSubmatch(get(t, own).body)
	if name == nil {
		t.Fatalf("no route of the stream: %s", get(t, own).body)
	}
	checkProblem(t, send(t, request{url: own + "/pause/" + name[1]}), 204, "", "")
	emit(t, client, "db", "a", `1`)
	type result struct {
		r   *rtv1.SubscribeTopicEventsResponseAlpha1
		err error
	}
	got := make(chan result, 1)
	go func() {
		r, err := s.Recv()
		got <- result{r, err}
	}()
	eventually(t, "the route is paused", func() bool { return strings.Contains(get(t, own).body, `"state":"paused"`) })
	select {
	case r := <-got:
		t.Fatalf("a paused stream got %v", r)
	case <-time.After(200 * time.Millisecond):
	}
	checkProblem(t, send(t, request{url: own + "/resume/" + name[1]}), 204, "", "")
	r := <-got
	if r.err != nil {
		t.Fatal(r.err)
	}
	s.answer(t, r.r.GetEventMessage().GetId(), success)
}

// When its component goes, a stream ends with a code that says to come again,
// or that there is nothing to come to; when it comes back, so may the stream.
func TestStreamReload(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, client := startGRPC(t, nil, setup{dir: dir, resources: buses})
	s := subscribe(t, client, initial("mem", "a"))
	other := subscribe(t, client, initial("db", "a"))
	parts := strings.SplitN(buses, "---", 2)
	file := filepath.Join(dir, "resources", "all.yaml")
	write(t, file, strings.ReplaceAll(parts[1], "DIR", dir))
	if _, err := s.Recv(); err == nil || code(err) == codes.Unknown || code(err) == codes.Internal {
		t.Errorf("ended with %v", err)
	}
	emit(t, client, "db", "a", `1`)
	other.answer(t, other.next(t).GetId(), success)
	write(t, file, strings.ReplaceAll(buses, "DIR", dir))
	eventually(t, "the component is back", func() bool {
		_, err := client.PublishEvent(t.Context(), &rtv1.PublishEventRequest{PubsubName: "mem", Topic: "b"})
		return err == nil
	})
	s = subscribe(t, client, initial("mem", "a"))
	emit(t, client, "mem", "a", `2`)
	s.answer(t, s.next(t).GetId(), success)
}

// At shutdown what is under way may be answered, and the stream ends as
// Unavailable, so that clients come again.
func TestStreamShutdown(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	sc, client := startGRPC(t, nil, setup{dir: dir, resources: buses})
	s := subscribe(t, client, initial("db", "a"))
	emit(t, client, "db", "a", `1`)
	e := s.next(t)
	sc.signal(t, syscall.SIGTERM)
	_ = s.Send(processed(e.GetId(), success)) // it may be too late
	for {
		_, err := s.Recv()
		if err == nil {
			continue
		}
		if status.Code(err) != codes.Unavailable {
			t.Errorf("ended with %v", err)
		}
		break
	}
	if code := sc.exit(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

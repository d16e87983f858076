package pluggable_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	components "github.com/dapr/dapr/pkg/proto/components/v1"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/penstock-io/penstock/bindings"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/pubsub"
)

func TestInit(t *testing.T) {
	t.Parallel()
	dir, b := folder(t), newBus("MESSAGE_TTL", "SUBSCRIBE_WILDCARDS")
	start(t, socket(dir, "plug"), b)
	bus, err := pubsub.New(find(t, dir, "pubsub.plug"), env("one"), config.Component{Name: "one", Type: "pubsub.plug", Metadata: []config.Item{
		{Name: "Free", Value: "as written"}, {Name: "key", Value: "k3y", Secret: true}, {Name: "allowedTopics", Value: "a"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { bus.Instance().Close(context.WithoutCancel(t.Context())) })
	if err := bus.Instance().Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	openBus(t, dir, config.Item{Name: "consumerId", Value: "mine"})
	want := []map[string]string{
		{"Free": "as written", "key": "k3y", "allowedTopics": "a", "consumerID": "app"},
		{"consumerId": "mine"},
	}
	if diff := cmp.Diff(want, b.inits); diff != "" {
		t.Errorf("init (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"one", "bus"}, b.by); diff != "" {
		t.Errorf("instances (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"MESSAGE_TTL", "SUBSCRIBE_WILDCARDS"}, bus.Instance().Capabilities()); diff != "" {
		t.Errorf("capabilities (-want +got):\n%s", diff)
	}
}

func TestTopicOfASubscription(t *testing.T) {
	t.Parallel()
	dir, b := folder(t), newBus()
	start(t, socket(dir, "plug"), b)
	d := openBus(t, dir)
	for _, s := range []pubsub.Subscription{
		{Topic: "t", Group: "g", Metadata: map[string]string{"a": "b"}},
		{Topic: "t", Group: "g", Metadata: map[string]string{"ConsumerID": "own"}},
	} {
		hear(t, d, s, "hello")
	}
	got := []string{fmt.Sprint(b.topics[0].GetName(), b.topics[0].GetMetadata()), fmt.Sprint(b.topics[1].GetMetadata())}
	if diff := cmp.Diff([]string{"tmap[a:b consumerID:g]", "map[ConsumerID:own]"}, got); diff != "" {
		t.Error(diff)
	}
}

// hear publishes until a subscription receives it, and ends the subscription.
func hear(t *testing.T, d pubsub.Driver, s pubsub.Subscription, body string) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	var publisher sync.WaitGroup
	defer publisher.Wait()
	publisher.Go(func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			_ = d.Publish(ctx, s.Topic, []pubsub.Message{{Data: []byte(body)}}) // may be cut short at the end
			<-tick.C
		}
	})
	err := d.Subscribe(ctx, s, func(_ context.Context, m *cloudevents.Delivery) error {
		m.Settle(cloudevents.Acked())
		stop()
		return nil
	})
	if err != nil || !errors.Is(ctx.Err(), context.Canceled) {
		t.Errorf("subscribe: %v, %v", err, ctx.Err())
	}
}

// fill puts n messages into the topic t, each longer than what waits on the way,
// and returns their bodies with that of the greeting.
func fill(t *testing.T, b *bus, n int) map[string]bool {
	t.Helper()
	bodies := map[string]bool{"hello": true}
	for i := range n {
		body := fmt.Sprintf("%d %s", i, strings.Repeat("x", 8000))
		bodies[body] = true
		if err := b.put(t.Context(), "t", []byte(body), nil); err != nil {
			t.Fatal(err)
		}
	}
	return bodies
}

// TestNothingIsLost kills the program under deliveries and lets it come back.
func TestNothingIsLost(t *testing.T) {
	t.Parallel()
	dir, b := folder(t), newBus()
	p := start(t, socket(dir, "plug"), b)
	d := openBus(t, dir)
	s := pubsub.Subscription{Topic: "t", Group: "g"}
	hear(t, d, s, "hello")
	const n = 300
	want := fill(t, b, n)
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	deaths, back := make(chan struct{}), make(chan struct{})
	got, died := map[string]bool{"hello": true}, map[int]bool{}
	var router sync.WaitGroup
	router.Go(func() {
		for ctx.Err() == nil { // as the router does
			_ = d.Subscribe(ctx, s, func(_ context.Context, m *cloudevents.Delivery) error {
				got[string(m.Body)] = true
				if _, again := died[len(got)]; !again && (len(got) == n/3 || len(got) == n/2) {
					died[len(got)] = true
					deaths <- struct{}{}
					<-back // what is under way, and what waits behind it, was not answered
				}
				m.Settle(cloudevents.Acked())
				if len(got) == n+1 {
					stop()
				}
				return nil
			})
		}
	})
	for range 2 {
		select {
		case <-deaths:
		case <-ctx.Done():
			t.Fatal("the deliveries do not go on")
		}
		p.kill()
		if err := d.Publish(t.Context(), "t", []pubsub.Message{{Data: []byte("x")}}); fault.KindOf(err) != fault.Unavailable {
			t.Errorf("publish to a dead program: %v, want kind unavailable", err)
		}
		p.again(t)
		back <- struct{}{}
	}
	router.Wait()
	if !maps.Equal(want, got) {
		t.Errorf("%d of %d messages came", len(got), len(want))
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.inits) != 3 {
		t.Errorf("init came %d times to 3 processes", len(b.inits))
	}
}

// strict is a bus that takes nothing before Init.
type strict struct {
	*bus
	mu    sync.Mutex
	ready bool
	early int
}

func (s *strict) Init(ctx context.Context, r *components.PubSubInitRequest) (*components.PubSubInitResponse, error) {
	s.mu.Lock()
	s.ready = true
	s.mu.Unlock()
	return s.bus.Init(ctx, r)
}

func (s *strict) Publish(ctx context.Context, r *components.PublishRequest) (*components.PublishResponse, error) {
	s.mu.Lock()
	if !s.ready {
		s.early++
	}
	s.mu.Unlock()
	return s.bus.Publish(ctx, r)
}

func TestInitComesFirstInEveryProcess(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	s := &strict{bus: newBus()}
	p := start(t, socket(dir, "plug"), s)
	d := openBus(t, dir)
	for range 5 {
		p.kill()
		s.ready = false
		p.again(t)
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				for d.Publish(t.Context(), "t", []pubsub.Message{{Data: []byte("x")}}) != nil {
					// a call may still meet the connection that is going
				}
			})
		}
		wg.Wait()
	}
	if s.early > 0 || len(s.inits) != 6 {
		t.Errorf("%d calls before init; init came %d times to 6 processes", s.early, len(s.inits))
	}
}

func TestRetry(t *testing.T) {
	t.Parallel()
	dir, b := folder(t), newBus()
	start(t, socket(dir, "plug"), b)
	d := openBus(t, dir)
	s := pubsub.Subscription{Topic: "t", Group: "g"}
	hear(t, d, s, "hello")
	if err := b.put(t.Context(), "t", []byte("x"), map[string]string{"id": "the same"}); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	const pause = 60 * time.Millisecond
	var attempts []int
	var last time.Time
	err := d.Subscribe(ctx, s, func(_ context.Context, m *cloudevents.Delivery) error {
		if string(m.Body) != "x" {
			m.Settle(cloudevents.Acked())
			return nil
		}
		attempts = append(attempts, m.Attempt)
		switch len(attempts) {
		case 1:
			m.Settle(cloudevents.Retried(errors.New("app is\ndown."), pause))
		case 2:
			if early := pause - time.Since(last); early > 0 {
				t.Errorf("the retry came %v early", early)
			}
			m.Settle(cloudevents.Retried(nil, 0))
		case 3: // the pause is longer than the subscription
			m.Settle(cloudevents.Retried(nil, time.Hour))
			stop()
		}
		last = time.Now()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]int{1, 2, 3}, attempts); diff != "" {
		t.Errorf("attempts: %s", diff)
	}
	if attempt := next(t, d, s, "x"); attempt != 1 {
		t.Errorf("attempt %d in the next subscription", attempt)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if diff := cmp.Diff([]string{"app is down", "deliver again"}, b.errors); diff != "" {
		t.Errorf("answers with an error: %s", diff)
	}
	if b.unknown > 0 {
		t.Errorf("%d answers about nothing", b.unknown)
	}
}

// next subscribes until a message comes and returns its attempt.
func next(t *testing.T, d pubsub.Driver, s pubsub.Subscription, body string) (attempt int) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	err := d.Subscribe(ctx, s, func(_ context.Context, m *cloudevents.Delivery) error {
		if string(m.Body) == body {
			attempt = m.Attempt
			stop()
		}
		m.Settle(cloudevents.Acked())
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return attempt
}

// A component goes on sending while everything fails; what waits is bounded.
func TestWaitingIsBounded(t *testing.T) {
	t.Parallel()
	dir, b := folder(t), newBus()
	start(t, socket(dir, "plug"), b)
	d := openBus(t, dir)
	s := pubsub.Subscription{Topic: "t", Group: "g"}
	hear(t, d, s, "hello")
	for i := range 1100 {
		if err := b.put(t.Context(), "t", fmt.Append(nil, i), nil); err != nil {
			t.Fatal(err)
		}
	}
	ctx, stop := context.WithTimeout(t.Context(), 2*time.Second)
	defer stop()
	taken := 0
	err := d.Subscribe(ctx, s, func(_ context.Context, m *cloudevents.Delivery) error {
		taken++
		m.Settle(cloudevents.Retried(nil, time.Hour))
		return nil
	})
	if err != nil || taken != 1000 {
		t.Errorf("%d were taken (%v), want 1000", taken, err)
	}
}

func TestBatches(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, features string
		bodies         string
		failed         string // a sign for each: . published, i invalid, x another kind; empty: all together
		single, bulk   int
	}{
		{"one", "BULK_PUBSUB", "a", ".", 1, 0},
		{"bulk", "BULK_PUBSUB", "a b c", "...", 0, 1},
		{"bulk, one refused", "BULK_PUBSUB", "a refused c", ".x.", 0, 1},
		{"bulk, an entry that was not sent", "BULK_PUBSUB", "a confused c", "", 0, 1},
		{"bulk, all fail", "BULK_PUBSUB", "a full c", "", 0, 1},
		{"one by one", "", "a b c", "...", 3, 0},
		{"one by one, a bad one", "", "a refused c", ".i.", 3, 0},
		{"one by one, a full broker", "", "a full c", ".xx", 2, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			dir, b := folder(t), newBus(row.features)
			start(t, socket(dir, "plug"), b)
			d := openBus(t, dir)
			var batch []pubsub.Message
			for body := range strings.FieldsSeq(row.bodies) {
				batch = append(batch, pubsub.Message{Data: []byte(body)})
			}
			err := d.Publish(t.Context(), "t", batch)
			got := strings.Repeat(".", len(batch))
			be, ok := errors.AsType[*pubsub.BatchError](err)
			if ok {
				got = ""
				for _, err := range be.Errs {
					switch {
					case err == nil:
						got += "."
					case fault.KindOf(err) == fault.Invalid:
						got += "i"
					default:
						got += "x"
					}
				}
			} else if err != nil {
				got = ""
			}
			if got != row.failed || b.single != row.single || b.bulk != row.bulk {
				t.Errorf("%q (%v) with %d single and %d bulk calls; want %q, %d, %d", got, err, b.single, b.bulk, row.failed, row.single, row.bulk)
			}
		})
	}
}

// rude answers as no component should.
type rude struct {
	*bus
	init error
	pull func(components.PubSub_PullMessagesServer) error
}

func (r rude) Init(ctx context.Context, m *components.PubSubInitRequest) (*components.PubSubInitResponse, error) {
	if r.init != nil {
		return nil, r.init
	}
	return r.bus.Init(ctx, m)
}

func (r rude) PullMessages(s components.PubSub_PullMessagesServer) error { return r.pull(s) }

func TestRudeStreams(t *testing.T) {
	t.Parallel()
	say := func(m *components.PullMessagesResponse) func(components.PubSub_PullMessagesServer) error {
		return func(s components.PubSub_PullMessagesServer) error {
			if err := s.Send(m); err != nil {
				return err
			}
			_, _ = s.Recv() // the topic
			_, err := s.Recv()
			return err
		}
	}
	for name, row := range map[string]struct {
		pull func(components.PubSub_PullMessagesServer) error
		kind fault.Kind
		text string
		got  string // bodies
	}{
		"ends at once":     {func(components.PubSub_PullMessagesServer) error { return nil }, fault.Unavailable, "the component ended the stream", ""},
		"refuses":          {func(components.PubSub_PullMessagesServer) error { return status.Error(codes.PermissionDenied, "no") }, fault.Denied, "no (PermissionDenied)", ""},
		"answers then end": {say(&components.PullMessagesResponse{Data: []byte("x"), Id: "1"}), fault.Unavailable, "ended", "x"},
		"no id":            {say(&components.PullMessagesResponse{Data: []byte("x")}), fault.Unavailable, "ended", "x"},
		"nothing":          {say(nil), fault.Unavailable, "ended", ""},
		"too large":        {say(&components.PullMessagesResponse{Data: make([]byte, 17<<20), Id: "1"}), fault.Exhausted, "larger than max", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := folder(t)
			start(t, socket(dir, "plug"), rude{bus: newBus(), pull: row.pull})
			d := openBus(t, dir)
			var got string
			err := d.Subscribe(t.Context(), pubsub.Subscription{Topic: "t", Group: "g"}, func(_ context.Context, m *cloudevents.Delivery) error {
				got += string(m.Body)
				m.Settle(cloudevents.Acked())
				return nil
			})
			if err == nil || fault.KindOf(err) != row.kind || !strings.Contains(err.Error(), row.text) || got != row.got {
				t.Errorf("%v (%v), received %q", err, fault.KindOf(err), got)
			}
		})
	}
}

func TestOpenFails(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 5000)
	for name, row := range map[string]struct {
		service any
		kind    fault.Kind
		text    string
	}{
		"another kind":   {newPlug(), fault.Invalid, "find dapr.proto.components.v1.PubSub: the program serves dapr.proto.components.v1.InputBinding, grpc.reflection"},
		"wrong options":  {rude{bus: newBus(), init: status.Error(codes.InvalidArgument, "no\nhost.")}, fault.Invalid, "init: no host (InvalidArgument)"},
		"no word":        {rude{bus: newBus(), init: errors.New("broken")}, fault.Internal, "init: broken (Unknown)"},
		"not there yet":  {rude{bus: newBus(), init: status.Error(codes.Unavailable, "wait")}, fault.Unavailable, "init: wait"},
		"a flood of it":  {rude{bus: newBus(), init: errors.New(long)}, fault.Internal, long[:1000] + "... (Unknown)"},
		"more than once": {nil, fault.Unavailable, "connection refused"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := folder(t)
			p := start(t, socket(dir, "plug"), row.service)
			def := find(t, dir, "pubsub.plug")
			if row.service == nil {
				p.kill()
				l := listen(t, p.path)
				l.(interface{ SetUnlinkOnClose(bool) }).SetUnlinkOnClose(false)
				l.Close()
			}
			_, err := def.Open(t.Context(), env("bus"), nil)
			if err == nil || fault.KindOf(err) != row.kind || !strings.Contains(err.Error(), row.text) {
				t.Errorf("%v (%v)", err, fault.KindOf(err))
			}
		})
	}
}

func TestOpenWithoutReflection(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	l := listen(t, socket(dir, "plug"))
	server := grpc.NewServer()
	components.RegisterPubSubServer(server, newBus())
	t.Cleanup(server.Stop)
	go func() { _ = server.Serve(l) }()
	_, err := find(t, dir, "pubsub.plug").Open(t.Context(), env("bus"), nil)
	if fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), "register it") {
		t.Errorf("%v", err)
	}
}

// A program that takes connections and says nothing must not hold up anybody.
func TestOpenIsNotAnswered(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	listen(t, socket(dir, "plug"))
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := find(t, dir, "pubsub.plug").Open(ctx, env("bus"), nil)
	if err == nil || !fault.Retriable(err) {
		t.Errorf("%v", err)
	}
}

func TestTooLarge(t *testing.T) {
	t.Parallel()
	dir, b, p := folder(t), newBus(), newPlug()
	start(t, socket(dir, "plug"), b, outlet{plug: p})
	body := make([]byte, 16<<20)
	if err := openBus(t, dir).Publish(t.Context(), "t", []pubsub.Message{{Data: body}}); fault.KindOf(err) != fault.Invalid {
		t.Errorf("publish: %v", err)
	}
	if _, err := openBinding(t, dir, "out").Invoke(t.Context(), &bindings.Request{Operation: "create", Data: body}); fault.KindOf(err) != fault.Invalid {
		t.Errorf("invoke: %v", err)
	}
	if err := openBus(t, dir).Publish(t.Context(), "t", []pubsub.Message{{Data: body[:15<<20]}}); err != nil || b.single != 1 {
		t.Errorf("publish a large one: %v", err)
	}
}

// What is to be tried again after its subscription ended is left: the end of
// the stream brings it back, and nobody counts a failure.
func TestRetryAfterTheSubscription(t *testing.T) {
	t.Parallel()
	dir, b := folder(t), newBus()
	start(t, socket(dir, "plug"), b)
	d := openBus(t, dir)
	s := pubsub.Subscription{Topic: "t", Group: "g"}
	hear(t, d, s, "hello")
	if err := b.put(t.Context(), "t", []byte("x"), nil); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	var late *cloudevents.Delivery
	err := d.Subscribe(ctx, s, func(_ context.Context, m *cloudevents.Delivery) error {
		if string(m.Body) != "x" {
			m.Settle(cloudevents.Acked())
			return nil
		}
		late = m
		stop()
		return nil
	})
	if err != nil || late == nil {
		t.Fatalf("subscribe: %v", err)
	}
	late.Settle(cloudevents.Retried(errors.New("too late"), 0))
	if attempt := next(t, d, s, "x"); attempt != 1 {
		t.Errorf("attempt %d in the next subscription", attempt)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.errors) > 0 {
		t.Errorf("answers with an error: %v", b.errors)
	}
}

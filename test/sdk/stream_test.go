package sdk

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/dapr/go-sdk/client"
	"github.com/dapr/go-sdk/service/common"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
)

// subscribe takes the events of a topic with a handler until the test ends.
func subscribe(t *testing.T, c client.Client, o client.SubscriptionOptions, handle client.SubscriptionHandleFunction) {
	t.Helper()
	stop, err := c.SubscribeWithHandler(t.Context(), o, handle)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop() })
}

func topic(name string) client.SubscriptionOptions {
	return client.SubscriptionOptions{PubsubName: "bus", Topic: name}
}

func TestPublishedDataInAStream(t *testing.T) {
	t.Parallel()
	buses(t, func(t *testing.T, bus string) {
		c := sidecar(t, overGRPC, 0, bus).client()
		got := make(chan common.TopicEvent, 64)
		subscribe(t, c, topic("t"), func(e *common.TopicEvent) common.SubscriptionResponseStatus {
			got <- *e
			return common.SubscriptionResponseStatusSuccess
		})
		event := `{"specversion":"1.0","id":"mine","source":"me","type":"made","datacontenttype":"application/json","data":{"own":true}}`
		with := client.PublishEventWithContentType
		for _, test := range []struct {
			data     any
			option   client.PublishEventOption
			want     string // the data, printed
			wantType string
		}{
			{map[string]any{"n": 1}, nil, "map[n:1]", "application/json"},
			{"text", with("text/plain"), "text", "text/plain"},
			{"text", nil, "text", "text/plain"},
			{[]byte{1, 2, 255}, with("application/octet-stream"), "[1 2 255]", "application/octet-stream"},
			{`{"a":[1]}`, with("application/vnd.shop+json"), "map[a:[1]]", "application/vnd.shop+json"},
			{event, with("application/cloudevents+json"), "map[own:true]", "application/json"},
		} {
			var options []client.PublishEventOption
			if test.option != nil {
				options = append(options, test.option)
			}
			if err := c.PublishEvent(t.Context(), "bus", "t", test.data, options...); err != nil {
				t.Fatal(err)
			}
			e := receive(t, got, "the event")
			if s := fmt.Sprint(e.Data); s != test.want || e.DataContentType != test.wantType || e.Topic != "t" || e.PubsubName != "bus" || e.ID == "" {
				t.Errorf("published %v, got %s as %s: %+v", test.data, s, e.DataContentType, e)
			}
		}
		// Many at once, of all kinds; an entry without an id gets one.
		events := []any{"one", map[string]int{"n": 2}, []byte("three"), client.PublishEventsEvent{EntryID: "4", Data: []byte("four"), ContentType: "text/plain"}}
		if r := c.PublishEvents(t.Context(), "bus", "t", events); r.Error != nil || len(r.FailedEvents) != 0 {
			t.Fatalf("bulk: %+v", r)
		}
		var all []string
		for range events {
			all = append(all, string(receive(t, got, "an event of the bulk").RawData))
		}
		slices.Sort(all)
		if want := []string{"four", "one", "three", `{"n":2}`}; !slices.Equal(all, want) {
			t.Errorf("bulk: got %q, want %q", all, want)
		}
		twice := client.PublishEventsEvent{EntryID: "same", Data: []byte("x"), ContentType: "text/plain"}
		if r := c.PublishEvents(t.Context(), "bus", "t", []any{twice, twice}); r.Error == nil || len(r.FailedEvents) != 2 {
			t.Errorf("a bulk with an id twice: %+v", r)
		}
	})
}

func TestAnswersOfAStream(t *testing.T) {
	t.Parallel()
	buses(t, func(t *testing.T, bus string) {
		c := sidecar(t, overGRPC, 0, bus).client()
		done, dead := make(chan int32, 8), make(chan common.TopicEvent, 8)
		var tries atomic.Int32
		subscribe(t, c, topic("again"), func(*common.TopicEvent) common.SubscriptionResponseStatus {
			if n := tries.Add(1); n < 3 {
				return common.SubscriptionResponseStatusRetry
			}
			done <- tries.Load()
			return common.SubscriptionResponseStatusSuccess
		})
		graves := "graves"
		subscribe(t, c, client.SubscriptionOptions{PubsubName: "bus", Topic: "bad", DeadLetterTopic: &graves}, func(*common.TopicEvent) common.SubscriptionResponseStatus {
			return common.SubscriptionResponseStatusDrop
		})
		subscribe(t, c, topic(graves), func(e *common.TopicEvent) common.SubscriptionResponseStatus {
			dead <- *e
			return common.SubscriptionResponseStatusSuccess
		})
		for _, topic := range []string{"again", "bad"} {
			if err := c.PublishEvent(t.Context(), "bus", topic, map[string]string{"of": topic}); err != nil {
				t.Fatal(err)
			}
		}
		if n := receive(t, done, "the third try"); n != 3 {
			t.Errorf("delivered %d times, want 3", n)
		}
		if e := receive(t, dead, "the dead letter"); string(e.RawData) != `{"of":"bad"}` {
			t.Errorf("dead letter holds %s", e.RawData)
		}
	})
}

func TestManyStreams(t *testing.T) {
	t.Parallel()
	buses(t, func(t *testing.T, bus string) {
		const streams, each = 100, 10
		p := sidecar(t, overGRPC, 0, bus)
		c := p.client()
		var mu sync.Mutex
		got := map[string][]string{} // data by topic
		n := 0
		for i := range streams {
			name := fmt.Sprintf("t%d", i)
			subscribe(t, c, topic(name), func(e *common.TopicEvent) common.SubscriptionResponseStatus {
				mu.Lock()
				defer mu.Unlock()
				got[name] = append(got[name], string(e.RawData))
				n++
				return common.SubscriptionResponseStatusSuccess
			})
		}
		m, err := c.GetMetadata(t.Context())
		if err != nil || len(m.Subscriptions) != streams {
			t.Errorf("metadata lists %d subscriptions, %v", len(m.Subscriptions), err)
		}
		for i := range streams {
			var events []any
			for k := range each {
				events = append(events, fmt.Sprintf("%d of t%d", k, i))
			}
			if r := c.PublishEvents(t.Context(), "bus", fmt.Sprintf("t%d", i), events); r.Error != nil {
				t.Fatal(r.Error)
			}
		}
		eventually(t, "every event", func() bool {
			mu.Lock()
			defer mu.Unlock()
			return n >= streams*each
		})
		mu.Lock()
		defer mu.Unlock()
		for topic, list := range got {
			slices.Sort(list)
			if len(slices.Compact(list)) != each || slices.ContainsFunc(list, func(s string) bool { return !strings.HasSuffix(s, " of "+topic) }) {
				t.Errorf("%s got %q", topic, list)
			}
		}
	})
}

func TestReceiveWhatBothAPIsPublish(t *testing.T) {
	t.Parallel()
	buses(t, func(t *testing.T, bus string) {
		p := sidecar(t, overHTTP, 0, bus) // publish posts
		c := p.client()
		sub, err := c.Subscribe(t.Context(), topic("orders"))
		if err != nil {
			t.Fatal(err)
		}
		if err := c.PublishEvent(t.Context(), "bus", "orders", map[string]int{"n": 1}); err != nil {
			t.Fatal(err)
		}
		if r := c.PublishEvents(t.Context(), "bus", "orders", []any{"a", "b"}); r.Error != nil {
			t.Fatal(r.Error)
		}
		p.publish("orders", `"over HTTP"`)
		retried, got := "", map[string]int{}
		for len(got) < 4 || got[retried] < 2 {
			m, err := sub.Receive()
			if err != nil {
				t.Fatal(err)
			}
			got[m.ID]++
			answer := m.Success
			if retried == "" {
				retried, answer = m.ID, m.Retry
			}
			if err := answer(); err != nil {
				t.Fatal(err)
			}
		}
		if len(got) != 4 || got[retried] != 2 {
			t.Errorf("received %v, %s was to be tried again", got, retried)
		}
		if err := sub.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestStreamsOfOneTopicShareIt(t *testing.T) {
	t.Parallel()
	buses(t, func(t *testing.T, bus string) {
		const events = 100
		p := sidecar(t, overGRPC, 0, bus)
		got := make(chan [2]string, 2*events) // stream and data
		one, two := p.connect(), p.connect()
		for name, c := range map[string]client.Client{"one": one, "two": two} {
			subscribe(t, c, topic("t"), func(e *common.TopicEvent) common.SubscriptionResponseStatus {
				got <- [2]string{name, string(e.RawData)}
				return common.SubscriptionResponseStatusSuccess
			})
		}
		for i := range events {
			if err := p.client().PublishEvent(t.Context(), "bus", "t", fmt.Sprint(i)); err != nil {
				t.Fatal(err)
			}
		}
		data, streams := map[string]int{}, map[string]int{}
		for range events {
			e := receive(t, got, "an event")
			streams[e[0]]++
			data[e[1]]++
		}
		if len(data) != events || len(streams) != 2 || len(got) != 0 {
			t.Errorf("%d of %d events; by stream %v; %d more", len(data), events, streams, len(got))
		}
		// One client goes; the other has all from now on.
		two.Close()
		eventually(t, "one stream is left", func() bool {
			m, err := one.GetMetadata(t.Context())
			return err == nil && len(m.Subscriptions) == 1
		})
		for i := range events {
			if err := one.PublishEvent(t.Context(), "bus", "t", fmt.Sprint(i)); err != nil {
				t.Fatal(err)
			}
		}
		for range events {
			if e := receive(t, got, "an event"); e[0] != "one" {
				t.Fatalf("the stream that has ended got %s", e[1])
			}
		}
	})
}

// seen are the events that arrived, by topic and number.
type seen struct {
	mu  sync.Mutex
	all map[string]bool
}

func (s *seen) add(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all[key] = true
}

func (s *seen) missing(keys []string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(keys), func(k string) bool { return s.all[k] })
}

// holdOn subscribes and, whenever the SDK gives the subscription up, subscribes
// again, as an app has to whose client does not wait for a connection.
func holdOn(ctx context.Context, c client.Client, name string, got *seen) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		sub, err := c.Subscribe(ctx, topic(name))
		for err == nil {
			var m *client.SubscriptionMessage
			if m, err = sub.Receive(); err == nil {
				got.add(string(m.RawData))
				m.Success() // an answer that does not arrive brings the event again
			}
		}
		<-tick.C
	}
}

func TestStreamsAcrossRestarts(t *testing.T) {
	t.Parallel()
	buses(t, func(t *testing.T, bus string) {
		const streams = 20
		p := sidecar(t, overGRPC, 0, bus)
		quick := grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.2, MaxDelay: 200 * time.Millisecond}})
		// One client whose calls fail while penstock is away, one whose calls wait.
		failing, waiting := p.connect(quick), p.connect(quick, grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
		got := &seen{all: map[string]bool{}}
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		defer wg.Wait()
		defer stop()
		var topics []string
		for i := range streams {
			name := fmt.Sprintf("t%d", i)
			topics = append(topics, name)
			if i%2 == 0 {
				wg.Go(func() { holdOn(ctx, failing, name, got) })
				continue
			}
			// The SDK itself takes up this one, once for each end of its stream.
			if _, err := waiting.SubscribeWithHandler(ctx, topic(name), func(e *common.TopicEvent) common.SubscriptionResponseStatus {
				got.add(string(e.RawData))
				return common.SubscriptionResponseStatusSuccess
			}); err != nil {
				t.Fatal(err)
			}
		}
		n := 0
		publish := func() (confirmed []string) { // one to each topic
			for _, name := range topics {
				n++
				key := fmt.Sprintf("%d to %s", n, name)
				if failing.PublishEvent(t.Context(), "bus", name, key, client.PublishEventWithContentType("text/plain")) == nil {
					confirmed = append(confirmed, key)
				}
			}
			return confirmed
		}
		all := func() bool {
			m, err := failing.GetMetadata(t.Context())
			return err == nil && len(m.Subscriptions) == streams
		}
		eventually(t, "every stream", all)
		owed := publish()
		for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM, syscall.SIGTERM, syscall.SIGKILL} {
			back, published := make(chan struct{}), make(chan []string)
			go func() {
				var confirmed []string
				for {
					select {
					case <-back:
						published <- confirmed
						return
					default:
						confirmed = append(confirmed, publish()...)
					}
				}
			}()
			p.restart(signal)
			close(back)
			owed = append(owed, <-published...)
			eventually(t, "every stream is back", all)
			if !strings.Contains(bus, "sqlite") {
				owed = nil // memory forgets when the process ends
			}
			owed = append(owed, publish()...)
		}
		eventually(t, "every confirmed event", func() bool { return len(got.missing(owed)) == 0 || ctx.Err() != nil })
		if missing := got.missing(owed); len(missing) > 0 || len(owed) < streams {
			t.Errorf("of %d confirmed events these are missing: %s", len(owed), cmp.Or(strings.Join(missing, ", "), "none"))
		}
	})
}

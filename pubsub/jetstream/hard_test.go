package jetstream

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/pubsub"
	"github.com/penstock-io/penstock/test/fake"
	"github.com/penstock-io/penstock/test/fake/natsserver"
)

// event is a message that is an event.
func event(id, data string) pubsub.Message {
	return pubsub.Message{
		Data:        fmt.Appendf(nil, `{"specversion":"1.0","id":%q,"source":"s","type":"t","data":%q}`, id, data),
		ContentType: cloudevents.ContentType,
	}
}

// reading keeps a subscription going as the Bus does, until the test ends.
func reading(t *testing.T, d pubsub.Driver, s pubsub.Subscription) <-chan *cloudevents.Delivery {
	t.Helper()
	got, ended := make(chan *cloudevents.Delivery, 256), make(chan struct{})
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	t.Cleanup(func() { cancel(); <-ended })
	if s.Group == "" {
		s.Group = "group"
	}
	go func() {
		defer close(ended)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			err := d.Subscribe(ctx, s, func(ctx context.Context, x *cloudevents.Delivery) error {
				select {
				case got <- x:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			})
			if err != nil {
				t.Logf("subscribe: %v", err)
			}
			<-tick.C
		}
	}()
	return got
}

func next(t *testing.T, got <-chan *cloudevents.Delivery) *cloudevents.Delivery {
	t.Helper()
	select {
	case x := <-got:
		return x
	case <-time.After(20 * time.Second):
		t.Fatal("nothing came")
		return nil
	}
}

// publishUntil publishes until it works, as an app does while a server is away.
func publishUntil(t *testing.T, d pubsub.Driver, topic string, m pubsub.Message) {
	t.Helper()
	last := time.Now().Add(20 * time.Second)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := d.Publish(t.Context(), topic, []pubsub.Message{m})
		if err == nil {
			return
		}
		if time.Now().After(last) {
			t.Fatal(err)
		}
		<-tick.C
	}
}

func kindOf(err error) fault.Kind {
	if be, ok := errors.AsType[*pubsub.BatchError](err); ok {
		err = be.Errs[0]
	}
	return fault.KindOf(err)
}

// raw is a client of the server that knows nothing of Penstock.
func raw(t testing.TB, url string) js.JetStream {
	t.Helper()
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	j, err := js.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// A connection that is lost and comes back is no broken subscription: it goes on
// at once, without the pauses of one that is tried again.
func TestLostConnections(t *testing.T) {
	s := natsserver.Start(t, natsserver.Options{})
	proxy, err := fake.NewProxy(strings.TrimPrefix(s.URL(), "nats://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(proxy.Close)
	d := opened(t, "nats://"+proxy.Addr())
	t.Cleanup(func() { closed(t, d) })
	got, ended := make(chan *cloudevents.Delivery, 16), make(chan error, 1)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	t.Cleanup(cancel)
	go func() {
		ended <- d.Subscribe(ctx, pubsub.Subscription{Topic: "orders", Group: "group"}, func(_ context.Context, x *cloudevents.Delivery) error {
			got <- x
			return nil
		})
	}()
	publishUntil(t, d, "orders", event("0", "zero"))
	next(t, got).Settle(cloudevents.Acked())
	server := raw(t, s.URL())
	for n := range 3 {
		proxy.Set(fake.Network{Reset: true})
		if _, err := server.Publish(t.Context(), "orders", event(fmt.Sprint(n+1), "one").Data); err != nil {
			t.Fatal(err)
		}
		proxy.Set(fake.Network{})
		for !strings.Contains(string(nextOf(t, got, ended).Body), fmt.Sprintf(`"id":"%d"`, n+1)) {
			continue // one before, whose acknowledgement was lost
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// nextOf is next for a subscription that must not end.
func nextOf(t *testing.T, got <-chan *cloudevents.Delivery, ended <-chan error) *cloudevents.Delivery {
	t.Helper()
	select {
	case x := <-got:
		x.Settle(cloudevents.Acked())
		return x
	case err := <-ended:
		t.Fatalf("the subscription ended: %v", err)
	case <-time.After(20 * time.Second):
		t.Fatal("nothing came")
	}
	return nil
}

// machine is a server that a test may stop.
type machine struct {
	url           string
	stop, restart func()
}

func embedded(t *testing.T) machine {
	t.Helper()
	s := natsserver.Start(t, natsserver.Options{})
	return machine{s.URL(), s.Stop, s.Restart}
}

func TestServerRestart(t *testing.T) { serverRestart(t, embedded(t)) }

func serverRestart(t *testing.T, s machine) {
	t.Helper()
	d := opened(t, s.url)
	t.Cleanup(func() { closed(t, d) })
	got := reading(t, d, pubsub.Subscription{Topic: "orders"})
	publishUntil(t, d, "orders", event("1", "one"))
	first := next(t, got)
	s.stop()
	if err := d.Publish(t.Context(), "orders", []pubsub.Message{event("x", "x")}); err == nil || !kindOf(err).Retriable() {
		t.Errorf("publish without a server: %v, want an error that trying again may help", err)
	}
	first.Settle(cloudevents.Acked()) // while there is nobody to tell
	s.restart()
	back := time.Now()
	publishUntil(t, d, "orders", event("2", "two"))
	for {
		x := next(t, got)
		x.Settle(cloudevents.Acked())
		if e, err := cloudevents.Scan(x.Body); err == nil && e.ID() == "2" {
			break
		}
		t.Errorf("%s came again though it was acknowledged", x.Body)
	}
	if took := time.Since(back); took > 15*time.Second { // 2 s on a machine with nothing else to do
		t.Errorf("it took %s until messages came again", took)
	}
}

func TestDeletedStreamAndConsumer(t *testing.T) { deleted(t, embedded(t).url) }

func deleted(t *testing.T, url string, more ...string) {
	d := opened(t, url, more...)
	t.Cleanup(func() { closed(t, d) })
	got := reading(t, d, pubsub.Subscription{Topic: "orders"})
	publishUntil(t, d, "orders", event("1", "one"))
	next(t, got).Settle(cloudevents.Acked())
	publishUntil(t, d, "orders", event("2", "two"))
	held := next(t, got)
	j := raw(t, url)
	if err := j.DeleteConsumer(t.Context(), "orders", "group-orders"); err != nil {
		t.Fatal(err)
	}
	publishUntil(t, d, "orders", event("3", "three"))
	x := next(t, got)
	if e, err := cloudevents.Scan(x.Body); err != nil || e.ID() != "3" {
		t.Errorf("after the consumer was made again %s came, want what was not read yet", x.Body)
	}
	x.Settle(cloudevents.Acked())
	if err := j.DeleteStream(t.Context(), "orders"); err != nil {
		t.Fatal(err)
	}
	publishUntil(t, d, "orders", event("4", "four"))
	publishUntil(t, d, "orders", event("5", "five"))
	held.Settle(cloudevents.Acked()) // of the old stream: it must not hit number 2 of the new one
	for _, id := range []string{"4", "5"} {
		x := next(t, got)
		if e, err := cloudevents.Scan(x.Body); err != nil || e.ID() != id {
			t.Errorf("received %s, want %s", x.Body, id)
		}
		x.Settle(cloudevents.Acked())
	}
}

func TestSameIDIsStoredOnceAndOtherMessagesAlways(t *testing.T) {
	s := natsserver.Start(t, natsserver.Options{})
	j := raw(t, s.URL())
	if _, err := j.CreateStream(t.Context(), js.StreamConfig{Name: "all", Subjects: []string{"orders", "dead"}}); err != nil {
		t.Fatal(err)
	}
	d := opened(t, s.URL())
	defer closed(t, d)
	same := event("1", "one")
	for range 3 {
		publishUntil(t, d, "orders", same)
	}
	letter := same
	letter.Metadata = map[string]string{"dlqreason": "failed"}
	publishUntil(t, d, "dead", letter)
	letter.Metadata = map[string]string{"dlqreason": "failed again"}
	publishUntil(t, d, "dead", letter)
	stream, err := j.Stream(t.Context(), "all")
	if err != nil {
		t.Fatal(err)
	}
	info, err := stream.Info(t.Context(), js.WithSubjectFilter(">"))
	if err != nil {
		t.Fatal(err)
	}
	if n := info.State.Subjects; n["orders"] != 1 || n["dead"] != 2 {
		t.Errorf("stored %v, want the event once and both dead letters", n)
	}
	m, err := stream.GetMsg(t.Context(), 1)
	if err != nil || m.Header.Get(nats.MsgIdHdr) != "1" || string(m.Data) != string(same.Data) {
		t.Errorf("stored %+v (%v), want the envelope under its id", m, err)
	}
}

func TestErrors(t *testing.T) {
	s := natsserver.Start(t, natsserver.Options{Username: "u", Password: "right", MaxPayload: 1 << 20})
	if _, err := tried(t, s.URL(), "username", "u", "password", "wrong"); fault.KindOf(err) != fault.Denied {
		t.Errorf("wrong password: %v, want denied", err)
	}
	if _, err := tried(t, "nats://127.0.0.1:1"); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("no server: %v, want unavailable", err)
	}
	d := opened(t, s.URL(), "username", "u", "password", "right", "createStream", "false")
	defer closed(t, d)
	err := d.Publish(t.Context(), "nowhere", []pubsub.Message{event("1", "")})
	if kindOf(err) != fault.NotFound {
		t.Errorf("no stream: %v, want not found", err)
	}
	for topic, data := range map[string]int{"big": 1<<20 + 1, "a.*": 1, "a b": 1, "a..b": 1} {
		if err := d.Publish(t.Context(), topic, []pubsub.Message{{Data: make([]byte, data)}}); kindOf(err) != fault.Invalid {
			t.Errorf("%q with %d bytes: %v, want invalid", topic, data, err)
		}
	}
}

func TestWildcardsOfNATS(t *testing.T) {
	s := natsserver.Start(t, natsserver.Options{})
	d := opened(t, s.URL())
	t.Cleanup(func() { closed(t, d) })
	publishUntil(t, d, "orders.eu", event("1", ""))
	publishUntil(t, d, "orders.us", event("2", ""))
	publishUntil(t, d, "orders.us.ny", event("3", ""))
	got := reading(t, d, pubsub.Subscription{Topic: "orders.*"})
	topics := map[string]bool{}
	for range 2 {
		x := next(t, got)
		topics[x.Topic] = x.Metadata["Topic"] == x.Topic
		x.Settle(cloudevents.Acked())
	}
	publishUntil(t, d, "orders.jp", event("4", "")) // in a stream that is made now
	x := next(t, got)
	topics[x.Topic] = true
	x.Settle(cloudevents.Acked())
	if !topics["orders.eu"] || !topics["orders.us"] || !topics["orders.jp"] {
		t.Errorf("topics %v", topics)
	}
}

// TestHeldLongerThanAckWait has an app that takes its time.
func TestHeldLongerThanAckWait(t *testing.T) {
	s := natsserver.Start(t, natsserver.Options{})
	d := opened(t, s.URL(), "ackWait", "200ms")
	t.Cleanup(func() { closed(t, d) })
	got := reading(t, d, pubsub.Subscription{Topic: "orders"})
	publishUntil(t, d, "orders", event("1", ""))
	x := next(t, got)
	select {
	case again := <-got:
		t.Fatalf("%s came again while it was held", again.Body)
	case <-time.After(time.Second):
	}
	x.Settle(cloudevents.Acked())
}

// TestTakeOver has a member that dies: its connection is cut and nothing is
// given back.
func TestTakeOver(t *testing.T) { takeOver(t, embedded(t).url) }

func takeOver(t *testing.T, url string) {
	t.Helper()
	dying := opened(t, url)
	t.Cleanup(func() { closed(t, dying) })
	got := reading(t, dying, pubsub.Subscription{Topic: "orders"})
	publishUntil(t, dying, "orders", event("1", ""))
	next(t, got)
	dying.conn.Raw().Close()
	start := time.Now()
	other := opened(t, url)
	t.Cleanup(func() { closed(t, other) })
	x := next(t, reading(t, other, pubsub.Subscription{Topic: "orders"}))
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("it took %s until the other member had the message", took)
	}
	x.Settle(cloudevents.Acked())
}

func TestMaxDeliver(t *testing.T) {
	s := natsserver.Start(t, natsserver.Options{})
	d := opened(t, s.URL(), "maxDeliver", "2", "backOff", "10ms")
	t.Cleanup(func() { closed(t, d) })
	got := reading(t, d, pubsub.Subscription{Topic: "orders"})
	publishUntil(t, d, "orders", event("1", ""))
	next(t, got).Settle(cloudevents.Left("not an attempt"))
	next(t, got).Settle(cloudevents.Retried(nil, 0))
	x := next(t, got)
	if x.Attempt != 2 {
		t.Errorf("attempt %d, want 2", x.Attempt)
	}
	x.Settle(cloudevents.Retried(nil, 0))
	select {
	case again := <-got:
		t.Errorf("%s came a third time", again.Body)
	case <-time.After(200 * time.Millisecond):
	}
}

// TestDaprLayout reads what a plain client wrote and the other way round, as
// Dapr's component does it.
func TestDaprLayout(t *testing.T) {
	s := natsserver.Start(t, natsserver.Options{})
	j := raw(t, s.URL())
	if _, err := j.CreateStream(t.Context(), js.StreamConfig{Name: "s", Subjects: []string{"orders"}}); err != nil {
		t.Fatal(err)
	}
	push, err := j.CreatePushConsumer(t.Context(), "s", js.ConsumerConfig{
		Durable: "workers", DeliverSubject: nats.NewInbox(), FilterSubject: "orders", AckPolicy: js.AckExplicitPolicy,
	})
	if err != nil {
		t.Fatal(err)
	}
	theirs := make(chan js.Msg, 8)
	running, err := push.Consume(func(m js.Msg) { theirs <- m })
	if err != nil {
		t.Fatal(err)
	}
	defer running.Stop()
	d := opened(t, s.URL(), "durableName", "workers")
	t.Cleanup(func() { closed(t, d) })
	got := reading(t, d, pubsub.Subscription{Topic: "orders"})
	publishUntil(t, d, "orders", event("1", "ours"))
	if m := <-theirs; string(m.Data()) != string(event("1", "ours").Data) || m.Headers().Get(nats.MsgIdHdr) != "1" {
		t.Errorf("they received %s with %v", m.Data(), m.Headers())
	}
	next(t, got).Settle(cloudevents.Acked())
	body := event("2", "theirs").Data
	if _, err := j.Publish(t.Context(), "orders", body, js.WithMsgID("2")); err != nil {
		t.Fatal(err)
	}
	x := next(t, got)
	if string(x.Body) != string(body) || x.Metadata["Topic"] != "orders" || len(x.Metadata) != 1 {
		t.Errorf("received %s with %v", x.Body, x.Metadata)
	}
	x.Settle(cloudevents.Acked())
}

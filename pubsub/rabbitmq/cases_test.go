package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/pubsub"
	"github.com/penstock-io/penstock/test/conform"
)

// while is how long something is waited for that must come.
const while = 30 * time.Second

// cases are those that a server decides, whichever it is.
func cases(t *testing.T, url string) {
	for name, run := range map[string]func(t *testing.T, url string){
		"layout is Dapr's":                 layout,
		"layout that differs is told":      differs,
		"deleted exchange":                 deletedExchange,
		"deleted queue":                    deletedQueue,
		"deleted retry queue":              deletedRetryQueue,
		"retry keeps what it carries":      retryKeeps,
		"foreign headers":                  foreignHeaders,
		"dead letter queue":                deadLetterQueue,
		"strict order":                     strictOrder,
		"order of a queue":                 queueOrder,
		"queue lingers":                    lingers,
		"time to live across retries":      ttlAcrossRetries,
		"quorum queue":                     quorum,
		"routing keys":                     routingKeys,
		"refused by a full queue":          refused,
		"nobody has subscribed":            nobody,
		"outage":                           outage,
		"silent network":                   silence,
		"takes over from who is cut":       takeOver,
		"another's message as Dapr has it": fromDapr,
		"wrong subscriptions":              wrongSubscriptions,
		"TLS":                              secured,
	} {
		t.Run(name, func(t *testing.T) { t.Parallel(); run(t, url) })
	}
}

// member is one subscription.
type member struct {
	got  chan *cloudevents.Delivery
	done chan error
	stop context.CancelFunc
}

func subscribe(t testing.TB, d pubsub.Driver, s pubsub.Subscription) *member {
	t.Helper()
	if s.Group == "" {
		s.Group = "app"
	}
	ctx, cancel := context.WithCancel(t.Context())
	m := &member{got: make(chan *cloudevents.Delivery), done: make(chan error, 1), stop: cancel}
	go func() {
		m.done <- d.Subscribe(ctx, s, func(ctx context.Context, d *cloudevents.Delivery) error {
			select {
			case m.got <- d:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	t.Cleanup(cancel)
	return m
}

func (m *member) want(t testing.TB, body string) *cloudevents.Delivery {
	t.Helper()
	select {
	case d := <-m.got:
		if string(d.Body) != body {
			t.Fatalf("received %q, want %q", d.Body, body)
		}
		return d
	case err := <-m.done:
		t.Fatalf("subscribe returned %v", err)
	case <-time.After(while):
		t.Fatalf("%q does not come", body)
	}
	return nil
}

func (m *member) none(t testing.TB, d time.Duration) {
	t.Helper()
	select {
	case d := <-m.got:
		t.Fatalf("received %q, want nothing", d.Body)
	case <-time.After(d):
	}
}

// bus opens a component and makes a group, so that what is published stays.
func bus(t testing.TB, url string, s pubsub.Subscription, options map[string]string) pubsub.Driver {
	t.Helper()
	d := opened(t, url, options)
	t.Cleanup(func() { shut(t, d) })
	if s.Group == "" {
		s.Group = "app"
	}
	if err := d.(pubsub.Preparer).Prepare(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ch := server(t, url)
		for _, queue := range []string{s.Group + "-" + s.Topic, "dlq-" + s.Group + "-" + s.Topic} {
			_, _ = ch.QueueDelete(queue, false, false, false)
		}
		_ = ch.ExchangeDelete(s.Topic, false, false)
		_ = ch.ExchangeDelete("dlx-"+s.Group+"-"+s.Topic, false, false)
	})
	return d
}

func send(t testing.TB, d pubsub.Driver, topic string, ms ...pubsub.Message) {
	t.Helper()
	if err := d.Publish(t.Context(), topic, ms); err != nil {
		t.Fatal(err)
	}
}

func text(s string) pubsub.Message { return pubsub.Message{Data: []byte(s)} }

// layout declares what Dapr's component declares beside ours.
func layout(t *testing.T, url string) {
	for i, row := range []struct {
		options, metadata map[string]string
		durable, unused   bool
		kind              string
		args, dead        amqp.Table
	}{
		{durable: true, unused: true, kind: "fanout", args: amqp.Table{"x-queue-type": "classic"}},
		{
			options: map[string]string{"durable": "false", "deletedWhenUnused": "false", "exchangeKind": "topic"},
			kind:    "topic", args: amqp.Table{"x-queue-type": "classic"},
		},
		{
			options: map[string]string{"enableDeadLetter": "true", "maxLen": "10", "maxLenBytes": "100000", "deletedWhenUnused": "false"},
			durable: true, kind: "fanout",
			args: amqp.Table{"x-queue-type": "classic", "x-max-length": int64(10), "x-max-length-bytes": int64(100000), "x-dead-letter-exchange": "dlx-app-%s"},
			dead: amqp.Table{"x-queue-mode": "lazy", "x-max-length": int64(10), "x-max-length-bytes": int64(100000)},
		},
		{
			metadata: map[string]string{"maxPriority": "7", "singleActiveConsumer": "true", "maxLen": "3", "maxLenBytes": "1000"},
			durable:  true, unused: true, kind: "fanout",
			args: amqp.Table{"x-queue-type": "classic", "x-max-priority": uint8(7), "x-single-active-consumer": true, "x-max-length": int64(3), "x-max-length-bytes": int64(1000)},
		},
	} {
		topic := conform.Unique(t)
		queue := "app-" + topic
		bus(t, url, pubsub.Subscription{Topic: topic, Metadata: row.metadata}, row.options)
		ch := server(t, url)
		if dlx, ok := row.args["x-dead-letter-exchange"].(string); ok {
			row.args["x-dead-letter-exchange"] = fmt.Sprintf(dlx, topic)
			if err := ch.ExchangeDeclare("dlx-"+queue, "fanout", true, row.unused, false, false, nil); err != nil {
				t.Fatalf("row %d: %v", i, err)
			}
			if _, err := ch.QueueDeclare("dlq-"+queue, true, row.unused, false, false, row.dead); err != nil {
				t.Fatalf("row %d: %v", i, err)
			}
		}
		if err := ch.ExchangeDeclare(topic, row.kind, row.durable, row.unused, false, false, nil); err != nil {
			t.Fatalf("row %d: %v", i, err)
		}
		if _, err := ch.QueueDeclare(queue, row.durable, row.unused, false, false, row.args); err != nil {
			t.Fatalf("row %d: %v", i, err)
		}
	}
}

func differs(t *testing.T, url string) {
	topic := conform.Unique(t)
	bus(t, url, pubsub.Subscription{Topic: topic}, nil)
	d := opened(t, url, map[string]string{"deletedWhenUnused": "false"})
	defer shut(t, d)
	if err := d.Publish(t.Context(), topic, []pubsub.Message{text("x")}); err == nil || kindIn(err) != fault.Conflict {
		t.Errorf("publish: %v, want a conflict", err)
	}
	m := subscribe(t, d, pubsub.Subscription{Topic: topic})
	if err := <-m.done; err == nil || fault.KindOf(err) != fault.Conflict {
		t.Errorf("subscribe: %v, want a conflict", err)
	}
	send(t, d, conform.Unique(t), text("others go on"))
}

// kindIn is the kind of the first failure of a batch.
func kindIn(err error) fault.Kind {
	if be, ok := errors.AsType[*pubsub.BatchError](err); ok {
		for _, e := range be.Errs {
			if e != nil {
				return fault.KindOf(e)
			}
		}
	}
	return fault.KindOf(err)
}

func deletedExchange(t *testing.T, url string) {
	topic := conform.Unique(t)
	d := bus(t, url, pubsub.Subscription{Topic: topic}, nil)
	send(t, d, topic, text("1"))
	if err := server(t, url).ExchangeDelete(topic, false, false); err != nil {
		t.Fatal(err)
	}
	send(t, d, topic, text("2"), text("3")) // nobody is bound to the new one
	m := subscribe(t, d, pubsub.Subscription{Topic: topic})
	m.want(t, "1").Settle(cloudevents.Acked())
	send(t, d, topic, text("4")) // now it is
	m.want(t, "4").Settle(cloudevents.Acked())
}

func deletedQueue(t *testing.T, url string) {
	topic := conform.Unique(t)
	d := bus(t, url, pubsub.Subscription{Topic: topic}, nil)
	m := subscribe(t, d, pubsub.Subscription{Topic: topic})
	send(t, d, topic, text("1"), text("held"))
	m.want(t, "1").Settle(cloudevents.Acked())
	held := m.want(t, "held")
	if _, err := server(t, url).QueueDelete("app-"+topic, false, false, false); err != nil {
		t.Fatal(err)
	}
	if err := <-m.done; err == nil || !fault.Retriable(err) {
		t.Fatalf("subscribe returned %v", err)
	}
	m = subscribe(t, d, pubsub.Subscription{Topic: topic})
	held.Settle(cloudevents.Acked()) // too late, and harmless
	for {
		send(t, d, topic, text("2"))
		select {
		case x := <-m.got:
			x.Settle(cloudevents.Acked())
			return
		case err := <-m.done:
			t.Fatal(err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func deletedRetryQueue(t *testing.T, url string) {
	topic := conform.Unique(t)
	d := bus(t, url, pubsub.Subscription{Topic: topic}, nil)
	m := subscribe(t, d, pubsub.Subscription{Topic: topic})
	send(t, d, topic, text("x"))
	for attempt := 1; attempt <= 3; attempt++ {
		x := m.want(t, "x")
		if x.Attempt != attempt {
			t.Errorf("attempt %d, want %d", x.Attempt, attempt)
		}
		if _, err := server(t, url).QueueDelete("app-"+topic+".retry.20", false, false, false); err != nil {
			t.Fatal(err)
		}
		x.Settle(cloudevents.Retried(nil, 20*time.Millisecond))
	}
	m.want(t, "x").Settle(cloudevents.Acked())
}

// put publishes what another program does.
func put(t testing.TB, url, exchange string, p amqp.Publishing) {
	t.Helper()
	ch := server(t, url)
	if err := ch.Confirm(false); err != nil {
		t.Fatal(err)
	}
	c, err := ch.PublishWithDeferredConfirm(exchange, "", false, false, p)
	if err != nil || !c.Wait() {
		t.Fatal("not published", err)
	}
}

// foreign are headers of every type.
func foreign() amqp.Table {
	return amqp.Table{
		"text": "Ünïcode", "bytes": []byte("b"), "yes": true, "int": int32(-5), "long": int64(1) << 40, "byte": byte(200),
		"float": 1.5, "time": time.Unix(1e9, 0), "nothing": nil,
		"list": []any{"a", int32(1), amqp.Table{"x": true}}, "table": amqp.Table{"a": []any{}, "b": "c"},
		"x-death":                 []any{amqp.Table{"queue": "elsewhere", "reason": "rejected", "count": int64(3), "exchange": "e", "routing-keys": []any{"k"}}},
		"ce-type":                 "t1",
		"cloudEvents:specversion": "1.0",
	}
}

func foreignHeaders(t *testing.T, url string) {
	topic := conform.Unique(t)
	d := bus(t, url, pubsub.Subscription{Topic: topic}, map[string]string{"publishMessagePropertiesToMetadata": "true"})
	put(t, url, topic, amqp.Publishing{Headers: foreign(), ContentType: "text/x", MessageId: "m1", CorrelationId: "c1", Type: "kind", Body: []byte("x")})
	m := subscribe(t, d, pubsub.Subscription{Topic: topic})
	x := m.want(t, "x")
	x.Settle(cloudevents.Acked())
	want := map[string]string{
		"text": "Ünïcode", "bytes": "b", "yes": "true", "int": "-5", "long": "1099511627776", "byte": "200", "float": "1.5",
		"time": "2001-09-09T01:46:40Z", "nothing": "", "list": `["a",1,{"x":true}]`, "table": `{"a":[],"b":"c"}`,
		"ce_type": "t1", "ce_specversion": "1.0", "content-type": "text/x",
		"messageid": "m1", "correlationid": "c1", "type": "kind", "contenttype": "text/x",
	}
	delete(x.Metadata, "x-death") // its order is the server's
	if diff := cmp.Diff(want, x.Metadata); diff != "" {
		t.Errorf("metadata (-want +got)\n%s", diff)
	}
}

func retryKeeps(t *testing.T, url string) {
	topic := conform.Unique(t)
	d := bus(t, url, pubsub.Subscription{Topic: topic}, nil)
	ch := server(t, url)
	other, err := ch.QueueDeclare("other-"+topic, false, true, true, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	headers := foreign()
	headers["CC"] = []any{other.Name}
	put(t, url, topic, amqp.Publishing{Headers: headers, ContentType: "text/x", Type: "kind", Expiration: "60000", Body: []byte("x")})
	m := subscribe(t, d, pubsub.Subscription{Topic: topic})
	var first map[string]string
	for attempt := 1; attempt <= 3; attempt++ {
		x := m.want(t, "x")
		if x.Attempt != attempt {
			t.Errorf("attempt %d, want %d", x.Attempt, attempt)
		}
		if first == nil {
			first = x.Metadata
		}
		if diff := cmp.Diff(first, x.Metadata); diff != "" {
			t.Errorf("metadata of attempt %d (-first +now)\n%s", attempt, diff)
		}
		x.Settle(cloudevents.Retried(nil, time.Duration(attempt)*10*time.Millisecond))
	}
	m.want(t, "x").Settle(cloudevents.Acked())
	if q, err := ch.QueueDeclarePassive(other.Name, false, true, true, false, nil); err != nil || q.Messages > 1 {
		t.Errorf("the retries went to %d other places too (%v)", q.Messages, err)
	}
}

func deadLetterQueue(t *testing.T, url string) {
	for _, requeue := range []string{"false", "true"} {
		topic := conform.Unique(t)
		d := bus(t, url, pubsub.Subscription{Topic: topic}, map[string]string{"enableDeadLetter": "true", "requeueInFailure": requeue})
		m := subscribe(t, d, pubsub.Subscription{Topic: topic})
		send(t, d, topic, pubsub.Message{Data: []byte("bad"), Metadata: map[string]string{"a": "b"}})
		m.want(t, "bad").Settle(cloudevents.Retried(nil, 10*time.Millisecond))
		if requeue == "true" {
			m.want(t, "bad").Settle(cloudevents.Acked())
			continue
		}
		messages, err := server(t, url).Consume("dlq-app-"+topic, "", false, false, false, false, nil)
		if err != nil {
			t.Fatal(err)
		}
		x := <-messages
		if string(x.Body) != "bad" || x.Headers["a"] != "b" {
			t.Errorf("dead letter %q with headers %v", x.Body, x.Headers)
		}
		m.none(t, 50*time.Millisecond)
	}
}

func strictOrder(t *testing.T, url string) {
	topic := conform.Unique(t)
	d := bus(t, url, pubsub.Subscription{Topic: topic}, map[string]string{"concurrency": "single"})
	m := subscribe(t, d, pubsub.Subscription{Topic: topic})
	for i := range 4 {
		send(t, d, topic, text(strconv.Itoa(i)))
	}
	x := m.want(t, "0")
	m.none(t, 50*time.Millisecond)
	x.Settle(cloudevents.Retried(nil, 20*time.Millisecond))
	if x = m.want(t, "0"); x.Attempt != 2 {
		t.Errorf("attempt %d, want 2", x.Attempt)
	}
	x.Settle(cloudevents.Left("for a moment"))
	if x = m.want(t, "0"); x.Attempt != 2 {
		t.Errorf("attempt %d after leaving, want 2", x.Attempt)
	}
	x.Settle(cloudevents.Acked())
	m.want(t, "1").Settle(cloudevents.Acked())
	x = m.want(t, "2")
	m.stop()
	if err := <-m.done; err != nil {
		t.Error(err)
	}
	x.Settle(cloudevents.Retried(nil, time.Hour)) // it goes back to its place
	m = subscribe(t, d, pubsub.Subscription{Topic: topic})
	m.want(t, "2").Settle(cloudevents.Acked())
	m.want(t, "3").Settle(cloudevents.Acked())
}

func queueOrder(t *testing.T, url string) {
	topic := conform.Unique(t)
	d := bus(t, url, pubsub.Subscription{Topic: topic}, nil)
	batch := make([]pubsub.Message, 1000)
	for i := range batch {
		batch[i] = text(strconv.Itoa(i))
	}
	send(t, d, topic, batch...)
	m := subscribe(t, d, pubsub.Subscription{Topic: topic})
	for i := range 300 {
		m.want(t, strconv.Itoa(i)).Settle(cloudevents.Acked())
	}
	m.stop()
	if err := <-m.done; err != nil {
		t.Fatal(err)
	}
	m = subscribe(t, d, pubsub.Subscription{Topic: topic})
	for i := range 700 { // what was fetched ahead is back in its place
		m.want(t, strconv.Itoa(i+300)).Settle(cloudevents.Acked())
	}
}

func lingers(t *testing.T, url string) {
	topic := conform.Unique(t)
	d := bus(t, url, pubsub.Subscription{Topic: topic}, nil)
	for i := range 3 {
		m := subscribe(t, d, pubsub.Subscription{Topic: topic})
		if i > 0 {
			m.want(t, strconv.Itoa(i)).Settle(cloudevents.Acked())
			m.want(t, strconv.Itoa(i+100)).Settle(cloudevents.Acked())
		}
		send(t, d, topic, text("x"))
		m.want(t, "x").Settle(cloudevents.Acked())
		m.stop()
		if err := <-m.done; err != nil {
			t.Fatal(err)
		}
		send(t, d, topic, text(strconv.Itoa(i+1)), text(strconv.Itoa(i+101)))
	}
}

func ttlAcrossRetries(t *testing.T, url string) {
	topic := conform.Unique(t)
	d := bus(t, url, pubsub.Subscription{Topic: topic}, nil)
	m := subscribe(t, d, pubsub.Subscription{Topic: topic})
	send(t, d, topic, pubsub.Message{Data: []byte("short"), Expires: time.Now().Add(time.Second)})
	x := m.want(t, "short")
	send(t, d, topic, text("long"))
	x.Settle(cloudevents.Retried(nil, 1100*time.Millisecond))
	m.want(t, "long").Settle(cloudevents.Retried(nil, 1100*time.Millisecond))
	m.want(t, "long").Settle(cloudevents.Acked())
	m.none(t, 200*time.Millisecond)
}

func quorum(t *testing.T, url string) {
	s := pubsub.Subscription{Topic: conform.Unique(t), Metadata: map[string]string{"queueType": "quorum"}}
	d := bus(t, url, s, map[string]string{"deletedWhenUnused": "false"})
	m := subscribe(t, d, s)
	send(t, d, s.Topic, text("x"), text("y"))
	x, y := m.want(t, "x"), m.want(t, "y")
	y.Settle(cloudevents.Acked())
	x.Settle(cloudevents.Left("for a moment"))
	x = m.want(t, "x")
	if x.Attempt != 1 {
		t.Errorf("attempt %d after leaving, want 1", x.Attempt)
	}
	x.Settle(cloudevents.Retried(nil, 20*time.Millisecond))
	if x = m.want(t, "x"); x.Attempt != 2 {
		t.Errorf("attempt %d, want 2", x.Attempt)
	}
	x.Settle(cloudevents.Acked())
	m.none(t, 50*time.Millisecond)
	_, _ = server(t, url).QueueDelete("app-"+s.Topic+".retry.20", false, false, false)
}

func routingKeys(t *testing.T, url string) {
	s := pubsub.Subscription{Topic: conform.Unique(t), Metadata: map[string]string{"routingKey": "a.*,b"}}
	d := bus(t, url, s, map[string]string{"exchangeKind": "topic"})
	m := subscribe(t, d, s)
	for _, key := range []string{"c", "a.x.y", "a.1", "", "b"} {
		send(t, d, s.Topic, pubsub.Message{Data: []byte(key), Metadata: map[string]string{"routingKey": key, "kept": "yes", "priority": "3"}})
	}
	for _, key := range []string{"a.1", "b"} {
		x := m.want(t, key)
		defer func() { // a retry comes back whatever the keys
			x.Settle(cloudevents.Retried(nil, 10*time.Millisecond))
			m.want(t, key).Settle(cloudevents.Acked())
		}()
		if diff := cmp.Diff(map[string]string{"kept": "yes"}, x.Metadata); diff != "" {
			t.Errorf("metadata (-want +got)\n%s", diff)
		}
	}
	m.none(t, 50*time.Millisecond)
}

// refused has a queue that takes no more: the server's nack is a failure.
func refused(t *testing.T, url string) {
	topic := conform.Unique(t)
	d := bus(t, url, pubsub.Subscription{Topic: topic}, nil)
	ch := server(t, url)
	q, err := ch.QueueDeclare("full-"+topic, false, true, true, false, amqp.Table{"x-max-length": int32(0), "x-overflow": "reject-publish"})
	if err != nil {
		t.Fatal(err)
	}
	if err := ch.QueueBind(q.Name, "", topic, false, nil); err != nil {
		t.Fatal(err)
	}
	if err := d.Publish(t.Context(), topic, []pubsub.Message{text("1"), text("2")}); err == nil || kindIn(err) != fault.Unavailable {
		t.Errorf("publish: %v, want it to be unavailable", err)
	}
}

func nobody(t *testing.T, url string) {
	d := opened(t, url, nil)
	defer shut(t, d)
	topic := conform.Unique(t)
	send(t, d, topic, text("for nobody"))
	_ = server(t, url).ExchangeDelete(topic, false, false)
}

func fromDapr(t *testing.T, url string) {
	topic := conform.Unique(t)
	d := bus(t, url, pubsub.Subscription{Topic: topic}, nil)
	put(t, url, topic, amqp.Publishing{ContentType: "text/plain", Body: []byte(`{"id":"1"}`)})
	m := subscribe(t, d, pubsub.Subscription{Topic: topic})
	x := m.want(t, `{"id":"1"}`)
	if len(x.Metadata) != 0 || x.Key != "" || x.Attempt != 1 {
		t.Errorf("delivery %+v", x)
	}
	x.Settle(cloudevents.Acked())
	ch := server(t, url)
	q, err := ch.QueueDeclare("dapr-"+topic, true, true, false, false, amqp.Table{"x-queue-type": "classic"})
	if err != nil {
		t.Fatal(err)
	}
	if err := ch.QueueBind(q.Name, "", topic, false, nil); err != nil {
		t.Fatal(err)
	}
	messages, err := ch.Consume(q.Name, q.Name, false, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	send(t, d, topic, pubsub.Message{
		Data: []byte("ours"), ContentType: "application/cloudevents+json", Key: "k", Expires: time.Now().Add(time.Minute),
		Metadata: map[string]string{"messageId": "m", "priority": "4"},
	})
	y := <-messages
	if string(y.Body) != "ours" || y.ContentType != "application/cloudevents+json" || y.MessageId != "m" || y.Priority != 4 || y.Expiration == "" || y.DeliveryMode != 2 {
		t.Errorf("message %+v", y)
	}
}

func wrongSubscriptions(t *testing.T, url string) {
	d := opened(t, url, nil)
	defer shut(t, d)
	for name, value := range map[string]string{
		"queueType": "stream", "singleActiveConsumer": "maybe", "maxPriority": "high", "maxLen": "-1", "maxLenBytes": "x",
	} {
		m := subscribe(t, d, pubsub.Subscription{Topic: "t", Metadata: map[string]string{name: value}})
		if err := <-m.done; err == nil || fault.KindOf(err) != fault.Invalid {
			t.Errorf("%s %s: %v, want it to be invalid", name, value, err)
		}
	}
	m := subscribe(t, d, pubsub.Subscription{Topic: "t", Metadata: map[string]string{"queueType": "quorum"}})
	if err := <-m.done; err == nil || fault.KindOf(err) != fault.Invalid {
		t.Errorf("quorum and deletedWhenUnused: %v, want it to be invalid", err)
	}
}

package nats

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/penstock-io/penstock/bindings"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/test/fake/natsserver"
)

const patience = 20 * time.Second

// log is a logger whose text can be read.
type log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// opened opens the component as one process.
func opened(t *testing.T, url string, l *log, more ...string) bindings.Driver {
	t.Helper()
	items := []config.Item{{Name: "natsURL", Value: url}}
	for i := 0; i+1 < len(more); i += 2 {
		items = append(items, config.Item{Name: more[i], Value: more[i+1]})
	}
	if l == nil {
		l = &log{}
	}
	env := component.Env{AppID: "app", Name: "in", Logger: slog.New(slog.NewTextHandler(l, nil)), Shared: &component.Shared{}}
	d, err := Component.Open(t.Context(), env, items)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closed(t, d) })
	return d
}

func closed(t *testing.T, d bindings.Driver) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
	defer cancel()
	if err := d.Close(ctx); err != nil {
		t.Errorf("close: %v", err)
	}
}

// reading keeps a Read going until the test ends or stop is called.
func reading(t *testing.T, d bindings.Driver) (got <-chan *cloudevents.Delivery, stop func()) {
	t.Helper()
	c, ended := make(chan *cloudevents.Delivery), make(chan error, 1)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	go func() {
		ended <- d.(bindings.Reader).Read(ctx, func(ctx context.Context, x *cloudevents.Delivery) error {
			select {
			case c <- x:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("read: %v", err)
		}
	})
	t.Cleanup(stop)
	if b, ok := d.(*core); ok {
		until(t, "the binding listens", func() bool { return b.listening.Load() > 0 })
	}
	return c, stop
}

// until waits for something to come true.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for last := time.Now().Add(patience); !ok(); <-tick.C {
		if time.Now().After(last) {
			t.Fatalf("%s: not within %s", what, patience)
		}
	}
}

func next(t *testing.T, got <-chan *cloudevents.Delivery) *cloudevents.Delivery {
	t.Helper()
	select {
	case x := <-got:
		return x
	case <-time.After(patience):
		t.Fatal("nothing came")
		return nil
	}
}

// asked sends a request and hands on what comes back.
func asked(t *testing.T, nc *nats.Conn, subject, text string) <-chan *nats.Msg {
	t.Helper()
	inbox := nats.NewInbox()
	replies := make(chan *nats.Msg, 8)
	sub, err := nc.ChanSubscribe(inbox, replies)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sub.Unsubscribe() })
	if err := nc.PublishRequest(subject, inbox, []byte(text)); err != nil {
		t.Fatal(err)
	}
	return replies
}

func reply(t *testing.T, replies <-chan *nats.Msg) string {
	t.Helper()
	select {
	case m := <-replies:
		return fmt.Sprintf("%s|%s|%s|%s", m.Data, m.Header.Get("Content-Type"), m.Header.Get(errorHeader), m.Header.Get(codeHeader))
	case <-time.After(patience):
		return "nothing"
	}
}

func TestAnswers(t *testing.T) {
	url := natsserver.Start(t, natsserver.Options{MaxPayload: 64 << 10}).URL()
	nc := raw(t, url)
	d := opened(t, url, nil, "subject", "ask.*")
	got, _ := reading(t, d)
	rows := []struct {
		name    string
		answer  []byte
		outcome cloudevents.Outcome
		want    string
	}{
		{"answered", []byte("pong"), cloudevents.Acked(), "pong|text/x||"},
		{"taken", nil, cloudevents.Acked(), "|||"},
		{"dead-lettered", nil, cloudevents.Outcome{Verdict: cloudevents.Ack, Reason: "the app said DROP"}, "||dropped|422"},
		{"dropped", []byte("x"), cloudevents.Dropped("no", fault.New(fault.NotFound, "secret text")), "||not found|404"},
		{"dropped without an error", nil, cloudevents.Dropped("no", nil), "||dropped|422"},
		{"try again", nil, cloudevents.Retried(fault.New(fault.Timeout, "slow"), time.Second), "||timeout|504"},
		{"try again, they say", nil, cloudevents.Retried(nil, time.Second), "||unavailable|503"},
		{"too long", make([]byte, 65<<10), cloudevents.Acked(), "||the answer is longer than max_payload|500"},
	}
	for _, r := range rows {
		replies := asked(t, nc, "ask.it", "ping")
		x := next(t, got)
		if r.answer != nil {
			x.Answer("text/x", r.answer)
		}
		x.Settle(r.outcome)
		x.Settle(cloudevents.Acked())
		if s := reply(t, replies); s != r.want {
			t.Errorf("%s: the reply is %s, want %s", r.name, s, r.want)
		}
		if len(replies) > 0 {
			t.Errorf("%s: a second reply", r.name)
		}
	}
	if n := d.(*core).inbox.count; n != 0 {
		t.Errorf("%d messages are still held", n)
	}
}

// TestAnswersAreTurnedOff has the publisher of a stream, whose reply subject is
// for the stream.
func TestAnswersAreTurnedOff(t *testing.T) {
	url := natsserver.Start(t, natsserver.Options{}).URL()
	nc := raw(t, url)
	got, _ := reading(t, opened(t, url, nil, "subject", "ask", "answer", "false"))
	replies := asked(t, nc, "ask", "ping")
	x := next(t, got)
	if x.Answer != nil {
		t.Error("an answer is wanted")
	}
	x.Settle(cloudevents.Retried(nil, 10*time.Millisecond))
	if x = next(t, got); x.Attempt != 2 {
		t.Errorf("attempt %d, want 2", x.Attempt)
	}
	x.Settle(cloudevents.Acked())
	if len(replies) > 0 {
		t.Error("there is a reply")
	}
}

func TestRequestToAServiceAndItsErrors(t *testing.T) {
	url := natsserver.Start(t, natsserver.Options{}).URL()
	got, _ := reading(t, opened(t, url, nil, "subject", "ask"))
	out := opened(t, url, nil, "publishSubject", "ask", "requestTimeout", "20s").(bindings.Invoker)
	type result struct {
		r   *bindings.Response
		err error
	}
	ask := func(answer func(*cloudevents.Delivery)) result {
		done := make(chan result, 1)
		go func() {
			r, err := out.Invoke(t.Context(), &bindings.Request{
				Operation: "request", Data: []byte("ping"), Metadata: map[string]string{"traceparent": "t", "partitionKey": "k"},
			})
			done <- result{r, err}
		}()
		x := next(t, got)
		if x.Metadata["traceparent"] != "t" || x.Metadata["subject"] != "ask" || x.Key != "k" || string(x.Body) != "ping" {
			t.Errorf("received %q with %v and key %q", x.Body, x.Metadata, x.Key)
		}
		answer(x)
		return <-done
	}
	ok := ask(func(x *cloudevents.Delivery) {
		x.Answer("application/json", []byte(`{"a":1}`))
		x.Settle(cloudevents.Acked())
	})
	if ok.err != nil || string(ok.r.Data) != `{"a":1}` || ok.r.Metadata["Content-Type"] != "application/json" {
		t.Errorf("answer %+v, %v", ok.r, ok.err)
	}
	for _, kind := range []fault.Kind{fault.NotFound, fault.Invalid, fault.Denied} {
		no := ask(func(x *cloudevents.Delivery) { x.Settle(cloudevents.Dropped("", fault.New(kind, "x"))) })
		if no.err == nil || fault.KindOf(no.err) != kind {
			t.Errorf("answer %+v, %v; want kind %v", no.r, no.err, kind)
		}
	}
}

func TestRequestTakesNoLongerThanAllowed(t *testing.T) {
	url := natsserver.Start(t, natsserver.Options{}).URL()
	nc := raw(t, url)
	if _, err := nc.Subscribe("mute", func(*nats.Msg) {}); err != nil || nc.Flush() != nil {
		t.Fatal(err)
	}
	out := opened(t, url, nil, "publishSubject", "mute", "requestTimeout", "50ms").(bindings.Invoker)
	if _, err := out.Invoke(t.Context(), &bindings.Request{Operation: "request"}); fault.KindOf(err) != fault.Timeout {
		t.Errorf("%v, want a timeout", err)
	}
}

func TestLostIsLogged(t *testing.T) {
	url := natsserver.Start(t, natsserver.Options{}).URL()
	nc := raw(t, url)
	l := &log{}
	d := opened(t, url, l, "subject", "orders", "maxPending", "3")
	got, stop := reading(t, d)
	for i := range 5 {
		if err := nc.Publish("orders", []byte{byte('0' + i)}); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "the loss is logged", func() bool { return strings.Contains(l.String(), "they come faster") })
	first := next(t, got)
	if string(first.Body) != "0" {
		t.Errorf("received %q first", first.Body)
	}
	next(t, got).Settle(cloudevents.Acked())
	next(t, got).Settle(cloudevents.Acked())
	until(t, "the number is logged", func() bool { return strings.Contains(l.String(), "count=2") })
	if err := nc.Publish("orders", []byte("later")); err != nil {
		t.Fatal(err)
	}
	x := next(t, got)
	x.Settle(cloudevents.Retried(nil, time.Hour))
	first.Settle(cloudevents.Left("stopping"))
	stop()
	closed(t, d)
	if text := l.String(); !strings.Contains(text, "core NATS does not keep them") || strings.Count(text, "count=2") != 2 {
		t.Errorf("log:\n%s", text)
	}
}

// TestStopTellsWhoAsked has requests that are under way, left or not handed out
// when the binding stops.
func TestStopTellsWhoAsked(t *testing.T) {
	url := natsserver.Start(t, natsserver.Options{}).URL()
	nc := raw(t, url)
	d := opened(t, url, nil, "subject", "ask")
	got, stop := reading(t, d)
	a := asked(t, nc, "ask", "a")
	left := next(t, got)
	b := asked(t, nc, "ask", "b")
	held := next(t, got)
	c := asked(t, nc, "ask", "c")
	until(t, "the third one is there", func() bool {
		in := d.(*core).inbox
		in.mu.Lock()
		defer in.mu.Unlock()
		return in.count == 3
	})
	left.Settle(cloudevents.Left("stopping"))
	stop()
	held.Settle(cloudevents.Left("stopping"))
	closed(t, d)
	for _, replies := range []<-chan *nats.Msg{a, b, c} {
		if s := reply(t, replies); s != "||stopping|503" {
			t.Errorf("the reply is %s", s)
		}
	}
}

func TestGroups(t *testing.T) {
	url := natsserver.Start(t, natsserver.Options{}).URL()
	nc := raw(t, url)
	type member struct {
		got <-chan *cloudevents.Delivery
	}
	var shared, all []member
	for range 2 {
		g, _ := reading(t, opened(t, url, nil, "subject", "orders"))
		shared = append(shared, member{g})
		g, _ = reading(t, opened(t, url, nil, "subject", "orders", "broadcast", "true"))
		all = append(all, member{g})
	}
	const n = 20
	var counts [4]int
	for i := range n {
		if err := nc.Publish("orders", fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
		for m := range all {
			next(t, all[m].got).Settle(cloudevents.Acked())
			counts[2+m]++
		}
		select {
		case x := <-shared[0].got:
			x.Settle(cloudevents.Acked())
			counts[0]++
		case x := <-shared[1].got:
			x.Settle(cloudevents.Acked())
			counts[1]++
		case <-time.After(patience):
			t.Fatal("nobody of the group got it")
		}
	}
	if counts[0]+counts[1] != n || counts[0] == 0 || counts[1] == 0 {
		t.Errorf("the members of a group got %v of %d", counts[:2], n)
	}
	select {
	case <-shared[0].got:
		t.Error("a message came twice to the group")
	case <-shared[1].got:
		t.Error("a message came twice to the group")
	case <-time.After(100 * time.Millisecond):
	}
}

func TestRefusedSubjects(t *testing.T) {
	url := natsserver.Start(t, natsserver.Options{Config: `
authorization {
  users = [{user: u, password: p, permissions: {publish: {allow: ["open", "_INBOX.>", "$JS.API.INFO"]}, subscribe: {allow: ["open", "_INBOX.>"]}}}]
}`}).URL()
	login := []string{"username", "u", "password", "p"}
	d := opened(t, url, nil, append(login, "subject", "secret", "requestTimeout", "2s")...)
	err := d.(bindings.Reader).Read(t.Context(), nil)
	if fault.KindOf(err) != fault.Denied {
		t.Errorf("read: %v, want denied", err)
	}
	for _, op := range operations() {
		_, err := d.(bindings.Invoker).Invoke(t.Context(), &bindings.Request{Operation: op, Metadata: map[string]string{"subject": "secret"}})
		if fault.KindOf(err) != fault.Denied {
			t.Errorf("%s: %v, want denied", op, err)
		}
		_, err = d.(bindings.Invoker).Invoke(t.Context(), &bindings.Request{Operation: "create", Metadata: map[string]string{"subject": "open"}})
		if err != nil {
			t.Errorf("create to what is allowed, after a refusal: %v", err)
		}
	}
}

// TestServerRestart has a server that goes and comes back while the binding
// reads.
func TestServerRestart(t *testing.T) {
	s := natsserver.Start(t, natsserver.Options{})
	d := opened(t, s.URL(), nil, "subject", "orders", "publishSubject", "orders")
	got, _ := reading(t, d)
	create := func(text string) error {
		_, err := d.(bindings.Invoker).Invoke(t.Context(), &bindings.Request{Operation: "create", Data: []byte(text)})
		return err
	}
	if err := create("one"); err != nil {
		t.Fatal(err)
	}
	held := next(t, got)
	s.Stop()
	if err := create("lost"); err == nil || !fault.Retriable(err) {
		t.Errorf("create without a server: %v, want an error that trying again may help", err)
	}
	held.Settle(cloudevents.Retried(nil, time.Millisecond)) // this process has it still
	if x := next(t, got); string(x.Body) != "one" || x.Attempt != 2 {
		t.Errorf("received %q as attempt %d", x.Body, x.Attempt)
	} else {
		x.Settle(cloudevents.Acked())
	}
	s.Restart()
	until(t, "messages go through again", func() bool { return create("two") == nil })
	if x := next(t, got); string(x.Body) != "two" {
		t.Errorf("received %q", x.Body)
	} else {
		x.Settle(cloudevents.Acked())
	}
}

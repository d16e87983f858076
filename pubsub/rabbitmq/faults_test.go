package rabbitmq

import (
	"context"
	"net/url"
	"strconv"
	"testing"
	"time"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/pubsub"
	"github.com/penstock-io/penstock/test/conform"
	"github.com/penstock-io/penstock/test/fake"
)

// takeOver has two processes, one of which dies with messages.
func takeOver(t *testing.T, url string) {
	topic := conform.Unique(t)
	kept := map[string]string{"deletedWhenUnused": "false"} // the other may come after the one has gone
	d := bus(t, url, pubsub.Subscription{Topic: topic}, kept)
	net, through := network(t, url)
	one := opened(t, through, kept)
	m := subscribe(t, one, pubsub.Subscription{Topic: topic})
	batch := make([]pubsub.Message, 50)
	for i := range batch {
		batch[i] = text(strconv.Itoa(i))
	}
	send(t, d, topic, batch...)
	held := m.want(t, "0")
	other := subscribe(t, d, pubsub.Subscription{Topic: topic})
	other.none(t, 20*time.Millisecond)
	began := time.Now()
	net.Set(fake.Network{Reset: true}) // as kill -9 does
	got := map[string]bool{}
	for len(got) < len(batch) {
		select {
		case x := <-other.got:
			got[string(x.Body)] = true
			x.Settle(cloudevents.Acked())
		case <-time.After(while):
			t.Fatalf("%d of %d came", len(got), len(batch))
		}
		if len(got) == 1 && time.Since(began) > 5*time.Second {
			t.Errorf("taken over after %s", time.Since(began))
		}
		held.Settle(cloudevents.Acked()) // on a channel that is gone
		m.stop()
	}
	shut(t, one)
}

// network puts a network that can fail before a server.
func network(t testing.TB, server string) (p *fake.Proxy, through string) {
	t.Helper()
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	if p, err = fake.NewProxy(u.Host); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	u.Host = p.Addr()
	return p, u.String()
}

// outage loses the connections while messages are published and delivered, for
// a moment and for longer: nothing is lost, and all comes within 5 s of its end.
func outage(t *testing.T, url string) {
	topic := conform.Unique(t)
	bus(t, url, pubsub.Subscription{Topic: topic}, map[string]string{"deletedWhenUnused": "false"})
	net, through := network(t, url)
	d := opened(t, through, map[string]string{"deletedWhenUnused": "false"})
	defer shut(t, d)
	m := subscribe(t, d, pubsub.Subscription{Topic: topic})
	send(t, d, topic, text("held"))
	held := m.want(t, "held")
	net.Set(fake.Network{Reset: true})
	if err := <-m.done; err == nil || !fault.Retriable(err) {
		t.Fatalf("subscribe returned %v", err)
	}
	began := time.Now()
	if err := d.Publish(t.Context(), topic, []pubsub.Message{text("lost")}); err == nil || kindIn(err) != fault.Unavailable {
		t.Errorf("publish: %v, want it to be unavailable", err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("publish failed after %s", took)
	}
	m = subscribe(t, d, pubsub.Subscription{Topic: topic}) // it waits for the connection
	net.Set(fake.Network{})
	began = time.Now()
	again := m.want(t, "held")
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it came %s after the network did", took)
	}
	if again.Attempt != 1 {
		t.Errorf("attempt %d after a lost connection, want 1", again.Attempt)
	}
	held.Settle(cloudevents.Acked()) // it has the tag of the new one
	m.none(t, 50*time.Millisecond)
	again.Settle(cloudevents.Retried(nil, time.Millisecond)) // would not come if the old outcome had counted
	m.want(t, "held").Settle(cloudevents.Acked())
	send(t, d, topic, text("after"))
	m.want(t, "after").Settle(cloudevents.Acked())
}

// silence has a network that swallows everything: callers go when their time is
// over, and Close does too.
func silence(t *testing.T, url string) {
	topic := conform.Unique(t)
	bus(t, url, pubsub.Subscription{Topic: topic}, nil)
	net, through := network(t, url)
	d := opened(t, through, map[string]string{"heartBeat": "1s"})
	m := subscribe(t, d, pubsub.Subscription{Topic: topic})
	send(t, d, topic, text("1"))
	m.want(t, "1").Settle(cloudevents.Acked())
	net.Set(fake.Network{Silent: true})
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	began := time.Now()
	if err := d.Publish(ctx, topic, []pubsub.Message{text("2")}); err == nil || kindIn(err) != fault.Timeout || time.Since(began) > 5*time.Second {
		t.Errorf("publish: %v after %s, want a time-out", err, time.Since(began))
	}
	if err := <-m.done; err == nil { // the heartbeat finds out
		t.Error("subscribe goes on")
	}
	ctx, cancel = context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	began = time.Now()
	_ = d.Close(ctx) // with or without an error
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("close took %s", took)
	}
}

// restarts restarts the server three times while messages are published one after
// the other: each that was confirmed comes.
func restarts(t *testing.T, url string, stop, start func()) {
	topic := conform.Unique(t)
	sub := pubsub.Subscription{Topic: topic, Group: "app"}
	d := opened(t, url, map[string]string{"deletedWhenUnused": "false"})
	defer shut(t, d)
	if err := d.(pubsub.Preparer).Prepare(t.Context(), sub); err != nil {
		t.Fatal(err)
	}
	m := subscribe(t, d, sub)
	confirmed, got := map[string]bool{}, map[string]bool{}
	for i := range 60 {
		if i%20 == 10 {
			stop()
			if err := d.Publish(t.Context(), topic, []pubsub.Message{text("x")}); err == nil || kindIn(err) != fault.Unavailable {
				t.Fatalf("publish without a server: %v, want it to be unavailable", err)
			}
			start()
		}
		body := strconv.Itoa(i)
		for d.Publish(t.Context(), topic, []pubsub.Message{text(body)}) != nil { // until there is a connection
		}
		confirmed[body] = true
	}
	for len(got) < len(confirmed) {
		select {
		case x := <-m.got:
			x.Settle(cloudevents.Acked())
			got[string(x.Body)] = true
		case err := <-m.done:
			if err == nil || !fault.Retriable(err) {
				t.Fatalf("subscribe returned %v", err)
			}
			m = subscribe(t, d, sub)
		case <-time.After(while):
			t.Fatalf("%d of %d came", len(got), len(confirmed))
		}
	}
}

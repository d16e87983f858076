package sqlite

import (
	"context"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/pubsub"
)

// TestKeyOrderModel settles random deliveries in random ways, restarts the
// subscription and reopens the file, and checks that a key has at most one
// delivery under way and moves forward only.
func TestKeyOrderModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		m := &model{rt: rt, t: t, d: fresh(t), last: map[string]int{}, sent: map[string]int{}, loose: map[string]bool{}}
		m.start()
		rt.Repeat(map[string]func(*rapid.T){
			"publish": m.publish, "take": func(*rapid.T) { m.take(2 * time.Millisecond) }, "settle": m.settle,
			"restart": func(*rapid.T) { m.restart(false) }, "reopen": func(*rapid.T) { m.restart(true) },
		})
		m.finish()
	})
}

type model struct {
	rt    *rapid.T
	t     *testing.T
	d     *driver
	w     *watcher
	sent  map[string]int  // messages published by key
	last  map[string]int  // messages done by key
	loose map[string]bool // unkeyed messages done
	under []*cloudevents.Delivery
}

func (m *model) start() {
	ctx, cancel := context.WithCancel(m.t.Context())
	w := &watcher{got: make(chan *cloudevents.Delivery), done: make(chan error, 1), stop: cancel}
	d := m.d
	go func() {
		w.done <- d.Subscribe(ctx, pubsub.Subscription{Topic: "t", Group: "g"}, func(ctx context.Context, x *cloudevents.Delivery) error {
			select {
			case w.got <- x:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	m.w = w
}

func (m *model) publish(rt *rapid.T) {
	key := rapid.SampledFrom([]string{"", "a", "b", "c"}).Draw(rt, "key")
	n := rapid.IntRange(1, 4).Draw(rt, "n")
	var batch []pubsub.Message
	for range n {
		m.sent[key]++
		batch = append(batch, text(key, fmt.Sprint(m.sent[key])))
	}
	if err := m.d.Publish(m.t.Context(), "t", batch); err != nil {
		rt.Fatal(err)
	}
}

// take waits a little for a delivery and checks that it may come.
func (m *model) take(wait time.Duration) bool {
	var d *cloudevents.Delivery
	select {
	case d = <-m.w.got:
	case err := <-m.w.done:
		m.rt.Fatalf("subscribe returned %v", err)
	case <-time.After(wait):
		return false
	}
	for _, o := range m.under {
		if o.Key == d.Key && (d.Key != "" || string(o.Body) == string(d.Body)) {
			m.rt.Fatalf("key %q has two deliveries under way: %s and %s", d.Key, o.Body, d.Body)
		}
	}
	if want := fmt.Sprint(m.last[d.Key] + 1); d.Key != "" && string(d.Body) != want {
		m.rt.Fatalf("key %q: received %s, want %s", d.Key, d.Body, want)
	}
	if d.Key == "" && m.loose[string(d.Body)] {
		m.rt.Fatalf("message %s came again after its acknowledgement", d.Body)
	}
	m.under = append(m.under, d)
	return true
}

func (m *model) settle(rt *rapid.T) {
	if len(m.under) == 0 {
		return
	}
	i := rapid.IntRange(0, len(m.under)-1).Draw(rt, "which")
	d := m.under[i]
	m.under = append(m.under[:i], m.under[i+1:]...)
	switch rapid.SampledFrom([]string{"ack", "leave", "retry"}).Draw(rt, "outcome") {
	case "ack":
		m.ack(d)
	case "retry":
		d.Settle(cloudevents.Retried(nil, time.Millisecond))
	default:
		d.Settle(cloudevents.Left(""))
	}
}

func (m *model) ack(d *cloudevents.Delivery) {
	m.last[d.Key]++
	if d.Key == "" {
		m.loose[string(d.Body)] = true
	}
	d.Settle(cloudevents.Acked())
}

// restart subscribes anew. What is under way stays so, unless the file is
// closed: then it comes again.
func (m *model) restart(reopen bool) {
	m.w.stop()
	if err := <-m.w.done; err != nil {
		m.rt.Fatal(err)
	}
	if reopen {
		if err := m.d.Close(m.t.Context()); err != nil {
			m.rt.Fatal(err)
		}
		m.d = openAt(m.t, m.d.b.db.Path())
		m.under = nil
	}
	m.start()
}

// finish acknowledges everything that is left.
func (m *model) finish() {
	for _, d := range m.under {
		m.ack(d)
	}
	m.under = nil
	for sum(m.last) < sum(m.sent) {
		if !m.take(10 * time.Second) {
			m.rt.Fatalf("%d of %d messages came", sum(m.last), sum(m.sent))
		}
		m.ack(m.under[0])
		m.under = nil
	}
	m.w.stop()
	<-m.w.done
	until(m.t, "file is empty", func() bool { return number(m.t, m.d, "SELECT count(*) FROM pubsub_pending") == 0 })
}

func sum(counts map[string]int) (n int) {
	for _, c := range counts {
		n += c
	}
	return n
}

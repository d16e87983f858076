package mqtt

import (
	"context"
	"errors"
	"strconv"
	"testing"
	"time"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/pubsub"
	"github.com/penstock-io/penstock/test/conform"
	"github.com/penstock-io/penstock/test/fake"
	"github.com/penstock-io/penstock/test/fake/mqttserver"
)

const patience = 30 * time.Second

// each runs a test with each version of the protocol.
func each(t *testing.T, test func(t *testing.T, def component.Definition)) {
	t.Helper()
	for _, def := range components() {
		t.Run(def.Type, func(t *testing.T) {
			t.Parallel()
			test(t, def)
		})
	}
}

// member is a subscription that is kept going as the Bus does.
type member struct {
	got     chan *cloudevents.Delivery // without greetings
	greeted chan struct{}
	lost    chan struct{} // told of each end of the subscription
	stop    func()
}

func reading(t *testing.T, d pubsub.Driver, s pubsub.Subscription) *member {
	t.Helper()
	ended := make(chan struct{})
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	m := &member{
		got: make(chan *cloudevents.Delivery, 1024), greeted: make(chan struct{}, 1), lost: make(chan struct{}, 4096),
		stop: func() { cancel(); <-ended },
	}
	t.Cleanup(m.stop)
	if s.Group == "" {
		s.Group = "group"
	}
	go func() {
		defer close(ended)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			err := d.Subscribe(ctx, s, func(ctx context.Context, x *cloudevents.Delivery) error {
				if string(x.Body) == greeting {
					x.Settle(cloudevents.Acked())
					select {
					case m.greeted <- struct{}{}:
					default:
					}
					return nil
				}
				select {
				case m.got <- x:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			})
			if err != nil {
				t.Logf("subscribe: %v", err)
				m.lost <- struct{}{}
			}
			<-tick.C
		}
	}()
	return m
}

func (m *member) next(t *testing.T) *cloudevents.Delivery {
	t.Helper()
	select {
	case x := <-m.got:
		return x
	case <-time.After(patience):
		t.Fatal("nothing came")
		return nil
	}
}

func (m *member) want(t *testing.T, body string) *cloudevents.Delivery {
	t.Helper()
	x := m.next(t)
	if string(x.Body) != body {
		t.Fatalf("received %q, want %q", x.Body, body)
	}
	return x
}

// none checks that nothing comes for a while.
func (m *member) none(t *testing.T) {
	t.Helper()
	select {
	case x := <-m.got:
		t.Errorf("received %q, want nothing", x.Body)
	case <-time.After(200 * time.Millisecond):
	}
}

func publish(t *testing.T, d pubsub.Driver, topic string, bodies ...string) {
	t.Helper()
	last := time.Now().Add(patience)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for _, body := range bodies {
		for {
			err := d.Publish(t.Context(), topic, []pubsub.Message{{Data: []byte(body)}})
			if err == nil {
				break
			}
			if time.Now().After(last) || !kindOf(err).Retriable() {
				t.Fatal(err)
			}
			<-tick.C
		}
	}
}

// greeting is a message that members do not show.
const greeting = "greeting"

// greet publishes until the member hears of it: its session is there then.
func greet(t *testing.T, m *member, d pubsub.Driver, topic string) {
	t.Helper()
	select {
	case <-m.greeted: // of before
	default:
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for last := time.After(patience); ; {
		publish(t, d, topic, greeting)
		select {
		case <-m.greeted:
			return
		case <-tick.C:
		case <-last:
			t.Fatal("nothing is received")
		}
	}
}

func kindOf(err error) fault.Kind {
	if be, ok := errors.AsType[*pubsub.BatchError](err); ok {
		err = be.Errs[0]
	}
	return fault.KindOf(err)
}

func proxy(t *testing.T, s *mqttserver.Server) *fake.Proxy {
	t.Helper()
	p, err := fake.NewProxy(s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func TestLostConnectionWithBacklog(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, def component.Definition) {
		s := mqttserver.Start(t, mqttserver.Options{})
		p := proxy(t, s)
		d, other := opened(t, def, "mqtt://"+p.Addr()), opened(t, def, s.URL())
		t.Cleanup(func() { closed(t, d); closed(t, other) })
		m := reading(t, d, pubsub.Subscription{Topic: "t"})
		greet(t, m, other, "t")
		publish(t, other, "t", "a", "b", "c")
		a, b, c := m.want(t, "a"), m.want(t, "b"), m.want(t, "c")
		p.Set(fake.Network{Reset: true})
		const n = 50
		for i := range n {
			publish(t, other, "t", strconv.Itoa(i))
		}
		<-m.lost
		a.Settle(cloudevents.Acked()) // while there is nobody to tell
		p.Set(fake.Network{})
		got := map[string]int{}
		for range n {
			x := m.next(t)
			got[string(x.Body)]++
			x.Settle(cloudevents.Acked())
		}
		if len(got) != n || got["a"]+got["b"]+got["c"] > 0 {
			t.Errorf("received %v, want each of what was published meanwhile once, and nothing that is held", got)
		}
		c.Settle(cloudevents.Retried(nil, 10*time.Millisecond))
		if x := m.want(t, "c"); x.Attempt != 2 {
			t.Errorf("attempt %d, want 2", x.Attempt)
		} else {
			x.Settle(cloudevents.Acked())
		}
		b.Settle(cloudevents.Acked())
		m.none(t)
		m.stop()
		again := reading(t, d, pubsub.Subscription{Topic: "t"})
		again.none(t)
	})
}

// TestServerForgets has a server that lost its sessions: what is held here is all
// that there is of it.
func TestServerForgets(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, def component.Definition) {
		s := mqttserver.Start(t, mqttserver.Options{})
		d := opened(t, def, s.URL())
		t.Cleanup(func() { closed(t, d) })
		m := reading(t, d, pubsub.Subscription{Topic: "t"})
		greet(t, m, d, "t")
		publish(t, d, "t", "held", "retried")
		held := m.want(t, "held")
		m.want(t, "retried").Settle(cloudevents.Retried(nil, 10*time.Millisecond))
		again := m.want(t, "retried")
		s.Kill()
		if err := d.Publish(t.Context(), "t", []pubsub.Message{{Data: []byte("x")}}); err == nil || !kindOf(err).Retriable() {
			t.Errorf("publish without a server: %v, want an error that trying again may help", err)
		}
		again.Settle(cloudevents.Retried(nil, 0))
		s.Restart()
		m.want(t, "retried").Settle(cloudevents.Acked())
		greet(t, m, d, "t")
		held.Settle(cloudevents.Acked())
		publish(t, d, "t", "new")
		m.want(t, "new").Settle(cloudevents.Acked())
		m.none(t)
	})
}

func TestStandbyTakesOver(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, def component.Definition) {
		s := mqttserver.Start(t, mqttserver.Options{})
		a, b := opened(t, def, s.URL()), opened(t, def, s.URL())
		t.Cleanup(func() { closed(t, a); closed(t, b) })
		first := reading(t, a, pubsub.Subscription{Topic: "t"})
		greet(t, first, a, "t")
		second := reading(t, b, pubsub.Subscription{Topic: "t"})
		if err := b.Prepare(t.Context(), pubsub.Subscription{Topic: "t", Group: "group"}); err != nil {
			t.Errorf("prepare what another prepared: %v", err)
		}
		for i := range 20 {
			publish(t, b, "t", strconv.Itoa(i))
			first.want(t, strconv.Itoa(i)).Settle(cloudevents.Acked())
		}
		second.none(t)
		publish(t, b, "t", "held")
		first.want(t, "held")
		first.stop()
		closed(t, a)
		second.want(t, "held").Settle(cloudevents.Acked())
		publish(t, b, "t", "after")
		second.want(t, "after").Settle(cloudevents.Acked())
		second.none(t)
	})
}

// TestHangingOneIsReplaced has a process whose network holds everything back, so
// that nobody hears of it, and that comes back later.
func TestHangingOneIsReplaced(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, def component.Definition) {
		s := mqttserver.Start(t, mqttserver.Options{})
		p := proxy(t, s)
		a, b := opened(t, def, "mqtt://"+p.Addr()), opened(t, def, s.URL())
		t.Cleanup(func() { closed(t, a); closed(t, b) })
		first := reading(t, a, pubsub.Subscription{Topic: "t"})
		greet(t, first, b, "t")
		second := reading(t, b, pubsub.Subscription{Topic: "t"})
		publish(t, b, "t", "held")
		first.want(t, "held")
		p.Set(fake.Network{Silent: true})
		start := time.Now()
		second.want(t, "held").Settle(cloudevents.Acked())
		t.Logf("taken over after %s", time.Since(start))
		p.Set(fake.Network{})
		for i := range 30 {
			publish(t, b, "t", strconv.Itoa(i))
			second.want(t, strconv.Itoa(i)).Settle(cloudevents.Acked())
		}
		first.none(t)
		second.none(t)
		second.stop()
		closed(t, b)
		greet(t, first, a, "t") // the server of these tests loses what comes while a session moves
		publish(t, a, "t", "back")
		first.want(t, "back").Settle(cloudevents.Acked())
	})
}

// TestPoison has a message that fails again and again: those behind it are
// delivered, but not acknowledged before it, so they come again after a crash.
func TestPoison(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, def component.Definition) {
		s := mqttserver.Start(t, mqttserver.Options{})
		d := opened(t, def, s.URL())
		m := reading(t, d, pubsub.Subscription{Topic: "t"})
		greet(t, m, d, "t")
		publish(t, d, "t", "poison")
		want := map[string]int{"poison": 1}
		for i := range 20 {
			want[strconv.Itoa(i)]++
			publish(t, d, "t", strconv.Itoa(i))
		}
		got, failed := map[string]int{}, 0
		for failed < 3 || len(got) < 20 {
			x := m.next(t)
			if string(x.Body) == "poison" {
				if failed++; x.Attempt != failed {
					t.Errorf("attempt %d, want %d", x.Attempt, failed)
				}
				x.Settle(cloudevents.Retried(nil, 20*time.Millisecond))
				continue
			}
			got[string(x.Body)]++
			x.Settle(cloudevents.Acked())
		}
		m.stop()
		closed(t, d)
		d = opened(t, def, s.URL())
		m = reading(t, d, pubsub.Subscription{Topic: "t"})
		for range len(want) {
			x := m.next(t)
			if want[string(x.Body)]--; want[string(x.Body)] < 0 {
				t.Errorf("%s came twice", x.Body)
			}
			x.Settle(cloudevents.Acked())
		}
		m.none(t)
		m.stop()
		closed(t, d)
		d = opened(t, def, s.URL())
		t.Cleanup(func() { closed(t, d) })
		reading(t, d, pubsub.Subscription{Topic: "t"}).none(t)
	})
}

// TestFullWindow is for version 3 only: the server here loses count of what it may
// send in version 5 once it had to wait.
func TestFullWindow(t *testing.T) {
	t.Parallel()
	fullWindow(t, Component3, mqttserver.Start(t, mqttserver.Options{}).URL())
}

// fullWindow has more messages than may be without an acknowledgement: the server
// is held up, and nothing is lost.
func fullWindow(t *testing.T, def component.Definition, url string) {
	t.Helper()
	d := opened(t, def, url, "maxInFlight", "4")
	t.Cleanup(func() { closed(t, d) })
	topic := conform.Unique(t)
	m := reading(t, d, pubsub.Subscription{Topic: topic})
	greet(t, m, d, topic)
	const n = 30
	for i := range n {
		publish(t, d, topic, strconv.Itoa(i))
	}
	var held []*cloudevents.Delivery
	for range 4 {
		held = append(held, m.next(t))
	}
	m.none(t)
	got := map[string]int{}
	for len(held) > 0 {
		got[string(held[0].Body)]++
		held[0].Settle(cloudevents.Acked())
		held = held[1:]
		if len(got)+len(held) < n {
			held = append(held, m.next(t))
		}
	}
	if len(got) != n {
		t.Errorf("received %d different messages of %d", len(got), n)
	}
	m.none(t)
}

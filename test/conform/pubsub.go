// Package conform is what every component of a kind must pass: one suite per
// contract, joined with one call from the component's own test.
//
// A component's test gives an open function and says as data what the
// component cannot do; the suite runs the cases that apply.
//
// Each case uses the public contract only, waits for events instead of
// sleeping, and ends with no goroutine left. The calling test must not be
// parallel, since that is checked by count.
package conform

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/pubsub"
)

// PubSubSetup says what a broker can do beyond its Features. The zero value is
// a broker in memory that does all of the contract.
type PubSubSetup struct {
	// Reopen opens the storage of a closed driver again; nil when what is not
	// settled is lost with Close.
	Reopen func(t *testing.T, closed pubsub.Driver) pubsub.Driver
	// KeepsEarly: messages published before any group subscribed are kept for
	// the first one.
	KeepsEarly bool
	// Unordered: messages of one key may overtake each other.
	Unordered bool
	// NoAttempts: deliveries are not counted; Attempt is always 1.
	NoAttempts bool
	// PollsCount: what the last poll of a driver that closes takes, and gives back,
	// counts as delivered.
	PollsCount bool
	// NoMetadata: a message is its body alone.
	NoMetadata bool
	// ForgetsDelay: the delay and the count of a retry do not outlive Close; the
	// message then comes again when the storage is opened.
	ForgetsDelay bool
	// ReturnAfter is the longest time until a message that was left is
	// delivered again; zero is at once.
	ReturnAfter time.Duration
	// MaxBody is the longest message the broker takes; zero is a megabyte at
	// least.
	MaxBody int
	// GroupsByBroker: the broker itself hands out one message of a key at a time,
	// by the key it was published with. Another key of the subscription is left to
	// the router.
	GroupsByBroker bool
	// Patience is how long a case waits for a message; a minute when zero.
	Patience time.Duration
	// Largest is the longest body that the server is set up to take; 1 MiB when
	// zero.
	Largest int
}

// suite is what the cases work with.
type suite struct {
	PubSubSetup
	features pubsub.Features
	// backlogged: the broker knows what waits for a group.
	backlogged bool
	open       func(t *testing.T) pubsub.Driver
}

// pubSubCase is one promise of the contract.
type pubSubCase struct {
	name string
	// can tells whether the broker promises this; nil means that all do.
	can func(s *suite) bool
	run func(s *suite, t *testing.T)
}

func ordered(s *suite) bool  { return !s.Unordered }
func keyed(s *suite) bool    { return !s.Unordered && !s.GroupsByBroker }
func gives(s *suite) bool    { return s.features.GiveBack }
func durable(s *suite) bool  { return s.Reopen != nil }
func delays(s *suite) bool   { return s.features.Delay }
func expires(s *suite) bool  { return s.features.TTL }
func early(s *suite) bool    { return s.KeepsEarly }
func counts(s *suite) bool   { return s.features.GiveBack && !s.NoAttempts }
func keyRetry(s *suite) bool { return s.features.GiveBack && !s.Unordered }

// PubSub runs the suite of brokers. Open returns a fresh broker each time.
func PubSub(t *testing.T, open func(t *testing.T) pubsub.Driver, setup PubSubSetup) {
	t.Helper()
	if setup.Patience == 0 {
		setup.Patience = time.Minute
	}
	if setup.Largest == 0 {
		setup.Largest = 1 << 20
	}
	s := &suite{PubSubSetup: setup, open: open}
	probe := open(t)
	if f, ok := probe.(pubsub.Featured); ok {
		s.features = f.Features()
	}
	s.backlogged = tellsBacklog(probe)
	closeDriver(t, probe)
	cases := slices.Concat(pubSubBasics(), pubSubOutcomes(), pubSubLife(), pubSubWildcards(), pubSubBacklog())
	for _, c := range cases {
		if c.can != nil && !c.can(s) {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			check := leaks()
			c.run(s, t)
			check(t)
		})
	}
}

// driver opens a broker that the case closes at its end.
func (s *suite) driver(t *testing.T) (d pubsub.Driver, done func()) {
	t.Helper()
	d = s.open(t)
	return d, func() { closeDriver(t, d) }
}

func closeDriver(t *testing.T, d pubsub.Driver) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
	defer cancel()
	if err := d.Close(ctx); err != nil {
		t.Errorf("close: %v", err)
	}
}

// publish sends the messages one by one.
func publish(t *testing.T, d pubsub.Driver, topic string, ms ...pubsub.Message) {
	t.Helper()
	for i := range ms {
		if err := d.Publish(t.Context(), topic, ms[i:i+1]); err != nil {
			t.Fatalf("publish %q: %v", short(ms[i].Data), err)
		}
	}
}

func text(key, data string) pubsub.Message { return pubsub.Message{Key: key, Data: []byte(data)} }

func short(b []byte) string {
	if len(b) > 40 {
		return string(b[:40]) + "..."
	}
	return string(b)
}

// member is one running subscription; its deliveries wait in got.
type member struct {
	s   *suite
	got chan *cloudevents.Delivery
	// greeted is told of the first greeting.
	greeted chan struct{}
	cancel  context.CancelFunc
	done    chan error
	ended   bool
}

// subscribe starts a member that takes deliveries ahead of the case, window at
// a time.
func (s *suite) subscribe(t *testing.T, d pubsub.Driver, sub pubsub.Subscription) *member {
	t.Helper()
	if sub.Group == "" {
		sub.Group = "group"
	}
	ctx, cancel := context.WithCancel(t.Context())
	m := &member{s: s, got: make(chan *cloudevents.Delivery, 256), greeted: make(chan struct{}, 1), cancel: cancel, done: make(chan error, 1)}
	go func() {
		m.done <- d.Subscribe(ctx, sub, func(ctx context.Context, d *cloudevents.Delivery) error {
			if string(d.Body) == greeting {
				d.Settle(cloudevents.Acked())
				select {
				case m.greeted <- struct{}{}:
				default:
				}
				return nil
			}
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

// attach subscribes once and leaves, so that the group exists.
func (s *suite) attach(t *testing.T, d pubsub.Driver, topic, group string) {
	t.Helper()
	m := s.subscribe(t, d, pubsub.Subscription{Topic: topic, Group: group})
	m.settled(t, d, topic)
	m.stop(t)
}

// greeting is the body of what settled publishes.
const greeting = "greeting"

// settled publishes greetings until the member receives one, which shows that
// its group exists. Those that are still on their way are acknowledged as they
// come: no case sees them.
func (m *member) settled(t *testing.T, d pubsub.Driver, topic string) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for last := time.After(m.s.Patience); ; {
		publish(t, d, topic, text("", greeting))
		select {
		case <-m.greeted:
			return
		case <-tick.C:
		case <-last:
			t.Fatal("subscribe: nothing is received")
		}
	}
}

// next waits for a delivery.
func (m *member) next(t *testing.T) *cloudevents.Delivery {
	t.Helper()
	select {
	case d := <-m.got:
		return d
	case err := <-m.done:
		m.ended = true
		t.Fatalf("subscribe returned early: %v", err)
	case <-time.After(m.s.Patience):
		t.Fatal("no delivery")
	}
	return nil
}

// want waits for a delivery with this body.
func (m *member) want(t *testing.T, body string) *cloudevents.Delivery {
	t.Helper()
	d := m.next(t)
	if string(d.Body) != body {
		t.Fatalf("received %q, want %q", short(d.Body), body)
	}
	return d
}

// none checks that nothing comes for a while.
func (m *member) none(t *testing.T, while time.Duration) {
	t.Helper()
	select {
	case d := <-m.got:
		t.Fatalf("received %q, want nothing", short(d.Body))
	case <-time.After(while):
	}
}

// stop ends the subscription; it must return nil.
func (m *member) stop(t *testing.T) {
	t.Helper()
	m.cancel()
	if m.ended {
		return
	}
	m.ended = true
	select {
	case err := <-m.done:
		if err != nil {
			t.Errorf("subscribe returned %v after its context ended, want nil", err)
		}
	case <-time.After(m.s.Patience):
		t.Fatal("subscribe does not return after its context ended")
	}
	for {
		select {
		case d := <-m.got:
			d.Settle(cloudevents.Left("the case is over"))
		default:
			return
		}
	}
}

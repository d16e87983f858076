package router

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/resilience"
)

// MetadataUUID is the metadata key under which a Watermill message's UUID
// travels; it is the one that Watermill's own adapters use.
const MetadataUUID = "_watermill_message_uuid"

var errNacked = fault.New(fault.Unavailable, "handle message: it was nacked")

// SubscriberOptions are those of a [Subscriber].
type SubscriberOptions struct {
	// Source makes the source of one subscription; required.
	Source func(topic string) (Source, error)
	// Logger is required.
	Logger *slog.Logger
	// Key, Lanes, Window, WindowBytes and Redelivery are those of [Route].
	Key           func(*cloudevents.Delivery) string
	Lanes, Window int
	WindowBytes   int64
	Redelivery    resilience.Retry
	// DrainTimeout is how long messages that were handed out may stay without
	// ack and nack after a subscription ended; zero is 10 s.
	DrainTimeout time.Duration
}

// Subscriber shows sources to foreign Watermill code as a [message.Subscriber],
// with the engine of a route behind it: a message that is acked is acked to the
// source, one that is nacked is handed out again after a back-off, in its lane,
// and one that is neither when the subscription ends is left. Message contexts
// end with ack, nack, or the drain timeout.
type Subscriber struct {
	options SubscriberOptions

	mu     sync.Mutex
	closed bool
	subs   map[*subscription]struct{}
}

// NewSubscriber makes a subscriber. Kind Invalid: an option is missing or makes
// no sense.
func NewSubscriber(o SubscriberOptions) (*Subscriber, error) {
	if o.Source == nil || o.Logger == nil || o.DrainTimeout < 0 {
		return nil, fault.New(fault.Invalid, "make subscriber: it needs a source, a logger and a drain timeout of zero or more")
	}
	if o.DrainTimeout == 0 {
		o.DrainTimeout = defaultDrainTimeout
	}
	return &Subscriber{options: o, subs: map[*subscription]struct{}{}}, nil
}

// Subscribe implements [message.Subscriber]. The channel is closed when ctx
// ended or the subscriber was closed, and what was handed out is settled.
func (s *Subscriber) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	source, err := s.options.Source(topic)
	if err != nil {
		return nil, fault.Wrap(err, "subscribe %q", topic)
	}
	route, err := s.route(topic, source).prepared()
	if err != nil {
		return nil, err
	}
	sub := newSubscription(route, s.options.Logger)

	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, fault.New(fault.Unavailable, "subscribe %q: the subscriber is closed", topic)
	}
	s.subs[sub] = struct{}{}
	base := context.WithoutCancel(ctx)
	sub.in.flow.open(ctx)
	sub.in.source.start(base)
	go func() {
		defer close(sub.done)
		select {
		case <-ctx.Done():
		case <-sub.quit:
		}
		sub.err = sub.stop(base, s.options.DrainTimeout)
		s.mu.Lock()
		delete(s.subs, sub)
		s.mu.Unlock()
	}()
	return sub.out, nil
}

func (s *Subscriber) route(topic string, source Source) Route {
	o := &s.options
	return Route{
		Name: topic, Source: source, Key: o.Key, Lanes: o.Lanes, Window: o.Window,
		WindowBytes: o.WindowBytes, Redelivery: o.Redelivery,
		Targets: []Target{{Name: "message", Send: unreachable}},
	}
}

// unreachable stands for the foreign handler, which is not called but handed
// messages.
func unreachable(context.Context, *cloudevents.Delivery) cloudevents.Outcome {
	return cloudevents.Left("not a target")
}

// Close implements [message.Subscriber]. It ends all subscriptions and waits
// for them; it may be called more than once.
func (s *Subscriber) Close() error {
	s.mu.Lock()
	s.closed = true
	subs := make([]*subscription, 0, len(s.subs))
	for sub := range s.subs {
		subs = append(subs, sub)
	}
	s.mu.Unlock()
	for _, sub := range subs {
		sub.once.Do(func() { close(sub.quit) })
	}
	var errs []error
	for _, sub := range subs {
		<-sub.done
		errs = append(errs, sub.err)
	}
	return errors.Join(errs...)
}

// subscription is one Subscribe: an incarnation whose rounds are lent out as
// messages instead of going through the chain.
type subscription struct {
	in   *incarnation
	out  chan *message.Message
	lent sync.WaitGroup
	once sync.Once
	quit chan struct{}
	done chan struct{}
	err  error // after done
}

func newSubscription(r Route, log *slog.Logger) *subscription {
	s := &subscription{
		in:   newIncarnation(r, log, nil),
		out:  make(chan *message.Message),
		quit: make(chan struct{}),
		done: make(chan struct{}),
	}
	s.in.flow.hand = func(r *round) { s.lent.Go(func() { s.lend(r) }) }
	return s
}

// lend hands out a message and waits for its ack or nack. There are never more
// than the route has lanes.
func (s *subscription) lend(r *round) {
	begin(r.passage)
	res := result{Outcome: cloudevents.Left(stoppingReason)}
	if s.in.flow.soft.Err() == nil {
		m := messageOf(r)
		select {
		case s.out <- m:
			res.Outcome = await(r, m)
		case <-s.in.flow.soft.Done():
		}
	}
	r.passage.trip.failed = res.Verdict == cloudevents.Retry
	s.in.flow.finish([]*round{r}, []decision{s.in.settle(r, r.passage, res)})
}

func await(r *round, m *message.Message) cloudevents.Outcome {
	select {
	case <-m.Acked():
		return cloudevents.Acked()
	case <-m.Nacked():
		return cloudevents.Retried(errNacked, 0)
	case <-r.Done():
	}
	select {
	case <-m.Acked(): // at the bell, but acked
		return cloudevents.Acked()
	default:
		return cloudevents.Left(stoppingReason)
	}
}

func messageOf(r *round) *message.Message {
	d := r.passage.d
	uuid := d.Metadata[MetadataUUID]
	if uuid == "" {
		uuid = r.passage.id()
	}
	m := message.NewMessageWithContext(r, uuid, d.Body)
	maps.Copy(m.Metadata, d.Metadata)
	delete(m.Metadata, MetadataUUID)
	return m
}

// stop stops in the same two steps as a route.
func (s *subscription) stop(base context.Context, drain time.Duration) error {
	ctx, cancel := context.WithTimeout(base, drain)
	defer cancel()
	s.in.source.stop()
	s.in.flow.drain(ctx)
	err := s.in.source.wait(ctx)
	s.lent.Wait()
	close(s.out)
	return fault.Wrap(err, "stop subscription %q", s.in.route.Name)
}

// Publisher shows a publish function to foreign Watermill code as a
// [message.Publisher].
type Publisher struct {
	publish func(topic string, body []byte, metadata map[string]string) error

	mu     sync.RWMutex
	closed bool
}

// NewPublisher makes a publisher. publish is called for each message, in order,
// and returns when it is durable; the UUID is in metadata, under
// [MetadataUUID].
func NewPublisher(publish func(topic string, body []byte, metadata map[string]string) error) *Publisher {
	return &Publisher{publish: publish}
}

// Publish implements [message.Publisher]. After an error, the messages before
// the one that failed are published.
func (p *Publisher) Publish(topic string, messages ...*message.Message) error {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.closed {
		return fault.New(fault.Unavailable, "publish to %q: the publisher is closed", topic)
	}
	for _, m := range messages {
		metadata := maps.Clone(m.Metadata)
		if metadata == nil {
			metadata = message.Metadata{}
		}
		metadata[MetadataUUID] = m.UUID
		if err := p.publish(topic, m.Payload, metadata); err != nil {
			return fault.Wrap(err, "publish to %q", topic)
		}
	}
	return nil
}

// Close implements [message.Publisher]. It waits for calls of Publish.
func (p *Publisher) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	return nil
}

var (
	_ message.Subscriber      = (*Subscriber)(nil)
	_ message.Publisher       = (*Publisher)(nil)
	_ watermill.LoggerAdapter = quietLogger{}
)

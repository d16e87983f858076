// Package inmemory is the broker "pubsub.in-memory": topics and consumer
// groups in the memory of this process.
//
// It is opened through [Component]. Each group of a topic is a queue of its
// own, and so is each group of a wildcard, which has the messages of every topic
// that it matches. What is published to a topic that no group has ever
// subscribed to is dropped; a group that has subscribed once keeps receiving
// while no member is attached, so that a reload loses nothing.
//
// Promises: messages of one key are delivered one at a time and in the order
// published; a key whose message is under way or waits for a retry holds back
// its own messages only. A message is gone after ack or drop, comes back with
// attempt+1 after a retry's delay, and at once at its old place when left.
// Everything is lost with the process. A queue is bounded in messages and
// bytes, what is under way included; a publish beyond that changes nothing and
// fails with kind Exhausted. Message data and metadata are kept, not copied:
// a publisher must not change them afterwards, nor a subscriber at all.
package inmemory

import (
	"context"
	"errors"
	"iter"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/pubsub"
)

// Component is "pubsub.in-memory".
var Component = pubsub.Define("in-memory", component.About{
	Summary: "Topics in the memory of this process, for development, tests and work that may be lost with it",
	Ack:     "Removes the message. Nothing survives the process",
	Order:   "In the order published; messages of one key one at a time",
	Limits:  "maxMessages (100000) and maxBytes (256Mi) for each group of a topic; publishing beyond fails with 429",
	Scale:   "One process; several subscriptions of one group share its messages",
	Dapr:    "Redelivers with a delay and an attempt count, keeps order by key, delays and expires messages, and is bounded",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: bus
spec:
  type: pubsub.in-memory
  version: v1
`,
}, open)

type options struct {
	MaxMessages    int            `meta:"maxMessages"    default:"100000" doc:"Most messages that one group of a topic holds, those under way included."`
	MaxBytes       component.Size `meta:"maxBytes"       default:"256Mi"  doc:"Most bytes of message bodies that one group of a topic holds."`
	GroupRetention time.Duration  `meta:"groupRetention" default:"10m"    doc:"A group without a subscriber for this long is forgotten with its messages when it is full; 0 keeps it and publishing fails."`
}

// Check implements component.Checker.
func (o options) Check() error {
	var errs []error
	if o.MaxMessages < 1 {
		errs = append(errs, component.OptionErrorf("maxMessages", "must be at least 1"))
	}
	if o.MaxBytes < 1 {
		errs = append(errs, component.OptionErrorf("maxBytes", "must be at least 1"))
	}
	return errors.Join(errs...)
}

var errClosed = fault.New(fault.Unavailable, "the in-memory broker is closed")

type broker struct {
	opts   options
	closed chan struct{} // Close was called
	idle   chan struct{} // and the last subscriber is gone
	orphan atomic.Bool   // the last handle is closed

	mu      sync.RWMutex
	done    bool
	members int
	topics  map[string][]*queue // slices are replaced, never changed
	wild    []*queue            // of groups whose topic ends in *; likewise
}

func makeBroker() *broker {
	return &broker{closed: make(chan struct{}), idle: make(chan struct{}), topics: map[string][]*queue{}}
}

// handle is one opening of a broker. When a component is reloaded the new one
// is opened before the old one is closed: both then use the same broker, and
// its messages stay.
type handle struct {
	*broker
	release func() error
	once    sync.Once
	err     error
}

func open(_ context.Context, env component.Env, o options) (pubsub.Driver, error) {
	h := &handle{}
	shared := env.Shared
	if shared == nil {
		shared = &component.Shared{}
	}
	b, release, err := component.Share(shared, "pubsub.in-memory/"+env.Name, func() (*broker, func() error, error) {
		b := makeBroker()
		return b, func() error { b.orphan.Store(true); return nil }, nil
	})
	if err != nil {
		return nil, err
	}
	b.limit(o)
	h.broker, h.release = b, release
	return h, nil
}

// limit sets the bounds, also those of queues that are there.
func (b *broker) limit(o options) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.opts = o
	for q := range b.queues() {
		q.limit(o.MaxMessages, int64(o.MaxBytes))
	}
}

// queues returns every queue there is.
func (b *broker) queues() iter.Seq[*queue] {
	return func(yield func(*queue) bool) {
		for _, list := range b.topics {
			for _, q := range list {
				if !yield(q) {
					return
				}
			}
		}
		for _, q := range b.wild {
			if !yield(q) {
				return
			}
		}
	}
}

// Close lets go of the broker; the last one to do so closes it.
func (h *handle) Close(ctx context.Context) error {
	h.once.Do(func() { h.err = h.release() })
	if h.err != nil || !h.orphan.Load() {
		return h.err
	}
	return h.broker.Close(ctx)
}

// Features implements pubsub.Featured.
func (b *broker) Features() pubsub.Features {
	return pubsub.Features{TTL: true, Delay: true, GiveBack: true, Wildcards: true}
}

// Publish puts the batch into the queue of every group, or into none.
func (b *broker) Publish(ctx context.Context, topic string, batch []pubsub.Message) error {
	if err := ctx.Err(); err != nil {
		return fault.Wrap(err, "publish")
	}
	b.mu.RLock()
	queues, wild, done := b.topics[topic], b.wild, b.done
	b.mu.RUnlock()
	if done {
		return errClosed
	}
	for _, q := range wild {
		if pubsub.Matches(q.topic, topic) {
			queues = append(slices.Clip(queues), q)
		}
	}
	var size int64
	for i := range batch {
		size += int64(len(batch[i].Data))
	}
	for i, q := range queues {
		err := q.reserve(len(batch), size)
		if err == nil {
			continue
		}
		if b.forget(q) {
			continue
		}
		for _, other := range queues[:i] {
			other.unreserve(len(batch), size)
		}
		return fault.Wrap(err, "publish to group %q of topic %q", q.group, topic)
	}
	for i, q := range queues {
		q.put(topic, batch, i > 0)
	}
	return nil
}

// forget removes a group that nobody has read from for a long time, and tells
// whether it did.
func (b *broker) forget(q *queue) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.opts.GroupRetention == 0 || !q.abandoned(b.opts.GroupRetention) {
		return false
	}
	others := slices.DeleteFunc(slices.Clone(b.of(q.topic)), func(o *queue) bool { return o == q })
	b.set(q.topic, others)
	q.close()
	return true
}

// Prepare implements pubsub.Preparer.
func (b *broker) Prepare(_ context.Context, s pubsub.Subscription) error {
	q, err := b.join(s)
	if err == nil {
		b.leave(q)
	}
	return err
}

// Subscribe implements pubsub.Driver.
func (b *broker) Subscribe(ctx context.Context, s pubsub.Subscription, emit cloudevents.EmitFunc) error {
	q, err := b.join(s)
	if err != nil {
		return err
	}
	defer b.leave(q)
	ctx, cancel := context.WithCancel(ctx)
	var watch sync.WaitGroup
	watch.Go(func() {
		select {
		case <-b.closed:
			cancel()
		case <-ctx.Done():
		}
	})
	err = q.serve(ctx, s.Key, emit)
	cancel()
	watch.Wait()
	select {
	case <-b.closed:
		return errClosed
	default:
		return err
	}
}

// serve hands out messages until ctx ends.
func (q *queue) serve(ctx context.Context, key func(*cloudevents.Delivery) string, emit cloudevents.EmitFunc) error {
	for ctx.Err() == nil {
		d := q.next(key)
		if d == nil {
			select {
			case <-ctx.Done():
			case <-q.wake:
			}
			continue
		}
		if err := emit(ctx, &d.Delivery); err != nil {
			d.settle(cloudevents.Left("not taken"))
			if ctx.Err() == nil {
				return fault.Wrap(err, "hand over message")
			}
		}
	}
	return nil
}

// join finds or makes the group's queue and counts the member in.
func (b *broker) join(s pubsub.Subscription) (*queue, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.done {
		return nil, errClosed
	}
	b.members++
	queues := b.of(s.Topic)
	if i := slices.IndexFunc(queues, func(q *queue) bool { return q.topic == s.Topic && q.group == s.Group }); i >= 0 {
		queues[i].join()
		return queues[i], nil
	}
	q := newQueue(s.Topic, s.Group, b.opts.MaxMessages, int64(b.opts.MaxBytes))
	q.join()
	b.set(s.Topic, append(slices.Clip(queues), q))
	return q, nil
}

// of returns the list that has the queues of a subscription's topic.
func (b *broker) of(topic string) []*queue {
	if pubsub.Wildcard(topic) {
		return b.wild
	}
	return b.topics[topic]
}

// set replaces the list.
func (b *broker) set(topic string, queues []*queue) {
	if pubsub.Wildcard(topic) {
		b.wild = queues
		return
	}
	b.topics[topic] = queues
}

func (b *broker) leave(q *queue) {
	q.leave()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.members--
	b.checkIdle()
}

// checkIdle tells Close that the last member is gone.
func (b *broker) checkIdle() {
	if b.done && b.members == 0 {
		close(b.idle)
	}
}

// Close ends the subscriptions and drops everything. It waits for Subscribe
// calls to return until ctx ends.
func (b *broker) Close(ctx context.Context) error {
	b.mu.Lock()
	if !b.done {
		b.done = true
		close(b.closed)
		for q := range b.queues() {
			q.close()
		}
		b.checkIdle()
	}
	b.mu.Unlock()
	select {
	case <-b.idle:
		return nil
	case <-ctx.Done():
		return fault.Wrap(ctx.Err(), "close: wait for subscribers")
	}
}

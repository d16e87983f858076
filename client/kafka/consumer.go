package kafka

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
)

// Subscription is what to read and what to make of it.
type Subscription struct {
	Group  string
	Topics []string
	// Build fills in Body, Event, Metadata, Key and Topic of a delivery.
	Build func(r *Record, d *cloudevents.Delivery)
	// Key returns what orders a delivery inside its partition: one of a key is
	// under way at a time. Empty: nothing does.
	Key func(d *cloudevents.Delivery) string
	// LeftStays: what was left does not come again before the next Subscribe.
	LeftStays bool
}

// Consumer reads for the subscriptions of one component. Each is a member of
// its group.
type Consumer struct {
	c    *Cluster
	ctx  context.Context
	stop context.CancelFunc

	// noting is held from the look at what the brokers know of where a group
	// begins until they have been told what they did not.
	noting sync.Mutex

	mu      sync.Mutex
	closed  bool
	members []*member
	work    sync.WaitGroup
	topics  map[reading]*begun
}

// Consumer makes a consumer.
func (c *Cluster) Consumer(ctx context.Context) *Consumer {
	k := &Consumer{c: c, topics: map[reading]*begun{}}
	k.ctx, k.stop = context.WithCancel(context.WithoutCancel(ctx))
	return k
}

// Subscribe hands out records until ctx ends, then returns nil; outcomes may
// still come until Close. An error means that going on by itself makes no sense:
// credentials were refused, the topic is not there, or emit failed.
func (k *Consumer) Subscribe(ctx context.Context, s Subscription, emit cloudevents.EmitFunc) error {
	a := &attachment{ctx: ctx, emit: emit, build: s.Build, key: s.Key}
	for {
		m, err := k.member(ctx, s, a)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		if m == nil {
			continue
		}
		select {
		case <-ctx.Done():
			m.detach(a)
			return nil
		case <-m.ended:
			a.work.Wait()
			if ctx.Err() != nil {
				return nil
			}
			return m.err
		}
	}
}

// member finds one that was left with something under way, or makes one.
func (k *Consumer) member(ctx context.Context, s Subscription, a *attachment) (*member, error) {
	k.mu.Lock()
	if k.closed {
		k.mu.Unlock()
		return nil, errClosed
	}
	for _, m := range k.members {
		if m.sub.Group == s.Group && slices.Equal(m.sub.Topics, s.Topics) && m.attach(a) {
			k.mu.Unlock()
			return m, nil
		}
	}
	k.mu.Unlock()
	if err := k.Prepare(ctx, s.Group, s.Topics); err != nil {
		return nil, err
	}
	o := &k.c.options
	m := &member{
		c: k.c, k: k, sub: s, quiet: make(chan struct{}, 1), commitNow: make(chan struct{}, 1), ended: make(chan struct{}),
		conns: newConnections(o.DialTimeout, o.KeepAlive), session: o.SessionTimeout,
		parts: map[place]*partition{}, attached: a, changed: make(chan struct{}), pulse: time.Now(),
	}
	m.ctx, m.cancel = context.WithCancel(k.ctx)
	m.last, m.cut = context.WithCancel(context.WithoutCancel(k.ctx))
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		m.cancel()
		m.cut()
		return nil, errClosed
	}
	k.members = append(k.members, m)
	k.work.Go(func() {
		m.run()
		k.mu.Lock()
		k.members = slices.DeleteFunc(k.members, func(x *member) bool { return x == m })
		k.mu.Unlock()
	})
	return m, nil
}

// Close ends all subscriptions, commits what was acknowledged and leaves the
// groups. What is not settled comes again, to whoever reads then.
func (k *Consumer) Close(ctx context.Context) error {
	k.mu.Lock()
	k.closed = true
	members := slices.Clone(k.members)
	k.mu.Unlock()
	k.stop()
	for _, m := range members {
		ring(m.quiet)
	}
	gone := make(chan struct{})
	go func() {
		k.work.Wait()
		close(gone)
	}()
	select {
	case <-gone:
		return nil
	case <-ctx.Done():
		for _, m := range members {
			m.cut()
			m.conns.cut()
		}
		<-gone
		return fault.Wrap(ctx.Err(), "leave consumer groups")
	}
}

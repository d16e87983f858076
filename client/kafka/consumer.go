package kafka

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
)

const (
	rebalanceTimeout = 10 * time.Second
	// leaveTime is how long a member may take to leave its group before it is
	// cut off.
	leaveTime = 3 * time.Second
)

// sessions are the session timeouts to ask for, shortest first: brokers refuse
// what is below their group.min.session.timeout.ms, which they do not tell. The
// shortest lets another take over within 5 s; 6 s is what brokers allow by
// default.
func sessions() []time.Duration {
	return []time.Duration{3 * time.Second, 6 * time.Second, 10 * time.Second, 30 * time.Second}
}

// longer is the next session timeout to ask for when one was refused, 0 when
// there is none.
func longer(refused time.Duration) time.Duration {
	for _, s := range sessions() {
		if s > refused {
			return s
		}
	}
	return 0
}

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

	mu      sync.Mutex
	closed  bool
	members []*member
	work    sync.WaitGroup
	topics  map[reading]*begun
}

// reading is a topic that a group reads.
type reading struct{ group, topic string }

// begun is what a consumer keeps of one.
type begun struct {
	// had: the group had offsets of it. When a topic is deleted the brokers forget
	// them, and what is then written to the one that is made anew is for the group.
	had bool
	// from is where Prepare found that the group begins, by partition, as long as
	// the brokers do not know: they take it from nobody but a member when there are
	// members.
	from map[int]int64
}

// Consumer makes a consumer.
func (c *Cluster) Consumer(ctx context.Context) *Consumer {
	k := &Consumer{c: c, topics: map[reading]*begun{}}
	k.ctx, k.stop = context.WithCancel(context.WithoutCancel(ctx))
	return k
}

// member is one membership in a group. It lives longer than the subscription
// that made it: as long as something is under way it keeps its partitions, so
// that outcomes count.
type member struct {
	c         *Cluster
	k         *Consumer
	sub       Subscription
	ctx       context.Context // of the membership
	cancel    context.CancelFunc
	out       atomic.Int64 // how many are handed out
	quiet     chan struct{}
	commitNow chan struct{}
	ended     chan struct{}
	conns     *connections
	session   time.Duration
	parts     map[place]*partition

	mu       sync.Mutex
	attached *attachment
	changed  chan struct{} // closed when attached changes
	ending   bool
	err      error
}

// attachment is a subscription that a member hands out to.
type attachment struct {
	ctx   context.Context
	emit  cloudevents.EmitFunc
	build func(*Record, *cloudevents.Delivery)
	key   func(*cloudevents.Delivery) string
	work  sync.WaitGroup
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
		parts: map[place]*partition{}, attached: a, changed: make(chan struct{}),
	}
	m.ctx, m.cancel = context.WithCancel(k.ctx)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		m.cancel()
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

// attach takes over a member whose subscription ended.
func (m *member) attach(a *attachment) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.sub.LeftStays || m.ending || m.attached != nil || m.ctx.Err() != nil {
		return false // what was left comes with another membership
	}
	m.set(a)
	return true
}

func (m *member) set(a *attachment) {
	m.attached = a
	close(m.changed)
	m.changed = make(chan struct{})
}

// detach ends handing out; the member leaves when nothing is under way.
func (m *member) detach(a *attachment) {
	m.mu.Lock()
	m.set(nil)
	m.mu.Unlock()
	a.work.Wait()
	ring(m.quiet)
}

// attachment returns the current one, or nil, and what is closed at its end.
func (m *member) attachment() (*attachment, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.attached != nil {
		m.attached.work.Add(1)
	}
	return m.attached, m.changed
}

// over tells whether the member has nothing to stay for, and then no
// subscription can have it any more.
func (m *member) over() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ctx.Err() != nil || m.err != nil || m.attached == nil && m.out.Load() == 0 {
		m.ending = true
	}
	return m.ending
}

// fail ends the member with an error.
func (m *member) fail(err error) {
	m.mu.Lock()
	if m.err == nil {
		m.err = err
	}
	m.mu.Unlock()
	ring(m.quiet)
}

// run is the life of a membership, one generation of the group after the other.
func (m *member) run() {
	defer close(m.ended)
	defer m.cancel()
	defer m.forget()
	group, err := m.join()
	lost := false
	for err == nil && !m.over() {
		var gen *kafka.Generation
		gen, err = m.next(group)
		switch {
		case err == nil:
			if lost {
				m.c.log.Info("consumer group works again", "group", m.sub.Group)
			}
			lost = false
			over := make(chan struct{})
			gen.Start(func(ctx context.Context) {
				defer close(over)
				m.generation(ctx, gen)
			})
			<-over
		case m.over():
		case is(err, kafka.InvalidSessionTimeout) && longer(m.session) > 0:
			m.leave(group)
			m.c.log.Info("the brokers do not allow so short a session timeout, a longer one is asked for; see group.min.session.timeout.ms",
				"group", m.sub.Group, "refused", m.session, "asked", longer(m.session))
			m.session = longer(m.session)
			group, err = m.join()
		case again(err) || is(err, kafka.InconsistentGroupProtocol):
			if !lost && !is(err, kafka.RebalanceInProgress, kafka.UnknownMemberId, kafka.IllegalGeneration) {
				lost = true
				m.c.log.Warn("consumer group is out of reach, it is tried again", "group", m.sub.Group, "error", err)
			}
			err = nil
		}
	}
	if group != nil {
		m.last(group)
		m.leave(group)
	}
	if err == nil || m.ctx.Err() != nil {
		err = errClosed
	}
	m.fail(fault.Wrap(classify(err), "read as group %s", m.sub.Group))
}

// last commits what was done between two generations, when the member ends
// there: it takes part in one more.
func (m *member) last(group *kafka.ConsumerGroup) {
	if !m.uncommitted() {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(m.ctx), leaveTime)
	defer cancel()
	gen, err := group.Next(ctx)
	if err == nil && m.assign(ctx, gen) == nil {
		m.commit(gen)
	}
}

func (m *member) uncommitted() bool {
	for _, p := range m.parts {
		if _, news := p.position(); news {
			return true
		}
	}
	return false
}

// next waits for a generation; it ends early when the member is over.
func (m *member) next(group *kafka.ConsumerGroup) (*kafka.Generation, error) {
	ctx, cancel := context.WithCancel(m.ctx)
	defer cancel()
	type result struct {
		gen *kafka.Generation
		err error
	}
	got := make(chan result, 1)
	go func() {
		gen, err := group.Next(ctx)
		got <- result{gen, err}
	}()
	for {
		select {
		case r := <-got:
			return r.gen, r.err
		case <-m.quiet:
			if m.over() {
				cancel()
				r := <-got
				return r.gen, r.err
			}
		}
	}
}

// join makes the membership.
func (m *member) join() (*kafka.ConsumerGroup, error) {
	if m.session == 0 {
		m.session = max(sessions()[0], 2*m.c.options.HeartbeatInterval)
	}
	return kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{
		ID: m.sub.Group, Brokers: m.c.seeds, Topics: m.sub.Topics, Dialer: m.c.dialer(m.conns),
		GroupBalancers: m.c.options.balancers(), HeartbeatInterval: m.c.options.HeartbeatInterval,
		SessionTimeout: m.session, RebalanceTimeout: rebalanceTimeout, JoinGroupBackoff: 300 * time.Millisecond,
		StartOffset: kafka.FirstOffset,
	})
}

// leave ends the membership, which makes the group share out its partitions at
// once.
func (m *member) leave(group *kafka.ConsumerGroup) {
	gone := make(chan struct{})
	go func() {
		_ = group.Close() // never fails
		close(gone)
	}()
	t := time.NewTimer(leaveTime)
	defer t.Stop()
	select {
	case <-gone:
	case <-t.C:
		m.conns.cut()
		<-gone
	}
}

func (m *member) forget() {
	for _, p := range m.parts {
		p.forget()
	}
	m.conns.cut()
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
			m.conns.cut()
		}
		<-gone
		return fault.Wrap(ctx.Err(), "leave consumer groups")
	}
}

// begun returns what is kept of a topic. It runs under mu.
func (k *Consumer) begun(group, topic string) *begun {
	b := k.topics[reading{group, topic}]
	if b == nil {
		b = &begun{from: map[int]int64{}}
		k.topics[reading{group, topic}] = b
	}
	return b
}

// known tells whether the group had offsets of the topic before.
func (k *Consumer) known(group, topic string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.begun(group, topic).had
}

func (k *Consumer) learn(group, topic string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.begun(group, topic).had = true
}

// keep notes where the group begins.
func (k *Consumer) keep(group, topic string, offsets map[int]int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	from := k.begun(group, topic).from
	for p, offset := range offsets {
		if _, ok := from[p]; !ok {
			from[p] = offset
		}
	}
}

// kept takes out what was noted.
func (k *Consumer) kept(group, topic string, partition int) (int64, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	from := k.begun(group, topic).from
	offset, ok := from[partition]
	delete(from, partition)
	return offset, ok
}

// unkeep forgets what was noted of a topic.
func (k *Consumer) unkeep(group, topic string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	clear(k.begun(group, topic).from)
}

// Prepare makes the offsets of a group, so that everything written from now on
// is for it: it commits where the group begins on partitions of which it has no
// offset. When the group has members they alone may, and those of this consumer
// will.
func (k *Consumer) Prepare(ctx context.Context, group string, topics []string) error {
	for _, t := range topics {
		if _, err := k.c.partitions(ctx, t); isMissing(err) {
			return fault.Wrap(err, "prepare group %s", group) // it was waited for
		}
	}
	for try := 0; ; try++ {
		err := k.pin(ctx, group, topics)
		if err == nil || is(err, kafka.UnknownMemberId, kafka.RebalanceInProgress, kafka.IllegalGeneration) {
			return nil // where it begins is noted too, for brokers that do not know it when it joins
		}
		if !again(err) || try == 20 {
			return fault.Wrap(classify(err), "prepare group %s of %s", group, strings.Join(topics, ", "))
		}
		if err := pause(ctx, try); err != nil {
			return fault.Wrap(classify(err), "prepare group %s", group)
		}
		k.c.relearn(ctx)
	}
}

func (k *Consumer) pin(ctx context.Context, group string, topics []string) error {
	c := k.c
	ctx, cancel := context.WithTimeout(ctx, c.options.ReadTimeout)
	defer cancel()
	ask := map[string][]int{}
	for _, t := range topics {
		n, err := c.partitions(ctx, t)
		if err != nil {
			return err
		}
		for i := range n {
			ask[t] = append(ask[t], i)
		}
	}
	res, err := c.client.OffsetFetch(ctx, &kafka.OffsetFetchRequest{GroupID: group, Topics: ask})
	if err == nil {
		err = res.Error
	}
	if err != nil && !is(err, kafka.GroupIdNotFound) {
		return err
	}
	begins := map[string]map[int]int64{}
	for t, missing := range ask {
		if err == nil {
			missing = nil
			for _, p := range res.Topics[t] {
				if p.Error != nil {
					return p.Error
				}
				if p.CommittedOffset < 0 {
					missing = append(missing, p.Partition)
				} else {
					k.learn(group, t)
				}
			}
		}
		if len(missing) == 0 {
			continue
		}
		offsets, err := c.begin(ctx, t, missing, k.known(group, t))
		if err != nil {
			return err
		}
		k.keep(group, t, offsets)
		begins[t] = offsets
	}
	if len(begins) == 0 {
		return nil
	}
	return c.set(ctx, group, begins)
}

// set commits the offsets of a group that has no members.
func (c *Cluster) set(ctx context.Context, group string, offsets map[string]map[int]int64) error {
	commits := map[string][]kafka.OffsetCommit{}
	for t, parts := range offsets {
		for p, offset := range parts {
			commits[t] = append(commits[t], kafka.OffsetCommit{Partition: p, Offset: offset})
		}
	}
	done, err := c.client.OffsetCommit(ctx, &kafka.OffsetCommitRequest{GroupID: group, GenerationID: -1, Topics: commits})
	if err != nil {
		return err
	}
	for _, parts := range done.Topics {
		for _, p := range parts {
			err = errors.Join(err, p.Error)
		}
	}
	return err
}

// begin returns where a group begins on partitions of which it has no offset.
// One that has read the topic before begins a new partition at its start, or it
// would miss what was written before it saw the partition.
func (c *Cluster) begin(ctx context.Context, topic string, parts []int, known bool) (map[int]int64, error) {
	oldest := known || c.options.InitialOffset == "oldest"
	req := &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{}, IsolationLevel: kafka.ReadCommitted}
	for _, p := range parts {
		at := kafka.LastOffsetOf(p)
		if oldest {
			at = kafka.FirstOffsetOf(p)
		}
		req.Topics[topic] = append(req.Topics[topic], at)
	}
	res, err := c.client.ListOffsets(ctx, req)
	if err != nil {
		return nil, err
	}
	offsets := map[int]int64{}
	for _, p := range res.Topics[topic] {
		if p.Error != nil {
			return nil, p.Error
		}
		offsets[p.Partition] = p.LastOffset
		if oldest {
			offsets[p.Partition] = p.FirstOffset
		}
	}
	return offsets, nil
}

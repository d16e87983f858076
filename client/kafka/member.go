package kafka

import (
	"context"
	"maps"
	"slices"
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
	// last is the context of what is sent at the end, and cut ends it.
	last context.Context
	cut  context.CancelFunc
	// plain: the brokers take no notes.
	plain bool

	mu    sync.Mutex
	parts map[place]*partition
	of    int32          // the generation that parts are of
	lost  bool           // others may have had parts since
	pulse time.Time      // when this process was last seen to run
	froze bool           // it did not for longer than the session
	said  map[place]bool // what the member claimed when it joined the group last

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

// beat notes that this process runs, until ctx ends. One that was frozen for as
// long as the session must not go on as if it still had its partitions: it would
// hear of that only with the next heartbeat.
func (m *member) beat(ctx context.Context) {
	tick := time.NewTicker(m.c.options.HeartbeatInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		m.mu.Lock()
		m.froze = m.froze || m.late()
		m.pulse = time.Now()
		froze := m.froze
		m.mu.Unlock()
		if froze {
			ring(m.quiet)
		}
	}
}

// late tells whether this process did not run for as long as the session. It
// runs under mu.
func (m *member) late() bool { return time.Since(m.pulse) > max(m.session, sessions()[0]) }

// frozen tells whether nothing is to be handed out for that.
func (m *member) frozen() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.froze || m.late()
}

// thaw stops reading after this process was frozen, and tells whether it was.
func (m *member) thaw() bool {
	m.mu.Lock()
	froze := m.froze
	m.mu.Unlock()
	if froze {
		m.lose()
	}
	return froze
}

// run is the life of a membership, one generation of the group after the other.
func (m *member) run() {
	defer close(m.ended)
	var beating sync.WaitGroup
	beating.Go(func() { m.beat(m.ctx) })
	defer beating.Wait()
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
			m.ask(longer(m.session))
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
		m.settle(group)
		m.leave(group)
	}
	if err == nil || m.ctx.Err() != nil {
		err = errClosed
	}
	m.fail(fault.Wrap(classify(err), "read as group %s", m.sub.Group))
}

// settle commits what was done between two generations, when the member ends
// there: it takes part in one more.
func (m *member) settle(group *kafka.ConsumerGroup) {
	halt(m.held()...)
	if !m.uncommitted() && len(m.k.notes(m.sub.Group)) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(m.last, leaveTime)
	defer cancel()
	gen, err := group.Next(ctx)
	if err == nil && m.assign(ctx, gen) == nil {
		_ = m.commit(gen, m.held()) // what was not committed comes again
		m.note(gen)
	}
}

func (m *member) uncommitted() bool {
	for _, p := range m.held() {
		if _, news := p.progress(); news {
			return true
		}
	}
	return false
}

// lose stops reading all partitions when others may get them.
func (m *member) lose() {
	halt(m.held()...)
	m.mu.Lock()
	m.lost, m.froze = true, false
	m.mu.Unlock()
}

// next waits for a generation; it ends early when the member is over. Meanwhile
// it reads on, as long as no other member can have its partitions.
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
	late := time.NewTimer(m.session)
	defer late.Stop()
	for {
		select {
		case r := <-got:
			if r.err != nil && !is(r.err, kafka.RebalanceInProgress) {
				m.lose()
			}
			return r.gen, r.err
		case <-late.C:
			m.lose()
		case <-m.quiet:
			m.thaw()
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
		m.ask(max(sessions()[0], 2*m.c.options.HeartbeatInterval))
	}
	return kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{
		ID: m.sub.Group, Brokers: m.c.seeds, Topics: m.sub.Topics, Dialer: m.c.dialer(m.conns),
		GroupBalancers: m.balancers(), HeartbeatInterval: m.c.options.HeartbeatInterval,
		SessionTimeout: m.session, RebalanceTimeout: rebalanceTimeout, JoinGroupBackoff: 300 * time.Millisecond,
		StartOffset: kafka.FirstOffset, Timeout: max(m.session, sessions()[0]),
	})
}

// balancers share out the partitions. Groups that have members of another kind
// agree on one that all know.
func (m *member) balancers() []kafka.GroupBalancer {
	whole := func(b kafka.GroupBalancer) kafka.GroupBalancer { return whole{b, m.partitions} }
	switch m.c.options.Balance {
	case "range":
		return []kafka.GroupBalancer{whole(kafka.RangeGroupBalancer{})}
	case "roundrobin":
		return []kafka.GroupBalancer{whole(kafka.RoundRobinGroupBalancer{})}
	}
	return []kafka.GroupBalancer{whole(sticky{m.claim}), whole(kafka.RangeGroupBalancer{}), whole(kafka.RoundRobinGroupBalancer{})}
}

// partitions returns how many partitions a topic has, 0 when it is not there or
// that cannot be known.
func (m *member) partitions(topic string) int {
	ctx, cancel := context.WithTimeout(m.last, leaveTime)
	defer cancel()
	n, err := m.c.known(ctx, topic)
	if err != nil {
		return 0
	}
	return n
}

// claim tells what the member holds, when it joins the group.
func (m *member) claim() claim {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := claim{Generation: m.of, Parts: map[string][]int{}}
	m.said = map[place]bool{}
	if m.lost {
		return c
	}
	for at := range m.parts {
		m.said[at] = true
		c.Parts[at.topic] = append(c.Parts[at.topic], at.partition)
	}
	return c
}

// held are the partitions that the member has.
func (m *member) held() []*partition {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Collect(maps.Values(m.parts))
}

// ask sets the session timeout to ask for.
func (m *member) ask(session time.Duration) {
	m.mu.Lock()
	m.session = session
	m.mu.Unlock()
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
	parts := m.held()
	halt(parts...)
	for _, p := range parts {
		p.forget()
	}
	m.cut()
	m.conns.cut()
}

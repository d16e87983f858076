package postgres

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/pubsub"
)

// Bounds of what a member holds.
const (
	heldMost  = 8192     // messages claimed and not settled
	heldBytes = 16 << 20 // bodies among them that were not handed out
)

// The wait before a redelivery when the outcome names none: it doubles with
// every attempt.
const (
	minBackoff = 100 * time.Millisecond
	maxBackoff = 15 * time.Second
)

// entry is a message that a member holds.
type entry struct {
	cloudevents.Delivery
	m       *member
	id      int64
	lane    *lane // nil without a key
	size    int64
	attempt int
	epoch   int64 // the process under which it is held
	settled atomic.Bool
}

// lane is a key of which the member holds messages: one is ready or handed out,
// the others wait.
type lane struct {
	wait    []*entry
	leaving bool // the first waits for a retry: the others are given back
}

// retry is a message to come again, not before due.
type retry struct {
	e   *entry
	due time.Time
}

// member is one subscription and what it holds, which may outlive it.
type member struct {
	d      *driver
	sub    pubsub.Subscription
	number int32
	wake   chan struct{} // for Subscribe: something is ready
	bell   chan struct{} // for the loop: there is something to do

	mu       sync.Mutex
	queue    int64
	epoch    int64 // the process that our claims are under
	reading  bool
	closing  bool
	closedAt time.Time
	more     bool // there may be something to claim
	resync   bool // the table may say that we hold what we do not know of
	dueAt    time.Time
	held     map[int64]*entry // until the table knows that it is not
	ready    []*entry
	lanes    map[string]*lane
	bytes    int64 // bodies of ready and waiting ones
	acks     []*entry
	retries  []retry
	gives    []*entry // to be given back
}

func newMember(d *driver, s pubsub.Subscription, queue int64, number int32, epoch int64) *member {
	return &member{
		d: d, sub: s, number: number, queue: queue, epoch: epoch, reading: true, more: true,
		wake: make(chan struct{}, 1), bell: make(chan struct{}, 1),
		held: map[int64]*entry{}, lanes: map[string]*lane{},
	}
}

func ring(bell chan struct{}) {
	select {
	case bell <- struct{}{}:
	default:
	}
}

func (m *member) queueID() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.queue
}

// arrived tells that there may be something to claim, or that we live.
func (m *member) arrived() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.more = true
	ring(m.bell)
	ring(m.wake)
}

// next takes what is ready; nil when nothing is, or when we may have been
// replaced.
func (m *member) next() *entry {
	if !m.d.alive() {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.ready) == 0 || !m.reading {
		return nil
	}
	e := m.ready[0]
	m.ready[0] = nil
	m.ready = m.ready[1:]
	m.bytes -= e.size
	if len(m.ready) < m.low() && m.more {
		ring(m.bell)
	}
	return e
}

// low is with how few ready messages more are claimed.
func (m *member) low() int { return (m.d.opts.FetchSize + 1) / 2 }

// settle is the delivery's Settle.
func (e *entry) settle(o cloudevents.Outcome) {
	m := e.m
	m.mu.Lock()
	defer m.mu.Unlock()
	if e.settled.Load() || m.closing || e.epoch != m.epoch {
		return
	}
	e.settled.Store(true)
	if o.Verdict == cloudevents.Leave && m.reading {
		m.again(e)
		return
	}
	switch o.Verdict {
	case cloudevents.Ack, cloudevents.Drop:
		m.acks = append(m.acks, e)
		m.advance(e)
	case cloudevents.Retry:
		after := o.After
		if after <= 0 {
			after = min(minBackoff<<min(e.attempt-1, 10), maxBackoff)
		}
		m.retries = append(m.retries, retry{e, time.Now().Add(after)})
		if e.lane != nil {
			e.lane.leaving = true
		}
	default:
		m.gives = append(m.gives, e)
	}
	ring(m.bell)
}

// again makes a message that was left ready, as a delivery of its own: whoever
// had it may have changed that one.
func (m *member) again(e *entry) {
	n := &entry{m: m, id: e.id, lane: e.lane, size: e.size, attempt: e.attempt, epoch: e.epoch}
	n.Delivery = cloudevents.Delivery{Body: e.Body, Metadata: e.Metadata, Key: e.Key, Attempt: e.attempt, Settle: n.settle}
	m.held[e.id] = n
	m.ready = slices.Insert(m.ready, 0, n)
	m.bytes += e.size
	ring(m.wake)
}

// advance makes the next of a key ready.
func (m *member) advance(e *entry) {
	l := e.lane
	switch {
	case l == nil:
	case len(l.wait) == 0:
		delete(m.lanes, e.Key)
	default:
		next := l.wait[0]
		l.wait[0] = nil
		l.wait = l.wait[1:]
		m.ready = append(m.ready, next)
		ring(m.wake)
	}
}

// leave ends reading: what was not handed out is given back, and what was may
// still be settled.
func (m *member) leave() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reading = false
	for _, e := range m.ready {
		m.giveBack(e)
	}
	m.ready = nil
	for _, l := range m.lanes {
		m.giveBackLane(l)
	}
	ring(m.bell)
}

func (m *member) giveBack(e *entry) {
	e.settled.Store(true)
	m.bytes -= e.size
	m.gives = append(m.gives, e)
}

func (m *member) giveBackLane(l *lane) {
	for _, e := range l.wait {
		m.giveBack(e)
	}
	l.wait = nil
}

// shut makes what is settled from now on count for nothing, and has the loop
// write the rest and end.
func (m *member) shut() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closing, m.reading, m.closedAt = true, false, time.Now()
	ring(m.bell)
}

// forget drops everything: it is somebody else's, or gone.
func (m *member) forget(epoch int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.drop(epoch, m.queue)
}

func (m *member) drop(epoch, queue int64) {
	for _, e := range m.held {
		e.settled.Store(true)
	}
	clear(m.held)
	clear(m.lanes)
	m.ready, m.acks, m.retries, m.gives, m.bytes = nil, nil, nil, nil, 0
	m.epoch, m.queue, m.more, m.resync = epoch, queue, true, false
	ring(m.bell)
}

// work is what one exchange with the database does.
type work struct {
	queue, epoch int64
	acks, gives  []*entry
	retries      []retry
	claim        bool
	notify       bool
	resync       bool
	known        []int64  // with resync
	full         [][]byte // keys of which no more are wanted
}

func (w *work) empty() bool {
	return !w.claim && len(w.acks) == 0 && len(w.gives) == 0 && len(w.retries) == 0
}

// take collects the work. done is true when there will never be any.
func (m *member) take() (w work, done bool) {
	live := m.d.alive()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closing {
		for id, e := range m.held {
			if !e.settled.Swap(true) {
				m.gives = append(m.gives, m.held[id])
			}
		}
	}
	for _, r := range m.retries {
		if r.e.lane != nil && m.lanes[r.e.Key] == r.e.lane {
			m.giveBackLane(r.e.lane)
			delete(m.lanes, r.e.Key)
		}
	}
	w = work{queue: m.queue, epoch: m.epoch, acks: m.acks, gives: m.gives, retries: m.retries, resync: m.resync}
	m.acks, m.gives, m.retries = nil, nil, nil
	freed := len(w.retries) > 0
	for _, e := range w.acks {
		freed = freed || e.Key != ""
	}
	now := time.Now()
	if !m.dueAt.IsZero() && !now.Before(m.dueAt) {
		m.more, m.dueAt = true, time.Time{}
	}
	m.more = m.more || freed
	w.claim = live && m.reading && m.more && len(m.ready) < m.low() && len(m.held) < heldMost && m.bytes < heldBytes
	if w.claim {
		m.more = false // before looking: what arrives meanwhile sets it again
		m.dueAt = time.Time{}
		for key, l := range m.lanes {
			if len(l.wait) >= m.low() || l.leaving {
				w.full = append(w.full, []byte(key))
			}
		}
	}
	w.notify = !w.claim && (freed || len(w.gives) > 0)
	if w.resync {
		for id := range m.held {
			w.known = append(w.known, id)
		}
	}
	return w, w.empty() && !m.reading && len(m.held) == 0
}

// putBack keeps the work of an exchange that failed, whose end is unknown.
func (m *member) putBack(w work) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if w.epoch != m.epoch || w.queue != m.queue {
		return
	}
	m.acks, m.gives, m.retries = append(w.acks, m.acks...), append(w.gives, m.gives...), append(w.retries, m.retries...)
	m.more, m.resync = true, true
}

// done takes in what an exchange did.
func (m *member) done(w work, r result) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if w.epoch != m.epoch || w.queue != m.queue {
		return // what was claimed is under the old name, which is dead
	}
	if w.resync {
		m.resync = false
	}
	for _, list := range [][]*entry{w.acks, w.gives} {
		for _, e := range list {
			delete(m.held, e.id)
		}
	}
	for _, t := range w.retries {
		delete(m.held, t.e.id)
	}
	if !w.claim {
		return
	}
	m.more = m.more || r.more
	if r.due > 0 {
		m.dueAt = time.Now().Add(r.due)
	}
	for _, e := range r.claimed {
		m.admit(e)
	}
	if len(m.ready) > 0 {
		ring(m.wake)
	}
	if len(m.acks)+len(m.gives)+len(m.retries) > 0 || m.more && len(m.ready) < m.low() {
		ring(m.bell)
	}
}

// admit makes a message that was claimed ready when its key is free, else it
// waits in its lane.
func (m *member) admit(e *entry) {
	e.m, e.epoch = m, m.epoch
	e.Settle = e.settle
	m.held[e.id] = e
	if e.settled.Load() { // it is worth nothing any more
		m.acks = append(m.acks, e)
		return
	}
	m.bytes += e.size
	if !m.reading {
		m.giveBack(e)
		return
	}
	if e.Key != "" {
		if l := m.lanes[e.Key]; l != nil {
			e.lane = l
			l.wait = append(l.wait, e)
			return
		}
		e.lane = &lane{}
		m.lanes[e.Key] = e.lane
	}
	m.ready = append(m.ready, e)
}

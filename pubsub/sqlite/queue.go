package sqlite

import (
	"container/heap"
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
)

// Bounds of what one queue keeps in memory.
const (
	readyLow    = 128     // read on when fewer are ready
	readyBytes  = 4 << 20 // and their bodies are smaller
	laneLimit   = 256     // messages remembered behind one held key
	heldLimit   = 16_384  // and behind all of them
	heldBytes   = 4 << 20 // bodies kept among them
	parkedLimit = 10_000  // keys that wait for a retry
)

// The wait before a redelivery when the outcome names none: it doubles with
// every attempt.
const (
	minBackoff = 100 * time.Millisecond
	maxBackoff = 15 * time.Second
)

// entry is a waiting message that is known in memory.
type entry struct {
	id       int64
	attempt  int   // deliveries, the one under way included
	expires  int64 // milliseconds; 0 is never
	key      string
	topic    string // published to; empty: the queue's
	metadata map[string]string
	body     []byte
	loaded   bool      // what came before is filled in
	lane     *lane     // held by this entry
	out      *delivery // its delivery, while under way
	counted  bool      // its attempt is, or is being, written
	done     bool      // settled; here until that is written
	gone     bool      // of no concern any more: written, or given back
}

// lane is a key one of whose messages is ready, under way or waits for a
// retry. The others wait: some are remembered, and all from id more on are
// found in the file again.
type lane struct {
	key  string
	wait []*entry // by id
	more int64    // 0 when all are remembered
}

// queue is what waits for one group of a topic, as this process sees it.
type queue struct {
	b    *broker
	id   int64
	name queueName
	stop context.CancelFunc
	wake chan struct{} // for a member: something is ready
	bell chan struct{} // for the reader: there is something to do

	mu       sync.Mutex
	key      func(*cloudevents.Delivery) string // of the member that came last
	members  int
	closed   bool
	err      error         // why the file cannot be read
	failed   chan struct{} // closed while err is set
	leaseEnd time.Time
	lost     bool // the lease must be asked for again now

	cursor  int64            // everything up to this id is known
	more    bool             // there may be something after cursor
	rescan  bool             // start over
	recheck bool             // nextDue may be wrong
	cut     bool             // not all keys that wait for a retry are known
	nextDue int64            // milliseconds; 0 is never
	under   map[int64]*entry // under way, or settled and not yet written
	wrote   []*entry         // of under: written or given back, for the reader to forget
	ready   byID
	bytes   int64 // bodies of ready
	lanes   map[string]*lane
	held    int              // entries in all lanes' wait
	heldFor int64            // their bodies
	parked  map[int64]*entry // with a lane, waiting for a retry
	load    []*entry         // to be read and made ready
	refill  []*lane          // to be continued from more
}

func newQueue(b *broker, id int64, name queueName) *queue {
	return &queue{
		b: b, id: id, name: name, wake: make(chan struct{}, 1), bell: make(chan struct{}, 1), failed: make(chan struct{}),
		under: map[int64]*entry{}, lanes: map[string]*lane{}, parked: map[int64]*entry{},
	}
}

// join counts a member in. Its keys may be others than before, so everything
// that is not under way is looked at again.
func (q *queue) join(key func(*cloudevents.Delivery) string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.members++
	q.key = key
	q.rescan = true
	ring(q.bell)
}

func (q *queue) leave() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.members--
	ring(q.wake) // the token may have been ours
	ring(q.bell)
}

// idle tells whether nobody needs the queue.
func (q *queue) idle() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.members == 0 && len(q.under) == 0
}

func (q *queue) shut() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.stop()
}

// arrived tells that something was published.
func (q *queue) arrived(delayed bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.more = true
	q.recheck = q.recheck || delayed
	ring(q.bell)
}

// delivery is one try at an entry.
type delivery struct {
	cloudevents.Delivery
	q       *queue
	e       *entry
	driver  *driver
	settled atomic.Bool
}

// next takes a message for d, or returns nil and a channel that is closed when
// none will come because the file cannot be read.
func (q *queue) next(d *driver) (*delivery, <-chan struct{}) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	if q.closed || q.b.out.full() {
		return nil, q.failed
	}
	if !now.Before(q.leaseEnd) {
		ring(q.bell)
		return nil, q.failed
	}
	for len(q.ready) > 0 {
		e := heap.Pop(&q.ready).(*entry)
		q.bytes -= int64(len(e.body))
		q.under[e.id] = e
		e.gone = false
		if e.expires > 0 && e.expires <= now.UnixMilli() {
			q.finish(e)
			continue
		}
		e.attempt++
		x := &delivery{Delivery: cloudevents.Delivery{
			Body: e.body, Metadata: e.metadata, Key: e.key, Topic: e.topic, Attempt: e.attempt,
		}, q: q, e: e, driver: d}
		x.Settle = x.settle
		e.out, e.counted, e.done = x, false, false
		q.ringFor()
		return x, q.failed
	}
	ring(q.bell)
	return nil, q.failed
}

// ringFor passes the token on and asks for more in time.
func (q *queue) ringFor() {
	if len(q.ready) > 0 {
		ring(q.wake)
	}
	if len(q.ready) < readyLow && (q.more || len(q.load) > 0) {
		ring(q.bell)
	}
}

// taken notes that the router has the delivery: it counts as an attempt, even
// if the process dies before it is settled.
func (d *delivery) taken() {
	q, e := d.q, d.e
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || d.settled.Load() {
		return
	}
	e.counted = true
	q.b.out.add(q, change{e: e, kind: counted, attempt: e.attempt})
}

// settle is the delivery's Settle.
func (d *delivery) settle(o cloudevents.Outcome) {
	d.q.mu.Lock()
	defer d.q.mu.Unlock()
	if d.settled.Swap(true) || d.q.closed {
		return
	}
	switch o.Verdict {
	case cloudevents.Ack, cloudevents.Drop:
		d.q.finish(d.e)
	case cloudevents.Retry:
		after := o.After
		if after <= 0 {
			after = min(minBackoff<<min(d.e.attempt-1, 10), maxBackoff)
		}
		d.q.retry(d.e, after)
	default:
		d.q.giveBack(d.e)
	}
}

// finish removes e and lets the next of its key go.
func (q *queue) finish(e *entry) {
	q.b.out.add(q, change{e: e, kind: remove})
	q.settled(e)
	q.free(e)
}

// settled keeps the id of e, so that it is not read again before the outcome
// is written, and lets go of the rest.
func (q *queue) settled(e *entry) {
	e.done, e.out, e.body, e.metadata, e.loaded = true, nil, nil, nil, false
}

func (q *queue) retry(e *entry, after time.Duration) {
	q.b.out.add(q, change{e: e, kind: later, due: millis(time.Now().Add(after)), attempt: e.attempt})
	q.settled(e)
	if e.lane != nil {
		q.parked[e.id] = &entry{id: e.id, lane: e.lane}
		e.lane = nil
	}
}

// giveBack makes e ready again. Its id stays known until the file has the
// right count and the reader begins to look at it anew: what is being read now
// may contain e.
func (q *queue) giveBack(e *entry) {
	e.attempt--
	e.out = nil
	if e.counted {
		q.b.out.add(q, change{e: e, kind: counted, attempt: e.attempt})
	} else {
		q.forget(e)
	}
	q.makeReady(e)
}

// forget lets the reader take e out of under, when it sees fit.
func (q *queue) forget(e *entry) {
	e.gone = true
	q.wrote = append(q.wrote, e)
	if q.members == 0 || len(q.wrote) > readyLow {
		ring(q.bell)
	}
}

func (q *queue) makeReady(e *entry) {
	heap.Push(&q.ready, e)
	q.bytes += int64(len(e.body))
	ring(q.wake)
}

// free passes e's lane on to the next that waits in it.
func (q *queue) free(e *entry) {
	l := e.lane
	e.lane = nil
	switch {
	case l == nil:
	case len(l.wait) > 0:
		next := l.wait[0]
		l.wait[0] = nil
		l.wait = l.wait[1:]
		q.held--
		next.lane = l
		if next.loaded {
			q.heldFor -= int64(len(next.body))
			q.makeReady(next)
			return
		}
		q.load = append(q.load, next)
		ring(q.bell)
	case l.more > 0:
		q.refill = append(q.refill, l)
		ring(q.bell)
	default:
		delete(q.lanes, l.key)
	}
}

// written takes note of what is on the disk. The reader forgets those that are
// settled before it looks at the file the next time, and not while it looks. A
// lost group is taken again, if possible, from the start.
func (q *queue) written(changes []change, lost bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if lost {
		q.lost, q.rescan = true, true
		ring(q.bell)
	}
	for _, c := range changes {
		if c.e.done && c.kind != counted || c.e.out == nil && !c.e.done && c.attempt == c.e.attempt {
			q.forget(c.e)
		}
		if c.kind == later {
			q.recheck = true
			ring(q.bell)
		}
	}
	if len(q.ready) > 0 {
		ring(q.wake)
	}
}

// abandon gives back what a closed component has under way.
func (q *queue) abandon(d *driver) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, e := range q.under {
		if x := e.out; x != nil && x.driver == d && !x.settled.Swap(true) {
			q.giveBack(e)
		}
	}
	ring(q.bell)
}

func (q *queue) failure() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err == nil {
		return fault.New(fault.Unavailable, "read group %q of topic %q: interrupted", q.name.group, q.name.topic)
	}
	return q.err
}

// byID is a heap in the order published.
type byID []*entry

// Len implements heap.Interface.
func (h byID) Len() int { return len(h) }

// Less implements heap.Interface.
func (h byID) Less(i, j int) bool { return h[i].id < h[j].id }

// Swap implements heap.Interface.
func (h byID) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

// Push implements heap.Interface.
func (h *byID) Push(x any) { *h = append(*h, x.(*entry)) }

// Pop implements heap.Interface.
func (h *byID) Pop() any {
	s := *h
	n := len(s) - 1
	e := s[n]
	s[n] = nil
	*h = s[:n]
	return e
}

package inmemory

import (
	"container/heap"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/pubsub"
)

// The wait before a redelivery when the outcome names none: it doubles with
// every attempt.
const (
	minBackoff = 100 * time.Millisecond
	maxBackoff = 15 * time.Second
)

// entry is one message in one queue.
type entry struct {
	seq      uint64 // place in the queue
	body     []byte
	metadata map[string]string
	key      string // the transport's
	due      time.Time
	expires  time.Time
	attempt  int
	lane     *lane   // held by this entry; nil when it has no key or not looked at
	topic    *string // published to; nil: the queue's
}

func (e *entry) expired(now time.Time) bool { return !e.expires.IsZero() && !now.Before(e.expires) }

// lane is a key one of whose messages is ready, under way or to be retried;
// the others wait.
type lane struct {
	key  string
	wait fifo
}

// delivery is one try at an entry.
type delivery struct {
	cloudevents.Delivery
	q       *queue
	e       *entry
	settled atomic.Bool
}

// queue is the messages of one group of a topic or wildcard.
type queue struct {
	topic       string // as subscribed to
	group       string
	maxMessages int
	maxBytes    int64
	wake        chan struct{} // a token for one member; passed on while there is more

	mu      sync.Mutex
	seq     uint64
	fresh   fifo             // never looked at, in order
	back    bySeq            // older than fresh: given back, released, due
	later   byDue            // delayed
	lanes   map[string]*lane // keys held
	timer   *time.Timer      // for the first of later
	count   int
	bytes   int64
	ttl     int // entries that expire, as an upper bound
	members int
	left    time.Time // when the last member went
	swept   time.Time
	closed  bool
}

func newQueue(topic, group string, maxMessages int, maxBytes int64) *queue {
	q := &queue{
		topic: topic, group: group, maxMessages: maxMessages, maxBytes: maxBytes,
		wake: make(chan struct{}, 1), lanes: map[string]*lane{},
	}
	q.timer = time.AfterFunc(time.Hour, q.release)
	q.timer.Stop()
	return q
}

// limit sets the bounds. What is held beyond them stays.
func (q *queue) limit(maxMessages int, maxBytes int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.maxMessages, q.maxBytes = maxMessages, maxBytes
}

func (q *queue) ring() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// join counts a member in. Its keys may be others than those of the members
// before, so what waits is looked at again.
func (q *queue) join() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.members++
	for _, l := range q.lanes {
		for e := l.wait.pop(); e != nil; e = l.wait.pop() {
			heap.Push(&q.back, e)
		}
	}
	q.ring()
}

func (q *queue) leave() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.members--; q.members == 0 {
		q.left = time.Now()
	}
	q.ring() // the token may have been ours
}

func (q *queue) abandoned(d time.Duration) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.members == 0 && time.Since(q.left) >= d
}

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.timer.Stop()
	q.fresh, q.back, q.later, q.lanes = fifo{}, nil, nil, map[string]*lane{}
}

// reserve makes room for n messages of together size bytes.
func (q *queue) reserve(n int, size int64) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed { // forgotten: there is nobody to keep them for
		return nil
	}
	if size > q.maxBytes || n > q.maxMessages {
		return fault.New(fault.Invalid, "%d messages of %d bytes are more than the group may hold (maxMessages %d, maxBytes %d)",
			n, size, q.maxMessages, q.maxBytes)
	}
	if q.full(n, size) {
		q.sweep(time.Now())
	}
	if q.full(n, size) {
		return fault.New(fault.Exhausted, "it holds %d messages of %d bytes that are not yet done (maxMessages %d, maxBytes %d)",
			q.count, q.bytes, q.maxMessages, q.maxBytes)
	}
	q.count += n
	q.bytes += size
	return nil
}

func (q *queue) full(n int, size int64) bool {
	return q.count+n > q.maxMessages || q.bytes+size > q.maxBytes
}

func (q *queue) unreserve(n int, size int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.count -= n
	q.bytes -= size
}

// put adds messages of a topic for which there is room. With clone they get
// metadata of their own, since another queue has the same map.
func (q *queue) put(topic string, batch []pubsub.Message, clone bool) {
	entries := make([]entry, len(batch))
	now := time.Now()
	var other *string
	if topic != q.topic {
		other = new(topic)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return
	}
	for i := range batch {
		m, e := &batch[i], &entries[i]
		q.seq++
		*e = entry{seq: q.seq, body: m.Data, metadata: m.Metadata, key: m.Key, expires: m.Expires, topic: other}
		if clone {
			e.metadata = maps.Clone(m.Metadata)
		}
		if !e.expires.IsZero() {
			q.ttl++
		}
		if m.DeliverAt.After(now) {
			q.delay(e, m.DeliverAt)
			continue
		}
		q.fresh.push(e)
	}
	q.ring()
}

// delay puts e aside until due.
func (q *queue) delay(e *entry, due time.Time) {
	e.due = due
	heap.Push(&q.later, e)
	if q.later[0] == e {
		q.timer.Reset(time.Until(due))
	}
}

// release brings back what has become due.
func (q *queue) release() {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	for len(q.later) > 0 && !q.later[0].due.After(now) {
		heap.Push(&q.back, heap.Pop(&q.later))
	}
	if len(q.later) > 0 {
		q.timer.Reset(q.later[0].due.Sub(now))
	}
	q.ring()
}

// next returns the first message whose key is free, or nil.
func (q *queue) next(key func(*cloudevents.Delivery) string) *delivery {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	for e := q.pop(); e != nil; e = q.pop() {
		if e.expired(now) {
			q.finish(e)
			continue
		}
		d := &delivery{Delivery: cloudevents.Delivery{
			Body: e.body, Metadata: e.metadata, Key: e.key, Attempt: e.attempt + 1,
		}, q: q, e: e}
		if e.topic != nil {
			d.Topic = *e.topic
		}
		if e.lane == nil && !q.admit(d, key) {
			continue
		}
		e.attempt++
		d.Settle = d.settle
		if len(q.back) > 0 || q.fresh.len() > 0 {
			q.ring()
		}
		return d
	}
	return nil
}

func (q *queue) pop() *entry {
	if len(q.back) > 0 {
		return heap.Pop(&q.back).(*entry)
	}
	return q.fresh.pop()
}

// admit takes the lane of the delivery's key, or puts the entry behind the one
// that has it and returns false.
func (q *queue) admit(d *delivery, key func(*cloudevents.Delivery) string) bool {
	k := d.Key
	if key != nil {
		k = key(&d.Delivery)
	}
	if k == "" {
		return true
	}
	if l := q.lanes[k]; l != nil {
		l.wait.push(d.e)
		return false
	}
	d.e.lane = &lane{key: k}
	q.lanes[k] = d.e.lane
	return true
}

// finish removes e and lets the next of its key go.
func (q *queue) finish(e *entry) {
	q.count--
	q.bytes -= int64(len(e.body))
	if !e.expires.IsZero() {
		q.ttl--
	}
	if l := e.lane; l != nil {
		if next := l.wait.pop(); next != nil {
			next.lane = l
			heap.Push(&q.back, next)
			q.ring()
		} else {
			delete(q.lanes, l.key)
		}
	}
	*e = entry{} // its neighbours in the batch may live on
}

// settle is the delivery's Settle.
func (d *delivery) settle(o cloudevents.Outcome) {
	if d.settled.Swap(true) {
		return
	}
	q, e := d.q, d.e
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return
	}
	switch o.Verdict {
	case cloudevents.Ack, cloudevents.Drop:
		q.finish(e)
	case cloudevents.Retry:
		after := o.After
		if after <= 0 {
			after = min(minBackoff<<min(e.attempt-1, 10), maxBackoff)
		}
		q.delay(e, time.Now().Add(after))
	default:
		e.attempt--
		heap.Push(&q.back, e)
		q.ring()
	}
}

// sweep removes what has expired, at most once a second: it looks at all.
func (q *queue) sweep(now time.Time) {
	if q.ttl == 0 || now.Sub(q.swept) < time.Second {
		return
	}
	q.swept = now
	gone := func(e *entry) bool {
		if e.lane != nil || !e.expired(now) {
			return false
		}
		q.finish(e)
		return true
	}
	q.fresh.filter(gone)
	for _, l := range q.lanes {
		l.wait.filter(gone)
	}
	kept := q.later[:0]
	for _, e := range q.later {
		if !gone(e) {
			kept = append(kept, e)
		}
	}
	clear(q.later[len(kept):])
	q.later = kept
	heap.Init(&q.later)
}

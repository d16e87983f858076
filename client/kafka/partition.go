package kafka

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/penstock-io/penstock/cloudevents"
)

// The pause before a delivery is tried again when its outcome names none: it
// doubles with every attempt.
const (
	minRetry = 100 * time.Millisecond
	maxRetry = 15 * time.Second
)

// state is where an item is.
type state uint8

const (
	fresh   state = iota // not looked at
	queued               // behind another of its key
	ready                // to be handed out again
	out                  // handed out
	resting              // waits for its retry
	left                 // left, and not to come again in this subscription
	done
)

// item is one record of a partition that is not committed.
type item struct {
	Record
	bytes   int
	state   state
	attempt int
	key     string // that orders it; empty: none
	timer   *time.Timer
	first   emission // the first one, which most often is the only one
}

// partition is one partition that this member reads: what was fetched, handed
// out and settled of it. What is committed never passes an item that is not
// done.
type partition struct {
	m  *member
	at place
	// wake has a token when there may be something to hand out, room one when
	// there may be room for a fetch.
	wake, room chan struct{}

	// stop ends reading, and work is what reads; moving: another member is to have
	// it, and until is how long what is under way may take. Only the member's own
	// goroutine uses these but moving.
	stop   context.CancelFunc
	work   sync.WaitGroup
	until  time.Time
	moving atomic.Bool
	out    atomic.Int64 // how many are handed out

	mu        sync.Mutex
	items     []*item // not done, or behind one that is not, by offset
	fresh     int     // index of the first fresh one in items
	again     []*item // to be handed out before fresh ones
	keys      map[string][]*item
	bytes     int64
	next      int64  // offset to fetch
	skip      []span // what others have done behind the offset that it began with
	committed progress
	done      int // how many were finished, ever
	acked     int // since the last commit
	gone      bool
}

// progress is how far a partition is: all before an offset is done, and what the
// note tells of behind it. It is that of a time when as many as done had been
// finished.
type progress struct {
	offset int64
	note   string
	done   int
}

func newPartition(m *member, at place, from progress) *partition {
	return &partition{
		m: m, at: at, next: from.offset, committed: from, skip: noted(from.offset, from.note), keys: map[string][]*item{},
		wake: make(chan struct{}, 1), room: make(chan struct{}, 1),
	}
}

func ring(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// full tells whether nothing is to be fetched now: enough is waiting to be
// handed out, or the oldest item that is not done holds up too many.
func (p *partition) full() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	o := &p.m.c.options
	return len(p.items)-p.fresh > readAhead || len(p.items) >= o.MaxUncommitted || p.bytes >= int64(o.MaxHeldBytes)
}

// readAhead is how many records may wait to be handed out when the next fetch
// begins.
const readAhead = 1000

// add takes in what was fetched.
func (p *partition) add(f *fetched) {
	p.mu.Lock()
	p.items = append(p.items, f.items...)
	p.bytes += f.bytes
	p.next = f.next
	if len(p.skip) > 0 {
		p.leaveOut(f.items)
	}
	p.mu.Unlock()
	if len(f.items) > 0 {
		ring(p.wake)
	}
}

// leaveOut marks those of the items that were done by who had the partition
// before. It runs under mu.
func (p *partition) leaveOut(items []*item) {
	for _, it := range items {
		for len(p.skip) > 0 && p.skip[0].to <= it.Offset {
			p.skip = p.skip[1:]
		}
		if len(p.skip) == 0 {
			break
		}
		if p.skip[0].from <= it.Offset {
			p.bytes -= int64(it.bytes)
			it.state, it.Value, it.Headers = done, nil, nil
		}
	}
	p.trim()
}

// emission is one handing out of an item.
type emission struct {
	cloudevents.Delivery
	p       *partition
	it      *item
	settled atomic.Bool
}

// take returns what to hand out next, or nil.
func (p *partition) take(a *attachment) *emission {
	p.mu.Lock()
	defer p.mu.Unlock()
	for !p.gone {
		if len(p.again) > 0 {
			it := p.again[0]
			p.again = p.again[1:]
			return p.hand(it, a)
		}
		if p.fresh == len(p.items) {
			return nil
		}
		it := p.items[p.fresh]
		p.fresh++
		if it.state == done {
			continue
		}
		e := p.emission(it, a)
		if it.key = a.key(&e.Delivery); it.key != "" {
			if waiting, held := p.keys[it.key]; held {
				it.state = queued
				p.keys[it.key] = append(waiting, it)
				continue
			}
			p.keys[it.key] = nil
		}
		return p.give(e)
	}
	return nil
}

func (p *partition) hand(it *item, a *attachment) *emission { return p.give(p.emission(it, a)) }

func (p *partition) emission(it *item, a *attachment) *emission {
	e := &it.first
	if e.it != nil {
		e = &emission{}
	}
	e.p, e.it = p, it
	a.build(&it.Record, &e.Delivery)
	e.Attempt = it.attempt + 1
	e.Settle = e.settle
	return e
}

func (p *partition) give(e *emission) *emission {
	e.it.state = out
	e.it.attempt++
	p.out.Add(1)
	p.m.out.Add(1)
	return e
}

// returned notes that one is not handed out any more.
func (p *partition) returned() {
	rest := p.out.Add(-1)
	if p.m.out.Add(-1) == 0 || rest == 0 && p.moving.Load() {
		ring(p.m.quiet)
	}
}

// settle is the delivery's Settle.
func (e *emission) settle(o cloudevents.Outcome) {
	if e.settled.Swap(true) {
		return
	}
	e.p.settle(e.it, o)
	e.p.returned()
}

func (p *partition) settle(it *item, o cloudevents.Outcome) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone || it.state != out {
		return
	}
	switch o.Verdict {
	case cloudevents.Ack, cloudevents.Drop:
		p.finish(it)
	case cloudevents.Retry:
		after := o.After
		if after <= 0 {
			after = min(minRetry<<min(it.attempt-1, 10), maxRetry)
		}
		it.state = resting
		it.timer = time.AfterFunc(after, func() { p.rested(it) })
	default:
		it.attempt--
		if p.m.sub.LeftStays {
			it.state = left
			return
		}
		p.first(it)
	}
}

// first puts an item before all that wait.
func (p *partition) first(it *item) {
	it.state = ready
	p.again = append([]*item{it}, p.again...)
	ring(p.wake)
}

func (p *partition) rested(it *item) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.gone && it.state == resting {
		it.state = ready
		p.again = append(p.again, it)
		ring(p.wake)
	}
}

// back takes in an emission that the router did not take.
func (p *partition) back(e *emission) {
	if !e.settled.Swap(true) {
		p.mu.Lock()
		if !p.gone && e.it.state == out {
			e.it.attempt--
			p.first(e.it)
		}
		p.mu.Unlock()
		p.returned()
	}
}

// finish notes that an item is done and lets the next of its key go. It runs
// under mu.
func (p *partition) finish(it *item) {
	it.state = done
	p.bytes -= int64(it.bytes)
	it.Value, it.Headers = nil, nil
	if it.key != "" {
		if waiting := p.keys[it.key]; len(waiting) > 0 {
			next := waiting[0]
			p.keys[it.key] = waiting[1:]
			next.state = ready
			p.again = append(p.again, next)
			ring(p.wake)
		} else {
			delete(p.keys, it.key)
		}
	}
	p.done++
	p.trim()
	if p.acked++; p.acked == commitMost {
		ring(p.m.commitNow)
	}
	ring(p.room)
}

// trim lets go of what is done before anything that is not. It runs under mu.
func (p *partition) trim() {
	n := 0
	for n < len(p.items) && p.items[n].state == done {
		p.items[n] = nil
		n++
	}
	p.items = p.items[n:]
	p.fresh = max(p.fresh-n, 0)
}

// commitMost is how many acknowledgements bring a commit forward.
const commitMost = 10_000

// progress returns how far it is, and whether that is not committed.
func (p *partition) progress() (progress, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone {
		return progress{}, false
	}
	now := progress{offset: p.next, done: p.done}
	if len(p.items) > 0 {
		now.offset = p.items[0].Offset
	}
	if now.offset <= p.committed.offset && now.done == p.committed.done {
		return progress{}, false
	}
	now.note = note(now.offset, p.behind())
	p.acked = 0
	return now, now.offset > p.committed.offset || now.offset == p.committed.offset && now.note != p.committed.note
}

// behind are the records that are done behind one that is not. What is between
// two of them and is no record counts as done. It runs under mu.
func (p *partition) behind() (all []span) {
	open := true
	for _, it := range p.items {
		switch {
		case it.state != done:
			open = true
		case open:
			all = append(all, span{it.Offset, it.Offset + 1})
			open = false
		default:
			all[len(all)-1].to = it.Offset + 1
		}
	}
	return all
}

func (p *partition) commit(now progress) {
	p.mu.Lock()
	if now.offset >= p.committed.offset {
		p.committed = now
	}
	p.mu.Unlock()
}

// goesOn tells whether the partition goes on with what it holds, when the group
// has it at from. One that nobody else can have read since needs only not to be
// behind.
func (p *partition) goesOn(from progress, alone bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone {
		return false
	}
	if from.offset == p.committed.offset && from.note == p.committed.note {
		return true
	}
	at := p.next
	if len(p.items) > 0 {
		at = p.items[0].Offset
	}
	return alone && p.committed.offset <= from.offset && from.offset <= at
}

// forget makes outcomes that still come mean nothing.
func (p *partition) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gone = true
	for _, it := range p.items {
		if it.timer != nil {
			it.timer.Stop()
		}
		it.state = done // what still comes of it means nothing
	}
	p.items, p.again, p.keys = nil, nil, nil
}

// serve hands out until ctx ends; an error is one of emit.
func (p *partition) serve(ctx context.Context, a *attachment) error {
	ring(p.wake)
	for ctx.Err() == nil {
		if p.m.frozen() {
			<-ctx.Done() // the member stops reading as soon as it notices
			continue
		}
		e := p.take(a)
		ring(p.room) // also when all that was looked at waits for others of its key
		if e == nil {
			select {
			case <-ctx.Done():
			case <-p.wake:
			}
			continue
		}
		if err := a.emit(ctx, &e.Delivery); err != nil {
			p.back(e)
			if ctx.Err() == nil {
				return err
			}
		}
	}
	return nil
}

package nats

import (
	"context"
	"sync"
	"time"
)

// queue holds what was fetched and not handed out yet.
type queue struct {
	most int
	wake chan struct{} // something came, or the queue ended
	free chan struct{} // something went

	mu    sync.Mutex
	items []*taken
	head  int
	ended bool
}

func newQueue(most int) *queue {
	return &queue{most: most, wake: make(chan struct{}, 1), free: make(chan struct{}, 1)}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (q *queue) push(x *taken) {
	q.mu.Lock()
	q.items = append(q.items, x)
	q.mu.Unlock()
	signal(q.wake)
}

// room waits until half of the queue is free, and returns how much is.
func (q *queue) room(ctx context.Context) int {
	for {
		q.mu.Lock()
		n := q.most - (len(q.items) - q.head)
		q.mu.Unlock()
		if n >= (q.most+1)/2 {
			return n
		}
		select {
		case <-q.free:
		case <-ctx.Done():
			return 0
		}
	}
}

// pop waits for the next; nil when ctx ended or nothing comes any more.
func (q *queue) pop(ctx context.Context) *taken {
	for {
		if ctx.Err() != nil {
			return nil
		}
		q.mu.Lock()
		if q.head < len(q.items) {
			x := q.items[q.head]
			q.items[q.head] = nil
			if q.head++; q.head == len(q.items) {
				q.items, q.head = q.items[:0], 0
			}
			q.mu.Unlock()
			signal(q.free)
			return x
		}
		ended := q.ended
		q.mu.Unlock()
		if ended {
			return nil
		}
		select {
		case <-q.wake:
		case <-ctx.Done():
		}
	}
}

// end lets pop return nil when the queue is empty.
func (q *queue) end() {
	q.mu.Lock()
	q.ended = true
	q.mu.Unlock()
	signal(q.wake)
}

// close returns what nobody took.
func (q *queue) close() []*taken {
	q.mu.Lock()
	defer q.mu.Unlock()
	left := q.items[q.head:]
	q.items, q.head = nil, 0
	return left
}

// pace spreads bytes over time.
type pace struct {
	perByte time.Duration
	next    time.Time
}

func newPace(bitsPerSecond uint64) *pace {
	if bitsPerSecond == 0 {
		return &pace{}
	}
	return &pace{perByte: time.Duration(8 * uint64(time.Second) / bitsPerSecond)}
}

// wait waits for as long as n bytes take; false when ctx ended.
func (p *pace) wait(ctx context.Context, n int) bool {
	if p.perByte == 0 {
		return true
	}
	now := time.Now()
	if p.next.Before(now) {
		p.next = now
	}
	p.next = p.next.Add(time.Duration(n) * p.perByte)
	t := time.NewTimer(time.Until(p.next))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

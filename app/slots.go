package app

import (
	"container/list"
	"context"
	"sync"
	"time"
)

// patience is how long calls wait in their order. When the first of them has waited
// longer there are more than the app can do, and then the newest goes first: its
// caller is still there when it is answered, which one that waits for long may not
// be. In order, all of them would be answered too late.
const patience = 100 * time.Millisecond

// slots bound what the app does at a time. Events and calls wait apart, and take
// turns: events keep their order, whoever else is there.
type slots struct {
	mu     sync.Mutex // guards what follows
	free   int
	events list.List // of *waiting, the first one came first
	calls  list.List
	called bool // the last turn was a call's
}

// waiting is who waits for a slot.
type waiting struct {
	since time.Time
	got   chan struct{} // closed when the slot is there
}

// newSlots makes n slots, or nil, which has no bound.
func newSlots(n int) *slots {
	if n <= 0 {
		return nil
	}
	return &slots{free: n}
}

// event waits for a slot in the order of events; release must follow unless there
// is an error, which is that of ctx.
func (s *slots) event(ctx context.Context) error {
	if s == nil {
		return nil
	}
	return s.wait(ctx, &s.events)
}

// call is event for calls of other apps.
func (s *slots) call(ctx context.Context) error {
	if s == nil {
		return nil
	}
	return s.wait(ctx, &s.calls)
}

func (s *slots) wait(ctx context.Context, queue *list.List) error {
	s.mu.Lock()
	if s.free > 0 {
		s.free--
		s.mu.Unlock()
		return nil
	}
	w := &waiting{time.Now(), make(chan struct{})}
	place := queue.PushBack(w)
	s.mu.Unlock()
	select {
	case <-w.got:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-w.got: // at the same moment
		s.pass()
	default:
		queue.Remove(place)
	}
	return ctx.Err()
}

func (s *slots) release() {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pass()
}

// pass gives a slot to who is next. It runs under mu.
func (s *slots) pass() {
	next := s.next()
	if next == nil {
		s.free++
		return
	}
	close(next.got)
}

// next takes who is next from its queue; nil: nobody waits.
func (s *slots) next() *waiting {
	event, call := s.events.Front(), s.calls.Front()
	switch {
	case event == nil && call == nil:
		return nil
	case call == nil || event != nil && s.called:
		s.called = false
		return s.events.Remove(event).(*waiting)
	}
	s.called = true
	if time.Since(call.Value.(*waiting).since) > patience {
		call = s.calls.Back()
	}
	return s.calls.Remove(call).(*waiting)
}

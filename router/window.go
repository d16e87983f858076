package router

import (
	"context"
	"sync"
)

// window bounds what a route has taken and not settled, by count and by bytes.
// Who asks first is let in first, so a large body is not overtaken for ever; a
// body larger than the whole window is let in alone.
type window struct {
	max      int
	maxBytes int64

	mu      sync.Mutex
	count   int
	bytes   int64
	waiting []*waiter // oldest first; never longer than the callers of enter
	closed  bool
}

// waiter is one caller of enter that found the window full.
type waiter struct {
	size int64
	in   chan bool // gets true when let in, false when the window closed
}

func newWindow(r *Route) *window { return &window{max: r.Window, maxBytes: r.WindowBytes} }

// enter waits until there is room for size bytes and takes it. It returns
// errStopped when the window is or gets closed, and the cause when ctx ends.
func (w *window) enter(ctx context.Context, size int64) error {
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return errStopped
	}
	if len(w.waiting) == 0 && w.fits(size) {
		w.take(size)
		w.mu.Unlock()
		return nil
	}
	me := &waiter{size: size, in: make(chan bool, 1)}
	w.waiting = append(w.waiting, me)
	w.mu.Unlock()

	select {
	case in := <-me.in:
		return enterResult(in)
	case <-ctx.Done():
		return w.giveUp(ctx, me)
	}
}

// giveUp takes me out of the queue. Whoever was let in meanwhile is in.
func (w *window) giveUp(ctx context.Context, me *waiter) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, other := range w.waiting {
		if other == me {
			w.waiting = append(w.waiting[:i], w.waiting[i+1:]...)
			w.admit() // the next one may be smaller
			return context.Cause(ctx)
		}
	}
	return enterResult(<-me.in)
}

func enterResult(in bool) error {
	if !in {
		return errStopped
	}
	return nil
}

// leave gives room back.
func (w *window) leave(size int64) {
	w.mu.Lock()
	w.count--
	w.bytes -= size
	w.admit()
	w.mu.Unlock()
}

// close sends every waiter away and lets nobody in any more.
func (w *window) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	for _, x := range w.waiting {
		x.in <- false
	}
	w.waiting = nil
}

// use returns what is taken.
func (w *window) use() (count int, bytes int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.count, w.bytes
}

// admit lets in who fits, in order. It runs under mu.
func (w *window) admit() {
	n := 0
	for n < len(w.waiting) && w.fits(w.waiting[n].size) {
		w.take(w.waiting[n].size)
		w.waiting[n].in <- true
		n++
	}
	if n > 0 {
		w.waiting = append(w.waiting[:0], w.waiting[n:]...)
	}
}

func (w *window) fits(size int64) bool {
	return w.count == 0 || w.count < w.max && w.bytes+size <= w.maxBytes
}

func (w *window) take(size int64) {
	w.count++
	w.bytes += size
}

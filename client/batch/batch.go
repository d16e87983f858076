// Package batch gathers what many callers write into few requests, without
// waiting for a clock: while one request is under way the next one fills, so a
// lone write goes out at once and a crowd of them goes out together.
//
// A [Writer] serves both directions: publishes, whose callers wait for their own
// result, and acknowledgements, which nobody waits for.
//
// Every item gets exactly one result, items are written in the order they came
// when at most one request is under way, and there is no goroutine while there
// is nothing to do.
package batch

import (
	"context"
	"runtime"
	"sync"

	"github.com/penstock-io/penstock/fault"
)

// Options say how a [Writer] gathers.
type Options[T any] struct {
	// Write sends a batch, whose slice it must not keep. It returns nil when all
	// of it is done, else one error per item, nil where it is done; All makes
	// that of one error. ctx ends when Close loses its patience.
	Write func(ctx context.Context, items []T) []error
	// Most is how many items one batch has at most; 0 means 256.
	Most int
	// Bytes is how large a batch grows at most, by Size; 0 means without limit.
	// An item larger than that goes alone.
	Bytes int
	Size  func(T) int
	// Parallel is how many batches are under way at most; 0 means one, which
	// alone keeps the order.
	Parallel int
}

const defaultMost = 256

// Writer gathers items into batches. Make one with [NewWriter]. All methods may
// be used by many goroutines.
type Writer[T any] struct {
	options Options[T]
	ctx     context.Context // of the batches: ends when Close gives up
	cancel  context.CancelFunc
	work    sync.WaitGroup
	calls   sync.Pool // of Do, with the channels that they wait at

	mu      sync.Mutex // guards what follows
	queue   []entry[T]
	running int
	closed  bool
}

// entry is one queued item. A withdrawn one has no call.
type entry[T any] struct {
	item T
	call *call
	at   int // its place in the call
}

// call is one Do or Add and the results of its items.
type call struct {
	mu   sync.Mutex // guards errs and left: batches may end side by side
	errs []error    // nil as long as nothing failed
	n    int
	left int
	// One of these is told the result.
	done   func(errs []error)
	result chan []error
}

// NewWriter makes a writer. Batches get the values of ctx, not its end.
func NewWriter[T any](ctx context.Context, o Options[T]) *Writer[T] {
	if o.Most < 1 {
		o.Most = defaultMost
	}
	o.Parallel = max(o.Parallel, 1)
	w := &Writer[T]{options: o}
	w.ctx, w.cancel = context.WithCancel(context.WithoutCancel(ctx))
	return w
}

// Add queues one item and returns at once. done is called exactly once with the
// result, from another goroutine, and must not block; nil when nobody cares.
// After Close the result is an error of kind Unavailable.
func (w *Writer[T]) Add(item T, done func(error)) {
	c := &call{n: 1, left: 1, done: func(errs []error) {
		if done == nil {
			return
		}
		if errs == nil {
			done(nil)
			return
		}
		done(errs[0])
	}}
	w.put(c, item)
}

// Do writes the items and waits for all of their results: nil when all are
// done, else one error per item. When ctx ends first, items that no batch has
// taken yet are withdrawn, and those under way have an unknown end: both have the
// error of ctx.
func (w *Writer[T]) Do(ctx context.Context, items ...T) []error {
	if len(items) == 0 {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return All(len(items), fault.Wrap(err, "write"))
	}
	c, _ := w.calls.Get().(*call)
	if c == nil {
		c = &call{result: make(chan []error, 1)}
	}
	c.n, c.left, c.errs = len(items), len(items), nil
	w.put(c, items...)
	select {
	case errs := <-c.result: // nobody else knows of c any more
		w.calls.Put(c)
		return errs
	case <-ctx.Done():
		w.withdraw(c)
		return All(len(items), fault.Wrap(ctx.Err(), "write"))
	}
}

// All makes the result of a batch of n items that have one error together.
func All(n int, err error) []error {
	if err == nil {
		return nil
	}
	errs := make([]error, n)
	for i := range errs {
		errs[i] = err
	}
	return errs
}

// Close refuses what comes from now on and waits until all that is queued is
// written. When ctx ends first, batches under way are cut and the rest of the
// queue has that as its error.
func (w *Writer[T]) Close(ctx context.Context) error {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	idle := make(chan struct{})
	go func() {
		w.work.Wait()
		close(idle)
	}()
	defer w.cancel()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		w.cancel()
		<-idle
		return fault.Wrap(ctx.Err(), "write what is queued")
	}
}

// put queues items and sees that somebody writes them.
func (w *Writer[T]) put(c *call, items ...T) {
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		c.all(fault.New(fault.Unavailable, "write: already closed"))
		return
	}
	for i := range items {
		w.queue = append(w.queue, entry[T]{items[i], c, i})
	}
	start := w.running < w.options.Parallel
	if start {
		w.running++
		w.work.Add(1)
	}
	w.mu.Unlock()
	if start {
		go w.run()
	}
}

// run writes batches until nothing is queued. Callers that are about to queue
// something, as those are who had a result just now, may do so first.
func (w *Writer[T]) run() {
	defer w.work.Done()
	var batch []entry[T]
	var items []T
	for {
		runtime.Gosched()
		if batch = w.next(batch[:0]); len(batch) == 0 {
			return
		}
		items = items[:0]
		for i := range batch {
			items = append(items, batch[i].item)
		}
		errs := w.write(items)
		for i := range batch {
			var err error
			if i < len(errs) {
				err = errs[i]
			}
			batch[i].call.one(batch[i].at, err)
		}
		clear(batch)
		clear(items)
	}
}

// write sends one batch. After Close has given up nothing is sent.
func (w *Writer[T]) write(items []T) []error {
	if err := w.ctx.Err(); err != nil {
		return All(len(items), fault.Wrap(err, "write"))
	}
	return w.options.Write(w.ctx, items)
}

// next moves up to one batch out of the queue. When there is none the caller
// must stop: it no longer counts as running.
func (w *Writer[T]) next(batch []entry[T]) []entry[T] {
	w.mu.Lock()
	defer w.mu.Unlock()
	size, taken := 0, 0
	for i := range w.queue {
		e := &w.queue[i]
		if e.call == nil {
			taken++
			continue
		}
		if len(batch) == w.options.Most {
			break
		}
		if w.options.Bytes > 0 {
			if size += w.options.Size(e.item); size > w.options.Bytes && len(batch) > 0 {
				break
			}
		}
		batch = append(batch, *e)
		taken++
	}
	left := copy(w.queue, w.queue[taken:])
	clear(w.queue[left:])
	w.queue = w.queue[:left]
	if len(batch) == 0 {
		w.running--
	}
	return batch
}

// withdraw takes the items of a call out of the queue.
func (w *Writer[T]) withdraw(c *call) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range w.queue {
		if w.queue[i].call == c {
			w.queue[i] = entry[T]{}
		}
	}
}

// one notes the result of one item.
func (c *call) one(at int, err error) {
	c.mu.Lock()
	if err != nil {
		if c.errs == nil {
			c.errs = make([]error, c.n)
		}
		c.errs[at] = err
	}
	c.left--
	last := c.left == 0
	c.mu.Unlock()
	if last {
		c.tell(c.errs)
	}
}

// tell gives the result to whoever waits for it. The call may be used for another
// one then.
func (c *call) tell(errs []error) {
	if c.done != nil {
		c.done(errs)
		return
	}
	c.result <- errs
}

// all gives every item the same error.
func (c *call) all(err error) { c.tell(All(c.n, err)) }

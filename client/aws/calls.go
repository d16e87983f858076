package aws

import (
	"context"
	"sync"

	"github.com/penstock-io/penstock/fault"
)

// Calls counts the requests of one component that are under way, so that its end
// waits for them. Make one with [NewCalls].
type Calls struct {
	ctx    context.Context // ends when Close gives up
	cancel context.CancelFunc

	mu     sync.Mutex // guards what follows
	closed bool
	work   sync.WaitGroup
}

// NewCalls makes a count of none. It has the values of ctx, not its end.
func NewCalls(ctx context.Context) *Calls {
	c := &Calls{}
	c.ctx, c.cancel = context.WithCancel(context.WithoutCancel(ctx))
	return c
}

// Begin counts a request in, which uses the context returned and calls done at
// its end. Kind Unavailable after Close.
func (c *Calls) Begin(ctx context.Context) (_ context.Context, done func(), err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, nil, fault.New(fault.Unavailable, "the component is closed")
	}
	c.work.Add(1)
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(c.ctx, cancel)
	return ctx, func() { stop(); cancel(); c.work.Done() }, nil
}

// Close lets none in from now on, and waits for those under way; when ctx ends
// they are cut.
func (c *Calls) Close(ctx context.Context) {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	defer c.cancel()
	defer context.AfterFunc(ctx, c.cancel)()
	c.work.Wait()
}

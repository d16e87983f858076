package rabbitmq

import (
	"context"
	"sync"

	"github.com/penstock-io/penstock/fault"
)

// Calls counts the publishes of one component that are under way, so that its end
// waits for them. The zero value is ready for use.
type Calls struct {
	mu     sync.Mutex
	closed bool
	work   sync.WaitGroup
}

// Begin counts one in, which must End; false after Close.
func (c *Calls) Begin() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.work.Add(1)
	}
	return !c.closed
}

// End counts one out.
func (c *Calls) End() { c.work.Done() }

// Close lets none in from now on; false when that was so already.
func (c *Calls) Close() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	was := c.closed
	c.closed = true
	return !was
}

// Wait waits, after Close, for those under way until ctx ends.
func (c *Calls) Wait(ctx context.Context) error {
	done := make(chan struct{})
	go func() { c.work.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fault.Wrap(ctx.Err(), "close: wait for publishes")
	}
}

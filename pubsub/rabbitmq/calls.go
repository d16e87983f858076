package rabbitmq

import (
	"context"
	"sync"

	"github.com/penstock-io/penstock/fault"
)

var errClosed = fault.New(fault.Unavailable, "the broker is closed")

// calls are the publishes under way.
type calls struct {
	mu     sync.Mutex
	closed bool
	work   sync.WaitGroup
}

// begin counts one in; false when the driver is closed.
func (c *calls) begin() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.work.Add(1)
	}
	return !c.closed
}

func (c *calls) end() { c.work.Done() }

// close refuses what comes from now on; false when that was so already.
func (c *calls) close() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	was := c.closed
	c.closed = true
	return !was
}

// wait waits for those under way.
func (c *calls) wait(ctx context.Context) error {
	done := make(chan struct{})
	go func() { c.work.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fault.Wrap(ctx.Err(), "close: wait for publishes")
	}
}

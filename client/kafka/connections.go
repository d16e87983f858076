package kafka

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/penstock-io/penstock/fault"
)

// connections are those that were dialled and not closed, so that all can be
// closed at once: the client library waits for answers that may never come.
type connections struct {
	dialer net.Dialer

	mu   sync.Mutex
	open map[*connection]struct{}
	over bool
}

func newConnections(timeout, keepAlive time.Duration) *connections {
	return &connections{dialer: net.Dialer{Timeout: timeout, KeepAlive: keepAlive}, open: map[*connection]struct{}{}}
}

type connection struct {
	net.Conn
	all *connections
}

var errCut = fault.New(fault.Unavailable, "the connection to kafka is closed")

func (c *connections) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := c.dialer.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	made := &connection{conn, c}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		_ = conn.Close() // nothing was written
		return nil, errCut
	}
	c.open[made] = struct{}{}
	return made, nil
}

// Close closes the connection.
func (c *connection) Close() error {
	c.all.mu.Lock()
	delete(c.all.open, c)
	c.all.mu.Unlock()
	return c.Conn.Close()
}

// cut closes all connections and lets no new ones be made.
func (c *connections) cut() {
	c.mu.Lock()
	c.over = true
	open := make([]*connection, 0, len(c.open))
	for conn := range c.open {
		open = append(open, conn)
	}
	c.mu.Unlock()
	for _, conn := range open {
		_ = conn.Close() // whoever uses it sees that
	}
}

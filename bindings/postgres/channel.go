package postgres

import (
	"context"
	"crypto/rand"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/penstock-io/penstock/bindings"
	client "github.com/penstock-io/penstock/client/postgres"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
)

// notesMost is how many notifications wait in memory; then the server keeps them.
const notesMost = 1024

// note is a notification that waits.
type note struct {
	id, payload string
	attempt     int
	due         time.Time
}

// channel reads notifications. Nothing but this process has them.
type channel struct {
	name    string
	origin  string
	stop    context.CancelFunc
	running sync.WaitGroup // the listener
	reads   sync.WaitGroup
	bell    chan struct{} // for Read
	room    chan struct{} // for the listener

	mu     sync.Mutex
	closed bool
	notes  []note
	left   []note // for the next Read
}

// openChannel listens before it returns, so that nothing is missed from then on.
func openChannel(ctx context.Context, db *client.DB, env component.Env, o options) (input, error) {
	c := &channel{name: o.Channel, origin: env.Name, bell: make(chan struct{}, 1), room: make(chan struct{}, 1)}
	up := make(chan struct{}, 1)
	var why atomic.Value
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	c.stop = stop
	failing := false
	c.running.Go(func() {
		db.Listen(life, client.Listener{
			Channels: []string{o.Channel},
			Notified: func(_, payload string) { c.heard(life, payload) },
			Up:       func() { failing = false; ring(up) },
			Down: func(err error) {
				why.Store(err)
				if !failing {
					failing = true
					logger(env).Warn("notifications are missed until the server is back", "channel", o.Channel, "error", err)
				}
			},
		})
	})
	first, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	select {
	case <-up:
		return c, nil
	case <-first.Done():
	}
	stop()
	c.running.Wait()
	err, _ := why.Load().(error)
	if err == nil {
		err = first.Err()
	}
	return nil, fault.Wrap(err, "listen on channel %q", o.Channel)
}

// heard keeps a notification, when there is room for it.
func (c *channel) heard(ctx context.Context, payload string) {
	for ctx.Err() == nil {
		c.mu.Lock()
		if len(c.notes)+len(c.left) < notesMost {
			c.notes = append(c.notes, note{id: rand.Text(), payload: payload, attempt: 1})
			ring(c.bell)
			c.mu.Unlock()
			return
		}
		c.mu.Unlock()
		select {
		case <-c.room:
		case <-ctx.Done():
		}
	}
}

// Read implements bindings.Reader.
func (c *channel) Read(ctx context.Context, emit cloudevents.EmitFunc) error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return errClosed
	}
	c.reads.Add(1)
	c.notes = append(c.left, c.notes...)
	c.left = nil
	c.mu.Unlock()
	defer c.reads.Done()
	for ctx.Err() == nil {
		n, pause, err := c.next()
		if err != nil {
			return err
		}
		if n == nil {
			wait(ctx, c.bell, pause)
			continue
		}
		if err := emit(ctx, c.deliver(n)); err != nil {
			c.keep(*n)
			if ctx.Err() == nil {
				return fault.Wrap(err, "hand over notification")
			}
		}
	}
	return nil
}

// next takes the first notification that is due; else it tells how long to wait.
func (c *channel) next() (*note, time.Duration, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, 0, errClosed
	}
	pause := time.Hour
	for i, n := range c.notes {
		if d := time.Until(n.due); d > 0 {
			pause = min(pause, d)
			continue
		}
		c.notes = append(c.notes[:i], c.notes[i+1:]...)
		ring(c.room)
		return &n, 0, nil
	}
	return nil, pause, nil
}

func (c *channel) deliver(n *note) *cloudevents.Delivery {
	d := delivery(c.origin, bindings.Received{
		ID: n.id, Source: "postgres:" + url.PathEscape(c.name), Type: "io.penstock.postgres.notification", Data: []byte(n.payload),
	}, n.attempt, nil)
	var settled atomic.Bool
	again := *n
	d.Settle = func(o cloudevents.Outcome) {
		if settled.Swap(true) {
			return
		}
		switch o.Verdict {
		case cloudevents.Retry:
			again.due = time.Now().Add(backoff(o, again.attempt))
			again.attempt++
			c.mu.Lock()
			defer c.mu.Unlock()
			c.notes = append(c.notes, again)
			ring(c.bell)
		case cloudevents.Leave:
			c.keep(again)
		}
	}
	return d
}

// keep has a notification come with the next Read.
func (c *channel) keep(n note) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.left = append(c.left, n)
}

func (c *channel) close(ctx context.Context) error {
	c.mu.Lock()
	c.closed = true
	ring(c.bell)
	c.mu.Unlock()
	c.stop()
	c.running.Wait()
	return waitFor(ctx, &c.reads)
}

var errClosed = fault.New(fault.Unavailable, "read: the binding is closed")

// waitFor waits for the group until ctx ends.
func waitFor(ctx context.Context, wg *sync.WaitGroup) error {
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fault.Wrap(ctx.Err(), "close: wait for readers")
	}
}

package webhook

import (
	"context"
	"strconv"
	"sync"
	"testing"

	"github.com/penstock-io/penstock/cloudevents"
)

// counter is a route that acknowledges and counts.
type counter struct {
	mu  sync.Mutex
	got map[string]int
}

func (c *counter) emit(_ context.Context, d *cloudevents.Delivery) error {
	c.mu.Lock()
	c.got[d.Event.ID()]++
	c.mu.Unlock()
	d.Settle(cloudevents.Acked())
	return nil
}

func (c *counter) events() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.got)
}

// read runs Read and returns what ends it.
func (c *counter) read(t *testing.T, r *receiver) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = r.Read(ctx, c.emit) })
	waitFor(t, "ready", r.hook.ready)
	return func() {
		cancel()
		wg.Wait()
	}
}

// load sends from four clients until quit closes, then says how many. What the
// old component turns away in the moment of its stop is sent again, as
// providers do.
func load(t *testing.T, r *receiver, quit <-chan struct{}) (total func() int) {
	sent := make(chan int, 4)
	client := func(w int) {
		n := 0
		defer func() { sent <- n }()
		for ; ; n++ {
			select {
			case <-quit:
				return
			default:
			}
			id := strconv.Itoa(w) + "-" + strconv.Itoa(n)
			for send(t, r, "POST", "/in", "x", "Webhook-Id", id).status == 503 {
			}
		}
	}
	for w := range 4 {
		go client(w)
	}
	return func() int { return <-sent + <-sent + <-sent + <-sent }
}

// TestReloadUnderLoad swaps the component again and again while requests come
// in: none fails, and every event is delivered exactly once.
func TestReloadUnderLoad(t *testing.T) {
	t.Parallel()
	for _, answer := range []string{"outcome", "accepted"} {
		t.Run(answer, func(t *testing.T) {
			t.Parallel()
			env := newEnv(t, "in")
			c := &counter{got: map[string]int{}}
			first := openWebhook(t, env, "answer", answer) // kept open: its address is used to the end
			current, stop := first, c.read(t, first)
			quit := make(chan struct{})
			total := load(t, first, quit)
			for range 20 {
				next := openWebhook(t, env, "answer", answer)
				stopNext := c.read(t, next)
				stop()
				if current != first {
					if err := current.Close(t.Context()); err != nil {
						t.Errorf("close: %v", err)
					}
				}
				current, stop = next, stopNext
			}
			close(quit)
			n := total()
			waitFor(t, "all to be delivered", func() bool { return c.events() == n })
			stop()
			for id, n := range c.got {
				if n != 1 {
					t.Errorf("%s was delivered %d times", id, n)
				}
			}
			t.Logf("%d events over 20 reloads", n)
		})
	}
}

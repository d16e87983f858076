package router

import (
	"context"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/penstock-io/penstock/cloudevents"
)

// round is one hand-over of a passage, and the context of it.
//
// It is not derived from the subscription's context, which Watermill cancels
// the moment a router closes: it ends when the round is over or at the hard
// stop of the route, whatever comes first. It carries the delivery, so nothing
// has to be copied into a message's metadata.
type round struct {
	passage *passage
	message message.Message // what Watermill carries in our own routes
	crew    []*round        // the others that this one's message carries

	mu    sync.Mutex
	ended bool
	done  chan struct{} // made when somebody asks
	hooks []*hook
	one   [1]*hook // the room for the usual one
}

// hook is a function to call at the end.
type hook struct{ call func() }

type roundKey struct{}

// endless is a context without its end: only the values count. Unlike that of
// context.WithoutCancel, a look at them allocates nothing, and a round is asked
// for several that it does not have.
type endless struct{ context.Context }

// Deadline implements [context.Context]: there is none.
func (*endless) Deadline() (time.Time, bool) { return time.Time{}, false }

// Done implements [context.Context]: never.
func (*endless) Done() <-chan struct{} { return nil }

// Err implements [context.Context]: never.
func (*endless) Err() error { return nil }

// Value implements [context.Context]. Package context looks for what ends a
// context, and for why, under a key of type *int; that is not passed on.
func (e *endless) Value(key any) any {
	if _, end := key.(*int); end {
		return nil
	}
	return e.Context.Value(key)
}

// roundFrom finds the round in ctx, or returns nil.
func roundFrom(ctx context.Context) *round {
	r, _ := ctx.Value(roundKey{}).(*round)
	return r
}

// DeliveryFrom returns the delivery whose hand-over ctx belongs to, or nil. The
// context of a Watermill message that came from this package has one; so has
// the context that steps and targets get.
func DeliveryFrom(ctx context.Context) *cloudevents.Delivery {
	if r := roundFrom(ctx); r != nil {
		return r.passage.d
	}
	return nil
}

// Deadline implements [context.Context]: there is none.
func (r *round) Deadline() (time.Time, bool) { return time.Time{}, false }

// Done implements [context.Context].
func (r *round) Done() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.done == nil {
		r.done = make(chan struct{})
		if r.ended {
			close(r.done)
		}
	}
	return r.done
}

// Err implements [context.Context].
func (r *round) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		return context.Canceled
	}
	return nil
}

// Value implements [context.Context].
func (r *round) Value(key any) any {
	if _, ok := key.(roundKey); ok {
		return r
	}
	return r.passage.flow.base.Value(key)
}

// AfterFunc lets package context follow this context without a goroutine. The
// functions it hands in only pass the end on and are quick.
func (r *round) AfterFunc(f func()) (stop func() bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		// The caller holds its own lock, so f must not run right here.
		go f()
		return func() bool { return false }
	}
	h := &hook{call: f}
	if r.hooks == nil {
		r.hooks = r.one[:0]
	}
	r.hooks = append(r.hooks, h)
	return func() bool { return r.unhook(h) }
}

func (r *round) unhook(h *hook) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, other := range r.hooks {
		if other == h {
			r.hooks = append(r.hooks[:i], r.hooks[i+1:]...)
			return true
		}
	}
	return false
}

// end ends the context. It may be called more than once.
func (r *round) end() {
	r.mu.Lock()
	hooks := r.hooks
	r.hooks = nil
	if !r.ended && r.done != nil {
		close(r.done)
	}
	r.ended = true
	r.mu.Unlock()
	for _, h := range hooks {
		h.call()
	}
}

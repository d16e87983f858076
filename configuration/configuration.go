// Package configuration is the contract of configuration stores: items that
// somebody else keeps, and that an app reads and is told the changes of.
//
// An implementation lives in a folder below this one and returns a [Driver].
// Everybody else reads through a [Store] and hears of changes through a
// [Subscription], which add what all stores share: limits, the outbound policy,
// opening in the background and error kinds.
//
// A subscription gets every item as it is in the end: a change that was missed
// while the store could not be reached is found when it can be again, one that
// could not be delivered is delivered later, and of several changes in between
// the last counts.
package configuration

import (
	"context"
	"sync"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
)

// Item is one value of a configuration.
type Item struct {
	Value string
	// Version is the store's own word for it; empty when it has none.
	Version  string
	Metadata map[string]string
}

// Driver is what an implementation returns from its open function.
type Driver interface {
	// Get returns the items under keys, or all there are when none is named. What
	// is not there is left out. Metadata is that of the request and may be nil.
	Get(ctx context.Context, keys []string, metadata map[string]string) (map[string]Item, error)
	// Watch says what may have changed until ctx ends, which is no error, or
	// until it cannot hear of changes any more, which is one.
	Watch(ctx context.Context, w Watch) error
	// Close frees everything; a Watch under way ends.
	Close(ctx context.Context) error
}

// Watch is what to hear of, and whom to tell. Its functions return at once.
type Watch struct {
	// Keys are those of interest; empty: all.
	Keys []string
	// Metadata is that of the request. May be nil.
	Metadata map[string]string
	// Up is called when every change from now on is heard of. What was before
	// may have been missed.
	Up func()
	// Changed is called with a key whose item may have changed, or be gone. It
	// may be one that nobody asked for.
	Changed func(key string)
}

// Define makes the definition of a store called "configuration.<name>".
func Define[O any](name string, about component.About, open func(context.Context, component.Env, O) (Driver, error)) component.Definition {
	return component.Define("configuration."+name, about, nil, open)
}

// Watches ends the watches of a driver when it closes. The zero value is ready.
type Watches struct {
	mu      sync.Mutex
	ended   bool
	cancels map[*context.CancelFunc]struct{}
	running sync.WaitGroup
}

// Begin returns a context for a watch, which ends with ctx and with End. Done
// must be called when the watch has ended. It fails after End.
func (w *Watches) Begin(ctx context.Context) (_ context.Context, done func(), err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended {
		return nil, nil, fault.New(fault.Unavailable, "watch: the store is closed")
	}
	ctx, cancel := context.WithCancel(ctx)
	if w.cancels == nil {
		w.cancels = map[*context.CancelFunc]struct{}{}
	}
	w.cancels[&cancel] = struct{}{}
	w.running.Add(1)
	return ctx, func() {
		cancel()
		w.mu.Lock()
		delete(w.cancels, &cancel)
		w.mu.Unlock()
		w.running.Done()
	}, nil
}

// End ends all watches and waits for them.
func (w *Watches) End() {
	w.mu.Lock()
	w.ended = true
	for cancel := range w.cancels {
		(*cancel)()
	}
	w.mu.Unlock()
	w.running.Wait()
}

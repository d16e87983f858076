package configuration

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/penstock-io/penstock/fault"
)

// The wait before a store or an app is tried again doubles from first to last.
const (
	firstWait = 200 * time.Millisecond
	lastWait  = 10 * time.Second
	// maxDirty is how many changed keys are remembered; beyond, all are read.
	maxDirty = 1000
)

// Subscription delivers the changes of some items, or of all.
type Subscription struct {
	// Find returns the store. It is asked again after every break, so that a
	// store which took another's place is found.
	Find func() (*Store, error)
	// Keys are those of interest; empty: all. Metadata is that of the request.
	Keys     []string
	Metadata map[string]string
	// Ready is called once, when every change from now on will be delivered. An
	// error ends the subscription.
	Ready func() error
	// Deliver hands over one item; one that is gone is the zero item. It is
	// called for one at a time, again after an error, and never for an item that
	// is as it was delivered last.
	Deliver func(ctx context.Context, key string, item Item) error
	// Logger is told when changes cannot be heard of or delivered.
	Logger *slog.Logger

	known map[string]Item // as delivered last
	begun bool            // Ready has been called

	mu    sync.Mutex // guards what follows
	dirty map[string]struct{}
	all   bool
	wake  chan struct{}
}

// Run runs the subscription until ctx ends, which is no error. It fails when the
// store cannot be watched to begin with; after that it goes on for ever.
func (s *Subscription) Run(ctx context.Context) error {
	if err := check(s.Keys); err != nil {
		return err
	}
	s.wake, s.dirty = make(chan struct{}, 1), map[string]struct{}{}
	for wait := firstWait; ; wait = min(2*wait, lastWait) {
		began := time.Now()
		err := s.once(ctx)
		switch {
		case ctx.Err() != nil && s.begun:
			return nil
		case !s.begun || errors.Is(err, errNotReady):
			return err
		}
		if time.Since(began) > lastWait {
			wait = firstWait
		}
		s.Logger.Warn("Configuration changes are not heard of, trying again", "error", err)
		if !pause(ctx, wait) {
			return nil
		}
	}
}

var errNotReady = errors.New("the subscriber is gone")

// once watches until the watch breaks.
func (s *Subscription) once(ctx context.Context) error {
	store, err := s.Find()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var watching sync.WaitGroup
	watching.Go(func() {
		err := store.watch(ctx, Watch{Keys: s.Keys, Metadata: s.Metadata, Up: s.markAll, Changed: s.mark})
		if err == nil {
			err = fault.New(fault.Unavailable, "watch %s: it ended", store.name)
		}
		cancel(err)
	})
	defer watching.Wait()
	defer cancel(nil)
	wait := firstWait
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.wake:
		}
		if err := s.catchUp(ctx, store); err == nil {
			wait = firstWait
		} else {
			if !s.begun || errors.Is(err, errNotReady) {
				return err
			}
			if ctx.Err() == nil {
				s.Logger.Warn("Configuration change not delivered, trying again", "store", store.name, "error", err)
			}
			if !pause(ctx, wait) {
				return context.Cause(ctx)
			}
			wait = min(2*wait, lastWait)
			s.nudge()
		}
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (s *Subscription) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *Subscription) markAll() {
	s.mu.Lock()
	s.all = true
	clear(s.dirty)
	s.mu.Unlock()
	s.nudge()
}

func (s *Subscription) mark(key string) {
	s.mu.Lock()
	if !s.all {
		s.dirty[key] = struct{}{}
		if len(s.dirty) > maxDirty {
			s.all = true
			clear(s.dirty)
		}
	}
	s.mu.Unlock()
	s.nudge()
}

// take returns what is to be read: all, or some keys that are of interest.
func (s *Subscription) take() (keys []string, all bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all, s.all = s.all, false
	for key := range s.dirty {
		if check([]string{key}) == nil && s.wants(key) {
			keys = append(keys, key)
		}
	}
	clear(s.dirty)
	return keys, all
}

func (s *Subscription) wants(key string) bool {
	if slices.Contains(s.Keys, key) {
		return true
	}
	return len(s.Keys) == 0
}

// catchUp reads what may have changed and delivers what did. The first time it
// only learns what there is. What is left to do after an error is marked again.
func (s *Subscription) catchUp(ctx context.Context, store *Store) error {
	keys, all := s.take()
	if all {
		keys = s.Keys
	} else if len(keys) == 0 {
		return nil
	}
	again := func() {
		if all {
			s.markAll()
			return
		}
		for _, key := range keys {
			s.mark(key)
		}
	}
	items := map[string]Item{}
	for part := keys; ; part = part[MaxKeys:] {
		some, err := store.Get(ctx, part[:min(len(part), MaxKeys)], s.Metadata)
		if err != nil {
			again()
			return err
		}
		maps.Copy(items, some)
		if len(part) <= MaxKeys {
			break
		}
	}
	if !s.begun {
		s.known = items
		if err := s.Ready(); err != nil {
			return errors.Join(errNotReady, err)
		}
		s.begun = true
		return nil
	}
	if all { // what was there and is no more
		for key := range s.known {
			keys = append(keys, key)
		}
	}
	for _, key := range keys {
		if _, there := items[key]; !there {
			if err := s.deliver(ctx, key, Item{}, false); err != nil {
				again()
				return err
			}
		}
	}
	for key, item := range items {
		if err := s.deliver(ctx, key, item, true); err != nil {
			again()
			return err
		}
	}
	return nil
}

// deliver hands an item over unless it is as before.
func (s *Subscription) deliver(ctx context.Context, key string, item Item, there bool) error {
	before, was := s.known[key]
	if was == there && (!there || before.Value == item.Value && before.Version == item.Version && maps.Equal(before.Metadata, item.Metadata)) {
		return nil
	}
	if err := s.Deliver(ctx, key, item); err != nil {
		return fault.Wrap(err, "deliver the change of %q", key)
	}
	if there {
		s.known[key] = item
	} else {
		delete(s.known, key)
	}
	return nil
}

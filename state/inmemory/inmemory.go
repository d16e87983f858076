// Package inmemory is the state store "state.in-memory": values in the memory
// of the process, for tests and for what may be forgotten.
//
// It is opened through [Component].
//
// Promises: changes are atomic and seen by every later read; nothing survives
// the process. Expired items are gone for every reader at once and freed within
// a minute. What all items take is bounded by the option maxSize.
package inmemory

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/state"
)

// Component is "state.in-memory".
var Component = state.Define("in-memory", component.About{
	Summary: "Values in the memory of the process",
	Ack:     "A change is done when it returns, and gone with the process",
	Limits:  "All keys and values together take at most maxSize (256Mi)",
	Scale:   "Every process has a store of its own",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: statestore
spec:
  type: state.in-memory
  version: v1
`,
}, open)

type options struct {
	MaxSize component.Size `meta:"maxSize" default:"256Mi" doc:"Most bytes of keys and values together; saving beyond fails."`
}

const sweepEvery = time.Minute

type entry struct {
	value   []byte
	version uint64
	expires time.Time
}

func (e entry) expired(now time.Time) bool { return !e.expires.IsZero() && !now.Before(e.expires) }

type store struct {
	most int64
	stop context.CancelFunc
	done chan struct{}

	mu      sync.RWMutex // guards what follows
	items   map[string]entry
	size    int64
	version uint64
}

func open(ctx context.Context, _ component.Env, o options) (state.Driver, error) {
	s := &store{most: int64(o.MaxSize), items: map[string]entry{}, done: make(chan struct{})}
	// The sweeper lives until Close, not as long as opening takes.
	ctx, s.stop = context.WithCancel(context.WithoutCancel(ctx))
	go s.sweep(ctx)
	return s, nil
}

func (s *store) sweep(ctx context.Context) {
	defer close(s.done)
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			s.mu.Lock()
			for key, e := range s.items {
				if e.expired(now) {
					s.drop(key)
				}
			}
			s.mu.Unlock()
		}
	}
}

// Features implements state.Featured.
func (s *store) Features() state.Features { return state.Features{ETag: true, TTL: true} }

// Get implements state.Driver.
func (s *store) Get(_ context.Context, keys []string, _ state.Read) ([]state.Item, error) {
	now := time.Now()
	items := make([]state.Item, len(keys))
	s.mu.RLock()
	defer s.mu.RUnlock()
	for i, key := range keys {
		e, ok := s.items[key]
		if !ok || e.expired(now) {
			continue
		}
		items[i] = state.Item{Found: true, Value: slices.Clone(e.value), ETag: strconv.FormatUint(e.version, 10), Expires: e.expires}
	}
	return items, nil
}

// Apply implements state.Driver.
func (s *store) Apply(_ context.Context, changes []state.Change) error {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	errs := make([]error, len(changes))
	for i := range changes {
		if errs[i] = s.check(&changes[i], now); errs[i] == nil {
			errs[i] = s.carryOut(&changes[i], now)
		}
	}
	return state.Batch(errs)
}

// Transact implements state.Transactor.
func (s *store) Transact(_ context.Context, changes []state.Change) error {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	before, size := map[string]*entry{}, s.size
	for i := range changes {
		c := &changes[i]
		if _, kept := before[c.Key]; !kept {
			before[c.Key] = nil
			if e, ok := s.items[c.Key]; ok {
				before[c.Key] = &e
			}
		}
		err := s.check(c, now)
		if err == nil {
			err = s.carryOut(c, now)
		}
		if err != nil {
			s.restore(before, size)
			return err
		}
	}
	return nil
}

// restore puts back what a transaction changed.
func (s *store) restore(before map[string]*entry, size int64) {
	for key, e := range before {
		if e == nil {
			delete(s.items, key)
		} else {
			s.items[key] = *e
		}
	}
	s.size = size
}

// check tells whether the version that a change asks for is there.
func (s *store) check(c *state.Change, now time.Time) error {
	e, found := s.items[c.Key]
	found = found && !e.expired(now)
	switch {
	case c.ETag != nil:
		want, err := strconv.ParseUint(*c.ETag, 10, 64)
		if err != nil {
			return fault.New(fault.Invalid, "read ETag: it is not one of this store's")
		}
		if !found || e.version != want {
			return fault.New(fault.Conflict, "the item has another ETag, or is not there")
		}
	case c.FirstWrite && !c.Delete && found:
		return fault.New(fault.Conflict, "the item is there already")
	}
	return nil
}

func (s *store) carryOut(c *state.Change, now time.Time) error {
	if c.Delete {
		s.drop(c.Key)
		return nil
	}
	grown := s.size + int64(len(c.Key)+len(c.Value))
	if old, ok := s.items[c.Key]; ok {
		grown -= int64(len(c.Key) + len(old.value))
	}
	if grown > s.most {
		return fault.New(fault.Exhausted, "save: the store would hold %d bytes, and maxSize is %d", grown, s.most)
	}
	s.version++
	e := entry{value: slices.Clone(c.Value), version: s.version}
	if c.TTL > 0 {
		e.expires = now.Add(c.TTL)
	}
	s.items[c.Key], s.size = e, grown
	return nil
}

// drop deletes an item.
func (s *store) drop(key string) {
	if e, ok := s.items[key]; ok {
		s.size -= int64(len(key) + len(e.value))
		delete(s.items, key)
	}
}

// Keys implements state.Lister. The token is the last key of the page before.
func (s *store) Keys(_ context.Context, prefix, token string, limit int) ([]string, string, error) {
	now := time.Now()
	s.mu.RLock()
	defer s.mu.RUnlock()
	keys := slices.Sorted(func(yield func(string) bool) {
		for key := range maps.Keys(s.items) {
			if strings.HasPrefix(key, prefix) && key > token && !s.items[key].expired(now) && !yield(key) {
				return
			}
		}
	})
	if len(keys) <= limit {
		return keys, "", nil
	}
	return keys[:limit], keys[limit-1], nil
}

// Close frees everything.
func (s *store) Close(context.Context) error {
	s.stop()
	<-s.done
	return nil
}

package component

import (
	"sync"

	"github.com/penstock-io/penstock/fault"
)

// Shared holds values that several components use together, each made once and
// closed when the last user lets go. The zero value is ready for use.
type Shared struct {
	mu    sync.Mutex // guards items and their users and closing
	items map[string]*sharedItem
}

type sharedItem struct {
	users   int
	closing chan struct{} // closed when the value is; nil while it has users

	once  sync.Once
	value any
	close func() error
	err   error
}

// Share returns the value under key, making it with open when nobody has it
// yet. Others that ask for the same key meanwhile wait and get the same answer,
// be it an error. A value that is just being closed is waited for, so the new one
// finds its port or file free. release must be called once; the last one closes
// the value. A key must always be used with one T.
func Share[T any](s *Shared, key string, open func() (T, func() error, error)) (value T, release func() error, err error) {
	it := s.take(key)
	it.once.Do(func() {
		it.err = fault.New(fault.Internal, "open shared %s: panic", key) // unless open returns
		v, cl, err := open()
		it.value, it.close, it.err = v, cl, err
	})
	if it.err != nil {
		_ = s.drop(key, it) // there is nothing to close
		return value, nil, it.err
	}
	release = sync.OnceValue(func() error { return s.drop(key, it) })
	return it.value.(T), release, nil
}

// take adds a user to the item under key.
func (s *Shared) take(key string) *sharedItem {
	for {
		s.mu.Lock()
		if s.items == nil {
			s.items = map[string]*sharedItem{}
		}
		it := s.items[key]
		if it == nil {
			it = &sharedItem{}
			s.items[key] = it
		}
		closing := it.closing
		if closing == nil {
			it.users++
		}
		s.mu.Unlock()
		if closing == nil {
			return it
		}
		<-closing
	}
}

// drop takes one user away. The last one closes the value, which keeps its key
// until that is done.
func (s *Shared) drop(key string, it *sharedItem) (err error) {
	s.mu.Lock()
	it.users--
	if it.users > 0 {
		s.mu.Unlock()
		return nil
	}
	it.closing = make(chan struct{})
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.items, key)
		s.mu.Unlock()
		close(it.closing)
	}()
	if it.err != nil || it.close == nil {
		return nil
	}
	return it.close()
}

package component

import "sync"

// Shared holds values that several components use together, each made once and
// closed when the last user lets go. The zero value is ready for use.
type Shared struct {
	mu    sync.Mutex
	items map[string]*sharedItem
}

type sharedItem struct {
	once  sync.Once
	users int
	value any
	close func() error
	err   error
}

// Share returns the value under key, making it with open when nobody has it
// yet. Others that ask for the same key meanwhile wait. release must be called
// once; the last one closes the value. A key must always be used with one T.
func Share[T any](s *Shared, key string, open func() (T, func() error, error)) (value T, release func() error, err error) {
	it := s.take(key)
	it.once.Do(func() {
		v, cl, err := open()
		it.value, it.close, it.err = v, cl, err
	})
	if it.err != nil {
		s.drop(key, it)
		return value, nil, it.err
	}
	var once sync.Once
	release = func() (err error) {
		once.Do(func() {
			if s.drop(key, it) {
				err = it.close()
			}
		})
		return err
	}
	return it.value.(T), release, nil
}

func (s *Shared) take(key string) *sharedItem {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.items == nil {
		s.items = map[string]*sharedItem{}
	}
	it := s.items[key]
	if it == nil {
		it = &sharedItem{}
		s.items[key] = it
	}
	it.users++
	return it
}

// drop takes one user away and tells whether it was the last.
func (s *Shared) drop(key string, it *sharedItem) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	it.users--
	if it.users == 0 && s.items[key] == it {
		delete(s.items, key)
	}
	return it.users == 0
}

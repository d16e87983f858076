package middleware

import (
	"net/http"
	"slices"
	"sync/atomic"
)

// Pipeline is a list of middlewares, in the order in which a request passes
// them. A nil Pipeline is empty.
type Pipeline struct {
	find  func(name string) *Handler
	names atomic.Pointer[[]string]
}

// NewPipeline makes an empty pipeline. find returns the handler of a name as it
// is now, or nil; it is called for every request and handler, so that a replaced
// component is used from the next request on.
func NewPipeline(find func(name string) *Handler) *Pipeline { return &Pipeline{find: find} }

// Set makes the pipeline consist of those handlers, from the next request on. A
// name may be there several times.
func (p *Pipeline) Set(names []string) {
	names = slices.Clone(names)
	p.names.Store(&names)
}

// Empty tells whether requests pass unchanged, so that callers need not go
// through it.
func (p *Pipeline) Empty() bool {
	if p == nil {
		return true
	}
	names := p.names.Load()
	return names == nil || len(*names) == 0
}

// Wrap returns a handler that passes each request through the pipeline, as it is
// then, to next. What next writes is not held back, and the context of the
// request arrives as it was given.
func (p *Pipeline) Wrap(next http.Handler) http.Handler {
	if p == nil {
		return next
	}
	return &chain{p: p, next: next}
}

// chain is a pipeline around one handler.
type chain struct {
	p     *Pipeline
	next  http.Handler
	built atomic.Pointer[built]
}

type built struct {
	names *[]string
	head  http.Handler
}

// ServeHTTP implements [http.Handler].
func (c *chain) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b, names := c.built.Load(), c.p.names.Load()
	if b == nil || b.names != names {
		b = &built{names: names, head: c.build(names)}
		c.built.Store(b) // somebody else may have built the same
	}
	b.head.ServeHTTP(w, r)
}

func (c *chain) build(names *[]string) http.Handler {
	head := c.next
	if names == nil {
		return head
	}
	for _, name := range slices.Backward(*names) {
		head = &stage{name: name, find: c.p.find, next: head}
	}
	return head
}

// stage is one place in a pipeline, whoever stands there.
type stage struct {
	name string
	find func(name string) *Handler
	next http.Handler
	used atomic.Pointer[used]
}

type used struct {
	handler *Handler
	wrapped http.Handler
}

// ServeHTTP implements [http.Handler].
func (s *stage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := s.find(s.name)
	if h == nil {
		refuse(w, s.name)
		return
	}
	u := s.used.Load()
	if u == nil || u.handler != h {
		u = &used{handler: h, wrapped: h.Wrap(s.next)}
		s.used.Store(u)
	}
	u.wrapped.ServeHTTP(w, r)
}

package runtime

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"sync"

	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	calling "github.com/penstock-io/penstock/invoke"
)

// endpoints are the web servers that have a name. Before made is closed, those that
// are declared are on their way.
type endpoints struct {
	made <-chan struct{}

	mu     sync.RWMutex // guards what follows
	byName map[string]*endpoint
	docs   []config.HTTPEndpoint // those declared, open or not
}

// endpoint is one that calls can go to.
type endpoint struct {
	doc    config.HTTPEndpoint // as written
	config config.HTTPEndpoint // with its secrets filled in
	server *calling.Endpoint
}

var _ calling.Endpoints = (*endpoints)(nil)

// Endpoint implements [calling.Endpoints]. One that is declared and not made yet
// is waited for, as components are.
func (es *endpoints) Endpoint(ctx context.Context, name string) (*calling.Endpoint, error) {
	e, declared := es.find(name)
	if e == nil && declared {
		select {
		case <-es.made:
		case <-ctx.Done():
			return nil, fault.Wrap(context.Cause(ctx), "wait for HTTPEndpoint %s", name)
		}
		e, declared = es.find(name)
	}
	switch {
	case e != nil:
		return e.server, nil
	case declared:
		return nil, fault.New(fault.Unavailable, "call HTTPEndpoint %s: its secrets could not be read yet", name)
	}
	return nil, nil
}

func (es *endpoints) find(name string) (e *endpoint, declared bool) {
	es.mu.RLock()
	defer es.mu.RUnlock()
	return es.byName[name], slices.ContainsFunc(es.docs, func(doc config.HTTPEndpoint) bool { return doc.Name == name })
}

// declare says which endpoints there will be.
func (es *endpoints) declare(docs []config.HTTPEndpoint) {
	es.mu.Lock()
	defer es.mu.Unlock()
	es.docs = docs
}

// names lists those declared.
func (es *endpoints) names() []string {
	es.mu.RLock()
	defer es.mu.RUnlock()
	out := make([]string, len(es.docs))
	for i, doc := range es.docs {
		out[i] = doc.Name
	}
	slices.Sort(out)
	return out
}

// open lists those that calls can go to.
func (es *endpoints) open() []*endpoint {
	es.mu.RLock()
	defer es.mu.RUnlock()
	return slices.Collect(maps.Values(es.byName))
}

// lacking tells whether one that is declared is not open.
func (es *endpoints) lacking() bool {
	es.mu.RLock()
	defer es.mu.RUnlock()
	return len(es.byName) < len(es.docs)
}

// swap puts new ones in the place of all there are. It returns those that nobody
// finds any more; calls that found them before go on.
func (es *endpoints) swap(fresh map[string]*endpoint, docs []config.HTTPEndpoint) (old []*endpoint) {
	es.mu.Lock()
	defer es.mu.Unlock()
	for name, e := range es.byName {
		if fresh[name] != e {
			old = append(old, e)
		}
	}
	es.byName, es.docs = fresh, docs
	return old
}

// put puts one in the place of the one it was made from, unless that is there no
// more.
func (es *endpoints) put(fresh, from *endpoint) bool {
	es.mu.Lock()
	defer es.mu.Unlock()
	if es.byName[from.doc.Name] != from {
		return false
	}
	byName := maps.Clone(es.byName)
	byName[from.doc.Name] = fresh
	es.byName = byName
	return true
}

// newEndpoint makes an endpoint of a document with its secrets. It opens no
// connection.
func newEndpoint(c config.HTTPEndpoint) (*calling.Endpoint, error) {
	o := calling.EndpointOptions{BaseURL: c.BaseURL, Header: http.Header{}}
	for _, it := range c.Headers {
		o.Header.Set(it.Name, it.Value)
	}
	var err error
	if o.TLS, err = certificates(c).TLS(); err != nil {
		return nil, err
	}
	e, err := calling.NewEndpoint(o)
	if err != nil {
		return nil, err
	}
	return e.Open(), nil
}

func certificates(c config.HTTPEndpoint) calling.Certificates {
	out := calling.Certificates{Renegotiation: c.Renegotiation}
	for _, it := range c.TLS {
		switch it.Name {
		case config.RootCA:
			out.RootCA = it.Value
		case config.Certificate:
			out.Certificate = it.Value
		case config.PrivateKey:
			out.PrivateKey = it.Value
		}
	}
	return out
}

// makeEndpoint makes the endpoint of a document, whose secrets are read from the
// fresh stores first. When nothing is other than in was, which may be nil, that is
// what it returns, also while its secrets cannot be read.
func (r *Runtime) makeEndpoint(ctx context.Context, doc config.HTTPEndpoint, was *endpoint, fresh []*part) (*endpoint, error) {
	c, problems := config.ResolveEndpoint(doc, r.parts.secrets(ctx, fresh))
	same := was != nil && config.Equal(was.doc, doc)
	switch {
	case len(problems) > 0 && same && fault.Retriable(problems):
		return was, nil
	case len(problems) > 0:
		return nil, problems
	case same && config.Equal(was.config, c):
		return was, nil
	}
	server, err := newEndpoint(c)
	if err != nil {
		return nil, config.Problems{{Place: doc.Place, Text: "HTTPEndpoint " + doc.Name + ": " + err.Error()}}
	}
	return &endpoint{doc: doc, config: c, server: server}, nil
}

// openEndpoints makes all endpoints for the start. One whose secrets cannot be read
// yet is left out and made later.
func (r *Runtime) openEndpoints(ctx context.Context, docs []config.HTTPEndpoint) error {
	ctx, cancel := context.WithTimeout(ctx, firstTry)
	defer cancel()
	ready := map[string]*endpoint{}
	var wrong config.Problems
	for _, doc := range docs {
		e, err := r.makeEndpoint(ctx, doc, nil, nil)
		switch problems, ok := err.(config.Problems); {
		case err == nil:
			ready[doc.Name] = e
		case fault.Retriable(err):
			r.log.Warn("HTTPEndpoint not ready yet, trying again in the background", "name", doc.Name, "error", err)
			r.parts.lack("HTTPEndpoint "+doc.Name, err)
		case ok:
			wrong = append(wrong, problems...)
		}
	}
	r.endpoints.swap(ready, docs)
	return wrong.Err()
}

// renewEndpoints makes the endpoints of a new configuration, before anything is
// changed.
func (r *Runtime) renewEndpoints(ctx context.Context, docs []config.HTTPEndpoint, fresh []*part) (map[string]*endpoint, error) {
	ctx, cancel := context.WithTimeout(ctx, firstTry)
	defer cancel()
	ready := make(map[string]*endpoint, len(docs))
	for _, doc := range docs {
		was, _ := r.endpoints.find(doc.Name)
		e, err := r.makeEndpoint(ctx, doc, was, fresh)
		switch {
		case err != nil && was != nil && config.Equal(was.doc, doc):
			e = was // only its secrets are others, which turnEndpoints tells of
		case err != nil:
			return nil, err
		}
		ready[doc.Name] = e
	}
	return ready, nil
}

// useEndpoints puts those of a new configuration in place.
func (r *Runtime) useEndpoints(ready map[string]*endpoint, docs []config.HTTPEndpoint) {
	clear(r.unturnedEndpoints)
	r.retireEndpoints(r.endpoints.swap(ready, docs))
}

// turnEndpoints makes those anew that have a secret with another value now. One
// that cannot be made of it goes on with the one before.
func (r *Runtime) turnEndpoints(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, firstTry)
	defer cancel()
	var old []*endpoint
	for _, was := range r.endpoints.open() {
		if !was.doc.HasSecrets() {
			continue
		}
		e, err := r.makeEndpoint(ctx, was.doc, was, nil)
		switch {
		case ctx.Err() != nil:
			r.retireEndpoints(old)
			return
		case err != nil:
			if text := err.Error(); r.unturnedEndpoints[was.doc.Name] != text {
				r.unturnedEndpoints[was.doc.Name] = text
				r.log.Error("HTTPEndpoint cannot use its changed secret, going on with the one before", "name", was.doc.Name, "error", err)
			}
		case e != was && r.endpoints.put(e, was):
			delete(r.unturnedEndpoints, was.doc.Name)
			old = append(old, was)
			r.log.Info("HTTPEndpoint uses its changed secret", "name", was.doc.Name)
		}
	}
	r.retireEndpoints(old)
}

// retireEndpoints closes what was replaced a little later; calls under way finish.
func (r *Runtime) retireEndpoints(old []*endpoint) {
	if len(old) > 0 {
		r.later(func() {
			for _, e := range old {
				e.server.Close()
			}
		})
	}
}

package runtime

import (
	"context"
	"maps"
	"slices"

	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/secrets"
)

// watch looks, whenever the store says so, whether a secret that a component
// took from it has another value now, until ctx ends.
func (ps *parts) watch(ctx context.Context, store *secrets.Store) {
	failing := false
	store.Watch(ctx, func(ctx context.Context) {
		read := ps.newReading(ctx)
		read.from = store
		var stale []string
		for _, p := range ps.all() {
			if p.doc.SecretStore == store.Name() && read.rotated(p) {
				stale = append(stale, p.config.Name)
			}
		}
		turned := slices.ContainsFunc(ps.endpoints.open(), func(e *endpoint) bool {
			return e.doc.SecretStore == store.Name() && read.turned(e)
		})
		switch err := read.failed(); {
		case ctx.Err() != nil:
			return
		case err != nil && !failing:
			ps.log.Warn("Secrets cannot be read again; components go on with those they have", "store", store.Name(), "error", err)
		case err == nil && failing:
			ps.log.Info("Secrets can be read again", "store", store.Name())
		}
		failing = read.failed() != nil
		ps.mark(stale)
		if turned {
			ps.turned()
		}
	})
}

// mark notes components with an old secret.
func (ps *parts) mark(names []string) {
	if len(names) == 0 {
		return
	}
	ps.mu.Lock()
	for _, name := range names {
		ps.stale[name] = true
	}
	ps.mu.Unlock()
	ps.turned()
}

// marked returns what was noted since it was called last.
func (ps *parts) marked() []string {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	names := slices.Collect(maps.Keys(ps.stale))
	clear(ps.stale)
	return names
}

// reading reads secrets, each of them once however many components have it. A
// store that did not answer is not asked again: that would take as long.
type reading struct {
	ctx   context.Context
	parts *parts
	from  *secrets.Store // nil: each from the store that it names

	answers map[secretName]secretAnswer
	down    map[string]error // stores that did not answer
}

type secretName struct{ store, key string }

type secretAnswer struct {
	pairs map[string]string
	err   error
}

func (ps *parts) newReading(ctx context.Context) *reading {
	return &reading{ctx: ctx, parts: ps, answers: map[secretName]secretAnswer{}, down: map[string]error{}}
}

// rotated tells whether a secret of the component has another value now. One
// that cannot be read is taken for unchanged.
func (r *reading) rotated(p *part) bool {
	now, problems := config.Resolve(p.doc, r.get)
	return len(problems) == 0 && !config.Equal(now.Metadata, p.config.Metadata)
}

// turned is rotated for an endpoint.
func (r *reading) turned(e *endpoint) bool {
	if !e.doc.HasSecrets() {
		return false
	}
	now, problems := config.ResolveEndpoint(e.doc, r.get)
	return len(problems) == 0 && !config.Equal(now, e.config)
}

func (r *reading) get(store, key string) (map[string]string, error) {
	name := secretName{store, key}
	if a, ok := r.answers[name]; ok {
		return a.pairs, a.err
	}
	if err := r.down[store]; err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(r.ctx, firstTry)
	defer cancel()
	from, err := r.from, error(nil)
	if from == nil {
		from, err = r.parts.storeOf(store)
	}
	var a secretAnswer
	if a.err = err; err == nil {
		a.pairs, a.err = from.Resolve(ctx, key)
	}
	if a.err != nil && fault.Retriable(a.err) {
		r.down[store] = a.err
	}
	r.answers[name] = a
	return a.pairs, a.err
}

// failed returns why a secret could not be read, or nil.
func (r *reading) failed() error {
	for _, a := range r.answers {
		if a.err != nil {
			return a.err
		}
	}
	return nil
}

// rotate opens components anew that have a secret with another value. Each is
// replaced like one whose document changed, but alone: what does not open with
// its new secret goes on with the old one, and is tried again.
func (r *Runtime) rotate(ctx, life context.Context) {
	for _, name := range r.parts.marked() {
		if _, known := r.unturned[name]; !known {
			r.unturned[name] = nil
		}
	}
	if len(r.unturned) == 0 {
		return
	}
	r.changing.Add(1)
	defer r.changing.Add(-1)
	var replaced []*part
	for _, name := range slices.Sorted(maps.Keys(r.unturned)) {
		old, err := r.turn(ctx, life, name)
		if ctx.Err() != nil {
			break
		}
		replaced = append(replaced, old...)
		before := r.unturned[name]
		switch {
		case err == nil:
			delete(r.unturned, name)
			if len(old) > 0 {
				r.log.Info("Component opened with its changed secret", "name", name)
			}
		case before == nil || before.Error() != err.Error():
			r.log.Error("Component does not open with its changed secret, going on with the one before and trying again", "name", name, "error", err)
			fallthrough
		default:
			r.unturned[name] = err
		}
	}
	if len(replaced) > 0 {
		r.applyRoutes(ctx, life)
		r.retire(life, replaced)
	}
}

// turn opens one component with the secrets that it should have, and returns the
// one that it replaced; none when it has them already.
func (r *Runtime) turn(ctx, life context.Context, name string) ([]*part, error) {
	p := r.parts.find(name)
	if p == nil {
		return nil, nil
	}
	wait, cancel := context.WithTimeout(ctx, firstTry)
	now, problems := r.parts.resolve(wait, p.doc, nil)
	cancel()
	if len(problems) > 0 {
		return nil, problems
	}
	if config.Equal(now.Metadata, p.config.Metadata) {
		return nil, nil
	}
	c := change{sums: map[string]uint64{name: p.sum}, worked: map[string]bool{name: p.ready()}, must: true}
	r.anew(&c, p, p.doc)
	return r.replace(ctx, life, c)
}

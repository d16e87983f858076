package runtime

import (
	"context"
	"time"

	"github.com/penstock-io/penstock/config"
)

// watch follows the configuration files until ctx ends. life is the lifetime
// of what it opens.
func (r *Runtime) watch(ctx, life context.Context) {
	if len(r.o.Resources)+len(r.o.Configs) == 0 {
		return
	}
	o := r.o.reader()
	o.Last = r.set
	config.Watch(ctx, o, func(set *config.Set, problems config.Problems) {
		r.retire(life, r.reload(ctx, life, set, problems))
	})
}

// reloadOnDemand reads the configuration again whenever it is asked to.
func (r *Runtime) reloadOnDemand(ctx, life context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.o.Reload:
			r.log.Info("Reload asked for")
			set, problems := config.Load(r.o.reader())
			r.retire(life, r.reload(ctx, life, set, problems))
		}
	}
}

// reload swaps in a new configuration. A bad one changes nothing and is
// reported. It returns the parts that were replaced, for closing a little
// later: a call that looked one up just before still ends on it.
func (r *Runtime) reload(ctx, life context.Context, set *config.Set, problems config.Problems) []*part {
	if set != nil {
		problems = append(problems, Check(r.o.Components, set)...)
	}
	errs, warnings := problems.Split(r.o.Strict)
	for _, w := range warnings {
		r.log.Warn("Configuration: " + w.String())
	}
	if len(errs) > 0 || set == nil {
		r.log.Error("Configuration has errors; nothing was changed\n" + errs.Error())
		return nil
	}
	set = withDefaults(set, r.o.DataDir)
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.diff(set)
	if c.empty() && samePlan(r.set, set) {
		r.set = set
		return nil
	}
	fresh, err := r.openNew(ctx, life, c.opened)
	if err != nil {
		r.log.Error("Configuration not taken over; nothing was changed", "error", err)
		return nil
	}
	old := r.swap(life, c, fresh)
	r.set = set
	if r.app != nil && r.appSeen {
		r.probeBindings(ctx)
	}
	if err := r.applyRoutes(life); err != nil {
		r.log.Error("Route not started", "error", err)
	}
	r.log.Info("Configuration reloaded", "opened", len(c.opened), "closed", len(old))
	return old
}

// change is what a new configuration asks of the components.
type change struct {
	opened    []config.Component // new or different
	exclusive []config.Component // different, and two at once would clash
	removed   []string
}

func (c change) empty() bool { return len(c.opened)+len(c.exclusive)+len(c.removed) == 0 }

func (r *Runtime) diff(set *config.Set) change {
	var c change
	keep := map[string]bool{}
	ordered, _ := config.OpenOrder(set.Components)
	for _, comp := range ordered {
		keep[comp.Name] = true
		old := r.parts.find(comp.Name)
		switch {
		case old != nil && old.sum == fingerprint(comp):
		case old != nil && old.binding != nil && old.binding.Input():
			c.exclusive = append(c.exclusive, comp)
		default:
			c.opened = append(c.opened, comp)
		}
	}
	for _, p := range r.parts.all() {
		if !keep[p.config.Name] {
			c.removed = append(c.removed, p.config.Name)
		}
	}
	return c
}

// samePlan tells whether two configurations have the same routes.
func samePlan(a, b *config.Set) bool {
	return fingerprint(a.Subscriptions) == fingerprint(b.Subscriptions) && fingerprint(a.Pipelines) == fingerprint(b.Pipelines)
}

// openNew opens the components beside those that run; when one cannot be
// opened, all of them are closed again.
func (r *Runtime) openNew(ctx, life context.Context, list []config.Component) ([]*part, error) {
	var fresh []*part
	for _, comp := range list {
		wait, cancel := context.WithTimeout(ctx, firstTry)
		p, err := r.parts.open(wait, life, comp)
		cancel()
		if err == nil {
			fresh = append(fresh, p)
			continue
		}
		if comp.IgnoreErrors {
			r.log.Warn("Component ignored, as ignoreErrors says", "name", comp.Name, "type", comp.Type, "error", err)
			continue
		}
		r.closeAll(life, fresh)
		return nil, placed(comp, err)
	}
	return fresh, nil
}

// swap puts the new parts in place of the old and returns the old. Inputs that
// cannot be there twice are drained and closed before the new one opens; when
// that fails the old one is opened again.
func (r *Runtime) swap(life context.Context, c change, fresh []*part) []*part {
	var old []*part
	for _, p := range fresh {
		if was := r.parts.put(p); was != nil {
			old = append(old, was)
		}
	}
	for _, name := range c.removed {
		r.stopReaders(life, name)
		if was := r.parts.take(name); was != nil {
			old = append(old, was)
		}
		delete(r.wanted, name)
	}
	for _, comp := range c.exclusive {
		r.replaceInput(life, comp)
	}
	return old
}

// stopReaders stops the routes that read the component.
func (r *Runtime) stopReaders(ctx context.Context, name string) {
	for route := range r.running {
		if route == "binding/"+name {
			r.stopRoute(ctx, route)
		}
	}
	for _, p := range r.set.Pipelines {
		if _, ok := r.running["pipeline/"+p.Name]; ok && p.From.Binding == name {
			r.stopRoute(ctx, "pipeline/"+p.Name)
		}
	}
}

// replaceInput closes an input binding and opens its new form.
func (r *Runtime) replaceInput(life context.Context, comp config.Component) {
	r.stopReaders(life, comp.Name)
	old := r.parts.take(comp.Name)
	r.closeAll(life, []*part{old})
	delete(r.wanted, comp.Name)
	wait, cancel := context.WithTimeout(life, firstTry)
	defer cancel()
	p, err := r.parts.open(wait, life, comp)
	if err != nil {
		r.log.Error("Component not changed; the old one goes on", "name", comp.Name, "error", placed(comp, err))
		if p, err = r.parts.open(wait, life, old.config); err != nil {
			r.log.Error("Component lost; mend its document to open it again", "name", comp.Name, "error", err)
			return
		}
	}
	r.parts.put(p)
}

// handOver is how long a replaced part stays open for calls that had looked it
// up just before.
const handOver = time.Second

// retire closes replaced parts a little later, in the background; stop waits
// for it.
func (r *Runtime) retire(life context.Context, old []*part) {
	if len(old) == 0 {
		return
	}
	r.retiring.Go(func() {
		select {
		case <-time.After(handOver):
		case <-life.Done():
		}
		r.closeAll(context.WithoutCancel(life), old)
	})
}

// closeAll closes parts within the grace period.
func (r *Runtime) closeAll(ctx context.Context, list []*part) {
	ctx, cancel := context.WithTimeout(ctx, r.o.Grace)
	defer cancel()
	for _, p := range list {
		if err := p.close(ctx); err != nil {
			r.log.Warn("Component did not close cleanly", "name", p.config.Name, "error", err)
		}
	}
}

package runtime

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/penstock-io/penstock/bindings"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/telemetry"
)

// reload reads the configuration and swaps it in. A bad one changes nothing and
// is reported; so does one with a component that works now and could not be
// reached in its new form, which is tried again until it can. The routes follow
// in applyRoutes.
func (r *Runtime) reload(ctx, life context.Context) {
	r.changing.Add(1)
	defer r.changing.Add(-1)
	set, problems := Load(r.o.Components, r.o.reader())
	errs, warnings := problems.Split(r.o.Strict)
	before := r.refused
	r.refused = nil
	if before == nil { // else they were logged then
		for _, w := range warnings {
			r.log.Warn("Configuration: " + w.String())
		}
		r.logSkipped(set)
	}
	if len(errs) > 0 {
		r.log.Error("Configuration has errors; nothing was changed\n" + errs.Error())
		return
	}
	set = withDefaults(set, r.o.DataDir)
	c := r.diff(ctx, set)
	if c.empty() && config.Diff(r.set, set).Empty() {
		r.set = set
		return
	}
	replaced, err := r.replace(ctx, life, c)
	if err == nil {
		if err := r.useNames(ctx, life, set.Configuration.Names); err != nil {
			r.log.Error("Name resolution not taken over; the one before stays", "error", err)
		}
	}
	if err != nil {
		if fault.Retriable(err) {
			r.refused = err
		}
		if before == nil || before.Error() != err.Error() {
			r.log.Error("Configuration not taken over; nothing was changed", "error", err)
		}
		return
	}
	if !config.Equal(r.set.Configuration.MTLS, set.Configuration.MTLS) {
		r.log.Warn("spec.mtls of the Configuration has changed; it is taken over with the next start")
	}
	r.adopt(set)
	r.limitAPI(set.Configuration)
	if err := r.trace(life, set.Configuration.Tracing); err != nil {
		r.log.Error("Tracing not taken over; it stays as it was", "error", err)
	}
	r.setPipelines(set)
	r.applyRoutes(ctx, life)
	r.parts.lackNothing()
	for _, name := range c.removed {
		replaced = append(replaced, r.parts.take(name))
	}
	if len(c.removed) > 0 {
		r.applyStreams(ctx) // those that read what was taken away end
	}
	r.retire(life, replaced)
	r.log.Info("Configuration reloaded", "opened", len(c.beside)+len(c.after), "closed", len(replaced))
}

// change is what a new configuration asks of the components.
type change struct {
	sums    map[string]uint64
	beside  []config.Component // new or different: opened beside those that run
	closing []*part            // inputs that go away or change: closed before
	after   []config.Component // new or different inputs: opened when those are closed, which may hold what they need
	removed []string
	set     *config.Set     // whose endpoints are to be there; nil: those there are
	turned  bool            // an endpoint is not there, or has a secret with another value
	worked  map[string]bool // components that are open now
	must    bool            // ignoreErrors does not count: what cannot be opened stays as it is
}

func (c change) empty() bool { return !c.turned && len(c.beside)+len(c.after)+len(c.removed) == 0 }

func (r *Runtime) diff(ctx context.Context, set *config.Set) change {
	ordered, _ := config.OpenOrder(set.Components)
	c := change{sums: sums(ordered), set: set, worked: map[string]bool{}}
	for _, p := range r.parts.all() {
		c.worked[p.config.Name] = p.ready()
		if _, keep := c.sums[p.config.Name]; !keep {
			c.removed = append(c.removed, p.config.Name)
			if p.binding != nil && p.binding.Input() {
				c.closing = append(c.closing, p)
			}
		}
	}
	read := r.parts.newReading(ctx)
	c.turned = r.endpoints.lacking() || slices.ContainsFunc(r.endpoints.open(), read.turned)
	for _, doc := range ordered {
		old := r.parts.find(doc.Name)
		if old != nil && old.sum == c.sums[doc.Name] && !read.rotated(old) {
			continue
		}
		r.anew(&c, old, doc)
	}
	return c
}

// anew puts a document down that is to be opened; old is the part of that name,
// or nil.
func (r *Runtime) anew(c *change, old *part, doc config.Component) {
	if old != nil && old.binding != nil && old.binding.Input() {
		c.closing = append(c.closing, old)
	}
	def, err := r.o.Components.Find(doc.Type, doc.Version)
	if err == nil && slices.Contains(def.About.Capabilities, bindings.InputCapability) {
		c.after = append(c.after, doc)
	} else {
		c.beside = append(c.beside, doc)
	}
}

// replace opens what is new and puts it in place of the old, which it returns.
// After an error everything is as before.
func (r *Runtime) replace(ctx, life context.Context, c change) (old []*part, err error) {
	fresh, err := r.openNew(ctx, life, c.beside, c, nil)
	var web map[string]*endpoint
	if err == nil && c.set != nil {
		if web, err = r.renewEndpoints(ctx, c.set.HTTPEndpoints, fresh); err != nil {
			r.closeAll(life, fresh)
		}
	}
	if err == nil {
		r.stopReaders(life, c.closing)
		r.closeAll(life, c.closing)
		fresh, err = r.openNew(ctx, life, c.after, c, fresh)
		if err != nil {
			r.reopen(ctx, life, c.closing)
		}
	}
	if err != nil {
		return nil, err
	}
	for _, p := range fresh {
		delete(r.wanted, p.config.Name)
		if was := r.parts.put(p); was != nil {
			old = append(old, was)
		}
	}
	if c.set != nil {
		r.useEndpoints(web, c.set.HTTPEndpoints)
	}
	for _, p := range c.closing {
		delete(r.wanted, p.config.Name)
		if r.parts.find(p.config.Name) == p && !slices.Contains(c.removed, p.config.Name) {
			r.parts.take(p.config.Name) // its new form may fail, and did
		}
	}
	return old, nil
}

// openNew opens components and returns them with the fresh ones that are there
// already; when one cannot be opened, all of them are closed again.
func (r *Runtime) openNew(ctx, life context.Context, docs []config.Component, c change, fresh []*part) ([]*part, error) {
	for _, doc := range docs {
		wait, cancel := context.WithTimeout(ctx, firstTry)
		p, err := r.parts.open(wait, life, doc, fresh)
		cancel()
		if err == nil {
			p.sum = c.sums[doc.Name]
			fresh = append(fresh, p)
			if !c.worked[doc.Name] || p.ready() {
				continue
			}
			err = fault.New(fault.Unavailable, "reach component %s in its new form: %s", doc.Name, p.life.State().LastError)
		} else if doc.IgnoreErrors && !c.must {
			r.log.Warn("Component ignored, as ignoreErrors says", "name", doc.Name, "type", doc.Type, "error", err)
			continue
		} else if !fault.Retriable(err) {
			err = placed(doc, err)
		}
		r.closeAll(life, fresh)
		return nil, err
	}
	return fresh, nil
}

// reopen brings closed inputs back as they were.
func (r *Runtime) reopen(ctx, life context.Context, closed []*part) {
	for _, old := range closed {
		wait, cancel := context.WithTimeout(ctx, firstTry)
		p, err := r.parts.openWith(wait, life, old.doc, old.config)
		cancel()
		if err != nil {
			r.log.Error("Component lost; it is opened again with the next change", "name", old.config.Name, "error", err)
			old.sum = 0
			continue
		}
		p.sum = old.sum
		r.parts.put(p)
	}
}

// stopReaders stops the routes that read the components.
func (r *Runtime) stopReaders(life context.Context, list []*part) {
	var names []string
	for _, p := range list {
		if _, ok := r.running["binding/"+p.config.Name]; ok {
			names = append(names, "binding/"+p.config.Name)
		}
		for _, pipe := range r.set.Pipelines {
			if _, ok := r.running["pipeline/"+pipe.Name]; ok && pipe.From.Binding == p.config.Name {
				names = append(names, "pipeline/"+pipe.Name)
			}
		}
	}
	r.stopRoutes(life, names)
}

// handOver is how long a replaced part stays open for calls that had looked it
// up just before.
const handOver = time.Second

// retire closes replaced parts a little later, in the background; stop waits
// for it.
func (r *Runtime) retire(life context.Context, old []*part) {
	if len(old) > 0 {
		r.later(func() { r.closeAll(life, old) })
	}
}

// later does something when those are done who had looked up what is replaced just
// before, at the latest when everything ends.
func (r *Runtime) later(do func()) {
	r.retiring.Go(func() {
		select {
		case <-time.After(handOver):
		case <-r.ending:
		}
		do()
	})
}

// closeAll closes parts side by side, within the grace period.
func (r *Runtime) closeAll(ctx context.Context, list []*part) {
	ctx, cancel := context.WithTimeout(ctx, r.o.Grace)
	defer cancel()
	var wg sync.WaitGroup
	for _, p := range list {
		wg.Go(func() {
			if err := p.close(ctx); err != nil {
				r.log.Warn("Component did not close cleanly", "name", p.config.Name, "error", err)
			}
		})
	}
	wg.Wait()
}

// adopt takes over what needs nothing to be opened. The levels of components that
// are gone are forgotten.
func (r *Runtime) adopt(set *config.Set) {
	if !config.Equal(r.set.Configuration.Metric, set.Configuration.Metric) {
		r.log.Warn("spec.metric of the Configuration has changed; it is taken over with the next start")
	}
	r.set = set
	r.parts.limit(set.Configuration.SecretScopes)
	r.parts.obey(set.Resiliencies)
	names := make([]string, len(set.Components))
	for i, c := range set.Components {
		names[i] = c.Name
	}
	telemetry.LevelsOf(r.log).Keep(names)
}

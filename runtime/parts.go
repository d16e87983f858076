package runtime

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/penstock-io/penstock/bindings"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/configuration"
	"github.com/penstock-io/penstock/crypto"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/lock"
	"github.com/penstock-io/penstock/middleware"
	"github.com/penstock-io/penstock/pubsub"
	"github.com/penstock-io/penstock/secrets"
	"github.com/penstock-io/penstock/state"
	"github.com/penstock-io/penstock/telemetry"
)

// life is what every part has, whatever its kind.
type life interface {
	Run(ctx context.Context) error
	Wait(ctx context.Context) error
	State() component.State
	Close(ctx context.Context) error
}

// part is one opened, or opening, component. Exactly one of the contracts, bus to
// middleware, is set.
type part struct {
	doc     config.Component // as written
	config  config.Component // with its secrets filled in
	def     component.Definition
	life    life
	bus     *pubsub.Bus
	binding *bindings.Binding
	lease   *lease // of an exclusive binding
	store   *secrets.Store
	state   *state.Store
	crypto  *crypto.Provider
	lock    *lock.Store

	configuration *configuration.Store
	middleware    *middleware.Handler

	sum    uint64 // of the document and those it depends on; see sums
	serial uint64 // another one for each part that is made

	watch func(context.Context) // runs while the part is open; nil: nothing does

	stop context.CancelFunc
	done chan struct{}
	late atomic.Bool // whoever opened it does not wait any more
}

// label names the part for logs, as Dapr does: "bus (pubsub.sqlite/v1)".
func (p *part) label() string {
	return p.config.Name + " (" + p.config.Type + "/" + p.config.Version + ")"
}

// start begins to open the part; it goes on in the background and calls opened
// when it is open.
func (p *part) start(ctx context.Context, log *slog.Logger, opened func()) {
	ctx, p.stop = context.WithCancel(ctx)
	p.done = make(chan struct{})
	go func() {
		defer close(p.done)
		err := p.life.Run(ctx)
		switch {
		case err == nil && ctx.Err() == nil:
			if p.late.Load() {
				log.Info("Component loaded: " + p.label())
			}
			opened()
			if p.watch != nil {
				p.watch(ctx)
			}
		case err != nil && p.late.Load():
			log.Error("Component will not open; mend its document", "name", p.config.Name, "error", err)
		}
	}()
}

// ready tells whether the component is open.
func (p *part) ready() bool { return p.life.State().Word == component.Ready }

// close ends the opening and frees the component. A component whose opening
// does not heed its context is not waited for beyond ctx.
func (p *part) close(ctx context.Context) error {
	p.stop()
	err := p.life.Close(ctx)
	select {
	case <-p.done:
	case <-ctx.Done():
	}
	return err
}

// parts is the table of everything configured, by name.
type parts struct {
	list   component.Finder
	env    component.Env
	log    *slog.Logger
	opened func() // called when a component has opened
	turned func() // called when a name was added to stale
	delays *delays

	policies *policies

	mu        sync.RWMutex // guards what follows
	byName    map[string]*part
	serial    uint64          // of the part made last
	endpoints *endpoints      // which have secrets too
	stale     map[string]bool // components one of whose secrets has another value now
	scopes    []config.SecretScope
	lacks     map[string]string // what could not even be made, as in "component bus", with the reason
}

// make builds a part without opening it.
func (ps *parts) make(c config.Component) (*part, error) {
	def, err := ps.list.Find(c.Type, c.Version)
	if err != nil {
		return nil, err
	}
	ps.mu.Lock()
	ps.serial++
	serial := ps.serial
	ps.mu.Unlock()
	env := ps.env
	env.Name = c.Name
	env.Logger = telemetry.Part(ps.log, telemetry.ComponentPart+c.Name).With("component", c.Name, "type", c.Type)
	p := &part{config: c, def: def, serial: serial}
	kind, _, _ := strings.Cut(def.Type, ".")
	switch kind {
	case "bindings":
		p.lease = ps.newLease(c.Name, func() string { return p.binding.Exclusive() })
		env.Position = p.lease
		if p.binding, err = bindings.New(def, env, c); err == nil {
			p.life = p.binding.Instance()
		}
	case "pubsub":
		if p.bus, err = pubsub.New(def, env, c); err == nil {
			p.bus.DelayWith(ps.delays)
			p.life = p.bus.Instance()
		}
	case "secretstores":
		if p.store, err = secrets.New(def, env, c, nil); err == nil {
			p.life = p.store.Instance()
		}
	case "state":
		if p.state, err = state.New(def, env, c); err == nil {
			p.life = p.state.Instance()
		}
	case "crypto":
		if p.crypto, err = crypto.New(def, env, c); err == nil {
			p.life = p.crypto.Instance()
		}
	case "lock":
		if p.lock, err = lock.New(def, env, c); err == nil {
			p.life = p.lock.Instance()
		}
	case "configuration":
		if p.configuration, err = configuration.New(def, env, c); err == nil {
			p.life = p.configuration.Instance()
		}
	case "middleware":
		if p.middleware, err = middleware.New(def, env, c); err == nil {
			p.life = p.middleware.Instance()
		}
	default:
		err = fault.New(fault.Invalid, "open component %s: kind %q is not known", c.Name, kind)
	}
	return p, err
}

// open makes and starts a part, with its secrets filled in, and waits for the
// first outcome: nil also when its server cannot be reached yet. Secrets are
// read from the fresh stores first, then from those in the table.
func (ps *parts) open(ctx, lifetime context.Context, doc config.Component, fresh []*part) (*part, error) {
	c, problems := ps.resolve(ctx, doc, fresh)
	if len(problems) > 0 {
		return nil, problems
	}
	return ps.openWith(ctx, lifetime, doc, c)
}

// openWith is open with the secrets of the document that were read before.
func (ps *parts) openWith(ctx, lifetime context.Context, doc, c config.Component) (*part, error) {
	p, err := ps.make(c)
	if err != nil {
		return nil, err
	}
	p.doc = doc
	if p.store != nil {
		p.watch = func(ctx context.Context) { ps.watch(ctx, p.store) }
	}
	p.start(lifetime, ps.log, ps.opened)
	err = p.life.Wait(ctx)
	for option, reason := range p.def.Unneeded(c.Metadata) {
		ps.log.Info("Option accepted and not needed", "name", c.Name, "option", option, "reason", reason)
	}
	if err == nil {
		ps.log.Info("Component loaded: " + p.label())
		return p, nil
	}
	if fault.Retriable(err) {
		p.late.Store(true)
		ps.log.Warn("Component not reachable yet, trying again in the background", "name", c.Name, "type", c.Type+"/"+c.Version, "error", err)
		return p, nil
	}
	return nil, errors.Join(err, p.close(ctx))
}

// resolve fills in the secrets of a document.
func (ps *parts) resolve(ctx context.Context, doc config.Component, fresh []*part) (config.Component, config.Problems) {
	return config.Resolve(doc, ps.secrets(ctx, fresh))
}

// secrets reads secrets from the fresh stores first, then from those in the table.
func (ps *parts) secrets(ctx context.Context, fresh []*part) func(store, key string) (map[string]string, error) {
	return func(store, key string) (map[string]string, error) {
		p := ps.find(store)
		if i := slices.IndexFunc(fresh, func(f *part) bool { return f.config.Name == store }); i >= 0 {
			p = fresh[i]
		}
		if p == nil || p.store == nil {
			return nil, fault.New(fault.NotFound, "find secret store %q: no such component", store)
		}
		if err := p.life.Wait(ctx); err != nil {
			return nil, err
		}
		return p.store.Resolve(ctx, key)
	}
}

// find returns the part of that name, or nil.
func (ps *parts) find(name string) *part {
	ps.mu.RLock()
	defer ps.mu.RUnlock()
	return ps.byName[name]
}

// put makes the part the one of its name and returns the one it replaced.
func (ps *parts) put(p *part) (old *part) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if p.store != nil {
		p.store.Limit(ps.scopes)
	}
	ps.protect(p)
	old = ps.byName[p.config.Name]
	ps.byName[p.config.Name] = p
	return old
}

// take removes the part of that name and returns it.
func (ps *parts) take(name string) *part {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	p := ps.byName[name]
	delete(ps.byName, name)
	return p
}

// lack notes that a component, or an endpoint, could not be made, until a configuration is
// taken over whole.
func (ps *parts) lack(name string, err error) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.lacks[name] = err.Error()
}

// lacking tells whether a component could not be made.
func (ps *parts) lacking() bool {
	ps.mu.RLock()
	defer ps.mu.RUnlock()
	return len(ps.lacks) > 0
}

// limit gives every secret store its scope, those that come later too.
func (ps *parts) limit(scopes []config.SecretScope) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.scopes = scopes
	for _, p := range ps.byName {
		if p.store != nil {
			p.store.Limit(scopes)
		}
	}
}

// protect gives a part the policy of the calls that it is asked for.
func (ps *parts) protect(p *part) {
	switch {
	case p.bus != nil:
		p.bus.SetPolicy(ps.policies.of(way{p.config.Name, pubsubPolicies, config.Outbound}))
	case p.binding != nil:
		p.binding.SetPolicy(ps.policies.of(way{p.config.Name, bindingPolicies, config.Outbound}))
	case p.state != nil:
		p.state.SetPolicy(ps.policies.of(way{p.config.Name, statePolicies, config.Outbound}))
	case p.crypto != nil:
		p.crypto.SetPolicy(ps.policies.of(way{p.config.Name, cryptoPolicies, config.Outbound}))
	case p.lock != nil:
		p.lock.SetPolicy(ps.policies.of(way{p.config.Name, lockPolicies, config.Outbound}))
	case p.configuration != nil:
		p.configuration.SetPolicy(ps.policies.of(way{p.config.Name, configurationPolicies, config.Outbound}))
	}
}

// obey takes over new Resiliency documents, for the parts that come later too.
func (ps *parts) obey(docs []config.Resiliency) {
	ps.policies.set(docs)
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for _, p := range ps.byName {
		ps.protect(p)
	}
}

// lackNothing forgets what was lacking.
func (ps *parts) lackNothing() {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	clear(ps.lacks)
}

// all returns every part, by name.
func (ps *parts) all() []*part {
	ps.mu.RLock()
	defer ps.mu.RUnlock()
	out := make([]*part, 0, len(ps.byName))
	for _, name := range slices.Sorted(maps.Keys(ps.byName)) {
		out = append(out, ps.byName[name])
	}
	return out
}

// has tells whether there is a part of a kind. It is asked for each call.
func (ps *parts) has(kind string) bool {
	ps.mu.RLock()
	defer ps.mu.RUnlock()
	for _, p := range ps.byName {
		if k, _, _ := strings.Cut(p.def.Type, "."); k == kind {
			return true
		}
	}
	return false
}

// missing names the parts that are not ready, with the reason; those that may
// fail (ignoreErrors) are left out.
func (ps *parts) missing() []string {
	var out []string
	for _, p := range ps.all() {
		s := p.life.State()
		if s.Word == component.Ready || p.config.IgnoreErrors {
			continue
		}
		why := "component " + p.config.Name + ", " + s.Word + " since " + s.Since.Format(time.RFC3339)
		if s.LastError != "" {
			why += ": " + s.LastError
		}
		out = append(out, why)
	}
	ps.mu.RLock()
	defer ps.mu.RUnlock()
	for _, name := range slices.Sorted(maps.Keys(ps.lacks)) {
		out = append(out, name+": "+ps.lacks[name])
	}
	return out
}

// bus returns a broker by name. Kind NotFound when there is none.
func (ps *parts) bus(name string) (*pubsub.Bus, error) {
	if p := ps.find(name); p != nil && p.bus != nil {
		return p.bus, nil
	}
	return nil, fault.New(fault.NotFound, "find pub/sub %q: no such component", name)
}

// outputOf returns a binding by name. Kind NotFound when there is none.
func (ps *parts) outputOf(name string) (*bindings.Binding, error) {
	if p := ps.find(name); p != nil && p.binding != nil {
		return p.binding, nil
	}
	return nil, fault.New(fault.NotFound, "find binding %q: no such component", name)
}

// storeOf returns a secret store by name. Kind NotFound when there is none.
func (ps *parts) storeOf(name string) (*secrets.Store, error) {
	if p := ps.find(name); p != nil && p.store != nil {
		return p.store, nil
	}
	return nil, fault.New(fault.NotFound, "find secret store %q: no such component", name)
}

// stateOf returns a state store by name. Kind NotFound when there is none.
func (ps *parts) stateOf(name string) (*state.Store, error) {
	if p := ps.find(name); p != nil && p.state != nil {
		return p.state, nil
	}
	return nil, fault.New(fault.NotFound, "find state store %q: no such component", name)
}

// cryptoOf returns a crypto component by name. Kind NotFound when there is none.
func (ps *parts) cryptoOf(name string) (*crypto.Provider, error) {
	if p := ps.find(name); p != nil && p.crypto != nil {
		return p.crypto, nil
	}
	return nil, fault.New(fault.NotFound, "find crypto component %q: no such component", name)
}

// lockOf returns a lock store by name. Kind NotFound when there is none.
func (ps *parts) lockOf(name string) (*lock.Store, error) {
	if p := ps.find(name); p != nil && p.lock != nil {
		return p.lock, nil
	}
	return nil, fault.New(fault.NotFound, "find lock store %q: no such component", name)
}

// configurationOf returns a configuration store by name. Kind NotFound when
// there is none.
func (ps *parts) configurationOf(name string) (*configuration.Store, error) {
	if p := ps.find(name); p != nil && p.configuration != nil {
		return p.configuration, nil
	}
	return nil, fault.New(fault.NotFound, "find configuration store %q: no such component", name)
}

// held is for routes whose target is a component: that it is not there, or will
// not open, is a matter of the configuration, not of the event, which waits.
func (ps *parts) held(name string, err error) error {
	if err == nil || fault.Retriable(err) {
		return err
	}
	if p := ps.find(name); p == nil || p.life.State().Word == component.Failed {
		return fault.As(fault.Unavailable, err)
	}
	return err
}

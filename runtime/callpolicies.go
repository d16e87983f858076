package runtime

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/penstock-io/penstock/api"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/resilience"
)

const (
	// defaultBreakers is how many breakers a target has at most, one for each of its
	// methods, unless circuitBreakerCacheSize says otherwise.
	defaultBreakers = 100
	// maxTargets is how many targets with breakers or a budget are remembered: default
	// policies are for every name that an app may think of.
	maxTargets = 1000
)

// target is what is kept of calls of one target. Of targets and of breakers the one
// that was used longest ago makes room.
type target struct {
	sum      uint64 // of the breakers' settings
	byMethod map[string]*usedBreaker
	share    int // of the budget
	budget   *resilience.Budget
	used     uint64 // a turn
	turn     uint64 // of breakers
}

type usedBreaker struct {
	*resilience.Breaker
	turn uint64 // when it was used
}

// obey forgets what has other settings now.
func (t *target) obey(c chosen) {
	sum, share := uint64(0), 0
	if c.Breaker != nil {
		sum = fingerprint(*c.Breaker)
	}
	if c.Retry != nil {
		share = c.Retry.Budget
	}
	if t.sum != sum {
		t.sum, t.byMethod = sum, map[string]*usedBreaker{}
	}
	if t.share != share {
		t.share, t.budget = share, nil
	}
	if share > 0 && t.budget == nil {
		t.budget = budgetOf(share)
	}
}

// Target implements invoke.Policies: a target's own policies, or the default ones
// by name.
func (ps *policies) Target(name, method string) *resilience.Policy {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	names := ps.doc.App(name)
	c := ps.chosen(names)
	if c == (chosen{}) {
		return nil
	}
	p := &resilience.Policy{Timeout: c.Timeout, Observer: ps.watcher(config.Outbound, "app_"+name)}
	if c.Retry != nil {
		p.Retry = retryOf(*c.Retry)
	}
	if c.Breaker != nil || c.Retry != nil && c.Retry.Budget > 0 {
		t := ps.target(name, c)
		p.Retry.Budget = t.budget
		if c.Breaker != nil {
			p.Breaker = ps.breakerOf(t, name, method, names.CacheSize, *c.Breaker)
		}
	}
	return p
}

// BuiltIn implements invoke.Policies.
func (ps *policies) BuiltIn() (pause time.Duration, tries int) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	r := ps.doc.Retries[config.ServiceRetries]
	return r.Duration, r.MaxRetries
}

// target returns what is kept of a target. It runs under mu.
func (ps *policies) target(name string, c chosen) *target {
	t := ps.targets[name]
	if t == nil {
		for len(ps.targets) >= maxTargets {
			delete(ps.targets, oldest(ps.targets, func(t *target) uint64 { return t.used }))
		}
		t = &target{}
		t.obey(c)
		ps.targets[name] = t
	}
	ps.turn++
	t.used = ps.turn
	return t
}

// breakerOf returns the breaker of a target's method. It runs under mu.
func (ps *policies) breakerOf(t *target, name, method string, most int, c config.BreakerPolicy) *resilience.Breaker {
	if most <= 0 {
		most = defaultBreakers
	}
	t.turn++
	b := t.byMethod[method]
	if b == nil {
		for len(t.byMethod) >= most {
			delete(t.byMethod, oldest(t.byMethod, func(b *usedBreaker) uint64 { return b.turn }))
		}
		b = &usedBreaker{Breaker: ps.newBreaker(c, ps.watcher(config.Outbound, "app_"+name), "app", name)}
		t.byMethod[method] = b
	}
	b.turn = t.turn
	return b.Breaker
}

// oldest returns the key of what was used longest ago.
func oldest[T any](of map[string]T, turn func(T) uint64) (key string) {
	least, found := uint64(0), false
	for k, v := range of {
		if n := turn(v); !found || n < least {
			key, least, found = k, n, true
		}
	}
	return key
}

// breakerStates tells of the breakers that are there, those of components first.
func (ps *policies) breakerStates() []api.BreakerInfo {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	var out []api.BreakerInfo
	for w, kept := range ps.breakers {
		out = append(out, api.BreakerInfo{Component: w.name, Direction: strings.ToLower(w.direction), State: kept.breaker.State()})
	}
	for name, t := range ps.targets {
		for method, b := range t.byMethod {
			out = append(out, api.BreakerInfo{App: name, Method: method, State: b.State()})
		}
	}
	slices.SortFunc(out, func(a, b api.BreakerInfo) int {
		return cmp.Or(cmp.Compare(a.App, b.App), cmp.Compare(a.Method, b.Method), cmp.Compare(a.Component, b.Component), cmp.Compare(a.Direction, b.Direction))
	})
	return out
}

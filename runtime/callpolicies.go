package runtime

import (
	"time"

	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/resilience"
)

// defaultBreakers is how many breakers a target has at most, one for each of its
// methods, unless circuitBreakerCacheSize says otherwise.
const defaultBreakers = 100

// targetBreakers are the breakers of one target. The one that was used longest ago
// makes room.
type targetBreakers struct {
	sum      uint64 // of their settings
	byMethod map[string]*usedBreaker
	turn     uint64
}

type usedBreaker struct {
	*resilience.Breaker
	turn uint64 // when it was used
}

// Target implements invoke.Policies: a target's own policies, or the default ones
// by name.
func (ps *policies) Target(target, method string) *resilience.Policy {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	names := ps.doc.App(target)
	c := ps.chosen(names)
	if c == (chosen{}) {
		return nil
	}
	p := &resilience.Policy{Timeout: c.Timeout}
	if c.Retry != nil {
		p.Retry = retryOf(*c.Retry)
	}
	if c.Breaker != nil {
		p.Breaker = ps.targetBreaker(target, method, names.CacheSize, *c.Breaker)
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

// targetBreaker returns the breaker of a target's method. It runs under mu.
func (ps *policies) targetBreaker(target, method string, most int, c config.BreakerPolicy) *resilience.Breaker {
	if most <= 0 {
		most = defaultBreakers
	}
	sum := fingerprint(c)
	t := ps.targets[target]
	if t == nil || t.sum != sum {
		t = &targetBreakers{sum: sum, byMethod: map[string]*usedBreaker{}}
		ps.targets[target] = t
	}
	t.turn++
	b := t.byMethod[method]
	if b == nil {
		for len(t.byMethod) >= most {
			t.forget()
		}
		b = &usedBreaker{Breaker: ps.newBreaker(c, "app", target)}
		t.byMethod[method] = b
	}
	b.turn = t.turn
	return b.Breaker
}

// forget drops the breaker that was used longest ago.
func (t *targetBreakers) forget() {
	oldest, found := "", uint64(0)
	for method, b := range t.byMethod {
		if found == 0 || b.turn < found {
			oldest, found = method, b.turn
		}
	}
	delete(t.byMethod, oldest)
}

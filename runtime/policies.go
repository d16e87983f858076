package runtime

import (
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/penstock-io/penstock/cloudevents/expr"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/resilience"
	"github.com/penstock-io/penstock/telemetry"
)

// The kinds of components, as names of default policies have them.
const (
	pubsubPolicies  = "Pubsub"
	bindingPolicies = "Binding"
	statePolicies   = "Statestore"
	cryptoPolicies  = "Crypto"
	lockPolicies    = "Lock"

	configurationPolicies = "Configuration"
)

// Dapr's exponential pauses.
const (
	growFirst  = 500 * time.Millisecond
	growFactor = 1.5
	growJitter = 0.5
	// leastPause keeps a pause of nothing from being a hot loop.
	leastPause = 10 * time.Millisecond
)

// way is one direction of the calls of one component.
type way struct{ name, kind, direction string }

// policies are what the Resiliency documents say, made ready to use. A breaker
// belongs to one way and lives on as long as its settings stay as they are; so does
// a budget.
type policies struct {
	expr    *expr.Compiler
	log     *slog.Logger
	metrics *telemetry.Metrics

	mu       sync.Mutex // guards what follows
	doc      config.Resiliency
	names    []string
	breakers map[way]keptBreaker
	budgets  map[way]keptBudget
	targets  map[string]*target // of calls of apps
	turn     uint64             // of targets
}

type keptBreaker struct {
	sum     uint64
	breaker *resilience.Breaker
}

type keptBudget struct {
	share  int
	budget *resilience.Budget
}

func newPolicies(x *expr.Compiler, log *slog.Logger, metrics *telemetry.Metrics) *policies {
	return &policies{expr: x, log: log, metrics: metrics, doc: config.MergeResiliency(nil), breakers: map[way]keptBreaker{}, budgets: map[way]keptBudget{}, targets: map[string]*target{}}
}

// set takes over new documents.
func (ps *policies) set(docs []config.Resiliency) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.doc, ps.names = config.MergeResiliency(docs), nil
	for _, d := range docs {
		ps.names = append(ps.names, d.Name)
		ps.metrics.Loaded(d.Name)
	}
	slices.Sort(ps.names)
	for name, t := range ps.targets {
		t.obey(ps.chosen(ps.doc.App(name)))
	}
	for w, kept := range ps.budgets {
		if r := ps.choose(w).Retry; r == nil || r.Budget != kept.share {
			delete(ps.budgets, w)
		}
	}
	for w, kept := range ps.breakers {
		if b := ps.choose(w).Breaker; b == nil || fingerprint(*b) != kept.sum {
			delete(ps.breakers, w)
		}
	}
}

// list returns the names of the documents.
func (ps *policies) list() []string {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	return ps.names
}

// chosen are the policies of one way, nil and zero where there is none.
type chosen struct {
	Timeout time.Duration
	Retry   *config.RetryPolicy
	Breaker *config.BreakerPolicy
}

// choose runs under mu. A name that no policy has is none, as under Dapr.
func (ps *policies) choose(w way) chosen {
	return ps.chosen(ps.doc.Component(w.name, w.kind, w.direction))
}

// chosen runs under mu.
func (ps *policies) chosen(names config.TargetPolicies) (c chosen) {
	c.Timeout = ps.doc.Timeouts[names.Timeout.Name]
	if r, ok := ps.doc.Retries[names.Retry.Name]; ok {
		c.Retry = &r
	}
	if b, ok := ps.doc.Breakers[names.Breaker.Name]; ok {
		c.Breaker = &b
	}
	return c
}

// sum is another one when the policies of a way are; zero without any.
func (ps *policies) sum(w way) uint64 {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	c := ps.choose(w)
	if c == (chosen{}) {
		return 0
	}
	return fingerprint(c)
}

// of returns the policy of a way, or nil when it has none.
func (ps *policies) of(w way) *resilience.Policy {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	c := ps.choose(w)
	if c == (chosen{}) {
		return nil
	}
	p := &resilience.Policy{Timeout: c.Timeout, Observer: ps.watcher(w.direction, w.kind+"_"+w.name)}
	if c.Retry != nil {
		p.Retry = retryOf(*c.Retry)
		p.Retry.Budget = ps.budget(w, c.Retry.Budget)
	}
	if c.Breaker != nil {
		p.Breaker = ps.breaker(w, *c.Breaker)
	}
	return p
}

// budget returns the budget of a way; nil: no bound. It runs under mu.
func (ps *policies) budget(w way, share int) *resilience.Budget {
	if share == 0 {
		return nil
	}
	if kept, ok := ps.budgets[w]; ok && kept.share == share {
		return kept.budget
	}
	b := budgetOf(share)
	ps.budgets[w] = keptBudget{share, b}
	return b
}

func budgetOf(share int) *resilience.Budget { return resilience.NewBudget(float64(share) / 100) }

// breaker returns the breaker of a way. It runs under mu.
func (ps *policies) breaker(w way, c config.BreakerPolicy) *resilience.Breaker {
	sum := fingerprint(c)
	if kept, ok := ps.breakers[w]; ok && kept.sum == sum {
		return kept.breaker
	}
	b := ps.newBreaker(c, ps.watcher(w.direction, w.kind+"_"+w.name), "component", w.name, "direction", w.direction)
	ps.breakers[w] = keptBreaker{sum, b}
	return b
}

// newBreaker makes a breaker that says in the log what it is about.
func (ps *policies) newBreaker(c config.BreakerPolicy, told watcher, about ...any) *resilience.Breaker {
	return resilience.NewBreaker(resilience.BreakerConfig{
		MaxRequests: uint32(c.MaxRequests), Interval: c.Interval, Timeout: c.Timeout, Trip: ps.trip(c.Trip),
		Changed: func(state string) {
			ps.log.Warn("Circuit breaker is "+state, about...)
			told.Acted(resilience.BreakerPart, state)
		},
	})
}

// watcher counts what policies do. It implements resilience.Observer.
type watcher struct {
	metrics *telemetry.Metrics
	of      telemetry.Resiliency
}

// watcher makes one. It runs under mu. With several resources it says the first
// one's name, since policies are merged.
func (ps *policies) watcher(direction, target string) watcher {
	w := watcher{ps.metrics, telemetry.Resiliency{Direction: strings.ToLower(direction), Target: target}}
	if len(ps.names) > 0 {
		w.of.Name = ps.names[0]
	}
	return w
}

func (w watcher) Applied(part, state string) { w.metrics.Applied(w.of, part, state) }

func (w watcher) Acted(part, state string) { w.metrics.Acted(w.of, part, state) }

// trip compiles the condition of a breaker; nil is the default one. Check saw
// that it compiles.
func (ps *policies) trip(x config.Expr) func(resilience.Counts) bool {
	if x.Text == "" {
		return nil
	}
	t, err := ps.expr.CompileTrip(x.Text)
	if err != nil {
		return func(resilience.Counts) bool { return false }
	}
	return func(n resilience.Counts) bool { return t.Holds(expr.Counts(n)) }
}

func retryOf(p config.RetryPolicy) resilience.Retry {
	r := resilience.Retry{Constant: true, Initial: max(p.Duration, leastPause), Limit: p.MaxRetries}
	if p.Exponential {
		r = resilience.Retry{
			Initial: growFirst, Max: max(p.MaxInterval, leastPause), Factor: growFactor, Jitter: growJitter, Limit: p.MaxRetries,
		}
	}
	if len(p.HTTP)+len(p.GRPC) > 0 {
		r.Codes = &resilience.Codes{HTTP: rangesOf(p.HTTP), GRPC: rangesOf(p.GRPC)}
	}
	return r
}

func rangesOf(list []config.CodeRange) []resilience.Range {
	out := make([]resilience.Range, len(list))
	for i, r := range list {
		out[i] = resilience.Range(r)
	}
	return out
}

// circuitStates are those of a breaker, the worst last, and one that none is in but
// Dapr's dashboards ask for.
func circuitStates() []string { return []string{"unknown", "closed", "half-open", "open"} }

// circuits are the states of the breakers; of an app that of its worst method.
func (ps *policies) circuits() map[telemetry.Resiliency]string {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	out := map[telemetry.Resiliency]string{}
	for w, kept := range ps.breakers {
		out[ps.watcher(w.direction, w.kind+"_"+w.name).of] = kept.breaker.State()
	}
	for name, t := range ps.targets {
		of := ps.watcher(config.Outbound, "app_"+name).of
		for _, b := range t.byMethod {
			if s := b.State(); slices.Index(circuitStates(), s) > slices.Index(circuitStates(), out[of]) {
				out[of] = s
			}
		}
	}
	return out
}

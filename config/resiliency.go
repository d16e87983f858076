package config

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Resiliency is a Dapr Resiliency document: policies by name, and which of them
// apply to what. A name may be that of a policy in another document; see
// [MergeResiliency].
type Resiliency struct {
	Name       string
	Timeouts   map[string]time.Duration // zero: no bound
	Retries    map[string]RetryPolicy
	Breakers   map[string]BreakerPolicy
	Apps       map[string]TargetPolicies
	Actors     map[string]TargetPolicies
	Components map[string]ComponentPolicies
	Scopes     []string
	Place      Place
}

// RetryPolicy is one of spec.policies.retries.
type RetryPolicy struct {
	// Exponential pauses begin with half a second, whatever Duration says, and
	// grow up to MaxInterval; constant ones are Duration.
	Exponential bool
	Duration    time.Duration // default 5 s
	MaxInterval time.Duration // default 60 s
	MaxRetries  int           // -1, the default, is for ever
	// HTTP and GRPC are the only codes that are retried; empty: all of them.
	HTTP, GRPC []CodeRange
	// Budget is how many tries after the first there may be for a hundred calls
	// of a target, all callers together; zero: no bound. It is ours.
	Budget int
}

// CodeRange is a range of status codes, both ends in it.
type CodeRange struct{ From, To int }

// BreakerPolicy is one of spec.policies.circuitBreakers.
type BreakerPolicy struct {
	MaxRequests int           // let through half-open; zero: 1
	Interval    time.Duration // zero: the counts of a closed breaker are never cleared
	Timeout     time.Duration // open for so long; zero: 60 s
	Trip        Expr          // CEL over the counts; empty: consecutiveFailures > 5
}

// PolicyName is the name of a policy where it is used. An empty name is none.
type PolicyName struct {
	Name  string
	Place Place
}

// TargetPolicies names the policies of one target.
type TargetPolicies struct {
	Timeout, Retry, Breaker PolicyName
	// CacheSize is how many breakers an app or a type of actors has at most;
	// zero: the default. BreakerScope of actors is type, id or both.
	CacheSize    int
	BreakerScope string
}

// ComponentPolicies names the policies of a component: what it brings in, and
// what it is called for.
type ComponentPolicies struct{ Inbound, Outbound TargetPolicies }

// The defaults of Dapr's retry policies.
const (
	retryPause    = 5 * time.Second
	retryInterval = time.Minute
)

func (r *reader) resiliency(d *fields, h header) Resiliency {
	out := Resiliency{Name: h.name, Scopes: h.scopes, Place: h.at}
	spec := d.table("spec")
	policies := spec.table("policies")
	out.Timeouts = named(policies, "timeouts", (*fields).millisOf)
	out.Retries = named(policies, "retries", (*fields).retryPolicy)
	out.Breakers = named(policies, "circuitBreakers", (*fields).breakerPolicy)
	policies.done()
	targets := spec.table("targets")
	out.Apps = named(targets, "apps", (*fields).appPolicies)
	out.Actors = named(targets, "actors", (*fields).actorPolicies)
	out.Components = named(targets, "components", (*fields).componentPolicies)
	targets.done()
	spec.done()
	return out
}

// named reads a mapping of names that people choose; read reads the value of
// one name.
func named[T any](f *fields, field string, read func(*fields, string) T) map[string]T {
	table := f.table(field)
	out := make(map[string]T, len(table.pairs()))
	for _, p := range table.pairs() {
		// The name stands for itself, in whatever case it is written.
		one := &fields{r: f.r, n: &node{kind: tableNode, pairs: []pair{p}, at: p.at}, path: table.path, at: p.at, strict: true, read: map[string]bool{}}
		out[p.key] = read(one, p.key)
	}
	return out
}

// millisOf reads a duration in which a bare number is milliseconds, as Dapr
// reads those of policies. Absent and less than zero are zero.
func (f *fields) millisOf(name string) time.Duration { return f.millis(name, 0) }

func (f *fields) millis(name string, def time.Duration) time.Duration {
	n := f.get(name)
	if n == nil || n.kind == scalarNode && n.text == "" {
		return def
	}
	if n.kind == scalarNode {
		if ms, err := strconv.ParseInt(n.scalar().text, 10, 64); err == nil && ms <= math.MaxInt64/int64(time.Millisecond) {
			return max(0, time.Duration(ms)*time.Millisecond)
		}
		if d, err := time.ParseDuration(strings.TrimSpace(n.text)); err == nil {
			return max(0, d)
		}
	}
	f.wrong(n, name, "a duration such as 200ms or 5s, or a number of milliseconds")
	return def
}

func (f *fields) retryPolicy(name string) RetryPolicy {
	t := f.table(name)
	out := RetryPolicy{
		Duration: t.millis("duration", retryPause), MaxInterval: t.millis("maxInterval", retryInterval), MaxRetries: -1,
	}
	switch word := t.text("policy"); strings.ToLower(word) {
	case "", "constant":
	case "exponential":
		out.Exponential = true
	default:
		t.r.hard(t.place("policy"), DidYouMean(word, []string{"exponential", "constant"}),
			"%s is %q, want exponential or constant", t.name("policy"), cut(word, 80))
	}
	out.MaxRetries = t.retries()
	matching := t.table("matching")
	out.Budget = t.share("budget")
	out.HTTP = matching.codes("httpStatusCodes", 100, 599)
	out.GRPC = matching.codes("gRPCStatusCodes", 0, 16)
	matching.done()
	t.done()
	return out
}

// share reads a part of a hundred, with or without the sign; absent is zero.
func (f *fields) share(name string) int {
	n := f.get(name)
	if n == nil || n.kind == scalarNode && n.text == "" {
		return 0
	}
	if n.kind == scalarNode {
		if i, err := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(n.scalar().text, "%"))); err == nil && i >= 1 && i <= 100 {
			return i
		}
	}
	f.wrong(n, name, "a share such as 20%, from 1% to 100%")
	return 0
}

// retries reads maxRetries. Less than -1 is for ever too, under Dapr.
func (f *fields) retries() int {
	n := f.get("maxRetries")
	if n != nil && n.kind == scalarNode {
		if i, err := strconv.Atoi(n.scalar().text); err == nil && i < -1 {
			f.r.lenient(n.at, "write -1", "%s is %d; only -1 is for ever", f.name("maxRetries"), i)
			return -1
		}
	}
	return f.int("maxRetries", -1, -1, math.MaxInt32)
}

// codes reads a list of status codes and ranges of them, such as "429,500-599".
func (f *fields) codes(name string, least, most int) (out []CodeRange) {
	n := f.get(name)
	for part := range strings.SplitSeq(f.text(name), ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		from, err := strconv.Atoi(strings.TrimSpace(first))
		to, lastErr := strconv.Atoi(strings.TrimSpace(last))
		if err != nil || lastErr != nil || from < least || to > most || from > to {
			hint := "write codes and ranges of them, from " + strconv.Itoa(least) + " to " + strconv.Itoa(most)
			if err == nil && lastErr == nil && from > to {
				hint = "write the smaller one first"
			}
			f.r.hard(n.at, hint, "%s: %q is neither a status code nor a range of them", f.name(name), cut(part, 80))
			continue
		}
		out = append(out, CodeRange{from, to})
	}
	return out
}

func (f *fields) breakerPolicy(name string) BreakerPolicy {
	t := f.table(name)
	out := BreakerPolicy{
		MaxRequests: t.int("maxRequests", 0, 0, math.MaxInt32),
		Interval:    t.millis("interval", 0),
		Timeout:     t.millis("timeout", 0),
		Trip:        Expr{Text: t.text("trip")},
	}
	out.Trip.Place = f.r.span(t.place("trip"), out.Trip.Text)
	t.done()
	return out
}

func (f *fields) appPolicies(name string) TargetPolicies {
	t := f.table(name)
	out := t.policyNames()
	out.CacheSize = t.int("circuitBreakerCacheSize", 0, 0, math.MaxInt32)
	t.done()
	return out
}

func (f *fields) actorPolicies(name string) TargetPolicies {
	t := f.table(name)
	out := t.policyNames()
	out.CacheSize = t.int("circuitBreakerCacheSize", 0, 0, math.MaxInt32)
	out.BreakerScope = t.text("circuitBreakerScope")
	scopes := []string{"type", "id", "both"}
	switch {
	case out.BreakerScope == "" && out.Breaker.Name != "":
		t.r.hard(out.Breaker.Place, "add circuitBreakerScope: type, id or both", "%s has a circuitBreaker and no circuitBreakerScope", t.path)
	case out.BreakerScope != "" && !slices.Contains(scopes, out.BreakerScope):
		t.r.hard(t.place("circuitBreakerScope"), DidYouMean(out.BreakerScope, scopes),
			"%s is %q, want type, id or both", t.name("circuitBreakerScope"), cut(out.BreakerScope, 80))
	}
	t.done()
	return out
}

// componentPolicies takes policies that stand directly below the name for those
// of the calls that the component is asked for.
func (f *fields) componentPolicies(name string) ComponentPolicies {
	t := f.table(name)
	direct := t.policyNames()
	in, out := t.table("inbound"), t.table("outbound")
	c := ComponentPolicies{Inbound: in.policyNames(), Outbound: out.policyNames()}
	in.done()
	out.done()
	t.done()
	for _, one := range []struct{ to, from *PolicyName }{
		{&c.Outbound.Timeout, &direct.Timeout}, {&c.Outbound.Retry, &direct.Retry}, {&c.Outbound.Breaker, &direct.Breaker},
	} {
		if one.to.Name == "" {
			*one.to = *one.from
		}
	}
	return c
}

func (f *fields) policyNames() TargetPolicies {
	name := func(field string) PolicyName { return PolicyName{Name: f.text(field), Place: f.place(field)} }
	return TargetPolicies{Timeout: name("timeout"), Retry: name("retry"), Breaker: name("circuitBreaker")}
}

package config

import (
	"maps"
	"strings"
	"time"
)

// ServiceRetries is the retry policy of calls of other sidecars that have none of
// their own.
const ServiceRetries = "DaprBuiltInServiceRetries"

// The other retry policies that are there without a document.
const (
	actorRetries          = "DaprBuiltInActorRetries"
	actorReminderRetries  = "DaprBuiltInActorReminderRetries"
	actorNotFoundRetries  = "DaprBuiltInActorNotFoundRetries"
	initializationRetries = "DaprBuiltInInitializationRetries"
	leastBuiltIn          = 3 // a document cannot give them fewer retries
)

func builtInRetries() map[string]RetryPolicy {
	return map[string]RetryPolicy{
		ServiceRetries:        {Duration: time.Second, MaxRetries: 3},
		actorRetries:          {Duration: time.Second, MaxRetries: 3},
		actorReminderRetries:  {Exponential: true, MaxInterval: time.Minute},
		actorNotFoundRetries:  {Duration: time.Second, MaxRetries: 5},
		initializationRetries: {Exponential: true, MaxInterval: time.Second, MaxRetries: 3},
	}
}

// MergeResiliency puts documents together as Dapr does: of two policies, or two
// targets, of the same name the later one wins, whole. The built-in retries are
// there too. The result has no name, scopes or place.
func MergeResiliency(docs []Resiliency) Resiliency {
	out := Resiliency{
		Timeouts: map[string]time.Duration{}, Retries: builtInRetries(), Breakers: map[string]BreakerPolicy{},
		Apps: map[string]TargetPolicies{}, Actors: map[string]TargetPolicies{}, Components: map[string]ComponentPolicies{},
	}
	builtIn := builtInRetries()
	for _, d := range docs {
		maps.Copy(out.Timeouts, d.Timeouts)
		maps.Copy(out.Breakers, d.Breakers)
		maps.Copy(out.Apps, d.Apps)
		maps.Copy(out.Actors, d.Actors)
		maps.Copy(out.Components, d.Components)
		for name, p := range d.Retries {
			if name == actorNotFoundRetries {
				continue
			}
			if _, ok := builtIn[name]; ok {
				p.MaxRetries = max(p.MaxRetries, leastBuiltIn)
			}
			out.Retries[name] = p
		}
	}
	return out
}

// The directions of calls.
const (
	Inbound  = "Inbound"
	Outbound = "Outbound"
)

// Component returns the policies of a component's calls in one direction. A
// component that is not a target has the default policies by name, the most
// specific first: for kind "Pubsub" those of PubsubComponentInbound,
// ComponentInbound, Component and of everything.
func (r Resiliency) Component(name, kind, direction string) TargetPolicies {
	if c, ok := r.Components[name]; ok {
		if direction == Inbound {
			return c.Inbound
		}
		return c.Outbound
	}
	levels := []string{kind + "Component" + direction, "Component" + direction, "Component", ""}
	return TargetPolicies{
		Timeout: defaultPolicy(r.Timeouts, levels, "TimeoutPolicy"),
		Retry:   defaultPolicy(r.Retries, levels, "RetryPolicy"),
		Breaker: defaultPolicy(r.Breakers, levels, "CircuitBreakerPolicy"),
	}
}

// App returns the policies of calls of an app, or of an HTTPEndpoint or a URL. One
// that is not a target has the default policies by name: those of App, then those
// of everything.
func (r Resiliency) App(target string) TargetPolicies {
	if t, ok := r.Apps[target]; ok {
		return t
	}
	levels := []string{"App", ""}
	return TargetPolicies{
		Timeout: defaultPolicy(r.Timeouts, levels, "TimeoutPolicy"),
		Retry:   defaultPolicy(r.Retries, levels, "RetryPolicy"),
		Breaker: defaultPolicy(r.Breakers, levels, "CircuitBreakerPolicy"),
	}
}

func defaultPolicy[T any](policies map[string]T, levels []string, suffix string) PolicyName {
	for _, level := range levels {
		name := strings.Join([]string{"Default", level, suffix}, "")
		if _, ok := policies[name]; ok {
			return PolicyName{Name: name}
		}
	}
	return PolicyName{}
}

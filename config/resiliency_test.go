package config

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// readResiliency reads the one document of a text that has no error.
func readResiliency(t *testing.T, text string) Resiliency {
	t.Helper()
	set, problems := Parse("r.yaml", []byte(text), Options{AppID: "app1"})
	if len(problems) > 0 || len(set.Resiliencies) != 1 {
		t.Fatalf("%d documents, %v", len(set.Resiliencies), problems)
	}
	return set.Resiliencies[0]
}

func TestResiliency(t *testing.T) {
	t.Parallel()
	got := readResiliency(t, `
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: r}
scopes: [app1]
spec:
  policies:
    timeouts: {short: 500, quoted: "500", long: 1m30s, none: 0, less: -5s}
    retries:
      plain: {}
      constant: {policy: Constant, duration: "250", maxRetries: 0}
      growing:
        policy: exponential
        duration: 9s
        maxInterval: 15s
        maxRetries: 10
        budget: 20%
        matching: {httpStatusCodes: "429, 500-599,", gRPCStatusCodes: 14}
    circuitBreakers:
      plain:
      whole: {maxRequests: 2, interval: 8s, timeout: 45000, trip: requests > 3}
  targets:
    apps: {other: {timeout: short, circuitBreakerCacheSize: 7}}
    actors: {cart: {circuitBreaker: plain, circuitBreakerScope: both}}
    components:
      bus: {inbound: {retry: growing}, outbound: {timeout: long, circuitBreaker: whole}}
      direct: {retry: plain, timeout: short, outbound: {timeout: long}}
`)
	named := func(name string) PolicyName { return PolicyName{Name: name} }
	want := Resiliency{
		Name: "r", Scopes: []string{"app1"},
		Timeouts: map[string]time.Duration{
			"short": 500 * time.Millisecond, "quoted": 500 * time.Millisecond, "long": 90 * time.Second, "none": 0, "less": 0,
		},
		Retries: map[string]RetryPolicy{
			"plain":    {Duration: 5 * time.Second, MaxInterval: time.Minute, MaxRetries: -1},
			"constant": {Duration: 250 * time.Millisecond, MaxInterval: time.Minute},
			"growing": {
				Exponential: true, Duration: 9 * time.Second, MaxInterval: 15 * time.Second, MaxRetries: 10, Budget: 20,
				HTTP: []CodeRange{{429, 429}, {500, 599}}, GRPC: []CodeRange{{14, 14}},
			},
		},
		Breakers: map[string]BreakerPolicy{
			"plain": {},
			"whole": {MaxRequests: 2, Interval: 8 * time.Second, Timeout: 45 * time.Second, Trip: Expr{Text: "requests > 3"}},
		},
		Apps:   map[string]TargetPolicies{"other": {Timeout: named("short"), CacheSize: 7}},
		Actors: map[string]TargetPolicies{"cart": {Breaker: named("plain"), BreakerScope: "both"}},
		Components: map[string]ComponentPolicies{
			"bus":    {Inbound: TargetPolicies{Retry: named("growing")}, Outbound: TargetPolicies{Timeout: named("long"), Breaker: named("whole")}},
			"direct": {Outbound: TargetPolicies{Timeout: named("long"), Retry: named("plain")}},
		},
	}
	if diff := cmp.Diff(want, got, anywhere); diff != "" {
		t.Error(diff)
	}
}

func TestResiliencyOfOthersIsLeftOut(t *testing.T) {
	t.Parallel()
	set, problems := Parse("r.yaml", []byte("apiVersion: dapr.io/v1alpha1\nkind: Resiliency\nmetadata: {name: r}\nscopes: [other]\nspec: {}\n"), Options{AppID: "app1"})
	if len(problems) > 0 || len(set.Resiliencies)+len(set.Skipped) > 0 {
		t.Errorf("%v, %v, %v", set.Resiliencies, set.Skipped, problems)
	}
}

func TestDiffSeesResiliency(t *testing.T) {
	t.Parallel()
	one := &Set{Resiliencies: []Resiliency{{Name: "r", Timeouts: map[string]time.Duration{"t": 1}}}}
	two := &Set{Resiliencies: []Resiliency{{Name: "r", Timeouts: map[string]time.Duration{"t": 2}, Place: Place{Line: 9}}}}
	moved := &Set{Resiliencies: []Resiliency{{Name: "r", Timeouts: map[string]time.Duration{"t": 1}, Place: Place{Line: 9}}}}
	if !Diff(one, moved).Empty() {
		t.Error("a document that only moved is called another one")
	}
	if d := Diff(one, two); d.Empty() || len(d.Resiliencies.Changed) != 1 {
		t.Errorf("%+v", d.Resiliencies)
	}
	if d := Diff(one, nil); d.Empty() || len(d.Resiliencies.Removed) != 1 {
		t.Errorf("%+v", d.Resiliencies)
	}
}

func TestMergeResiliency(t *testing.T) {
	t.Parallel()
	got := MergeResiliency([]Resiliency{
		{
			Timeouts: map[string]time.Duration{"a": 1, "b": 2},
			Retries: map[string]RetryPolicy{
				ServiceRetries:       {Duration: time.Minute, MaxRetries: 1},
				actorRetries:         {Duration: time.Minute, MaxRetries: 9},
				actorNotFoundRetries: {Duration: time.Minute, MaxRetries: 9},
			},
			Components: map[string]ComponentPolicies{"bus": {Inbound: TargetPolicies{Timeout: PolicyName{Name: "a"}}}},
		},
		{
			Timeouts:   map[string]time.Duration{"b": 3},
			Components: map[string]ComponentPolicies{"bus": {Outbound: TargetPolicies{Timeout: PolicyName{Name: "b"}}}},
		},
	})
	if diff := cmp.Diff(map[string]time.Duration{"a": 1, "b": 3}, got.Timeouts); diff != "" {
		t.Error(diff)
	}
	if bus := got.Components["bus"]; bus.Inbound.Timeout.Name != "" || bus.Outbound.Timeout.Name != "b" {
		t.Errorf("the later target does not win whole: %+v", bus)
	}
	want := map[string]RetryPolicy{
		ServiceRetries:        {Duration: time.Minute, MaxRetries: 3},
		actorRetries:          {Duration: time.Minute, MaxRetries: 9},
		actorReminderRetries:  {Exponential: true, MaxInterval: time.Minute},
		actorNotFoundRetries:  {Duration: time.Second, MaxRetries: 5},
		initializationRetries: {Exponential: true, MaxInterval: time.Second, MaxRetries: 3},
	}
	if diff := cmp.Diff(want, got.Retries); diff != "" {
		t.Error(diff)
	}
}

func TestDefaultPoliciesByName(t *testing.T) {
	t.Parallel()
	type timeouts = map[string]time.Duration
	rows := []struct {
		name            string
		doc             Resiliency
		kind, direction string
		timeout, retry  string
	}{
		{name: "none", kind: "Pubsub", direction: Inbound},
		{
			name: "the most specific wins", kind: "Pubsub", direction: Inbound, timeout: "DefaultPubsubComponentInboundTimeoutPolicy",
			doc: Resiliency{Timeouts: timeouts{
				"DefaultPubsubComponentInboundTimeoutPolicy": 1, "DefaultComponentInboundTimeoutPolicy": 2,
				"DefaultComponentTimeoutPolicy": 3, "DefaultTimeoutPolicy": 4,
			}},
		},
		{
			name: "another kind and another direction do not count", kind: "Binding", direction: Outbound, timeout: "DefaultComponentTimeoutPolicy",
			doc: Resiliency{Timeouts: timeouts{
				"DefaultPubsubComponentOutboundTimeoutPolicy": 1, "DefaultComponentInboundTimeoutPolicy": 2, "DefaultComponentTimeoutPolicy": 3,
			}},
		},
		{
			name: "of a direction before of components", kind: "Binding", direction: Outbound, timeout: "DefaultComponentOutboundTimeoutPolicy",
			doc: Resiliency{Timeouts: timeouts{"DefaultComponentOutboundTimeoutPolicy": 1, "DefaultComponentTimeoutPolicy": 2}},
		},
		{
			name: "each policy for itself", kind: "Pubsub", direction: Inbound, timeout: "DefaultTimeoutPolicy", retry: "DefaultPubsubComponentInboundRetryPolicy",
			doc: Resiliency{Timeouts: timeouts{"DefaultTimeoutPolicy": 1}, Retries: map[string]RetryPolicy{"DefaultPubsubComponentInboundRetryPolicy": {}}},
		},
		{
			name: "those of apps do not count", kind: "Pubsub", direction: Inbound,
			doc: Resiliency{Timeouts: timeouts{"DefaultAppTimeoutPolicy": 1, "DefaultActorTimeoutPolicy": 1}},
		},
		{
			name: "a target has no defaults, not even in its other direction", kind: "Pubsub", direction: Inbound,
			doc: Resiliency{
				Timeouts:   timeouts{"DefaultTimeoutPolicy": 1, "own": 2},
				Components: map[string]ComponentPolicies{"bus": {Outbound: TargetPolicies{Timeout: PolicyName{Name: "own"}}}},
			},
		},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			got := MergeResiliency([]Resiliency{row.doc}).Component("bus", row.kind, row.direction)
			if got.Timeout.Name != row.timeout || got.Retry.Name != row.retry || got.Breaker.Name != "" {
				t.Errorf("got %+v", got)
			}
		})
	}
}

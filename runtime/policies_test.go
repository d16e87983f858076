package runtime

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/resilience"
)

const brittle = "circuitBreakers: {b: {timeout: 10s, trip: consecutiveFailures >= 2}}, retries: {r: {duration: 1s, maxRetries: 5}}"

func (g *rig) breakerState(w way) string {
	g.parts.policies.mu.Lock()
	defer g.parts.policies.mu.Unlock()
	if kept, ok := g.parts.policies.breakers[w]; ok {
		return kept.breaker.State()
	}
	return ""
}

func TestOutboundBreaker(t *testing.T) {
	t.Parallel()
	ways := map[way]func(*rig) error{
		{"bus", pubsubPolicies, config.Outbound}:   (*rig).publish,
		{"door", bindingPolicies, config.Outbound}: (*rig).invoke,
	}
	for w, call := range ways {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				g := newRig(t, documents(t, under("circuitBreaker: b, retry: r", brittle)), 503)
				if err := call(g); err == nil || errors.Is(err, resilience.ErrOpen) {
					t.Errorf("want the peer's error, got %v", err)
				}
				if diff := cmp.Diff(seconds(0, 1), g.calledAt()); diff != "" || g.breakerState(w) != "open" {
					t.Errorf("the open breaker, now %s, does not end the retries: %s", g.breakerState(w), diff)
				}
				pass(3 * time.Second)
				err := call(g)
				if !errors.Is(err, resilience.ErrOpen) || fault.KindOf(err) != fault.Unavailable || fault.RetryAfter(err) <= 0 {
					t.Errorf("got %v", err)
				}
				pass(7 * time.Second)
				if err := call(g); err == nil || g.breakerState(w) != "open" || len(g.calledAt()) != 3 {
					t.Errorf("a failed probe: %v, %s, %v", err, g.breakerState(w), g.calledAt())
				}
				pass(11 * time.Second)
				g.mend()
				if err := call(g); err != nil || g.breakerState(w) != "closed" {
					t.Errorf("a good probe: %v, %s", err, g.breakerState(w))
				}
			})
		})
	}
}

func TestInboundBreaker(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, documents(t, under("circuitBreaker: b, retry: r", brittle)), 503)
		w := way{"bus", pubsubPolicies, config.Inbound}
		g.subscribe(config.Subscription{DeadLetterTopic: "dead"})
		for i := range 1000 {
			g.bus.in <- fmt.Sprint(i)
		}
		pass(time.Minute)
		// Those under way at the beginning all fail at once; after that there is
		// a probe every ten seconds and no other call.
		late := slices.DeleteFunc(g.calledAt(), func(at time.Duration) bool { return at < time.Second })
		if len(late) < 5 || len(late) > 6 || late[0] != 10*time.Second || g.breakerState(w) == "closed" {
			t.Errorf("breaker %s, called at %v", g.breakerState(w), late)
		}
		if letters, acked := g.bus.count(); letters+acked > 0 {
			t.Errorf("%d letters, %d acked while the breaker was open", letters, acked)
		}
		g.mend()
		pass(time.Minute)
		if letters, acked := g.bus.count(); acked != 1000 || letters != 0 || g.breakerState(w) != "closed" {
			t.Errorf("%d letters, %d acked, breaker %s", letters, acked, g.breakerState(w))
		}
		if got := g.breakerState(way{"bus", pubsubPolicies, config.Outbound}); got != "closed" {
			t.Errorf("the other direction is %s", got)
		}
	})
}

// TestDeadLettersAndPolicies holds the rule of the contract: without a retry
// policy the first failure goes to the dead letter topic, with one the last.
func TestDeadLettersAndPolicies(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, doc string
		calls     int
	}{
		{"without a document", "", 1},
		{"with a time-out only", under("timeout: t", "timeouts: {t: 1s}"), 1},
		{"with a retry", under("retry: r", "retries: {r: {duration: 1s, maxRetries: 4}}"), 5},
		{"with a default retry", defaults("retries: {DefaultPubsubComponentInboundRetryPolicy: {duration: 1s, maxRetries: 2}}"), 3},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var docs []config.Resiliency
				if row.doc != "" {
					docs = documents(t, row.doc)
				}
				g := newRig(t, docs, 500)
				g.subscribe(config.Subscription{DeadLetterTopic: "dead"})
				g.bus.in <- "1"
				pass(time.Minute)
				if letters, acked := g.bus.count(); letters != 1 || acked != 1 || len(g.calledAt()) != row.calls {
					t.Errorf("%d letters, %d acked, called at %v", letters, acked, g.calledAt())
				}
			})
		})
	}
}

// TestNewDocuments holds what a reload changes for components that stay: their
// policies, and a breaker only when its own settings are others.
func TestNewDocuments(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, documents(t, under("circuitBreaker: b", brittle)), 503)
		w := way{"bus", pubsubPolicies, config.Outbound}
		_, _ = g.publish(), g.publish()
		before := g.parts.policies.sum(way{"bus", pubsubPolicies, config.Inbound})
		if g.breakerState(w) != "open" {
			t.Fatal("not open")
		}
		g.parts.obey(documents(t, under("circuitBreaker: b, timeout: t", brittle+", timeouts: {t: 1s}")))
		if err := g.publish(); g.breakerState(w) != "open" || !errors.Is(err, resilience.ErrOpen) {
			t.Errorf("another time-out closed the breaker: %s, %v", g.breakerState(w), err)
		}
		if g.parts.policies.sum(way{"bus", pubsubPolicies, config.Inbound}) == before {
			t.Error("the route would not see its new time-out")
		}
		g.parts.obey(documents(t, under("circuitBreaker: b", strings.Replace(brittle, "10s", "20s", 1))))
		if err := g.publish(); g.breakerState(w) != "closed" || errors.Is(err, resilience.ErrOpen) {
			t.Errorf("the breaker has its old settings: %s, %v", g.breakerState(w), err)
		}
		g.parts.obey(nil)
		if err := g.publish(); len(g.parts.policies.breakers) > 0 || errors.Is(err, resilience.ErrOpen) {
			t.Errorf("%d breakers are left, %v", len(g.parts.policies.breakers), err)
		}
		if g.parts.policies.sum(w) != 0 || len(g.parts.policies.list()) > 0 {
			t.Error("something is left of the documents")
		}
	})
}

// TestBulkTimeout holds that the time-out of a policy bounds the call, not the
// time that an event waits for company.
func TestBulkTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, documents(t, under("timeout: t, retry: r", "timeouts: {t: 200ms}, retries: {r: {duration: 1s, maxRetries: 2}}")), 200, hang, 200)
		g.subscribe(config.Subscription{Bulk: config.Bulk{Enabled: true, MaxMessages: 10, MaxAwait: time.Second}, DeadLetterTopic: "dead"})
		g.bus.in <- "1"
		pass(time.Minute)
		if letters, acked := g.bus.count(); letters != 0 || acked != 1 || len(g.calledAt()) != 1 {
			t.Fatalf("%d letters, %d acked, called at %v", letters, acked, g.calledAt())
		}
		g.bus.in <- "2"
		pass(time.Minute)
		if letters, acked := g.bus.count(); letters != 0 || acked != 2 {
			t.Errorf("%d letters, %d acked", letters, acked)
		}
		// A second for company, 200 ms without an answer, a second's pause, and
		// a second for company again.
		if diff := cmp.Diff(seconds(1, 61, 63.2), g.calledAt()); diff != "" {
			t.Error(diff)
		}
	})
}

// TestBudgets holds that a budget is that of a target, not of a call, and that it
// lives as long as its share is the same.
func TestBudgets(t *testing.T) {
	t.Parallel()
	doc := under("retry: r", "retries: {r: {duration: 1s, maxRetries: 3, budget: 10%}}")
	for way, call := range asked() {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				g := newRig(t, documents(t, doc), 503)
				tries := func(calls int) int {
					before := len(g.calledAt())
					for range calls {
						_ = call(g)
					}
					return len(g.calledAt()) - before
				}
				// Ten are there from the beginning, and each call adds a tenth.
				if n := tries(100); n < 119 || n > 120 {
					t.Errorf("100 calls were %d tries", n)
				}
				g.parts.obey(documents(t, strings.Replace(doc, "1s", "2s", 1)))
				if n := tries(1); n > 2 {
					t.Errorf("another pause gave the budget its reserve back: %d tries", n)
				}
				g.parts.obey(documents(t, strings.Replace(doc, ", budget: 10%", "", 1)))
				if n := tries(10); n != 40 {
					t.Errorf("without a budget 10 calls were %d tries", n)
				}
			})
		})
	}
}

// TestDefaultPoliciesOfManyTargets holds that names an app thinks of do not pile
// up.
func TestDefaultPoliciesOfManyTargets(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, documents(t, defaults("circuitBreakers: {DefaultCircuitBreakerPolicy: {trip: totalFailures >= 1}}")), 503)
		_ = g.call()
		for i := range 2 * maxTargets {
			if g.parts.policies.Target("shop", "m").Breaker.State() != open {
				t.Fatal("a target that is used was forgotten")
			}
			g.parts.policies.Target(fmt.Sprint("app", i), "m")
		}
		if n := len(g.parts.policies.targets); n != maxTargets {
			t.Errorf("%d targets are remembered", n)
		}
	})
}

func TestBreakersInTheMetadata(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, documents(t, under("circuitBreaker: b", "circuitBreakers: {b: {trip: totalFailures >= 1}}")), 503)
		g.subscribe(config.Subscription{})
		g.bus.in <- "1"
		pass(time.Second)
		_ = g.call()
		var got []string
		for _, b := range g.parts.policies.breakerStates() {
			got = append(got, strings.Trim(strings.Join([]string{b.Component, b.Direction, b.App, b.Method, b.State}, " "), " "))
		}
		want := []string{"bus inbound   open", "bus outbound   closed", "door outbound   closed", "store outbound   closed", "shop m open"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
}

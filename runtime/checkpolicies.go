package runtime

import (
	"maps"
	"slices"

	"github.com/penstock-io/penstock/cloudevents/expr"
	"github.com/penstock-io/penstock/config"
)

// resiliency checks what can only be told of all Resiliency documents together:
// that each policy that a target names is there, and that trips compile.
func (c *checker) resiliency(docs []config.Resiliency) {
	all := config.MergeResiliency(docs)
	x := &compiler{expr: expr.New()}
	for _, d := range docs {
		for _, name := range slices.Sorted(maps.Keys(d.Breakers)) {
			trip := d.Breakers[name].Trip
			if trip.Text == "" {
				continue
			}
			if _, err := x.expr.CompileTrip(trip.Text); err != nil {
				x.add(trip, "trip of circuit breaker "+name, err)
			}
		}
		for _, name := range slices.Sorted(maps.Keys(d.Apps)) {
			c.policyNames(all, d.Apps[name])
		}
		for _, name := range slices.Sorted(maps.Keys(d.Actors)) {
			c.policyNames(all, d.Actors[name])
		}
		for _, name := range slices.Sorted(maps.Keys(d.Components)) {
			c.policyNames(all, d.Components[name].Inbound)
			c.policyNames(all, d.Components[name].Outbound)
		}
	}
	c.problems = append(c.problems, x.problems...)
}

// policyNames checks the names of one target. Dapr goes on without a time-out or
// retry that it does not find; without a breaker it breaks down itself.
func (c *checker) policyNames(all config.Resiliency, t config.TargetPolicies) {
	before := len(c.problems)
	policyName(c, all.Timeouts, t.Timeout, "timeout", "timeouts")
	policyName(c, all.Retries, t.Retry, "retry policy", "retries")
	c.lenient(before)
	policyName(c, all.Breakers, t.Breaker, "circuit breaker", "circuitBreakers")
}

func policyName[T any](c *checker, known map[string]T, name config.PolicyName, noun, field string) {
	if _, ok := known[name.Name]; ok || name.Name == "" {
		return
	}
	hint := "declare it under spec.policies." + field
	if near := config.Nearest(name.Name, slices.Sorted(maps.Keys(known))); near != "" {
		hint = `did you mean "` + near + `"?`
	}
	c.add(name.Place, hint, "no %s is called %q", noun, name.Name)
}

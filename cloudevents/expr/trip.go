package expr

import (
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
)

// Counts are what a [Trip] looks at: the calls of a circuit breaker.
type Counts struct {
	Requests, TotalSuccesses, TotalFailures, ConsecutiveSuccesses, ConsecutiveFailures uint32
}

// Trip is a CEL expression that says whether a circuit breaker opens.
type Trip struct{ prog *program }

func tripNames() []string {
	return []string{"requests", "totalSuccesses", "totalFailures", "consecutiveSuccesses", "consecutiveFailures"}
}

func newTripEnv() (*cel.Env, error) {
	var variables []cel.EnvOption
	for _, name := range tripNames() {
		variables = append(variables, cel.Variable(name, cel.IntType))
	}
	return newEnv(variables...)
}

// CompileTrip compiles a CEL expression with a boolean result over the counts,
// such as consecutiveFailures > 5 or requests > 20 && totalFailures * 2 >
// requests. Its error is an [*Error].
func (c *Compiler) CompileTrip(text string) (*Trip, error) {
	p, err := c.compileWith(c.trips, "there are "+strings.Join(tripNames(), ", "), text)
	if err != nil {
		return nil, err
	}
	if !p.out.IsExactType(cel.BoolType) && !p.out.IsExactType(cel.DynType) {
		return nil, problem("the result is %s, a trip must be true or false", article(p.out.String()))
	}
	return &Trip{prog: p}, nil
}

// Holds tells whether the breaker opens. When that cannot be told, as after a
// division by zero, it does not.
func (t *Trip) Holds(n Counts) bool {
	out, _, err := t.prog.prog.Eval(n)
	if err != nil {
		return false
	}
	b, ok := out.(types.Bool)
	return ok && bool(b)
}

// String returns the text of the trip.
func (t *Trip) String() string { return t.prog.text }

var _ cel.Activation = Counts{}

// ResolveName implements [cel.Activation].
func (n Counts) ResolveName(name string) (any, bool) {
	switch name {
	case "requests":
		return types.Int(n.Requests), true
	case "totalSuccesses":
		return types.Int(n.TotalSuccesses), true
	case "totalFailures":
		return types.Int(n.TotalFailures), true
	case "consecutiveSuccesses":
		return types.Int(n.ConsecutiveSuccesses), true
	case "consecutiveFailures":
		return types.Int(n.ConsecutiveFailures), true
	}
	return nil, false
}

// Parent implements [cel.Activation]: there is none.
func (n Counts) Parent() cel.Activation { return nil }

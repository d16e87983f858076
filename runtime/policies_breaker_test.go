package runtime

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/resilience"
)

// refused is a call that an open breaker lets nobody hear of.
const refused = 0

// breakerStep is a call at a time, what the peer says, and the breaker after it.
type breakerStep struct {
	at    float64
	say   int // refused: the peer is not called
	state string
}

// breakerRow is a breaker and what it makes of calls. Each runs over every way
// that a call can go.
type breakerRow struct {
	name, breaker string
	steps         []breakerStep
	// intake is when one event that comes in is delivered, with a retry each
	// second: while the breaker is open it waits, so nothing is refused.
	intake []time.Duration
}

// The states of a breaker.
const (
	closed = "closed"
	half   = "half-open"
	open   = "open"
)

// timeRows are about when a breaker closes again.
func timeRows() []breakerRow {
	return []breakerRow{
		{
			name: "default trip: more than five failures in a row", breaker: "{timeout: 30s}",
			steps: []breakerStep{
				{0, 503, closed},
				{1, 503, closed},
				{2, 503, closed},
				{3, 503, closed},
				{4, 503, closed},
				{5, 503, open},
				{6, refused, open},
				{36, 200, closed},
				{37, 503, closed},
				{38, 503, closed},
				{39, 503, closed},
				{40, 200, closed},
				{41, 503, closed},
			},
			intake: seconds(0, 1, 2, 3, 4, 5, 35),
		},
		{
			name: "default time-out of a minute", breaker: "{trip: consecutiveFailures >= 1}",
			steps:  []breakerStep{{0, 503, open}, {59, refused, open}, {61, 200, closed}},
			intake: seconds(0, 60),
		},
		{
			name: "time-out, and a probe that fails", breaker: "{timeout: 10s, trip: consecutiveFailures >= 2}",
			steps: []breakerStep{
				{0, 503, closed}, {1, 503, open}, {10, refused, open}, {12, 503, open}, {21, refused, open}, {23, 200, closed}, {24, 503, closed},
			},
			intake: seconds(0, 1, 11, 21),
		},
		{
			name: "one probe after the other until all are well", breaker: "{timeout: 10s, maxRequests: 3, trip: consecutiveFailures >= 1}",
			steps:  []breakerStep{{0, 503, open}, {11, 200, half}, {12, 200, half}, {13, 503, open}, {24, 200, half}, {25, 200, half}, {26, 200, closed}},
			intake: seconds(0, 10),
		},
	}
}

// tripRows are about when a breaker opens.
func tripRows() []breakerRow {
	return []breakerRow{
		{
			name: "trip on a share of the calls", breaker: "{timeout: 10s, trip: requests >= 4 && totalFailures * 2 >= requests}",
			steps: []breakerStep{{0, 503, closed}, {1, 200, closed}, {2, 200, closed}, {3, 200, closed}, {4, 503, closed}, {5, 503, open}},
		},
		{
			name: "trip on all failures", breaker: "{timeout: 10s, trip: totalFailures > 2 && consecutiveSuccesses == 0}",
			steps: []breakerStep{{0, 503, closed}, {1, 200, closed}, {2, 503, closed}, {3, 200, closed}, {4, 503, open}},
		},
		{
			name: "an interval clears the counts", breaker: "{interval: 10s, timeout: 10s, trip: totalFailures >= 2}",
			steps: []breakerStep{{0, 503, closed}, {11, 503, closed}, {22, 503, closed}, {23, 503, open}},
		},
		{
			name: "without an interval nothing does", breaker: "{timeout: 10s, trip: totalFailures >= 2}",
			steps: []breakerStep{{0, 503, closed}, {3600, 503, open}},
		},
		{
			name: "what takes too long is a failure", breaker: "{timeout: 10s, trip: totalFailures >= 1}",
			steps:  []breakerStep{{0, hang, open}, {5, refused, open}, {20, 200, closed}},
			intake: seconds(0, 12),
		},
	}
}

func (r breakerRow) document() string {
	return under("circuitBreaker: b, timeout: t, retry: r", "timeouts: {t: 2s}, retries: {r: {duration: 1s}}, circuitBreakers: {b: "+r.breaker+"}")
}

// stateOf returns the state of the one breaker that was made for a way.
func (g *rig) stateOf(way, direction string) string {
	switch way {
	case "call", "typed":
		for _, b := range g.parts.policies.targets["shop"].byMethod {
			return b.State()
		}
	case "invoke", "binding":
		return g.breakerState(breakerOf("door", bindingPolicies, direction))
	case "publish", "topic":
		return g.breakerState(breakerOf("bus", pubsubPolicies, direction))
	}
	return g.breakerState(breakerOf("store", statePolicies, direction))
}

func breakerOf(name, kind, direction string) way { return way{name, kind, direction} }

// TestBreakers runs each breaker over each way that a call can go.
func TestBreakers(t *testing.T) {
	t.Parallel()
	for _, row := range append(timeRows(), tripRows()...) {
		for way, call := range asked() {
			t.Run(row.name+"/"+way, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) { askedBreaker(t, row, way, call) })
			})
		}
		for _, way := range []string{"topic", "binding"} {
			if row.intake == nil {
				continue
			}
			t.Run(row.name+"/"+way, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) { intakeBreaker(t, row, way) })
			})
		}
	}
}

// said are the answers of the peer, in their order.
func (r breakerRow) said() (say []int) {
	for _, s := range r.steps {
		if s.say != refused {
			say = append(say, s.say)
		}
	}
	return say
}

func askedBreaker(t *testing.T, row breakerRow, way string, call func(*rig) error) {
	// The breaker is looked at after each try, so there is no other.
	g := newRig(t, documents(t, row.noRetry()), row.said()...)
	for _, s := range row.steps {
		<-time.After(time.Duration(s.at*float64(time.Second)) - time.Since(g.start))
		before := len(g.calledAt())
		err := call(g)
		if called := len(g.calledAt()) > before; called != (s.say != refused) || (err == nil) != (s.say == 200) {
			t.Errorf("at %v: called %v, %v", s.at, called, err)
		}
		if s.say == refused && !errors.Is(err, resilience.ErrOpen) {
			t.Errorf("at %v: %v", s.at, err)
		}
		if got := g.stateOf(way, config.Outbound); got != s.state {
			t.Errorf("at %v: %s, want %s", s.at, got, s.state)
		}
	}
}

func (r breakerRow) noRetry() string {
	return under("circuitBreaker: b, timeout: t, retry: r", "timeouts: {t: 2s}, retries: {r: {maxRetries: 0}}, circuitBreakers: {b: "+r.breaker+"}")
}

func intakeBreaker(t *testing.T, row breakerRow, way string) {
	say := row.said()
	g := newRig(t, documents(t, row.document()), append(say[:len(row.intake)-1:len(row.intake)-1], 200)...)
	in := g.bus
	if way == "topic" {
		g.subscribe(config.Subscription{DeadLetterTopic: "dead"})
	} else {
		in = g.door
		g.input()
	}
	in.in <- "1"
	pass(10 * time.Minute)
	if letters, acked := in.count(); letters != 0 || acked != 1 {
		t.Errorf("%d letters, %d acked", letters, acked)
	}
	if diff := cmp.Diff(row.intake, g.calledAt()); diff != "" {
		t.Error(diff)
	}
	if got := g.stateOf(way, config.Inbound); !slices.Contains([]string{closed, half}, got) {
		t.Errorf("the breaker is %s", got)
	}
}

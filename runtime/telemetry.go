package runtime

import (
	"cmp"
	"strconv"
	"strings"
	"time"

	"github.com/penstock-io/penstock/api"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/resilience"
	"github.com/penstock-io/penstock/router"
	"github.com/penstock-io/penstock/telemetry"
)

// roundCount is what counts one round of a delivery.
type roundCount struct {
	calls      *telemetry.Calls
	topic      string
	subscribed bool
}

// countOf finds what counts a round. Its origin is a topic behind the component's
// name, or an input binding's name alone. What is left to do when the targets have
// answered is not counted again.
func countOf(m *telemetry.Metrics, s *router.Start) roundCount {
	if m == nil || s.Rest {
		return roundCount{}
	}
	name, topic, subscribed := strings.Cut(s.Delivery.Origin, "/")
	family := telemetry.Input
	if subscribed {
		family = telemetry.Deliver
	}
	return roundCount{m.Calls(family, name), topic, subscribed}
}

// end counts it; trace is the id of the trace that its last try was recorded in.
func (c roundCount) end(trace string, took time.Duration, v cloudevents.Verdict) {
	if c.subscribed {
		c.calls.EndIn(trace, c.topic, took, statusWord(v))
		return
	}
	c.calls.EndIn(trace, "", took, strconv.FormatBool(v == cloudevents.Ack))
}

// statusWord is Dapr's word for how a round ended; it has none for an event that is
// left with its broker.
func statusWord(v cloudevents.Verdict) string {
	switch v {
	case cloudevents.Ack:
		return "success"
	case cloudevents.Drop:
		return "drop"
	case cloudevents.Retry:
		return "retry"
	}
	return "leave"
}

// The metrics that are read when somebody looks.
const (
	routeInFlight = iota
	routeHeld
	routeHeldBytes
	routeWaiting
	routePaused
	routeEnded
	routeLetters
	routeRetried
	routeBacklog
	routeOldest
	draining
	breakerState
	circuitState
	componentInit
	componentLoaded
)

func gauges() []telemetry.Gauge {
	route := []string{"route"}
	return []telemetry.Gauge{
		routeInFlight:  {Name: "penstock_route_in_flight", Help: "Deliveries that are under way.", Labels: route},
		routeHeld:      {Name: "penstock_route_held", Help: "Deliveries taken from the source and not settled.", Labels: route},
		routeHeldBytes: {Name: "penstock_route_held_bytes", Help: "Bytes of the bodies that are held.", Labels: route},
		routeWaiting:   {Name: "penstock_route_waiting", Help: "Deliveries that wait for their back-off to pass.", Labels: route},
		routePaused:    {Name: "penstock_route_paused", Help: "1 when somebody paused the route, else 0.", Labels: route},
		routeEnded:     {Name: "penstock_route_deliveries_total", Help: "Deliveries that were settled, by what the source was told.", Labels: []string{"route", "outcome"}, Counter: true},
		routeLetters:   {Name: "penstock_route_dead_letters_total", Help: "Dead letters that were written.", Labels: route, Counter: true},
		routeRetried:   {Name: "penstock_route_retries_total", Help: "Rounds that another one followed.", Labels: route, Counter: true},
		routeBacklog:   {Name: "penstock_route_backlog", Help: "Messages that wait at the broker for the route, those that are held among them; where it knows, as of 10 s ago.", Labels: route},
		routeOldest:    {Name: "penstock_route_oldest_seconds", Help: "Age of the oldest of them, in seconds, where the broker knows.", Labels: route},
		draining:       {Name: "penstock_draining", Help: "1 when the instance is stopping and takes no new events, else 0."},
		breakerState:   {Name: "penstock_breaker_state", Help: "0 closed, 1 half-open, 2 open.", Labels: []string{"target", "direction"}},
		circuitState: {
			Name: "dapr_resiliency_cb_state", Help: "1 for the state that a breaker is in, 0 for the others; of an app that of its worst method.",
			Labels: []string{"name", "policy", "namespace", "flow_direction", "target", "status"},
		},
		componentInit:   {Name: "penstock_component_open", Help: "1 when the component is open, else 0.", Labels: []string{"component", "type"}},
		componentLoaded: {Name: "dapr_runtime_component_loaded", Help: "Number of components that were loaded.", Labels: []string{"namespace"}},
	}
}

// readings are the values of the gauges at this moment.
func (r *Runtime) readings() []telemetry.Sample {
	var out []telemetry.Sample
	add := func(gauge int, v float64, labels ...string) {
		out = append(out, telemetry.Sample{Gauge: gauge, Value: v, Labels: labels})
	}
	for _, s := range r.router.Routes() {
		add(routeInFlight, float64(s.InFlight), s.Name)
		add(routeHeld, float64(s.Held), s.Name)
		add(routeHeldBytes, float64(s.HeldBytes), s.Name)
		add(routeWaiting, float64(s.Waiting), s.Name)
		add(routePaused, one(s.Paused), s.Name)
		c := s.Counts
		add(routeEnded, float64(c.Acked), s.Name, "ack")
		add(routeEnded, float64(c.Dropped), s.Name, "drop")
		add(routeEnded, float64(c.GivenBack), s.Name, "retry")
		add(routeEnded, float64(c.Left), s.Name, "leave")
		add(routeLetters, float64(c.DeadLettered), s.Name)
		add(routeRetried, float64(c.Retried), s.Name)
	}
	for target, state := range worstBreakers(r.parts.policies.breakerStates()) {
		add(breakerState, state, target.name, target.direction)
	}
	for of, state := range r.parts.policies.circuits() {
		for _, s := range circuitStates() {
			add(circuitState, one(s == state), of.Name, resilience.BreakerPart, r.o.Namespace, of.Direction, of.Target, s)
		}
	}
	all := r.parts.all()
	for _, p := range all {
		add(componentInit, one(p.life.State().Word == component.Ready), p.doc.Name, p.def.Type)
	}
	r.addBacklogs(add)
	add(draining, one(r.stopping.Load()))
	add(componentLoaded, float64(len(all)), r.o.Namespace)
	return out
}

func one(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

// breakerTarget is a component in one direction, or an app, whose methods have
// breakers of their own.
type breakerTarget struct{ name, direction string }

// worstBreakers are the states of targets: of an app that of its worst breaker,
// because methods are what callers name.
func worstBreakers(list []api.BreakerInfo) map[breakerTarget]float64 {
	out := map[breakerTarget]float64{}
	for _, b := range list {
		t := breakerTarget{cmp.Or(b.Component, b.App), cmp.Or(b.Direction, "app")}
		out[t] = max(out[t], breakerNumber(b.State))
	}
	return out
}

func breakerNumber(word string) float64 {
	switch word {
	case "open":
		return 2
	case "half-open":
		return 1
	}
	return 0
}

package runtime

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/config"
)

// The protocols a peer may speak.
const (
	overHTTP = "HTTP"
	overGRPC = "gRPC"
)

// policyRow is a policy and what it makes of a peer's answers. Each runs over
// every way that a call can go, see asked and TestPolicies.
type policyRow struct {
	name          string
	only          string // a protocol; empty: the peer speaks one and then the other
	use, policies string // without use the document has no targets
	say           []int
	at            []time.Duration // of the calls
	ok            bool
}

func policyRows() []policyRow {
	return []policyRow{
		{name: "no policy", say: []int{503}, at: seconds(0)},
		{name: "constant", use: "retry: r", policies: "retries: {r: {policy: constant, duration: 2s, maxRetries: 3}}", say: []int{503}, at: seconds(0, 2, 4, 6)},
		{name: "constant by default, of five seconds, for ever", use: "retry: r", policies: "retries: {r: {}}", say: []int{503, 503, 503, 503, 200}, at: seconds(0, 5, 10, 15, 20), ok: true},
		{name: "a number is milliseconds", use: "retry: r", policies: "retries: {r: {duration: 1500, maxRetries: 1}}", say: []int{503}, at: seconds(0, 1.5)},
		{name: "no retries", use: "retry: r", policies: "retries: {r: {maxRetries: 0}}", say: []int{503}, at: seconds(0)},
		{name: "for ever", use: "retry: r", policies: "retries: {r: {duration: 1s, maxRetries: -1}}", say: append(slices.Repeat([]int{500}, 30), 200), at: seconds(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30), ok: true},
		{name: "a pause of nothing is a short one", use: "retry: r", policies: "retries: {r: {duration: 0, maxRetries: 2}}", say: []int{503}, at: seconds(0, 0.01, 0.02)},
		{name: "success in between", use: "retry: r", policies: "retries: {r: {duration: 1s, maxRetries: 5}}", say: []int{503, 500, 200}, at: seconds(0, 1, 2), ok: true},
		{name: "time-out of each try", use: "retry: r, timeout: t", policies: "timeouts: {t: 3s}, retries: {r: {duration: 1s, maxRetries: 2}}", say: []int{hang}, at: seconds(0, 4, 8)},
		{name: "time-out, then success", use: "retry: r, timeout: t", policies: "timeouts: {t: 500}, retries: {r: {duration: 1s}}", say: []int{hang, 200}, at: seconds(0, 1.5), ok: true},
		{name: "time-out alone", use: "timeout: t", policies: "timeouts: {t: 3s}", say: []int{hang}, at: seconds(0)},
		{name: "a listed code", only: overHTTP, use: "retry: r", policies: `retries: {r: {duration: 1s, maxRetries: 3, matching: {httpStatusCodes: "429,500-599"}}}`, say: []int{429, 500, 599, 200}, at: seconds(0, 1, 2, 3), ok: true},
		{name: "a code that is not listed", only: overHTTP, use: "retry: r", policies: `retries: {r: {duration: 1s, maxRetries: 3, matching: {httpStatusCodes: "429,500-599"}}}`, say: []int{429, 408}, at: seconds(0, 1)},
		{name: "a list for gRPC says nothing of HTTP", only: overHTTP, use: "retry: r", policies: `retries: {r: {duration: 1s, maxRetries: 1, matching: {gRPCStatusCodes: "14"}}}`, say: []int{503}, at: seconds(0, 1)},
		{name: "a listed code", only: overGRPC, use: "retry: r", policies: `retries: {r: {duration: 1s, maxRetries: 3, matching: {gRPCStatusCodes: "2,8-14"}}}`, say: []int{429, 503, 500, 200}, at: seconds(0, 1, 2, 3), ok: true},
		{name: "a code that is not listed", only: overGRPC, use: "retry: r", policies: `retries: {r: {duration: 1s, maxRetries: 3, matching: {gRPCStatusCodes: "8,13-14"}}}`, say: []int{429, 504}, at: seconds(0, 1)},
		{name: "a list for HTTP says nothing of gRPC", only: overGRPC, use: "retry: r", policies: `retries: {r: {duration: 1s, maxRetries: 1, matching: {httpStatusCodes: "404"}}}`, say: []int{503}, at: seconds(0, 1)},
		{name: "a pause that was asked for", use: "retry: r", policies: "retries: {r: {duration: 2s, maxRetries: 2}}", say: []int{busy, 503, 200}, at: seconds(0, 7, 9), ok: true},
		{name: "a longer pause than was asked for", use: "retry: r", policies: "retries: {r: {duration: 9s, maxRetries: 1}}", say: []int{busy}, at: seconds(0, 9)},
		{name: "defaults by name", policies: "retries: {DefaultRetryPolicy: {duration: 1s, maxRetries: 2}}, timeouts: {DefaultTimeoutPolicy: 3s}", say: []int{hang, 503}, at: seconds(0, 4, 5)},
		{name: "defaults of another name", policies: "retries: {DefaultRetryPolicies: {duration: 1s}}", say: []int{503}, at: seconds(0)},
	}
}

// asked are the ways of calls that somebody asks for and waits for. Typed calls
// only fail before anything was sent.
func asked() map[string]func(*rig) error {
	return map[string]func(*rig) error{
		"publish": (*rig).publish, "invoke": (*rig).invoke, "read": (*rig).read, "save": (*rig).save, "call": (*rig).call, "typed": (*rig).typed,
	}
}

// TestPolicies runs each policy over each way that a call can go, against the
// same peer, and looks at when that was called.
func TestPolicies(t *testing.T) {
	t.Parallel()
	for _, row := range policyRows() {
		for _, protocol := range []string{overHTTP, overGRPC} {
			if row.only != "" && row.only != protocol {
				continue
			}
			set := func(t *testing.T) *rig {
				doc := under(row.use, row.policies)
				if row.use == "" {
					doc = defaults(row.policies)
				}
				g := newRig(t, documents(t, doc), row.say...)
				g.rpc = protocol == overGRPC
				return g
			}
			bubble := func(way string, f func(*testing.T, *rig)) {
				t.Run(row.name+"/"+protocol+"/"+way, func(t *testing.T) {
					t.Parallel()
					synctest.Test(t, func(t *testing.T) { f(t, set(t)) })
				})
			}
			for way, call := range asked() {
				bubble(way, func(t *testing.T, g *rig) { askedRow(t, g, row, way, call) })
			}
			bubble("topic", func(t *testing.T, g *rig) { topicRow(t, g, row) })
			bubble("binding", func(t *testing.T, g *rig) { bindingRow(t, g, row) })
		}
	}
}

func askedRow(t *testing.T, g *rig, row policyRow, way string, call func(*rig) error) {
	at, ok := row.at, row.ok
	n := slices.Index(row.say, hang)
	switch {
	case way == "typed" && n >= 0:
		at, ok = at[:n+1], false // it may have got there, so it is not tried again
	case way == "typed" && len(at) == 1 && row.use == "":
		at = seconds(0, 1, 2, 3) // the built-in policy
	}
	if err := call(g); (err == nil) != ok {
		t.Errorf("got %v", err)
	}
	if diff := cmp.Diff(at, g.calledAt()); diff != "" {
		t.Error(diff)
	}
}

// topicRow is a delivery with a dead letter, which is the end of its policy.
func topicRow(t *testing.T, g *rig, row policyRow) {
	g.subscribe(config.Subscription{DeadLetterTopic: "dead"})
	g.bus.in <- "1"
	pass(time.Hour)
	letters, acked := g.bus.count()
	if acked != 1 || (letters == 0) != row.ok {
		t.Errorf("%d acked, %d letters", acked, letters)
	}
	if diff := cmp.Diff(row.at, g.calledAt()); diff != "" {
		t.Error(diff)
	}
}

// bindingRow is a delivery without a dead letter: when its policy is used up it
// stays owned, and comes again until it is taken.
func bindingRow(t *testing.T, g *rig, row policyRow) {
	g.input()
	g.door.in <- "1"
	pass(10 * time.Minute)
	_, acked := g.door.count()
	calls := g.calledAt()
	if (acked == 1) != row.ok || (len(calls) == len(row.at)) != row.ok {
		t.Errorf("%d acked after %d calls", acked, len(calls))
	}
	if diff := cmp.Diff(row.at, calls[:min(len(calls), len(row.at))]); diff != "" {
		t.Error(diff)
	}
	g.mend()
	pass(10 * time.Minute)
	if _, acked = g.door.count(); acked != 1 {
		t.Error("the event is gone")
	}
}

func TestExponentialPolicy(t *testing.T) {
	t.Parallel()
	doc := under("retry: r", "retries: {r: {policy: exponential, duration: 9s, maxInterval: 2s, maxRetries: 5}}")
	ways := asked()
	ways["topic"] = func(g *rig) error {
		g.subscribe(config.Subscription{DeadLetterTopic: "dead"})
		g.bus.in <- "1"
		pass(time.Hour)
		return nil
	}
	for name, call := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				g := newRig(t, documents(t, doc), 503)
				_ = call(g)
				at := g.calledAt()
				if len(at) != 6 {
					t.Fatalf("called at %v", at)
				}
				for i, middle := range seconds(0.5, 0.75, 1.125, 1.6875, 2) {
					pause := at[i+1] - at[i]
					if pause < middle/2-10*time.Millisecond || pause > min(middle*3/2, 2*time.Second)+10*time.Millisecond {
						t.Errorf("pause %d is %s, want about %s", i+1, pause, middle)
					}
				}
			})
		})
	}
}

package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/app"
	apphttp "github.com/penstock-io/penstock/app/http"
	"github.com/penstock-io/penstock/bindings"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/cloudevents/expr"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/pubsub"
	"github.com/penstock-io/penstock/resilience"
	"github.com/penstock-io/penstock/router"
)

// hang is a call without an answer.
const hang = -1

// peer is the other side of a call: it says a status after the other, the last
// one for ever, and notes when it was called.
type peer struct {
	mu    sync.Mutex
	say   []int
	start time.Time
	at    []time.Duration
}

func (p *peer) answer(ctx context.Context) error {
	p.mu.Lock()
	p.at = append(p.at, time.Since(p.start).Truncate(10*time.Millisecond))
	status := p.say[min(len(p.at), len(p.say))-1]
	p.mu.Unlock()
	switch {
	case status == hang:
		<-ctx.Done()
		return ctx.Err()
	case status/100 == 2:
		return nil
	}
	return fault.As(fault.FromHTTPStatus(status), &apphttp.StatusError{Path: "/peer", Status: status})
}

func (p *peer) calls() []time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.at)
}

// mend makes the peer succeed from now on.
func (p *peer) mend() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.say = []int{200}
}

// The peer is an app, a broker and a binding.

func (p *peer) Event(ctx context.Context, to *app.Address, _ *cloudevents.Delivery, _ time.Duration) cloudevents.Outcome {
	switch err := p.answer(ctx); {
	case err == nil:
		return cloudevents.Acked()
	case ctx.Err() != nil:
		return app.Unanswered(ctx, to.Path, err)
	default:
		return app.Retried(err)
	}
}

func (p *peer) Bulk(ctx context.Context, to *app.Address, ds []*cloudevents.Delivery, _ time.Duration) []cloudevents.Outcome {
	return slices.Repeat([]cloudevents.Outcome{p.Event(ctx, to, nil, 0)}, len(ds))
}

func (p *peer) Binding(ctx context.Context, to *app.Address, d *cloudevents.Delivery, _ time.Duration) (*app.Reply, cloudevents.Outcome) {
	return nil, p.Event(ctx, to, d, 0)
}

func (p *peer) Subscriptions(context.Context) ([]config.Subscription, error) { return nil, nil }
func (p *peer) WantsBinding(context.Context, *app.Address) (bool, error)     { return true, nil }
func (p *peer) Health(context.Context) error                                 { return nil }
func (p *peer) Operations() []string                                         { return []string{"create"} }

func (p *peer) Invoke(ctx context.Context, _ *bindings.Request) (*bindings.Response, error) {
	return nil, p.answer(ctx)
}

// feed is a driver of both kinds that is fed by hand; it counts what is
// published to the topic "dead" and passes the rest to the peer.
type feed struct {
	*peer
	in      chan string
	mu      sync.Mutex
	letters int
	acked   int
}

func (f *feed) Publish(ctx context.Context, topic string, batch []pubsub.Message) error {
	if topic == "dead" {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.letters += len(batch)
		return nil
	}
	return f.answer(ctx)
}

func (f *feed) Subscribe(ctx context.Context, _ pubsub.Subscription, emit cloudevents.EmitFunc) error {
	return f.Read(ctx, emit)
}

func (f *feed) Read(ctx context.Context, emit cloudevents.EmitFunc) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case id := <-f.in:
			body := fmt.Sprintf(`{"specversion":"1.0","id":%q,"source":"s","type":"t","data":1}`, id)
			if err := emit(ctx, &cloudevents.Delivery{Body: []byte(body), Settle: func(o cloudevents.Outcome) { f.settled(id, o) }}); err != nil {
				return err
			}
		}
	}
}

// settled delivers what was given back again, when it is due.
func (f *feed) settled(id string, o cloudevents.Outcome) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch o.Verdict {
	case cloudevents.Ack:
		f.acked++
	case cloudevents.Retry:
		time.AfterFunc(o.After, func() { f.in <- id })
	}
}

func (f *feed) Close(context.Context) error { return nil }

func (f *feed) count() (letters, acked int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.letters, f.acked
}

// rig is what a runtime has of parts and routes, around one peer.
type rig struct {
	*peer
	t      *testing.T
	bus    *feed
	door   *feed
	parts  *parts
	routes *routes
	router *router.Router
}

func documents(t *testing.T, texts ...string) []config.Resiliency {
	t.Helper()
	set, problems := config.Parse("r.yaml", []byte(strings.Join(texts, "\n---\n")), config.Options{AppID: "app"})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	return set.Resiliencies
}

// newRig opens the components bus and door in a synctest bubble.
func newRig(t *testing.T, docs []config.Resiliency, say ...int) *rig {
	t.Helper()
	p := &peer{say: say, start: time.Now()}
	g := &rig{peer: p, t: t, bus: &feed{peer: p, in: make(chan string, 1000)}, door: &feed{peer: p, in: make(chan string, 1000)}}
	type none struct{}
	about := component.About{Capabilities: []string{bindings.InputCapability, bindings.OutputCapability}, Operations: []string{"create"}}
	list := component.List{
		pubsub.Define("feed", component.About{}, func(context.Context, component.Env, none) (pubsub.Driver, error) { return g.bus, nil }),
		bindings.Define("feed", about, func(context.Context, component.Env, none) (bindings.Driver, error) { return g.door, nil }),
	}
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	compiler := expr.New()
	g.parts = &parts{
		list: list, log: log, byName: map[string]*part{}, lacks: map[string]string{}, opened: func() {},
		env: component.Env{AppID: "app", Shared: &component.Shared{}}, policies: newPolicies(compiler, log),
	}
	g.parts.delays = &delays{parts: g.parts}
	g.parts.obey(docs)
	for _, c := range []config.Component{{Name: "bus", Type: "pubsub.feed", Version: "v1"}, {Name: "door", Type: "bindings.feed", Version: "v1"}} {
		part, err := g.parts.open(t.Context(), t.Context(), c, nil)
		if err != nil {
			t.Fatal(err)
		}
		g.parts.put(part)
		t.Cleanup(func() { part.close(context.WithoutCancel(t.Context())) })
	}
	g.routes = &routes{parts: g.parts, expr: compiler, app: app.New(app.Options{Channel: p})}
	var err error
	if g.router, err = router.New(router.Options{Logger: log}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- g.router.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	synctest.Wait()
	return g
}

// subscribe starts the route of a topic.
func (g *rig) subscribe(s config.Subscription) {
	g.t.Helper()
	s.PubSub, s.Topic, s.Rules = "bus", "t", []config.Rule{{Path: "/t"}}
	route, err := g.routes.subscription(g.t.Context(), s)
	if err == nil {
		err = g.router.Add(route)
	}
	if err != nil {
		g.t.Fatal(err)
	}
}

// input starts the route of the binding.
func (g *rig) input() {
	g.t.Helper()
	route, err := g.routes.input("door")
	if err == nil {
		err = g.router.Add(route)
	}
	if err != nil {
		g.t.Fatal(err)
	}
}

func (g *rig) publish() error {
	return g.parts.find("bus").bus.Publish(g.t.Context(), &pubsub.PublishRequest{Topic: "t", Data: []byte("x")})
}

func (g *rig) invoke() error {
	_, err := g.parts.find("door").binding.Invoke(g.t.Context(), &bindings.Request{Operation: "create"})
	return err
}

// under makes a document in which the two components use policies in both
// directions.
func under(use, policies string) string {
	ways := fmt.Sprintf("{inbound: {%s}, outbound: {%s}}", use, use)
	return fmt.Sprintf("apiVersion: dapr.io/v1alpha1\nkind: Resiliency\nmetadata: {name: r}\nspec:\n  policies: {%s}\n  targets: {components: {bus: %s, door: %s}}\n",
		policies, ways, ways)
}

// defaults makes a document without targets.
func defaults(policies string) string {
	return "apiVersion: dapr.io/v1alpha1\nkind: Resiliency\nmetadata: {name: d}\nspec: {policies: {" + policies + "}}\n"
}

// seconds are times since the start.
func seconds(list ...float64) (out []time.Duration) {
	for _, s := range list {
		out = append(out, time.Duration(s*float64(time.Second)))
	}
	return out
}

// pass lets d go by, and then all that follows settle.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

type policyRow struct {
	name          string
	use, policies string
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
		{name: "a listed code", use: "retry: r", policies: `retries: {r: {duration: 1s, maxRetries: 3, matching: {httpStatusCodes: "429,500-599"}}}`, say: []int{429, 500, 599, 200}, at: seconds(0, 1, 2, 3), ok: true},
		{name: "a code that is not listed", use: "retry: r", policies: `retries: {r: {duration: 1s, maxRetries: 3, matching: {httpStatusCodes: "429,500-599"}}}`, say: []int{429, 408}, at: seconds(0, 1)},
		{name: "a list for gRPC says nothing of HTTP", use: "retry: r", policies: `retries: {r: {duration: 1s, maxRetries: 1, matching: {gRPCStatusCodes: "14"}}}`, say: []int{503}, at: seconds(0, 1)},
		{name: "defaults of another name", policies: "retries: {DefaultRetryPolicies: {duration: 1s}}", say: []int{503}, at: seconds(0)},
	}
}

// TestPolicies runs each policy over each way that a call can go, against the
// same peer, and looks at when that was called.
func TestPolicies(t *testing.T) {
	t.Parallel()
	for _, row := range policyRows() {
		outbound := map[string]func(*rig) error{"publish": (*rig).publish, "invoke": (*rig).invoke}
		for way, call := range outbound {
			t.Run(row.name+"/"+way, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					g := newRig(t, documents(t, under(row.use, row.policies)), row.say...)
					if err := call(g); (err == nil) != row.ok {
						t.Errorf("got %v", err)
					}
					if diff := cmp.Diff(row.at, g.calls()); diff != "" {
						t.Error(diff)
					}
				})
			})
		}
		t.Run(row.name+"/topic", func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				g := newRig(t, documents(t, under(row.use, row.policies)), row.say...)
				g.subscribe(config.Subscription{DeadLetterTopic: "dead"})
				g.bus.in <- "1"
				pass(time.Hour)
				letters, acked := g.bus.count()
				if acked != 1 || (letters == 0) != row.ok {
					t.Errorf("%d acked, %d letters", acked, letters)
				}
				if diff := cmp.Diff(row.at, g.calls()); diff != "" {
					t.Error(diff)
				}
			})
		})
		t.Run(row.name+"/binding", func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { bindingRow(t, row) })
		})
	}
}

// bindingRow is a delivery without a dead letter: when its policy is used up it
// stays owned, and comes again until it is taken.
func bindingRow(t *testing.T, row policyRow) {
	g := newRig(t, documents(t, under(row.use, row.policies)), row.say...)
	g.input()
	g.door.in <- "1"
	pass(10 * time.Minute)
	_, acked := g.door.count()
	calls := g.calls()
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
	for name, call := range map[string]func(*rig){
		"publish": func(g *rig) { _ = g.publish() },
		"invoke":  func(g *rig) { _ = g.invoke() },
		"topic": func(g *rig) {
			g.subscribe(config.Subscription{DeadLetterTopic: "dead"})
			g.bus.in <- "1"
			pass(time.Hour)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				g := newRig(t, documents(t, doc), 503)
				call(g)
				at := g.calls()
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

const brittle = "circuitBreakers: {b: {timeout: 10s, trip: consecutiveFailures >= 2}}, retries: {r: {duration: 1s, maxRetries: 5}}"

func (g *rig) state(w way) string {
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
				if diff := cmp.Diff(seconds(0, 1), g.calls()); diff != "" || g.state(w) != "open" {
					t.Errorf("the open breaker, now %s, does not end the retries: %s", g.state(w), diff)
				}
				pass(3 * time.Second)
				err := call(g)
				if !errors.Is(err, resilience.ErrOpen) || fault.KindOf(err) != fault.Unavailable || fault.RetryAfter(err) <= 0 {
					t.Errorf("got %v", err)
				}
				pass(7 * time.Second)
				if err := call(g); err == nil || g.state(w) != "open" || len(g.calls()) != 3 {
					t.Errorf("a failed probe: %v, %s, %v", err, g.state(w), g.calls())
				}
				pass(11 * time.Second)
				g.mend()
				if err := call(g); err != nil || g.state(w) != "closed" {
					t.Errorf("a good probe: %v, %s", err, g.state(w))
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
		late := slices.DeleteFunc(g.calls(), func(at time.Duration) bool { return at < time.Second })
		if len(late) < 5 || len(late) > 6 || late[0] != 10*time.Second || g.state(w) == "closed" {
			t.Errorf("breaker %s, called at %v", g.state(w), late)
		}
		if letters, acked := g.bus.count(); letters+acked > 0 {
			t.Errorf("%d letters, %d acked while the breaker was open", letters, acked)
		}
		g.mend()
		pass(time.Minute)
		if letters, acked := g.bus.count(); acked != 1000 || letters != 0 || g.state(w) != "closed" {
			t.Errorf("%d letters, %d acked, breaker %s", letters, acked, g.state(w))
		}
		if got := g.state(way{"bus", pubsubPolicies, config.Outbound}); got != "closed" {
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
				if letters, acked := g.bus.count(); letters != 1 || acked != 1 || len(g.calls()) != row.calls {
					t.Errorf("%d letters, %d acked, called at %v", letters, acked, g.calls())
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
		if g.state(w) != "open" {
			t.Fatal("not open")
		}
		g.parts.obey(documents(t, under("circuitBreaker: b, timeout: t", brittle+", timeouts: {t: 1s}")))
		if err := g.publish(); g.state(w) != "open" || !errors.Is(err, resilience.ErrOpen) {
			t.Errorf("another time-out closed the breaker: %s, %v", g.state(w), err)
		}
		if g.parts.policies.sum(way{"bus", pubsubPolicies, config.Inbound}) == before {
			t.Error("the route would not see its new time-out")
		}
		g.parts.obey(documents(t, under("circuitBreaker: b", strings.Replace(brittle, "10s", "20s", 1))))
		if err := g.publish(); g.state(w) != "closed" || errors.Is(err, resilience.ErrOpen) {
			t.Errorf("the breaker has its old settings: %s, %v", g.state(w), err)
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
		if letters, acked := g.bus.count(); letters != 0 || acked != 1 || len(g.calls()) != 1 {
			t.Fatalf("%d letters, %d acked, called at %v", letters, acked, g.calls())
		}
		g.bus.in <- "2"
		pass(time.Minute)
		if letters, acked := g.bus.count(); letters != 0 || acked != 2 {
			t.Errorf("%d letters, %d acked", letters, acked)
		}
		// A second for company, 200 ms without an answer, a second's pause, and
		// a second for company again.
		if diff := cmp.Diff(seconds(1, 61, 63.2), g.calls()); diff != "" {
			t.Error(diff)
		}
	})
}

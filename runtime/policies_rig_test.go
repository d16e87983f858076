package runtime

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/penstock-io/penstock/app"
	appgrpc "github.com/penstock-io/penstock/app/grpc"
	apphttp "github.com/penstock-io/penstock/app/http"
	"github.com/penstock-io/penstock/bindings"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/cloudevents/expr"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	calling "github.com/penstock-io/penstock/invoke"
	"github.com/penstock-io/penstock/invoke/message"
	"github.com/penstock-io/penstock/invoke/names"
	"github.com/penstock-io/penstock/invoke/proxy"
	"github.com/penstock-io/penstock/pubsub"
	"github.com/penstock-io/penstock/router"
	"github.com/penstock-io/penstock/state"
)

const (
	// hang is a call without an answer.
	hang = -1
	// busy is a status of 429 that asks for seven seconds.
	busy = 1429
)

// peer is the other side of a call: it says a status after the other, the last
// one for ever, and notes when it was called.
type peer struct {
	rpc   bool // it speaks gRPC: it says the code that a status stands for
	mu    sync.Mutex
	say   []int
	start time.Time
	at    []time.Duration
}

// next takes a call and returns what to say: a status, and the pause to ask for.
func (p *peer) next() (status int, after time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.at = append(p.at, time.Since(p.start).Truncate(10*time.Millisecond))
	status = p.say[min(len(p.at), len(p.say))-1]
	if status == busy {
		return 429, 7 * time.Second
	}
	return status, 0
}

func (p *peer) answer(ctx context.Context) error {
	status, after := p.next()
	switch {
	case status == hang:
		<-ctx.Done()
		return ctx.Err()
	case status/100 == 2:
		return nil
	}
	err := fault.As(fault.FromHTTPStatus(status), &apphttp.StatusError{Path: "/peer", Status: status})
	if p.rpc {
		code := message.Code(status)
		err = fault.As(fault.FromGRPCCode(uint32(code)), &appgrpc.StatusError{Method: "/peer", Code: code})
	}
	if after > 0 {
		err = fault.WithRetryAfter(err, after)
	}
	return err
}

func (p *peer) calledAt() []time.Duration {
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

// The peer is a state store too, which takes one key at a time, and the sidecar of
// another app.

type keys struct{ *peer }

func (k keys) Get(ctx context.Context, list []string, r state.Read) ([]state.Item, error) {
	return state.GetEach(ctx, list, r, func(ctx context.Context, _ string) (state.Item, error) { return state.Item{}, k.answer(ctx) })
}

func (k keys) Apply(ctx context.Context, changes []state.Change) error {
	return state.ApplyEach(ctx, changes, 1, func(ctx context.Context, _ *state.Change) error { return k.answer(ctx) })
}

func (k keys) Close(context.Context) error { return nil }

func (p *peer) Pick(context.Context, names.App) (string, func(error), error) {
	return "peer:1", func(error) {}, nil
}

func (p *peer) Call(ctx context.Context, _ string, _ names.App, _ *message.Request) (*message.Response, error) {
	said, after := p.next()
	if said == hang {
		<-ctx.Done()
		return nil, fault.Wrap(context.Cause(ctx), "wait for the answer")
	}
	a := &message.Response{Status: said, Header: http.Header{}, Body: http.NoBody}
	if p.rpc {
		a.RPC = status.New(message.Code(said), "")
	}
	if after > 0 {
		a.Header.Set("Retry-After", fmt.Sprint(int(after.Seconds())))
	}
	return a, nil
}

// Forward fails before anything was sent, because nothing else is tried again.
func (p *peer) Forward(ctx context.Context, _ string, _ names.App, _ *proxy.Call) error {
	err := p.answer(ctx)
	if ctx.Err() != nil {
		return status.FromContextError(ctx.Err()).Err()
	}
	return message.Unsent(err)
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
	calls  *calling.Invoker
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

// newRig opens the components bus, door and store in a synctest bubble.
func newRig(t *testing.T, docs []config.Resiliency, say ...int) *rig {
	t.Helper()
	p := &peer{say: say, start: time.Now()}
	g := &rig{peer: p, t: t, bus: &feed{peer: p, in: make(chan string, 1000)}, door: &feed{peer: p, in: make(chan string, 1000)}}
	type none struct{}
	about := component.About{Capabilities: []string{bindings.InputCapability, bindings.OutputCapability}, Operations: []string{"create"}}
	list := component.List{
		pubsub.Define("feed", component.About{}, func(context.Context, component.Env, none) (pubsub.Driver, error) { return g.bus, nil }),
		bindings.Define("feed", about, func(context.Context, component.Env, none) (bindings.Driver, error) { return g.door, nil }),
		state.Define("feed", component.About{}, func(context.Context, component.Env, none) (state.Driver, error) { return keys{p}, nil }),
	}
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	compiler := expr.New()
	g.parts = &parts{
		list: list, log: log, byName: map[string]*part{}, lacks: map[string]string{}, opened: func() {},
		env: component.Env{AppID: "app", Shared: &component.Shared{}}, policies: newPolicies(compiler, log, nil),
	}
	g.parts.delays = &delays{parts: g.parts}
	g.parts.obey(docs)
	for _, c := range []config.Component{
		{Name: "bus", Type: "pubsub.feed", Version: "v1"},
		{Name: "door", Type: "bindings.feed", Version: "v1"},
		{Name: "store", Type: "state.feed", Version: "v1"},
	} {
		part, err := g.parts.open(t.Context(), t.Context(), c, nil)
		if err != nil {
			t.Fatal(err)
		}
		g.parts.put(part)
		t.Cleanup(func() { part.close(context.WithoutCancel(t.Context())) })
	}
	g.calls = calling.New(calling.Options{AppID: "app", Finder: p, Peers: p, Policies: g.parts.policies})
	t.Cleanup(g.calls.Close)
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

func (g *rig) read() error {
	_, err := g.parts.find("store").state.Get(g.t.Context(), "key", state.Read{})
	return err
}

func (g *rig) save() error {
	return g.parts.find("store").state.Apply(g.t.Context(), []state.Change{{Key: "key", Value: []byte("x")}})
}

// call calls another app; an answer that is a failure is an error here.
func (g *rig) call() error {
	a, err := g.calls.Do(g.t.Context(), "shop", &message.Request{Verb: "POST", Path: "m", Header: http.Header{}})
	if err != nil {
		return err
	}
	defer a.Body.Close()
	if a.Failed() {
		return fmt.Errorf("answered %d", a.Status)
	}
	return nil
}

// typed calls a service of another app's own.
func (g *rig) typed() error {
	return g.calls.Forward(g.t.Context(), "shop", &proxy.Call{Method: "/m", Metadata: metadata.MD{}})
}

// under makes a document in which the components use policies in both
// directions, and calls of another app too.
func under(use, policies string) string {
	ways := fmt.Sprintf("{inbound: {%s}, outbound: {%s}}", use, use)
	return fmt.Sprintf("apiVersion: dapr.io/v1alpha1\nkind: Resiliency\nmetadata: {name: r}\nspec:\n  policies: {%s}\n  targets: {apps: {shop: {%s}}, components: {bus: %s, door: %s, store: %s}}\n",
		policies, use, ways, ways, ways)
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

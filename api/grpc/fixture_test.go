package grpc_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/penstock-io/penstock/api"
	apigrpc "github.com/penstock-io/penstock/api/grpc"
	"github.com/penstock-io/penstock/bindings"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/configuration"
	"github.com/penstock-io/penstock/crypto"
	"github.com/penstock-io/penstock/crypto/jwks"
	"github.com/penstock-io/penstock/deadletters"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/invoke/proxy"
	"github.com/penstock-io/penstock/lock"
	"github.com/penstock-io/penstock/pubsub"
	"github.com/penstock-io/penstock/secrets"
	"github.com/penstock-io/penstock/state"
	"github.com/penstock-io/penstock/state/inmemory"
	"github.com/penstock-io/penstock/telemetry/journal"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type noOptions struct{}

// broker is a pub/sub driver that keeps what it is given.
type broker struct {
	mu       sync.Mutex
	messages []pubsub.Message
	discard  bool
	inside   chan struct{} // closed when a publish hangs
}

func (b *broker) Publish(ctx context.Context, topic string, batch []pubsub.Message) error {
	switch topic {
	case "down":
		return fault.WithRetryAfter(fault.New(fault.Unavailable, "broker is down"), 1500*time.Millisecond)
	case "panics":
		panic("broker lost its mind")
	case "hangs":
		close(b.inside)
		<-ctx.Done()
		return ctx.Err()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	failed := &pubsub.BatchError{Errs: make([]error, len(batch))}
	bad := false
	for i, m := range batch {
		if bytes.Contains(m.Data, []byte("poison")) {
			failed.Errs[i], bad = errors.New("message is poison"), true
			continue
		}
		if !b.discard {
			b.messages = append(b.messages, m)
		}
	}
	if bad {
		return failed
	}
	return nil
}

func (b *broker) Subscribe(ctx context.Context, _ pubsub.Subscription, _ cloudevents.EmitFunc) error {
	<-ctx.Done()
	return nil
}

func (b *broker) Close(context.Context) error { return nil }

// events returns what was published, decoded.
func (b *broker) events(tb testing.TB) []*cloudevents.Event {
	tb.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []*cloudevents.Event
	for _, m := range b.messages {
		e, err := cloudevents.Scan(m.Data)
		must(tb, err)
		out = append(out, e)
	}
	return out
}

// output is an output binding that answers with what it was asked to.
type output struct {
	mu    sync.Mutex
	calls []bindings.Request
}

func (o *output) Operations() []string { return []string{"create", "echo", "fail"} }

func (o *output) Invoke(_ context.Context, r *bindings.Request) (*bindings.Response, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.calls = append(o.calls, *r)
	switch r.Operation {
	case "fail":
		return nil, fault.New(fault.Timeout, "call other side: too slow")
	case "echo":
		return &bindings.Response{Data: r.Data, Metadata: map[string]string{"operation": "echo", "bad": "\xff"}}, nil
	}
	return nil, nil
}

func (o *output) Close(context.Context) error { return nil }

// vault is a secret store that does not care about upper and lower case. It
// shows the version of a request behind each value, and knows a prefix in the
// metadata of a bulk request.
type vault map[string]map[string]string

func (v vault) Get(_ context.Context, key string, metadata map[string]string) (map[string]string, error) {
	pairs, ok := v[strings.ToLower(key)]
	if !ok {
		return nil, fault.New(fault.NotFound, "no such secret")
	}
	out := maps.Clone(pairs)
	if version := metadata["version_id"]; version != "" {
		for name, value := range out {
			out[name] = value + " of " + version
		}
	}
	return out, nil
}

func (v vault) Bulk(_ context.Context, metadata map[string]string) (map[string]map[string]string, error) {
	out := map[string]map[string]string{}
	for key, pairs := range v {
		if strings.HasPrefix(key, metadata["prefix"]) {
			out[key] = pairs
		}
	}
	return out, nil
}

func (v vault) Close(context.Context) error { return nil }

// finder is a store that finds the same for every query, but fails when it is
// asked for what is broken.
type finder struct{ state.Driver }

func (finder) Query(_ context.Context, q state.Query, _ map[string]string) (state.Page, error) {
	switch {
	case q.Filter == nil:
		return state.Page{}, nil
	case q.Filter.Path == "broken":
		return state.Page{}, fault.New(fault.Unavailable, "the disk failed")
	}
	return state.Page{Keys: []string{"shop||a", "b"}, Token: "2", Items: []state.Item{
		{Found: true, Value: []byte(`{"n":1}`), ETag: "7"}, {Err: fault.New(fault.Invalid, "damaged")},
	}}, nil
}

func (finder) Close(context.Context) error { return nil }

// instance is a running instance with one component of each kind.
type instance struct {
	bus      *pubsub.Bus
	binding  *bindings.Binding
	store    *secrets.Store
	settings *configuration.Store
	drawer   *drawer
	locks    *lock.Store
	states   *state.Store
	crypto   *crypto.Provider
	search   *state.Store
	broker   *broker
	output   *output
	empty    bool // nothing is configured
	stopped  chan bool
	surface  api.Surface
	streams  chan *api.Stream // those that were opened
	forward  func(ctx context.Context, target string, c *proxy.Call) error
}

// Subscribe opens streams of the bus; the test delivers to them.
func (i *instance) Subscribe(ctx context.Context, s *api.Stream) error {
	switch {
	case s.PubSub != "bus":
		return fault.New(fault.NotFound, "pub/sub %q is not loaded", s.PubSub)
	case s.Topic == "secret":
		return fault.New(fault.Denied, "topic is not allowed")
	case s.Topic == "later":
		return fault.New(fault.Unavailable, "broker is not open")
	}
	if err := s.Ready(); err != nil {
		return err
	}
	i.streams <- s
	<-ctx.Done()
	return nil
}

func (i *instance) verbs() *api.API {
	a := api.New("shop", i)
	a.SetSurface(i.surface)
	return a
}

func (i *instance) PubSub(name string) (*pubsub.Bus, error) {
	if i.empty || name != "bus" {
		return nil, fault.New(fault.NotFound, "pub/sub %q is not loaded", name)
	}
	return i.bus, nil
}

func (i *instance) Binding(name string) (*bindings.Binding, error) {
	if name != "out" {
		return nil, fault.New(fault.NotFound, "binding %q is not loaded", name)
	}
	return i.binding, nil
}

func (i *instance) SecretStore(name string) (*secrets.Store, error) {
	if name != "vault" {
		return nil, fault.New(fault.NotFound, "secret store %q is not loaded", name)
	}
	return i.store, nil
}

func (i *instance) StateStore(name string) (*state.Store, error) {
	switch name {
	case "statestore":
		return i.states, nil
	case "searchable":
		return i.search, nil
	}
	return nil, fault.New(fault.NotFound, "state store %q is not loaded", name)
}

func (i *instance) CryptoProvider(name string) (*crypto.Provider, error) {
	if name != "keys" {
		return nil, fault.New(fault.NotFound, "crypto component %q is not loaded", name)
	}
	return i.crypto, nil
}

func (i *instance) Configured(string) bool { return !i.empty }

func (i *instance) Snapshot() api.Metadata {
	return api.Metadata{
		RuntimeVersion: "1.18.0", EnabledFeatures: []string{"f"},
		Extended:   map[string]string{api.VersionKey: "1.18.0"},
		Components: []api.ComponentInfo{{Name: "bus", Type: "pubsub.fake", Version: "v1", Capabilities: []string{"MESSAGE_TTL"}, State: "ready"}},
		Subscriptions: []api.SubscriptionInfo{{
			PubSub: "bus", Topic: "orders", Rules: []api.RuleInfo{{Match: "event.type == 'a'", Path: "/a"}, {Path: "/orders"}},
			Metadata: map[string]string{"rawPayload": "true"}, DeadLetterTopic: "dead", Type: "PROGRAMMATIC",
		}},
		Actors:           []api.ActiveActors{{Type: "cat", Count: 2}},
		HTTPEndpoints:    []api.NamedInfo{{Name: "e"}},
		MCPServers:       []api.NamedInfo{{Name: "m"}},
		Resiliencies:     []api.NamedInfo{{Name: "r"}},
		WorkflowPolicies: []api.NamedInfo{{Name: "p"}},
		App: api.AppConnection{
			Port: 8080, Protocol: "http", ChannelAddress: "127.0.0.1", MaxConcurrency: 7,
			Health: &api.AppHealth{Path: "/healthz", Interval: "5s", Timeout: "500ms", Threshold: 3},
		},
		ActorRuntime: api.ActorRuntime{Status: "RUNNING", ActiveActors: []api.ActiveActors{{Type: "cat", Count: 2}}, HostReady: true, Placement: "connected"},
		Scheduler:    api.Scheduler{Addresses: []string{"s:1"}},
		Workflows:    api.Workflows{Workers: 3},
	}
}

func (i *instance) Routes() []api.Route     { return nil }
func (i *instance) PauseRoute(string) error { return fault.New(fault.NotFound, "no route") }

func (i *instance) ResumeRoute(string) error         { return fault.New(fault.NotFound, "no route") }
func (i *instance) DeadLetters() *deadletters.Keeper { return nil }
func (i *instance) Triggers() []api.Trigger          { return nil }
func (i *instance) Webhooks() []api.Webhook          { return nil }
func (i *instance) RunTrigger(context.Context, string) (string, cloudevents.Outcome, error) {
	return "", cloudevents.Outcome{}, nil
}
func (i *instance) Journal() *journal.Journal { return nil }
func (i *instance) NotReady() []string        { return nil }
func (i *instance) NotOutbound() []string     { return nil }
func (i *instance) Shutdown(force bool)       { i.stopped <- force }

// open opens the components and closes them when the test ends.
func open(tb testing.TB) *instance {
	tb.Helper()
	i := &instance{broker: &broker{inside: make(chan struct{})}, output: &output{}, stopped: make(chan bool, 1), streams: make(chan *api.Stream, 8)}
	env := func(name string) component.Env {
		return component.Env{AppID: "shop", Name: name, Logger: slog.New(slog.DiscardHandler), Shared: &component.Shared{}}
	}
	var err error
	i.bus, err = pubsub.New(pubsub.Define("fake", component.About{}, func(context.Context, component.Env, noOptions) (pubsub.Driver, error) {
		return i.broker, nil
	}), env("bus"), config.Component{Name: "bus", Metadata: []config.Item{{Name: "protectedTopics", Value: "secret"}}})
	must(tb, err)
	i.binding, err = bindings.New(bindings.Define("fake", component.About{
		Capabilities: []string{bindings.OutputCapability}, Operations: i.output.Operations(),
	}, func(context.Context, component.Env, noOptions) (bindings.Driver, error) { return i.output, nil }),
		env("out"), config.Component{Name: "out"})
	must(tb, err)
	i.store, err = secrets.New(secrets.Define("fake", component.About{}, func(context.Context, component.Env, noOptions) (secrets.Driver, error) {
		return vault{"db": {"db": "s3cret"}, "a/b": {"user": "u", "password": "p"}, "hidden": {"hidden": "canary"}}, nil
	}), env("vault"), config.Component{Name: "vault"}, []config.SecretScope{{Store: "vault", DefaultAccess: "allow", Denied: []string{"hidden"}}})
	must(tb, err)
	run(tb, i.bus.Instance())
	run(tb, i.binding.Instance())
	i.search, err = state.New(state.Define("fake", component.About{}, func(context.Context, component.Env, noOptions) (state.Driver, error) {
		return finder{}, nil
	}), env("searchable"), config.Component{Name: "searchable"})
	must(tb, err)
	run(tb, i.search.Instance())
	i.states, err = state.New(inmemory.Component, env("statestore"), config.Component{Name: "statestore"})
	must(tb, err)
	i.crypto, err = crypto.New(jwks.Component, env("keys"), config.Component{Name: "keys", Metadata: []config.Item{{Name: "jwks", Value: keySet}}})
	must(tb, err)
	run(tb, i.store.Instance())
	run(tb, i.states.Instance())
	run(tb, i.crypto.Instance())
	i.locks = openLocks(tb, env("lockstore"))
	i.settings, i.drawer = openSettings(tb, env("settings"))
	return i
}

// runner is a component instance of any kind.
type runner interface {
	Run(ctx context.Context) error
	Close(ctx context.Context) error
}

func run(tb testing.TB, r runner) {
	tb.Helper()
	must(tb, r.Run(tb.Context()))
	tb.Cleanup(func() { must(tb, r.Close(context.Background())) })
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// served is a server on loopback.
type served struct {
	address string
	stop    func() // begins the stop
	done    chan error
}

func serve(tb testing.TB, i *instance, o apigrpc.Options) *served {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(tb, err)
	ctx, cancel := context.WithCancel(context.Background())
	s := &served{address: l.Addr().String(), stop: cancel, done: make(chan error, 1)}
	server := apigrpc.New(i.verbs(), o)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.done <- server.Run(ctx, l)
	}()
	tb.Cleanup(func() {
		cancel()
		<-ended
	})
	return s
}

// dial connects to the server until the test ends.
func (s *served) dial(tb testing.TB, o ...grpc.DialOption) rtv1.DaprClient {
	tb.Helper()
	return rtv1.NewDaprClient(s.conn(tb, o...))
}

func (s *served) conn(tb testing.TB, o ...grpc.DialOption) *grpc.ClientConn {
	tb.Helper()
	c, err := grpc.NewClient(s.address, append(o, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	must(tb, err)
	tb.Cleanup(func() { c.Close() })
	return c
}

// client is a client of a server with default settings.
func client(tb testing.TB) (rtv1.DaprClient, *instance) {
	tb.Helper()
	i := open(tb)
	return serve(tb, i, apigrpc.Options{}).dial(tb), i
}

// syncBuffer is a log that is written from several goroutines.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

package http_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/penstock-io/penstock/api"
	apihttp "github.com/penstock-io/penstock/api/http"
	"github.com/penstock-io/penstock/bindings"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/configuration"
	"github.com/penstock-io/penstock/crypto"
	"github.com/penstock-io/penstock/crypto/jwks"
	"github.com/penstock-io/penstock/deadletters"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/lock"
	"github.com/penstock-io/penstock/pubsub"
	"github.com/penstock-io/penstock/secrets"
	"github.com/penstock-io/penstock/state"
	"github.com/penstock-io/penstock/state/inmemory"
	"github.com/penstock-io/penstock/telemetry/journal"
)

type noOptions struct{}

// broker is a pub/sub driver that keeps what it is given.
type broker struct {
	mu       sync.Mutex
	messages []stored
	discard  bool
	slow     time.Duration
	once     sync.Once
	inside   chan struct{}
}

// entered is closed when a publish hangs.
func (b *broker) entered() chan struct{} {
	b.once.Do(func() { b.inside = make(chan struct{}) })
	return b.inside
}

type stored struct {
	topic string
	pubsub.Message
}

var errBroker = fault.WithRetryAfter(fault.New(fault.Unavailable, "broker is down"), 1500*time.Millisecond)

func (b *broker) Publish(ctx context.Context, topic string, batch []pubsub.Message) error {
	switch topic {
	case "down":
		return errBroker
	case "panics":
		panic("broker lost its mind")
	case "hangs":
		close(b.entered())
		<-ctx.Done()
		return ctx.Err()
	}
	if b.slow > 0 {
		select {
		case <-time.After(b.slow):
		case <-ctx.Done():
			return ctx.Err()
		}
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
			b.messages = append(b.messages, stored{topic, m})
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

func (b *broker) all() []stored {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.messages)
}

// output is an output binding that answers with what it was asked to.
type output struct {
	mu    sync.Mutex
	calls []bindings.Request
}

func (o *output) Operations() []string { return []string{"create", "echo", "fail", "meta", "bytes"} }

func (o *output) Invoke(_ context.Context, r *bindings.Request) (*bindings.Response, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.calls = append(o.calls, *r)
	switch r.Operation {
	case "fail":
		return nil, fault.New(fault.Timeout, "call other side: too slow")
	case "meta":
		return &bindings.Response{Metadata: map[string]string{"statusCode": "201", "bad\r\nkey": "x", "evil": "a\r\nX-Evil: 1"}}, nil
	case "bytes":
		return &bindings.Response{Data: []byte{0xff, 0x00}}, nil
	case "echo":
		return &bindings.Response{Data: r.Data, Metadata: map[string]string{"operation": "echo"}}, nil
	}
	return nil, nil
}

func (o *output) Close(context.Context) error { return nil }

func (o *output) last() bindings.Request {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.calls[len(o.calls)-1]
}

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
	paused   bool
	bus      *pubsub.Bus
	binding  *bindings.Binding
	store    *secrets.Store
	settings *configuration.Store
	drawer   *drawer
	told     chan told
	life     context.Context // of tasks; nil: there is no app
	tasks    sync.WaitGroup
	locks    *lock.Store
	states   *state.Store
	crypto   *crypto.Provider
	search   *state.Store
	broker   *broker
	output   *output
	missing  []string
	outbound []string
	empty    bool // nothing is configured
	stopped  chan bool
	letters  *deadletters.Keeper
	journal  *journal.Journal
	triggers []api.Trigger
}

func (i *instance) DeadLetters() *deadletters.Keeper { return i.letters }
func (i *instance) Journal() *journal.Journal        { return i.journal }

func (i *instance) PubSub(name string) (*pubsub.Bus, error) {
	if i.empty || name != "bus" && name != "bulk" {
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
		RuntimeVersion: "1.18.0",
		Extended:       map[string]string{api.VersionKey: "1.18.0"},
		Components:     []api.ComponentInfo{{Name: "bus", Type: "pubsub.fake", Version: "v1", State: "ready"}},
		Subscriptions: []api.SubscriptionInfo{{
			PubSub: "bus", Topic: "orders", Rules: []api.RuleInfo{{Path: "/orders"}}, Type: "DECLARATIVE",
		}},
	}
}

func (i *instance) NotReady() []string    { return i.missing }
func (i *instance) NotOutbound() []string { return i.outbound }
func (i *instance) Shutdown(force bool)   { i.stopped <- force }

func (i *instance) Subscribe(context.Context, *api.Stream) error { return nil }

func (i *instance) Triggers() []api.Trigger { return i.triggers }
func (i *instance) Webhooks() []api.Webhook {
	return []api.Webhook{{Name: "github", Path: "/hooks/github", Deliveries: []api.WebhookDelivery{{Status: 401}}}}
}

func (i *instance) RunTrigger(_ context.Context, name string) (string, cloudevents.Outcome, error) {
	switch name {
	case "nightly":
		return "nightly-1", cloudevents.Acked(), nil
	case "given/up":
		return "g-1", cloudevents.Outcome{Verdict: cloudevents.Ack, Reason: "the app said so"}, nil
	case "slow":
		return "slow-1", cloudevents.Retried(nil, 0), nil
	case "busy":
		return "", cloudevents.Outcome{}, fault.New(fault.Conflict, "a tick is under way")
	case "elsewhere":
		return "", cloudevents.Outcome{}, fault.New(fault.Unavailable, "another replica reads it")
	case "many":
		return "", cloudevents.Outcome{}, fault.New(fault.Exhausted, "16 wait")
	}
	return "", cloudevents.Outcome{}, fault.New(fault.NotFound, "it has no schedule")
}

func (i *instance) Routes() []api.Route {
	return []api.Route{{Name: "subscription/bus/a/b", State: map[bool]string{false: "running", true: "paused"}[i.paused]}}
}

func (i *instance) PauseRoute(name string) error  { return i.pause(name, true) }
func (i *instance) ResumeRoute(name string) error { return i.pause(name, false) }

func (i *instance) pause(name string, paused bool) error {
	if name != "subscription/bus/a/b" {
		return fault.New(fault.NotFound, "find route %q: there is none", name)
	}
	i.paused = paused
	return nil
}

// start opens the components and closes them when the test ends.
func start(tb testing.TB) *instance {
	tb.Helper()
	i := &instance{broker: &broker{}, output: &output{}, stopped: make(chan bool, 1)}
	logger := slog.New(slog.DiscardHandler)
	env := func(name string) component.Env {
		return component.Env{AppID: "shop", Name: name, Logger: logger, Shared: &component.Shared{}}
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
	i.told = make(chan told, 16)
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

func (i *instance) handler(o apihttp.Options) http.Handler {
	return apihttp.New(api.New("shop", i), o)
}

// limited is handler with a surface other than everything.
func (i *instance) limited(o apihttp.Options, s api.Surface) http.Handler {
	a := api.New("shop", i)
	a.SetSurface(s)
	return apihttp.New(a, o)
}

// ask sends one request with a loopback Host and returns the answer.
func ask(h http.Handler, method, target, body string, header ...string) *httptest.ResponseRecorder {
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	r := httptest.NewRequest(method, target, reader)
	r.Host = "localhost:3500"
	for i := 0; i < len(header); i += 2 {
		if strings.EqualFold(header[i], "Host") {
			r.Host = header[i+1]
			continue
		}
		r.Header.Add(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// code returns the errorCode of an answer.
func code(tb testing.TB, w *httptest.ResponseRecorder) string {
	tb.Helper()
	if w.Body.Len() == 0 {
		return ""
	}
	var body struct{ ErrorCode, Message string }
	if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
		tb.Fatalf("body %q: %v", w.Body, err)
	}
	if body.ErrorCode != "" && body.Message == "" && !strings.Contains(w.Body.String(), "failedEntries") {
		tb.Errorf("error without a message: %s", w.Body)
	}
	return body.ErrorCode
}

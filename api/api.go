// Package api is what an app may ask of a running instance: one method per
// verb, without HTTP or gRPC inside.
//
// The servers in the folders below turn their requests into calls of [API] and
// its errors into their own form; both read the one table of [Problem], so that
// an error looks alike on every protocol. An instance makes one API with [New]
// from what it offers as [Runtime].
//
// Every error returned is an [*Error] that carries Dapr's error code, the rich
// reason, the HTTP status and the gRPC code; it has a kind for package fault.
// The package keeps nothing but the metadata an app has set, and that is
// bounded.
package api

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/penstock-io/penstock/bindings"
	"github.com/penstock-io/penstock/configuration"
	"github.com/penstock-io/penstock/crypto"
	"github.com/penstock-io/penstock/deadletters"
	"github.com/penstock-io/penstock/lock"
	"github.com/penstock-io/penstock/pubsub"
	"github.com/penstock-io/penstock/secrets"
	"github.com/penstock-io/penstock/state"
	"github.com/penstock-io/penstock/telemetry/journal"
)

// Runtime is what the API needs from the running instance.
type Runtime interface {
	Components
	Stores
	Instance
	Events
}

// Events are what the API needs of events under way.
type Events interface {
	Sources
	Records
	Streams
	Updates
}

// Components finds what the configuration names. An unknown name is an error of
// kind fault.NotFound. Components may be added and removed at any time; what
// was found stays usable until the call it was looked up for ends.
type Components interface {
	PubSub(name string) (*pubsub.Bus, error)
	Binding(name string) (*bindings.Binding, error)
	SecretStore(name string) (*secrets.Store, error)
	// Configured tells whether there is any component of a kind: "pubsub",
	// "bindings", "state", "secretstores", "crypto", "lock" or "configuration".
	Configured(kind string) bool
}

// Stores finds what an app keeps things and keys in, as [Components] finds the
// rest.
type Stores interface {
	StateStore(name string) (*state.Store, error)
	CryptoProvider(name string) (*crypto.Provider, error)
	LockStore(name string) (*lock.Store, error)
	ConfigurationStore(name string) (*configuration.Store, error)
}

// Records gives access to what became of events.
type Records interface {
	// DeadLetters are the events that were given up.
	DeadLetters() *deadletters.Keeper
	// Journal is what happened lately.
	Journal() *journal.Journal
}

// Instance is the process as a whole.
type Instance interface {
	// Snapshot describes the instance. The caller owns the result. Extended
	// holds what the instance itself has to say; the API adds what was set.
	Snapshot() Metadata
	// NotReady names what readiness still waits for; empty when ready.
	NotReady() []string
	// NotOutbound names what calls from the app still wait for; empty as soon
	// as such calls are worth making, which is early.
	NotOutbound() []string
	// Shutdown asks the instance to stop and returns at once. Forced is
	// without draining, with exit code 1.
	Shutdown(force bool)
}

// API is the verbs. It is safe for concurrent use.
type API struct {
	app string
	rt  Runtime

	updates updates
	surface atomic.Pointer[Surface] // nil: everything is allowed, nothing is logged

	mu       sync.RWMutex
	extended map[string]string // under mu
}

// New makes the API of the instance that serves the app called appID.
func New(appID string, rt Runtime) *API {
	return &API{app: appID, rt: rt, extended: map[string]string{}}
}

// AppID returns the id of the app this instance serves.
func (a *API) AppID() string { return a.app }

// Health returns nil when the instance is ready. When appID is not empty it
// must be that of the app served here.
func (a *API) Health(appID string) error {
	if appID != "" && appID != a.app {
		return Errorf(HealthAppID, "this instance serves app id %q, not %q", a.app, appID)
	}
	if missing := a.rt.NotReady(); len(missing) > 0 {
		return Errorf(HealthNotReady, "not ready, waiting for %s", strings.Join(missing, "; "))
	}
	return nil
}

// OutboundHealth returns nil when calls from the app are worth making: the
// ports are open and components are known, whether or not the app is up.
func (a *API) OutboundHealth() error {
	if missing := a.rt.NotOutbound(); len(missing) > 0 {
		return Errorf(OutboundNotReady, "not ready for calls from the app, waiting for %s", strings.Join(missing, "; "))
	}
	return nil
}

// Shutdown asks the instance to stop and returns at once; see [Instance].
func (a *API) Shutdown(force bool) { a.rt.Shutdown(force) }

// Binding is one call of an output binding.
type Binding struct {
	// Name is the component's.
	Name string
	// Request is handed on; trace context is added to a copy of its metadata.
	Request bindings.Request
	// Trace is the trace context of the request.
	Trace Trace
}

// InvokeBinding calls an output binding. The answer is nil when the binding has
// nothing to say. Every failure is an InvokeBinding problem, as in Dapr.
func (a *API) InvokeBinding(ctx context.Context, b *Binding) (*bindings.Response, error) {
	found, err := a.rt.Binding(b.Name)
	if err != nil {
		return nil, Errorf(InvokeBinding, "invoke binding %q: %w", b.Name, err).on("binding", b.Name)
	}
	r := b.Request
	r.Metadata = b.Trace.addTo(r.Metadata)
	resp, err := found.Invoke(ctx, &r)
	if err != nil {
		return nil, wrap(InvokeBinding, err).on("binding", b.Name)
	}
	return resp, nil
}

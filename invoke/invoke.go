// Package invoke carries calls from one app to another.
//
// [New] makes an [Invoker] of what the runtime hands in: the app that is served
// here, the way to other sidecars (see invoke/peer), who finds them, and the web
// servers that have a name. Do sends one request and returns the answer.
//
// It promises that bodies stream both ways and are never held whole: at most
// [Replay] bytes of a request are kept, for another try. Who calls whom is said by
// the sidecar, whatever the app wrote into those headers. An answer comes back as
// it is, also when a policy counts it as a failure and its tries are used up.
package invoke

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	clienthttp "github.com/penstock-io/penstock/client/http"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/invoke/access"
	"github.com/penstock-io/penstock/invoke/message"
	"github.com/penstock-io/penstock/invoke/names"
	"github.com/penstock-io/penstock/resilience"
	"github.com/penstock-io/penstock/telemetry"
	"github.com/penstock-io/penstock/telemetry/trace"
)

// App is the user's program that is served here.
type App interface {
	// Invoke calls the app's method; the answer's body must be closed.
	Invoke(ctx context.Context, r *message.Request) (*message.Response, error)
}

// Finder finds the sidecar of an app.
type Finder interface {
	// Pick is that of [names.Directory].
	Pick(ctx context.Context, app names.App) (address string, done func(error), err error)
}

// Peers calls other sidecars.
type Peers interface {
	// Call sends r to the sidecar at an address, which serves the app. An error that
	// has a gRPC code says it by GRPCCode() uint32.
	Call(ctx context.Context, address string, app names.App, r *message.Request) (*message.Response, error)
}

// Endpoints finds web servers that have a name.
type Endpoints interface {
	// Endpoint returns nil when there is none of that name, and an error when there
	// is one that cannot be used now.
	Endpoint(ctx context.Context, name string) (*Endpoint, error)
}

// Policies finds what is to be done when a call fails.
type Policies interface {
	// Target returns the policy of calls to a method of a target; nil: none was
	// configured.
	Target(target, method string) *resilience.Policy
	// BuiltIn returns the pause and the number of further tries of a call without a
	// policy.
	BuiltIn() (pause time.Duration, tries int)
}

// Options are what an [Invoker] is made of.
type Options struct {
	// AppID and Namespace are those of the app that is served here.
	AppID, Namespace string
	// App is nil when there is no app to call.
	App App
	// Finder and Peers are nil when there is no way to other sidecars.
	Finder Finder
	Peers  Peers
	// Endpoints may be nil.
	Endpoints Endpoints
	// Access decides what the app may call of itself; nil: everything.
	Access *access.Guard
	// Policies may be nil.
	Policies Policies
	// Tracer makes spans of calls; nil: none.
	Tracer *trace.Tracer
	// Metrics counts calls of other apps; nil: nobody does.
	Metrics *telemetry.Metrics
	// Address and Host are this machine's, for the headers of forwarded requests;
	// may be empty.
	Address, Host string
}

// Invoker calls apps. It is safe for concurrent use.
type Invoker struct {
	o   Options
	web *http.Transport // for plain URLs
}

// New makes an Invoker.
func New(o Options) *Invoker {
	return &Invoker{o: o, web: clienthttp.NewTransport(clienthttp.Options{})}
}

// Close frees idle connections.
func (v *Invoker) Close() { v.web.CloseIdleConnections() }

// Do sends r to the target: an app id, an app id with a namespace behind a dot,
// the name of an endpoint, or the URL of a web server. It closes r's body. The
// answer's body must be closed; when ctx ends, so does the body.
func (v *Invoker) Do(ctx context.Context, target string, r *message.Request) (*message.Response, error) {
	to, err := v.aim(ctx, target)
	if err != nil {
		closeBody(r)
		return nil, err
	}
	body := newReplay(r.Body)
	defer body.detach()
	c := call[*message.Response]{
		send: func(ctx context.Context, not []string) (*message.Response, error) {
			one := *r
			one.Header = r.Header.Clone()
			one.Body = body.view()
			ctx, span := v.begin(ctx, target, trace.FromHeader(one.Header))
			span.Context().Header(one.Header)
			answer, err := to.send(ctx, &one, not)
			endTry(span, answer, err)
			return answer, err
		},
		failure: failure,
		over:    (*message.Response).OnClose,
		again:   func(answer *message.Response, _ error) bool { return body.again() && (answer == nil || keep(answer)) },
	}
	p, judged := v.policy(target, message.Plain(r.Path), to.local)
	return c.run(ctx, p, judged)
}

func closeBody(r *message.Request) {
	if r.Body != nil {
		_ = r.Body.Close() // nothing is read from it any more
	}
}

// The built-in policy: other sidecars are tried again when they cannot be reached
// or do not accept who we are.
const (
	builtInTries = 3
	builtInPause = time.Second

	codeUnavailable     = 14
	codeUnauthenticated = 16
)

// policy returns what is done when a call fails, of the app that is served here
// when it is local. Judged tells that an answer may be a failure.
func (v *Invoker) policy(target, method string, local bool) (p resilience.Policy, judged bool) {
	pause, tries := builtInPause, builtInTries
	if v.o.Policies != nil {
		if found := v.o.Policies.Target(target, method); found != nil {
			return *found, true
		}
		pause, tries = v.o.Policies.BuiltIn()
	}
	if local {
		return resilience.Policy{}, false
	}
	return resilience.Policy{Retry: resilience.Retry{
		Constant: true, Initial: pause, Limit: tries,
		Codes: &resilience.Codes{GRPC: []resilience.Range{
			{From: codeUnavailable, To: codeUnavailable}, {From: codeUnauthenticated, To: codeUnauthenticated},
		}},
	}}, false
}

// answered is an answer that counts as a failure. It is of a kind that may be
// tried again whatever its code is: what a policy does not want repeated it says
// with codes.
type answered struct{ status int }

func (a answered) Error() string { return "answered " + http.StatusText(a.status) }

// HTTPStatus implements what policies look for.
func (a answered) HTTPStatus() int { return a.status }

// rpcAnswered is that of an app that speaks gRPC.
type rpcAnswered struct{ code uint32 }

func (a rpcAnswered) Error() string { return "answered with a status that is not OK" }

// GRPCCode implements what policies look for.
func (a rpcAnswered) GRPCCode() uint32 { return a.code }

// failure makes an error of an answer that is one, with the pause that it asks for.
func failure(r *message.Response) error {
	if !r.Failed() {
		return nil
	}
	err := fault.As(fault.Unavailable, answered{r.Status})
	if r.RPC != nil {
		err = fault.As(fault.Unavailable, rpcAnswered{uint32(r.RPC.Code())})
	}
	if after := clienthttp.RetryAfter(r.Header, time.Now()); after > 0 {
		err = fault.WithRetryAfter(err, after)
	}
	return err
}

// aim is where a request goes.
type aim struct {
	local bool // to the app that is served here
	// send sends r to an instance whose address is not among those.
	send func(ctx context.Context, r *message.Request, not []string) (*message.Response, error)
}

// aim finds out what a target is.
func (v *Invoker) aim(ctx context.Context, target string) (aim, error) {
	if isURL(target) {
		e, err := NewEndpoint(EndpointOptions{BaseURL: target})
		if err != nil {
			return aim{}, err
		}
		e.transport = v.web
		return aim{send: e.send}, nil
	}
	if v.o.Endpoints != nil {
		if e, err := v.o.Endpoints.Endpoint(ctx, target); e != nil || err != nil {
			if err != nil {
				return aim{}, err
			}
			return aim{send: e.send}, nil
		}
	}
	id, namespace, err := v.split(target)
	if err != nil {
		return aim{}, err
	}
	if id == v.o.AppID && namespace == v.o.Namespace {
		return aim{local: true, send: v.toApp}, nil
	}
	app := names.App{ID: id, Namespace: namespace}
	return aim{send: func(ctx context.Context, r *message.Request, not []string) (*message.Response, error) {
		return v.toPeer(ctx, app, r, not)
	}}, nil
}

func isURL(target string) bool {
	return strings.HasPrefix(target, "http://") || strings.HasPrefix(target, "https://")
}

// split reads an app id that may have a namespace behind it.
func (v *Invoker) split(target string) (id, namespace string, err error) {
	id, namespace, named := strings.Cut(target, ".")
	if !named {
		namespace = v.o.Namespace
	}
	if id == "" || named && namespace == "" || strings.ContainsAny(namespace, ".") || strings.ContainsFunc(target, odd) {
		return "", "", fault.New(fault.Invalid, "read target %.200q: want an app id, one with a namespace as app.namespace, the name of an HTTPEndpoint, or a URL with http:// or https://", target)
	}
	return id, namespace, nil
}

func odd(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune(`/\?#%:@`, r) }

// ErrNoApp is the error of a call of the app that is served here when there is
// none.
var ErrNoApp = fault.New(fault.NotFound, "call the app: app channel is not initialized; start with --app-port")

func (v *Invoker) toApp(ctx context.Context, r *message.Request, _ []string) (*message.Response, error) {
	if v.o.App == nil {
		closeBody(r)
		return nil, ErrNoApp
	}
	if err := v.o.Access.Check(access.Call{Own: true, Path: r.Path, Verb: r.Verb}); err != nil {
		closeBody(r)
		return nil, err
	}
	v.introduce(r.Header, v.o.AppID)
	return v.o.App.Invoke(ctx, r)
}

// toPeer sends r to an instance of another app, whose address is not among those
// of not; without one it is errNoOther.
func (v *Invoker) toPeer(ctx context.Context, app names.App, r *message.Request, not []string) (*message.Response, error) {
	at, err := v.pick(ctx, app, v.o.Peers != nil, not)
	if err != nil {
		closeBody(r)
		return nil, err
	}
	v.introduce(r.Header, app.ID)
	v.forward(r.Header)
	began := time.Now()
	v.o.Metrics.CallSent(app.ID, false)
	answer, err := v.o.Peers.Call(ctx, at.address, app, r)
	if err != nil {
		return nil, at.missed(ctx, err)
	}
	v.o.Metrics.CallAnswered(app.ID, false, StatusOf(answer), time.Since(began))
	answer.OnClose(func() { at.done(nil) })
	return answer, nil
}

// instance is one of an app. Its done is called once, see [names.Directory.Pick].
type instance struct {
	app     names.App
	address string
	done    func(error)
}

// pick chooses an instance whose address is not among those of not; without one
// it is errNoOther.
func (v *Invoker) pick(ctx context.Context, app names.App, peers bool, not []string) (instance, error) {
	if v.o.Finder == nil || !peers {
		return instance{}, fault.New(fault.Unavailable, "find app %s: name resolution is not set up", app.ID)
	}
	address, done, err := v.o.Finder.Pick(ctx, app)
	switch {
	case err != nil:
		return instance{}, lookFor(app, err)
	case slices.Contains(not, address):
		done(context.Canceled) // it was not called
		return instance{}, errNoOther
	}
	return instance{app, address, done}, nil
}

// missed ends a call that got no answer.
func (i instance) missed(ctx context.Context, err error) error {
	i.done(blame(ctx, err))
	err = fault.Wrap(err, "call app %s at %s", i.app.ID, i.address)
	if message.IsUnsent(err) {
		return &unreached{err, i.address}
	}
	return err
}

// lookFor says in which namespace an app was looked for, where there is one; err
// names the app.
func lookFor(app names.App, err error) error {
	if app.Namespace == "" {
		return err
	}
	return fault.Wrap(err, "look into namespace %q", app.Namespace)
}

// blame returns err when it is one of the instance; nil when the caller gave up,
// or the instance is there and answered with an error.
func blame(ctx context.Context, err error) error {
	if ctx.Err() != nil && !errors.Is(context.Cause(ctx), errSlow) {
		return nil
	}
	return err
}

// introduce says who calls whom.
func (v *Invoker) introduce(h http.Header, callee string) {
	h[message.CallerID] = []string{v.o.AppID}
	h[message.CallerNamespace] = []string{v.o.Namespace}
	h[message.CalleeID] = []string{callee}
}

// forward adds this machine to the headers of forwarded requests. What was there
// stays in front: the last entry is the one that a sidecar wrote.
func (v *Invoker) forward(h http.Header) {
	var parts []string
	if a := v.o.Address; a != "" {
		h["X-Forwarded-For"] = append(h["X-Forwarded-For"], a)
		if strings.Contains(a, ":") {
			a = `"[` + a + `]"`
		}
		parts = append(parts, "for="+a, "by="+a)
	}
	if v.o.Host != "" {
		h["X-Forwarded-Host"] = append(h["X-Forwarded-Host"], v.o.Host)
		parts = append(parts, "host="+v.o.Host)
	}
	h["X-Forwarded-Proto"] = append(h["X-Forwarded-Proto"], "http")
	h["Forwarded"] = append(h["Forwarded"], strings.Join(append(parts, "proto=http"), ";"))
}

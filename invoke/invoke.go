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
	"github.com/penstock-io/penstock/invoke/message"
	"github.com/penstock-io/penstock/invoke/names"
	"github.com/penstock-io/penstock/resilience"
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
	// Call sends r to the sidecar at an address, which serves the app called id.
	// An error that has a gRPC code says it by GRPCCode() uint32.
	Call(ctx context.Context, address, id string, r *message.Request) (*message.Response, error)
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
	// Policies may be nil.
	Policies Policies
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
	c := &call{to: to, r: r, body: newReplay(r.Body)}
	defer c.body.detach()
	p, judged := v.policy(target, message.Plain(r.Path))
	if to.local && !judged {
		p = resilience.Policy{}
	}
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

// policy returns what is done when a call fails. Judged tells that an answer may
// be a failure.
func (v *Invoker) policy(target, method string) (p resilience.Policy, judged bool) {
	pause, tries := builtInPause, builtInTries
	if v.o.Policies != nil {
		if found := v.o.Policies.Target(target, method); found != nil {
			return *found, true
		}
		pause, tries = v.o.Policies.BuiltIn()
	}
	return resilience.Policy{Retry: resilience.Retry{
		Constant: true, Initial: pause, Limit: tries,
		Codes: &resilience.Codes{GRPC: []resilience.Range{
			{From: codeUnavailable, To: codeUnavailable}, {From: codeUnauthenticated, To: codeUnauthenticated},
		}},
	}}, false
}

// call is one request on its way, with all its tries.
type call struct {
	to   aim
	r    *message.Request
	body *replay
}

// run tries until there is an answer, or no more try. The time-out of the policy
// bounds each try, its body included.
func (c *call) run(ctx context.Context, p resilience.Policy, judged bool) (*message.Response, error) {
	limit := p.Timeout
	p.Timeout = 0
	var before tried
	for n := 1; ; n++ {
		var answer *message.Response
		err := p.Try(ctx, func(ctx context.Context) (err error) {
			if answer, err = c.once(ctx, limit); err == nil && judged && answer.Failed() {
				return failure(answer)
			}
			return err
		})
		if err == nil {
			return answer, nil
		}
		if errors.Is(err, resilience.ErrOpen) && before != (tried{}) {
			return before.answer, before.err // what opened the breaker says more
		}
		pause, again := p.Next(n, err)
		if !again || !c.body.again() || ctx.Err() != nil {
			return finish(answer, err)
		}
		if answer != nil && !keep(answer) {
			return answer, nil // no way to have another look at it later
		}
		if resilience.Sleep(ctx, pause) != nil {
			return finish(answer, err)
		}
		if before = (tried{err: err}); answer != nil {
			before = tried{answer: answer}
		}
	}
}

// tried is how a try ended.
type tried struct {
	answer *message.Response
	err    error
}

// finish returns the last answer, when there is one.
func finish(answer *message.Response, err error) (*message.Response, error) {
	if answer != nil {
		return answer, nil
	}
	return nil, err
}

// errSlow is the cause of a context that a policy's time-out ended.
var errSlow = fault.New(fault.Timeout, "wait for the answer: time is up")

// once sends the request. The context lives on with the answer's body.
func (c *call) once(ctx context.Context, limit time.Duration) (*message.Response, error) {
	cancel := func() {}
	outer := ctx
	if limit > 0 {
		ctx, cancel = context.WithTimeoutCause(ctx, limit, errSlow)
	}
	answer, err := c.reach(ctx)
	if err != nil {
		if outer.Err() == nil && errors.Is(context.Cause(ctx), errSlow) {
			err = fault.New(fault.Timeout, "no answer within %s: %w", limit, err)
		}
		cancel()
		return nil, err
	}
	answer.OnClose(cancel)
	return answer, nil
}

// errNoOther tells that there is no instance that was not tried.
var errNoOther = errors.New("no other instance")

// reach sends the request to an instance that can be reached: one that cannot got
// nothing, so another one is asked at once, and the policy hears nothing of it.
func (c *call) reach(ctx context.Context) (*message.Response, error) {
	var not []string
	var last error
	for {
		one := *c.r
		one.Header = c.r.Header.Clone()
		one.Body = c.body.view()
		answer, err := c.to.send(ctx, &one, not)
		if errors.Is(err, errNoOther) && last != nil {
			return nil, last
		}
		u, ok := errors.AsType[*unreached](err)
		if !ok || len(not) == mostOthers || ctx.Err() != nil {
			return answer, err
		}
		not, last = append(not, u.address), err
	}
}

// mostOthers is how many instances one try may find out of reach and go on.
const mostOthers = 3

// unreached is the error of an instance that got nothing.
type unreached struct {
	error
	address string
}

func (u *unreached) Unwrap() error { return u.error }

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

func failure(r *message.Response) error {
	if r.RPC != nil {
		return fault.As(fault.Unavailable, rpcAnswered{uint32(r.RPC.Code())})
	}
	return fault.As(fault.Unavailable, answered{r.Status})
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
	v.introduce(r.Header, v.o.AppID)
	return v.o.App.Invoke(ctx, r)
}

// toPeer sends r to an instance of another app, whose address is not among those
// of not; without one it is errNoOther.
func (v *Invoker) toPeer(ctx context.Context, app names.App, r *message.Request, not []string) (*message.Response, error) {
	if v.o.Finder == nil || v.o.Peers == nil {
		closeBody(r)
		return nil, fault.New(fault.Unavailable, "find app %s: name resolution is not set up", app.ID)
	}
	address, done, err := v.o.Finder.Pick(ctx, app)
	switch {
	case err != nil:
		closeBody(r)
		return nil, lookFor(app, err)
	case slices.Contains(not, address):
		closeBody(r)
		done(context.Canceled) // it was not called
		return nil, errNoOther
	}
	v.introduce(r.Header, app.ID)
	v.forward(r.Header)
	answer, err := v.o.Peers.Call(ctx, address, app.ID, r)
	if err != nil {
		done(blame(ctx, err))
		err = fault.Wrap(err, "call app %s at %s", app.ID, address)
		if message.IsUnsent(err) {
			err = &unreached{err, address}
		}
		return nil, err
	}
	answer.OnClose(func() { done(nil) })
	return answer, nil
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

// Package http serves the API over HTTP, with Dapr's paths, headers, status
// codes and error bodies.
//
// [New] makes a handler of an [api.API]; [Server] serves it on listeners and
// stops in two steps. Handlers only translate: what a verb does is in package
// api.
//
// The package promises that the path is read once, and that the token check,
// the choice of the handler and the log all use that one reading; that a
// request from a foreign web page changes nothing; and that nothing is read
// beyond the limits of [Options] and [ServerOptions].
package http

import (
	"context"
	"log/slog"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/penstock-io/penstock/api"
	"github.com/penstock-io/penstock/middleware"
	"github.com/penstock-io/penstock/telemetry"
	"github.com/penstock-io/penstock/telemetry/trace"
)

// DefaultMaxBody is the limit of a request body in bytes, 4 MiB.
const DefaultMaxBody = 4 << 20

// Options are the settings of the handler. The zero value is usable.
type Options struct {
	// Tokens are the accepted values of the header dapr-api-token; empty ones
	// are ignored. Without any the header is not checked.
	Tokens []string
	// MaxBody limits a request body in bytes; zero or less is DefaultMaxBody.
	MaxBody int64
	// AllowedHosts are names that the Host header may have besides those of
	// the loopback interface and the address a connection came in on. "*"
	// allows every name.
	AllowedHosts []string
	// AllowedOrigins are the web origins that may call the API from a page;
	// one "*" may stand for any text within an entry. An entry that is just
	// "*" allows none: it is the default of Dapr's flag and means unset.
	AllowedOrigins []string
	// Operator is for the people who run this instance, by the console: the
	// Configuration's rules about what the app may ask do not hold, and calls
	// are not logged.
	Operator bool
	// Pipeline is what requests pass after the checks of host, origin and token;
	// nil is nothing. The public port has none, as under Dapr.
	Pipeline *middleware.Pipeline
	// Metrics count requests; nil: nothing does.
	Metrics *telemetry.Metrics
	// Tracer makes spans of requests; nil: none.
	Tracer *trace.Tracer
	// Logger gets panics and, where [api.API.Log] says so, requests; nil
	// discards both.
	Logger *slog.Logger
}

// handler is the whole API. Requests pass ServeHTTP's checks and are then
// dispatched on the canonical path.
type handler struct {
	api     *api.API
	tokens  api.Tokens
	maxBody int64
	hosts   middleware.Hosts
	origins origins
	public  bool // health and metadata only
	own     bool // for the operator, not the app
	log     *slog.Logger
	metrics *telemetry.Metrics
	tracer  *trace.Tracer
	mux     *chi.Mux

	pipeline *middleware.Pipeline
	piped    http.Handler // dispatch, behind the pipeline
}

// New makes the handler of the API.
func New(a *api.API, o Options) http.Handler {
	h := newHandler(a, o)
	h.mux = h.routes()
	h.pipeline, h.piped = o.Pipeline, o.Pipeline.Wrap(http.HandlerFunc(h.passed))
	return h
}

// NewPublic makes the handler of the public port: health and metadata to read,
// and nothing else. It asks for no token, because it can change nothing.
func NewPublic(a *api.API, o Options) http.Handler {
	o.Tokens = nil
	h := newHandler(a, o)
	h.public = true
	h.mux = h.publicRoutes()
	return h
}

func newHandler(a *api.API, o Options) *handler {
	h := &handler{
		api: a, tokens: api.NewTokens(o.Tokens), maxBody: o.MaxBody,
		hosts: middleware.NewHosts(o.AllowedHosts), origins: newOrigins(o.AllowedOrigins),
		own: o.Operator, log: o.Logger, metrics: o.Metrics, tracer: o.Tracer,
	}
	if h.maxBody <= 0 {
		h.maxBody = DefaultMaxBody
	}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	return h
}

// ServeHTTP implements [http.Handler].
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := canonical(r.URL)
	l := h.api.Log()
	logs := l.Enabled && !h.own && !(l.OmitHealth && exempt(r.Method, path))
	if logs || h.metrics != nil || h.tracer.On() {
		sw := &statusWriter{ResponseWriter: w}
		defer func(start time.Time) { h.ended(r, path, sw, start, logs) }(time.Now())
		w = sw
	}
	defer h.recovered(w, path)
	if done := h.guard(w, r, path); done {
		return
	}
	if h.tracer.On() && !h.own && !exempt(r.Method, path) {
		var span trace.Span
		if r, span = h.begin(r); span.Recording() {
			defer func(path string) { h.endSpan(span, r, path, w) }(path)
		}
	}
	if !h.pipeline.Empty() {
		path = h.pass(w, r, path)
		return
	}
	h.dispatch(w, r, path)
}

// dispatch hands a request that has passed the checks to the API that it is for.
func (h *handler) dispatch(w http.ResponseWriter, r *http.Request, path string) {
	if h.denied(w, r, path) {
		return
	}
	if c, ok := h.callee(r, path); ok {
		h.invoke(w, r, c)
		return
	}
	if topic, ok := publishTarget(r.Method, path); ok && !h.public {
		h.publish(w, r, topic)
		return
	}
	h.mux.ServeHTTP(w, h.routed(r, path))
}

// routed makes chi dispatch on the canonical path instead of reading its own.
func (h *handler) routed(r *http.Request, path string) *http.Request {
	rc := chi.NewRouteContext()
	rc.Routes, rc.RoutePath = h.mux, path
	return r.WithContext(context.WithValue(r.Context(), chi.RouteCtxKey, rc))
}

// recovered turns a panic of ours into an answer; the process goes on.
func (h *handler) recovered(w http.ResponseWriter, path string) {
	p := recover()
	if p == nil {
		return
	}
	if p == http.ErrAbortHandler {
		panic(p)
	}
	h.log.Error("handler panicked", "path", cut(path), "panic", p, "stack", string(debug.Stack()))
	respondError(w, api.Errorf(api.Internal, "serve request: internal error"))
}

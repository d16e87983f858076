// Package trace makes the spans of an instance and sends them to who collects them.
//
// The runtime makes one [Tracer], says with Use what the configuration and the
// environment ask for, and hands it down as a value. Whoever does something that
// belongs into a trace calls Start, passes the context on and ends the [Span]; what
// goes on to the next one in the trace is Span.Context.
//
// It promises that a Tracer that is nil or off makes no span and allocates nothing;
// that the trace context which came in goes on in either case; that a span has
// names and outcomes in it and never a key, a value or a payload; and that nobody
// ever waits for a collector: queues and the flush at the end are bounded, and what
// is dropped is counted.
package trace

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/penstock-io/penstock/fault"
)

// Tracer makes spans. It is safe for concurrent use; a nil one makes none.
type Tracer struct {
	log  *slog.Logger
	live atomic.Pointer[live] // nil: off

	mu      sync.Mutex
	tally   tally
	workers sync.WaitGroup
	closed  bool               // under mu
	life    context.Context    // under mu; of the workers, nil before the first
	cut     context.CancelFunc // ends it
}

// live is what one Use made.
type live struct {
	sampler sampler
	tracer  trace.Tracer
	queues  []*queue
}

// New makes a tracer that is off until Use turns it on.
func New(log *slog.Logger) *Tracer {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Tracer{log: log}
}

// Context is a trace context as W3C's headers carry it: traceparent and tracestate.
// Both may be empty.
type Context struct{ Parent, State string }

// Kind is what a span is to the one before it.
type Kind = trace.SpanKind

// The kinds of spans.
const (
	Server   = trace.SpanKindServer
	Client   = trace.SpanKindClient
	Producer = trace.SpanKindProducer
	Consumer = trace.SpanKindConsumer
)

// Begin says what a span is.
type Begin struct {
	Kind Kind
	// Group and Name make the span's name together, so that nothing is put together
	// for a span that is not made.
	Group, Name string
	// From is the context that came in. It counts when there is no span in the
	// context.Context.
	From Context
	// Alone says that there is none, so that nobody looks for it.
	Alone bool
	// Root lets a trace begin here when there is no context at all.
	Root bool
	// Links are other contexts that led to this one, as of a batch; what is no
	// context is left out, and what is beyond MaxLinks too.
	Links []Context
}

// MaxLinks is how many links a span has at most.
const MaxLinks = 128

// Span is one that is under way. The zero value is none.
type Span struct {
	span trace.Span // nil: nothing is recorded
	on   Context    // what goes on when nothing is recorded
}

// On tells whether the tracer makes spans now.
func (t *Tracer) On() bool { return t != nil && t.live.Load() != nil }

// Start begins a span, which must be ended. It belongs to the span in ctx, or else
// to b.From. Of a trace that is not sampled there is none; nor is there one outside
// of a trace, unless b is a root. The context that is returned holds the span.
func (t *Tracer) Start(ctx context.Context, b Begin) (context.Context, Span) {
	if t == nil {
		return ctx, Span{on: b.From}
	}
	l := t.live.Load()
	if l == nil {
		return ctx, Span{on: b.From}
	}
	var parent trace.SpanContext
	if !b.Alone {
		parent = trace.SpanContextFromContext(ctx)
	}
	if !parent.IsValid() {
		if b.From.Parent == "" && !b.Alone {
			b.From = Given(ctx)
		}
		parent = b.From.parse()
	}
	if parent.IsValid() {
		if !l.sampler.follow(parent) {
			return ctx, Span{on: b.From}
		}
		return l.start(trace.ContextWithSpanContext(ctx, parent), b)
	}
	if !b.Root {
		return ctx, Span{on: b.From}
	}
	id := newTraceID()
	if !l.sampler.root(id) {
		return ctx, Span{on: Context{Parent: unsampled(id)}}
	}
	return l.start(context.WithValue(ctx, rootKey{}, id), b)
}

// Call begins the span of a call of a component, within the one in ctx; without one
// there is none. The operation is a word of ours, or of a few that callers know.
func (t *Tracer) Call(ctx context.Context, kind, component, operation string) (context.Context, Span) {
	if !t.On() || !Current(ctx).Recording() {
		return ctx, Span{}
	}
	ctx, s := t.Start(ctx, Begin{Kind: Client, Group: kind + "/", Name: component})
	s.Set(Component, component)
	s.Set(Operation, operation)
	return ctx, s
}

// givenKey finds what Give put into a context.
type givenKey struct{}

// Give returns a context that carries a trace context for what is done in it, where
// there is no span: that of a trace which is not recorded.
func Give(ctx context.Context, c Context) context.Context {
	return context.WithValue(ctx, givenKey{}, c)
}

// Given returns what Give put into the context.
func Given(ctx context.Context) Context {
	c, _ := ctx.Value(givenKey{}).(Context)
	return c
}

func (l *live) start(ctx context.Context, b Begin) (context.Context, Span) {
	options := make([]trace.SpanStartOption, 1, 2)
	options[0] = trace.WithSpanKind(b.Kind)
	if len(b.Links) > 0 {
		options = append(options, trace.WithLinks(links(b.Links)...))
	}
	ctx, span := l.tracer.Start(ctx, b.Group+b.Name, options...)
	return ctx, Span{span: span}
}

func links(list []Context) []trace.Link {
	out := make([]trace.Link, 0, min(len(list), MaxLinks))
	for _, c := range list {
		if to := c.parse(); to.IsValid() && len(out) < MaxLinks {
			out = append(out, trace.Link{SpanContext: to})
		}
	}
	return out
}

// Current returns the span in ctx, the zero value when there is none. It is for
// what goes on and for attributes, not to be ended.
func Current(ctx context.Context) Span {
	if s := trace.SpanFromContext(ctx); s.IsRecording() {
		return Span{span: s}
	}
	return Span{}
}

// Recording tells whether the span is one.
func (s Span) Recording() bool { return s.span != nil }

// TraceID is the id of the trace that the span is recorded in, in hexadecimal; empty
// when nothing is.
func (s Span) TraceID() string {
	if s.span == nil {
		return ""
	}
	return s.span.SpanContext().TraceID().String()
}

// Context is what goes on to the next one: that of the span, or else what came in.
// Where a trace began that is not sampled, it says so.
func (s Span) Context() Context {
	if s.span == nil {
		return s.on
	}
	c := s.span.SpanContext()
	return Context{Parent: format(c), State: c.TraceState().String()}
}

// Name gives the span another name, for what is only known later.
func (s Span) Name(name string) {
	if s.span != nil {
		s.span.SetName(name)
	}
}

// Set sets an attribute whose value is not empty. Values must be names, never what
// a caller, a payload or a secret says.
func (s Span) Set(key, value string) {
	if s.span != nil && value != "" {
		s.span.SetAttributes(attribute.String(key, value))
	}
}

// SetInt sets an attribute that is a number.
func (s Span) SetInt(key string, value int) {
	if s.span != nil {
		s.span.SetAttributes(attribute.Int(key, value))
	}
}

// Fail marks the span as failed. Kind is a bounded word: a kind of error, a status.
// The text of the error is not kept, since it may hold what it was about.
func (s Span) Fail(kind string) {
	if s.span != nil {
		s.span.SetAttributes(attribute.String(ErrorType, kind))
		s.span.SetStatus(codes.Error, kind)
	}
}

// Done ends the span of what ended with err, nil for success. Of the error only its
// kind is kept.
func (s Span) Done(err error) {
	if s.span == nil {
		return
	}
	if err != nil {
		s.Fail(fault.KindOf(err).String())
	}
	s.span.End()
}

// End ends the span.
func (s Span) End() {
	if s.span != nil {
		s.span.End()
	}
}

// Follows tells whether the context is of the same trace as that traceparent.
func (c Context) Follows(parent string) bool {
	const id = 35 // where the id of the trace ends
	return len(c.Parent) > id && len(parent) > id && c.Parent[:id] == parent[:id]
}

// parse reads a context; the zero value is none.
func (c Context) parse() (out trace.SpanContext) {
	const length = 55
	p := c.Parent
	if len(p) < length || p[2] != '-' || p[35] != '-' || p[52] != '-' || p[:2] == "ff" {
		return out
	}
	var id trace.TraceID
	var span trace.SpanID
	var flags [1]byte
	if !unhex(id[:], p[3:35]) || !unhex(span[:], p[36:52]) || !unhex(flags[:], p[53:length]) {
		return out
	}
	set := trace.SpanContextConfig{TraceID: id, SpanID: span, TraceFlags: trace.TraceFlags(flags[0]) & trace.FlagsSampled, Remote: true}
	if c.State != "" {
		// One that is wrong is left out, as the recommendation says.
		set.TraceState, _ = trace.ParseTraceState(c.State)
	}
	return trace.NewSpanContext(set)
}

// unhex reads lower-case hexadecimal digits, without an allocation, and without a
// branch for each: what is random is guessed wrong half of the time.
func unhex(dst []byte, text string) bool {
	bad := 0
	for i := range dst {
		high, low := text[2*i], text[2*i+1]
		bad |= noDigit(high) | noDigit(low)
		dst[i] = digit(high)<<4 | digit(low)
	}
	return bad == 0
}

// digit is the value of a lower-case hexadecimal digit.
func digit(c byte) byte { return c&15 + c>>6*9 }

// noDigit is 0 for a lower-case hexadecimal digit.
func noDigit(c byte) int { return (9 - int(c-'0')) >> 8 & ((5 - int(c-'a')) >> 8) }

func format(c trace.SpanContext) string {
	b := make([]byte, 0, 55)
	id, span := c.TraceID(), c.SpanID()
	b = append(hex.AppendEncode(append(b, "00-"...), id[:]), '-')
	b = append(hex.AppendEncode(b, span[:]), '-')
	return string(hex.AppendEncode(b, []byte{byte(c.TraceFlags())}))
}

// unsampled is the context of a trace that begins and is not recorded.
func unsampled(id trace.TraceID) string {
	span := newSpanID()
	return format(trace.NewSpanContext(trace.SpanContextConfig{TraceID: id, SpanID: span}))
}

func newTraceID() (id trace.TraceID) {
	binary.BigEndian.PutUint64(id[:8], rand.Uint64())
	binary.BigEndian.PutUint64(id[8:], max(rand.Uint64(), 1))
	return id
}

func newSpanID() (id trace.SpanID) {
	binary.BigEndian.PutUint64(id[:], max(rand.Uint64(), 1))
	return id
}

// rootKey finds the id of a trace that begins, which was made before it was known
// whether it is sampled.
type rootKey struct{}

// ids makes those of spans.
type ids struct{}

// NewIDs implements the SDK's IDGenerator.
func (ids) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	id, ok := ctx.Value(rootKey{}).(trace.TraceID)
	if !ok {
		id = newTraceID()
	}
	return id, newSpanID()
}

// NewSpanID implements the SDK's IDGenerator.
func (ids) NewSpanID(context.Context, trace.TraceID) trace.SpanID { return newSpanID() }

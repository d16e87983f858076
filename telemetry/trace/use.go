package trace

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
)

// scope is who made the spans.
const scope = "github.com/penstock-io/penstock"

// Use makes the tracer what the settings and the environment say, from the next
// span on; what it sent to before gets what is left, in the background. The
// warnings are about settings that were left out. An exporter that cannot be made
// is an error, and then the tracer stays as it was. Whether a collector can be
// reached is not looked at. Work goes on in ctx, which must last until Close.
func (t *Tracer) Use(ctx context.Context, s Settings) (warnings []string, err error) {
	p, warnings := s.plan()
	var next *live
	if p.on() {
		if next, err = t.build(ctx, p); err != nil {
			return warnings, err
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		next.close(ctx)
		return warnings, nil
	}
	if next != nil {
		if t.life == nil {
			t.life, t.cut = context.WithCancel(context.WithoutCancel(ctx))
		}
		life := t.life
		for _, q := range next.queues {
			t.workers.Go(func() { q.run(life) })
		}
	}
	if old := t.live.Swap(next); old != nil {
		for _, q := range old.queues {
			close(q.closing)
		}
	}
	return warnings, nil
}

// close frees what was never used.
func (l *live) close(ctx context.Context) {
	if l == nil {
		return
	}
	for _, q := range l.queues {
		_ = q.to.Shutdown(ctx)
	}
}

func (t *Tracer) build(ctx context.Context, p plan) (*live, error) {
	l := &live{sampler: p.sampler}
	options := []sdk.TracerProviderOption{
		sdk.WithSampler(sdk.AlwaysSample()), // ours decides before
		sdk.WithIDGenerator(ids{}), sdk.WithoutPanicRecording(), sdk.WithResource(p.resource()),
		sdk.WithRawSpanLimits(limits()),
	}
	for _, e := range p.exporters {
		to, err := e.open(ctx)
		if err != nil {
			l.close(ctx)
			return nil, err
		}
		q := &queue{
			name: e.name, to: to, timeout: e.timeout, tally: &t.tally, log: t.log,
			spans: make(chan sdk.ReadOnlySpan, queueSize), closing: make(chan struct{}),
		}
		l.queues = append(l.queues, q)
		options = append(options, sdk.WithSpanProcessor(q))
	}
	l.tracer = sdk.NewTracerProvider(options...).Tracer(scope)
	return l, nil
}

// Exporters are the names of where spans go now; none while the tracer is off.
func (t *Tracer) Exporters() (names []string) {
	if t == nil {
		return nil
	}
	if l := t.live.Load(); l != nil {
		for _, q := range l.queues {
			names = append(names, q.name)
		}
	}
	return names
}

// limits bound a span: names that callers choose may be long.
func limits() sdk.SpanLimits {
	l := sdk.NewSpanLimits()
	l.AttributeValueLengthLimit = 256
	l.AttributeCountLimit, l.LinkCountLimit, l.EventCountLimit = 32, MaxLinks, 16
	return l
}

// Close turns the tracer off for good, sends what is left and returns when that is
// done. When ctx ends it is cut short, and what is left is given up.
func (t *Tracer) Close(ctx context.Context) {
	if t == nil {
		return
	}
	t.mu.Lock()
	t.closed = true
	if old := t.live.Swap(nil); old != nil {
		for _, q := range old.queues {
			close(q.closing)
		}
	}
	cut := t.cut
	t.mu.Unlock()
	if cut == nil {
		return // it was never on
	}
	defer cut()
	defer context.AfterFunc(ctx, cut)()
	t.workers.Wait()
}

// resource is who the spans are of. What the environment says wins over the app's
// id.
func (p plan) resource() *resource.Resource {
	attrs := make([]attribute.KeyValue, 0, len(p.attributes))
	for _, a := range p.attributes {
		attrs = append(attrs, attribute.String(a.name, a.value))
	}
	return resource.NewSchemaless(attrs...)
}

package runtime

import (
	"context"
	"time"

	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/telemetry"
	"github.com/penstock-io/penstock/telemetry/trace"
)

// trace makes traces go where the Configuration and the environment say.
func (r *Runtime) trace(ctx context.Context, t config.Tracing) error {
	if r.traced != nil && config.Equal(*r.traced, t) {
		return nil
	}
	s := trace.Settings{
		AppID: r.o.AppID, Namespace: r.o.Namespace, Version: r.o.Version, Rate: t.Rate,
		Stdout: t.Stdout, Zipkin: t.Zipkin, Env: r.o.Env, Out: r.o.Stdout,
		OTLP: trace.OTLP{Endpoint: t.OTLP.Endpoint, Protocol: t.OTLP.Protocol, Insecure: t.OTLP.Insecure, Timeout: t.OTLP.Timeout},
	}
	for _, h := range t.OTLP.Headers {
		s.OTLP.Headers = append(s.OTLP.Headers, trace.Header(h))
	}
	warnings, err := r.tracer.Use(ctx, s)
	for _, w := range warnings {
		r.log.Warn("Tracing: " + w)
	}
	if err != nil {
		return fault.As(fault.Invalid, fault.Wrap(err, "set up tracing"))
	}
	r.traced = &t
	if to := r.tracer.Exporters(); len(to) > 0 {
		r.log.Info("Traces are recorded", "exporters", to)
	}
	return nil
}

// lastSpans is how long a stop waits for the last spans to be taken.
const lastSpans = time.Second

// endTraces sends what is left.
func (r *Runtime) endTraces(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastSpans)
	defer cancel()
	r.tracer.Close(ctx)
}

// spanCounts are the metrics of the tracer itself.
func spanCounts() []telemetry.Gauge {
	return []telemetry.Gauge{
		{Name: "penstock_trace_spans_total", Help: "Spans that were recorded, by what became of them.", Labels: []string{"outcome"}, Counter: true},
	}
}

// spans are the values of those.
func (r *Runtime) spans() []telemetry.Sample {
	c := r.tracer.Counts()
	return []telemetry.Sample{
		{Value: float64(c.Sent), Labels: []string{"sent"}},
		{Value: float64(c.Dropped), Labels: []string{"dropped"}},
		{Value: float64(c.Failed), Labels: []string{"failed"}},
	}
}

package trace

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"sync"

	"go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/penstock-io/penstock/fault"
)

// zipkinSpan is a span in Zipkin's JSON, version 2.
type zipkinSpan struct {
	TraceID   string            `json:"traceId"`
	ParentID  string            `json:"parentId,omitempty"`
	ID        string            `json:"id"`
	Kind      string            `json:"kind,omitempty"`
	Name      string            `json:"name"`
	Timestamp int64             `json:"timestamp"` // µs
	Duration  int64             `json:"duration"`  // µs, at least one
	Local     zipkinEndpoint    `json:"localEndpoint"`
	Tags      map[string]string `json:"tags,omitempty"`
}

type zipkinEndpoint struct {
	ServiceName string `json:"serviceName"`
}

// zipkinOf writes a span in Zipkin's form, which has no links.
func zipkinOf(s sdk.ReadOnlySpan, service string) zipkinSpan {
	c := s.SpanContext()
	out := zipkinSpan{
		TraceID: c.TraceID().String(), ID: c.SpanID().String(), Name: s.Name(), Local: zipkinEndpoint{service},
		Timestamp: s.StartTime().UnixMicro(), Duration: max(1, s.EndTime().Sub(s.StartTime()).Microseconds()),
		Tags: make(map[string]string, len(s.Attributes())+1),
	}
	if p := s.Parent(); p.HasSpanID() {
		out.ParentID = p.SpanID().String()
	}
	switch s.SpanKind() {
	case trace.SpanKindServer:
		out.Kind = "SERVER"
	case trace.SpanKindClient:
		out.Kind = "CLIENT"
	case trace.SpanKindProducer:
		out.Kind = "PRODUCER"
	case trace.SpanKindConsumer:
		out.Kind = "CONSUMER"
	}
	for _, a := range s.Attributes() {
		out.Tags[string(a.Key)] = a.Value.String()
	}
	if status := s.Status(); status.Code == codes.Error {
		out.Tags["error"] = status.Description
	}
	return out
}

// serviceOf is the name of the service among attributes.
func serviceOf(attrs []attr) string {
	for _, a := range attrs {
		if a.name == "service.name" {
			return a.value
		}
	}
	return ""
}

// zipkin sends spans to a Zipkin server.
type zipkin struct {
	url, service string
	client       http.Client
}

func openZipkin(url string, attrs []attr) func(context.Context) (exporter, error) {
	return func(context.Context) (exporter, error) {
		z := &zipkin{url: url, service: serviceOf(attrs)}
		// One connection: there is one worker.
		z.client.Transport = &http.Transport{Proxy: http.ProxyFromEnvironment, MaxIdleConns: 1}
		z.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
		return z, nil
	}
}

// ExportSpans implements the SDK's SpanExporter.
func (z *zipkin) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	list := make([]zipkinSpan, len(spans))
	for i, s := range spans {
		list[i] = zipkinOf(s, z.service)
	}
	body, err := json.Marshal(list)
	if err != nil {
		return fault.Wrap(err, "encode spans")
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, z.url, bytes.NewReader(body))
	if err != nil {
		return fault.Wrap(err, "send spans")
	}
	r.Header.Set("Content-Type", "application/json")
	answer, err := z.client.Do(r)
	if err != nil {
		return fault.Wrap(err, "send spans")
	}
	defer answer.Body.Close()
	const most = 64 << 10
	_, _ = io.CopyN(io.Discard, answer.Body, most) // so that the connection is used again
	if answer.StatusCode/100 != 2 {
		return fault.New(fault.Unavailable, "send spans: answered %s", answer.Status)
	}
	return nil
}

// Shutdown implements the SDK's SpanExporter.
func (z *zipkin) Shutdown(context.Context) error {
	z.client.CloseIdleConnections()
	return nil
}

// stdout writes spans as lines in Zipkin's form.
type stdout struct {
	service string
	mu      sync.Mutex
	out     io.Writer
}

func openStdout(out io.Writer, attrs []attr) func(context.Context) (exporter, error) {
	return func(context.Context) (exporter, error) {
		if out == nil {
			out = io.Discard
		}
		return &stdout{service: serviceOf(attrs), out: out}, nil
	}
}

// ExportSpans implements the SDK's SpanExporter.
func (o *stdout) ExportSpans(_ context.Context, spans []sdk.ReadOnlySpan) error {
	var text bytes.Buffer
	lines := json.NewEncoder(&text)
	for _, s := range spans {
		if err := lines.Encode(zipkinOf(s, o.service)); err != nil {
			return fault.Wrap(err, "encode span")
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	_, err := o.out.Write(text.Bytes())
	return fault.Wrap(err, "write spans")
}

// Shutdown implements the SDK's SpanExporter.
func (*stdout) Shutdown(context.Context) error { return nil }

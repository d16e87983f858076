package http

import (
	"cmp"
	"net/http"

	"github.com/penstock-io/penstock/telemetry/trace"
)

// begin begins the span of a request. Its context takes the place of the one in the
// headers, so that all who read them go on from there; a request whose trace is
// wrong goes on as it is.
func (h *handler) begin(r *http.Request) (*http.Request, trace.Span) {
	from, err := traceOf(r)
	if err != nil {
		return r, trace.Span{}
	}
	ctx, span := h.tracer.Start(r.Context(), trace.Begin{Kind: trace.Server, From: from.Context(), Root: true})
	if c := span.Context(); c.Parent != from.Parent {
		r.Header["Traceparent"] = []string{c.Parent}
	}
	if span.Recording() {
		r = r.WithContext(ctx)
	}
	return r, span
}

// endSpan ends it. Its name is the pattern of the API, since paths hold keys.
func (h *handler) endSpan(s trace.Span, r *http.Request, path string, w http.ResponseWriter) {
	pattern := cmp.Or(h.pattern(r, path), noAPI)
	s.Name(pattern)
	s.Set(trace.HTTPRoute, pattern)
	s.Set(trace.HTTPMethod, r.Method)
	if sw, ok := w.(*statusWriter); ok {
		s.SetInt(trace.HTTPStatus, sw.code())
		if sw.code() >= http.StatusInternalServerError {
			s.Fail(http.StatusText(sw.code()))
		}
	}
	s.End()
}

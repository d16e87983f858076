package http

import (
	"context"
	"net/http"
)

// passage is a request on its way through the pipeline: what the checks before
// have seen of it, and where it has arrived.
type passage struct {
	method, path string
	arrived      string // the path that was dispatched; empty: the request did not arrive
}

type passageKey struct{}

// pass sends a request through the pipeline and returns the path that it was
// dispatched on, for the log. The paths are the same unless a middleware gave
// the request another one.
func (h *handler) pass(w http.ResponseWriter, r *http.Request, path string) string {
	p := &passage{method: r.Method, path: path}
	h.piped.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), passageKey{}, p)))
	if p.arrived == "" {
		return path
	}
	return p.arrived
}

// passed is the end of the pipeline. The path is read again, because a
// middleware may have changed it; a request that was let in without a token must
// not become one that needs it.
func (h *handler) passed(w http.ResponseWriter, r *http.Request) {
	path := canonical(r.URL)
	p, known := r.Context().Value(passageKey{}).(*passage)
	if known {
		p.arrived = path
	}
	if !known || exempt(p.method, p.path) && !exempt(r.Method, path) {
		if err := h.tokens.Check(r.Header[tokenHeader]); err != nil {
			respondError(w, err)
			return
		}
	}
	h.dispatch(w, r, path)
}

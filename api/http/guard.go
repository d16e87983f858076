package http

import (
	"net/http"

	"github.com/penstock-io/penstock/api"
)

// tokenHeader is api.TokenHeader as net/http spells it.
const tokenHeader = "Dapr-Api-Token"

// guard answers requests that must go no further: those for another host, from
// a foreign web page or without the token. It tells whether it answered.
func (h *handler) guard(w http.ResponseWriter, r *http.Request, path string) (done bool) {
	if !h.hosts.Allow(r) {
		respondError(w, api.Errorf(api.PermissionDenied,
			"host %q is not served here; use a loopback address or add the name to the allowed hosts", cut(r.Host)))
		return true
	}
	if done := h.checkOrigin(w, r); done {
		return true
	}
	if exempt(r.Method, path) {
		return false
	}
	if err := h.tokens.Check(r.Header[tokenHeader]); err != nil {
		respondError(w, err)
		return true
	}
	return false
}

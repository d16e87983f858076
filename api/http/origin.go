package http

import (
	"net/http"
	"strings"

	"github.com/penstock-io/penstock/api"
	"github.com/penstock-io/penstock/middleware"
)

// origins are the web origins that may call from a page, lower case.
type origins []string

func newOrigins(allowed []string) origins {
	var os origins
	for _, o := range allowed {
		if o = strings.ToLower(strings.TrimSpace(o)); o != "" && o != "*" {
			os = append(os, strings.TrimSuffix(o, "/"))
		}
	}
	return os
}

func (os origins) allow(origin string) bool {
	origin = strings.ToLower(origin)
	for _, o := range os {
		before, after, wild := strings.Cut(o, "*")
		if !wild && o == origin {
			return true
		}
		if wild && len(origin) >= len(before)+len(after) &&
			strings.HasPrefix(origin, before) && strings.HasSuffix(origin, after) {
			return true
		}
	}
	return false
}

// checkOrigin refuses requests that a browser sends for a foreign page, reads
// included, and answers preflights of allowed origins. It tells whether it
// answered. Programs send neither header and pass.
func (h *handler) checkOrigin(w http.ResponseWriter, r *http.Request) (done bool) {
	origin, site := r.Header["Origin"], r.Header["Sec-Fetch-Site"]
	if len(origin) == 0 && len(site) == 0 {
		return false
	}
	if len(origin) == 1 && h.origins.allow(origin[0]) {
		return cors(w, r, origin[0])
	}
	if !middleware.OwnPage(r) {
		respondError(w, api.Errorf(api.PermissionDenied,
			"requests from web pages of other origins are refused; add the origin to --allowed-origins"))
		return true
	}
	return false
}

// cors lets the page of an allowed origin read the answer, and answers its
// preflight.
func cors(w http.ResponseWriter, r *http.Request, origin string) (done bool) {
	header := w.Header()
	header.Set("Access-Control-Allow-Origin", origin)
	header.Add("Vary", "Origin")
	if r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "" {
		return false
	}
	header.Set("Access-Control-Allow-Methods", "GET, HEAD, POST, PUT, PATCH, DELETE")
	if asked := r.Header.Values("Access-Control-Request-Headers"); len(asked) > 0 {
		header.Set("Access-Control-Allow-Headers", strings.Join(asked, ", "))
	}
	header.Set("Access-Control-Max-Age", "600")
	header.Add("Vary", "Access-Control-Request-Method, Access-Control-Request-Headers")
	w.WriteHeader(http.StatusNoContent)
	return true
}

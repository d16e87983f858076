package http

import (
	"net/http"
	"net/http/pprof"
	"strings"

	"github.com/penstock-io/penstock/api"
)

// profiles is where the profiles of net/http/pprof are.
const profiles = "/debug/pprof/"

// NewProfile makes the handler of the profiling port: the profiles of
// net/http/pprof to read, for programs on this machine. It asks for no token,
// because `go tool pprof` cannot send one, and leaves out the command line, which
// may hold what nobody else should read.
func NewProfile(o Options) http.Handler {
	h := newHandler(nil, Options{AllowedHosts: o.AllowedHosts, Logger: o.Logger})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := canonical(r.URL)
		defer h.recovered(w, path)
		if h.guard(w, r, path) {
			return
		}
		name, ok := strings.CutPrefix(path, profiles)
		switch {
		case !ok:
			respondError(w, api.Errorf(api.NotFound, "no profile at %s; they are below %s", cut(path), profiles))
		case r.Method != http.MethodGet && (r.Method != http.MethodPost || name != "symbol"):
			respondError(w, api.Errorf(api.MethodNotAllowed, "method %s is not allowed here; use GET", cut(r.Method)))
		case name == "profile":
			pprof.Profile(w, r)
		case name == "trace":
			pprof.Trace(w, r)
		case name == "symbol":
			pprof.Symbol(w, r)
		default:
			pprof.Index(w, r)
		}
	})
}

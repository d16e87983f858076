package http

import (
	"net/http"
	"slices"
	"strings"

	"github.com/go-chi/chi/v5"

	"github.com/penstock-io/penstock/api"
)

// publicRoutes makes the table of what may be seen on the public port.
func (h *handler) publicRoutes() *chi.Mux {
	m := chi.NewRouter()
	m.NotFound(notFound)
	m.MethodNotAllowed(methodNotAllowed)
	m.Get("/v1.0/metadata", h.onMetadata)
	m.Get(healthPath, h.onHealth)
	m.Get(outboundPath, h.onOutboundHealth)
	return m
}

// routes makes the table of paths. Patterns match the canonical path.
func (h *handler) routes() *chi.Mux {
	m := h.publicRoutes()
	write(m, "/v1.0/publish/{bus}/*", h.onPublish)
	write(m, "/v1.0/publish/{bus}", h.onPublish)
	write(m, "/v1.0/publish/", h.onPublish)
	for _, version := range []string{"/v1.0", "/v1.0-alpha1"} {
		write(m, version+"/publish/bulk/{bus}/*", h.onBulkPublish)
	}
	write(m, "/v1.0/bindings/{name}", h.onBinding)
	m.Get("/v1.0/secrets/{store}/bulk", h.onBulkSecrets)
	m.Get("/v1.0/secrets/{store}/{key}", h.onSecret)
	h.stateRoutes(m)
	m.Put("/v1.0-alpha1/crypto/{name}/encrypt", h.onEncrypt)
	m.Put("/v1.0-alpha1/crypto/{name}/decrypt", h.onDecrypt)
	write(m, "/v1.0/metadata/{key}", h.onSetMetadata)
	m.Post("/v1.0/shutdown", h.onShutdown)
	h.lockRoutes(m)
	h.configurationRoutes(m)
	h.deadLetterRoutes(m)
	h.eventRoutes(m)
	h.sourceRoutes(m)
	m.Get(ownPrefix+"/loglevels", h.onLogLevels)
	m.Put(ownPrefix+"/loglevels", h.onSetLogLevel)
	m.Get(ownPrefix+"/routes", h.onRoutes)
	m.Post(ownPrefix+"/routes/pause/*", h.onPauseRoute)
	m.Post(ownPrefix+"/routes/resume/*", h.onResumeRoute)
	unimplemented(m)
	return m
}

// write adds a route for the two methods that Dapr takes for most writes.
func write(m *chi.Mux, pattern string, f http.HandlerFunc) {
	m.Post(pattern, f)
	m.Put(pattern, f)
}

// unimplemented names Dapr's APIs that this build lacks, so that an app learns
// more than "not found".
func unimplemented(m *chi.Mux) {
	lacking := map[string][]string{
		"/v1.0": {"actors", "jobs", "workflows"},
		"/v1.0-alpha1": {
			"jobs", "subtlecrypto", "workflows", "conversation",
		},
		"/v1.0-alpha2": {"conversation"},
		"/v1.0-beta1":  {"workflows"},
	}
	for version, names := range lacking {
		for _, name := range names {
			m.HandleFunc(version+"/"+name+"/*", func(w http.ResponseWriter, _ *http.Request) {
				respondError(w, api.Errorf(api.Unimplemented, "the %s API is not in this build of Penstock", name))
			})
		}
	}
}

func notFound(w http.ResponseWriter, r *http.Request) {
	respondError(w, api.Errorf(api.NotFound, "no API at %s %s", cut(r.Method), cut(canonical(r.URL))))
}

func methodNotAllowed(w http.ResponseWriter, r *http.Request) {
	rc := chi.RouteContext(r.Context())
	allowed := slices.DeleteFunc([]string{"GET", "POST", "PUT", "DELETE"}, func(method string) bool {
		return !rc.Routes.Match(chi.NewRouteContext(), method, rc.RoutePath)
	})
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	respondError(w, api.Errorf(api.MethodNotAllowed, "method %s is not allowed here; use %s", cut(r.Method), strings.Join(allowed, " or ")))
}

// names decodes path parameters, in the order asked for.
func names(r *http.Request, params ...string) ([]string, error) {
	values := make([]string, len(params))
	for i, p := range params {
		v, err := unescape(p, chi.URLParam(r, p))
		if err != nil {
			return nil, err
		}
		values[i] = v
	}
	return values, nil
}

package http

import (
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/penstock-io/penstock/api"
)

func (h *handler) onMetadata(w http.ResponseWriter, _ *http.Request) {
	respondJSON(w, http.StatusOK, h.api.Metadata())
}

func (h *handler) onSetMetadata(w http.ResponseWriter, r *http.Request) {
	path, err := names(r, "key")
	var body []byte
	if err == nil {
		body, err = h.readBody(w, r)
	}
	if err == nil && !utf8.Valid(body) {
		err = api.Errorf(api.BadRequest, "set metadata %q: the value is not UTF-8 text", path[0])
	}
	if err == nil {
		err = h.api.SetMetadata(path[0], string(body))
	}
	respondDone(w, err)
}

func (h *handler) onHealth(w http.ResponseWriter, r *http.Request) {
	appID, err := lastParam(r.URL.RawQuery, "appid")
	if err == nil {
		err = h.api.Health(appID)
	}
	respondDone(w, err)
}

func (h *handler) onOutboundHealth(w http.ResponseWriter, _ *http.Request) {
	respondDone(w, h.api.OutboundHealth())
}

// onShutdown answers before it asks for the end, or nobody would read it.
func (h *handler) onShutdown(w http.ResponseWriter, r *http.Request) {
	force := strings.EqualFold(r.Header.Get("Dapr-Force-Shutdown"), "true")
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(http.StatusNoContent)
	// A client that is gone cannot be told, and the end comes all the same.
	_ = http.NewResponseController(w).Flush()
	h.api.Shutdown(force)
}

func (h *handler) onSecret(w http.ResponseWriter, r *http.Request) {
	path, err := names(r, "store", "key")
	var metadata map[string]string
	if err == nil {
		metadata, err = queryMetadata(r.URL.RawQuery, api.BadRequest)
	}
	var pairs map[string]string
	if err == nil {
		pairs, err = h.api.GetSecret(r.Context(), path[0], path[1], metadata)
	}
	if err != nil {
		respondError(w, err)
		return
	}
	respondSecret(w, pairs)
}

func (h *handler) onBulkSecrets(w http.ResponseWriter, r *http.Request) {
	path, err := names(r, "store")
	var metadata map[string]string
	if err == nil {
		metadata, err = queryMetadata(r.URL.RawQuery, api.BadRequest)
	}
	var all map[string]map[string]string
	if err == nil {
		all, err = h.api.BulkSecrets(r.Context(), path[0], metadata)
	}
	if err != nil {
		respondError(w, err)
		return
	}
	respondSecret(w, all)
}

func respondSecret(w http.ResponseWriter, v any) {
	w.Header().Set("Cache-Control", "no-store")
	respondJSON(w, http.StatusOK, v)
}

func respondDone(w http.ResponseWriter, err error) {
	if err != nil {
		respondError(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// lastParam returns a query parameter, the last one when given twice.
func lastParam(query, name string) (string, error) {
	if query == "" {
		return "", nil
	}
	values, err := url.ParseQuery(query)
	if err != nil {
		return "", api.Errorf(api.BadRequest, "read query: %w", err)
	}
	if all := values[name]; len(all) > 0 {
		return all[len(all)-1], nil
	}
	return "", nil
}

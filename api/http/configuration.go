package http

import (
	"errors"
	"net/http"
	"net/url"

	"github.com/go-chi/chi/v5"

	"github.com/penstock-io/penstock/api"
)

// configurationRoutes adds the paths of configuration, in both of Dapr's versions.
func (h *handler) configurationRoutes(m *chi.Mux) {
	for _, version := range []string{"/v1.0", "/v1.0-alpha1"} {
		m.Get(version+"/configuration/{store}", h.onGetConfiguration)
		m.Get(version+"/configuration/{store}/subscribe", h.onSubscribeConfiguration)
		m.Get(version+"/configuration/{store}/{id}/unsubscribe", h.onUnsubscribeConfiguration)
	}
}

// configurationQuery reads the store, key=... and metadata.<name>=...
func configurationQuery(r *http.Request) (store string, keys []string, metadata map[string]string, err error) {
	path, err := names(r, "store")
	if err != nil {
		return "", nil, nil, err
	}
	if metadata, err = queryMetadata(r.URL.RawQuery, api.BadRequest); err != nil {
		return "", nil, nil, err
	}
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return "", nil, nil, api.Errorf(api.BadRequest, "read query: %w", err)
	}
	return path[0], values["key"], metadata, nil
}

func (h *handler) onGetConfiguration(w http.ResponseWriter, r *http.Request) {
	store, keys, metadata, err := configurationQuery(r)
	if err != nil {
		respondError(w, err)
		return
	}
	items, err := h.api.GetConfiguration(r.Context(), store, keys, metadata)
	if err != nil {
		respondError(w, err)
		return
	}
	out := make(map[string]api.ConfigurationItem, len(items))
	for key, item := range items {
		out[key] = api.ConfigurationItem(item)
	}
	respondJSON(w, http.StatusOK, out)
}

func (h *handler) onSubscribeConfiguration(w http.ResponseWriter, r *http.Request) {
	store, keys, metadata, err := configurationQuery(r)
	var id string
	if err == nil {
		id, err = h.api.SubscribeConfiguration(r.Context(), store, keys, metadata)
	}
	if err != nil {
		respondError(w, err)
		return
	}
	respondJSON(w, http.StatusOK, struct {
		ID string `json:"id"`
	}{id})
}

// onUnsubscribeConfiguration answers a subscription that is not there in a form
// of its own, as Dapr does.
func (h *handler) onUnsubscribeConfiguration(w http.ResponseWriter, r *http.Request) {
	path, err := names(r, "store", "id")
	if err == nil {
		err = h.api.UnsubscribeConfiguration(path[0], path[1])
	}
	var out struct {
		Ok      bool   `json:"ok,omitempty"`
		Message string `json:"message,omitempty"`
	}
	if e, ok := errors.AsType[*api.Error](err); ok && e.Problem == api.ConfigurationUnsubscribe {
		out.Message = e.Message
		respondJSON(w, e.Problem.HTTPStatus(), out)
		return
	}
	if err != nil {
		respondError(w, err)
		return
	}
	out.Ok = true
	respondJSON(w, http.StatusOK, out)
}

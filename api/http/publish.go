package http

import (
	"net/http"

	"github.com/go-chi/chi/v5"

	"github.com/penstock-io/penstock/api"
	"github.com/penstock-io/penstock/pubsub"
)

// onPublish is the router's way to publish; what has a topic goes the short way.
func (h *handler) onPublish(w http.ResponseWriter, r *http.Request) {
	h.publish(w, r, target{chi.URLParam(r, "bus"), chi.URLParam(r, "*")})
}

// publish takes one event. It is the hot path: per request it makes the body,
// the request and, when there is a query, the metadata.
func (h *handler) publish(w http.ResponseWriter, r *http.Request, t target) {
	req, bus, err := h.publishRequest(w, r, t)
	if err == nil {
		err = h.api.Publish(r.Context(), bus, req)
	}
	if err != nil {
		respondError(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (h *handler) publishRequest(w http.ResponseWriter, r *http.Request, t target) (*pubsub.PublishRequest, string, error) {
	bus, err := unescape("the pub/sub name", t.bus)
	if err != nil {
		return nil, "", err
	}
	topic, err := unescape("the topic", t.topic)
	if err != nil {
		return nil, "", err
	}
	metadata, err := queryMetadata(r.URL.RawQuery, api.PublishMetadata)
	if err != nil {
		return nil, "", err
	}
	tr, err := traceOf(r)
	if err != nil {
		return nil, "", err
	}
	body, err := h.readBody(w, r)
	if err != nil {
		return nil, "", err
	}
	return &pubsub.PublishRequest{
		Topic: topic, Data: body, ContentType: r.Header.Get("Content-Type"), Metadata: tr.Carry(metadata),
		TraceParent: tr.Parent, TraceState: tr.State,
	}, bus, nil
}

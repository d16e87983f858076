package http

import (
	"net/http"
)

// ownPrefix is before what Dapr's API does not have.
const ownPrefix = "/v1.0-penstock"

func (h *handler) onPauseRoute(w http.ResponseWriter, r *http.Request) {
	h.onRoute(w, r, h.api.PauseRoute)
}

func (h *handler) onResumeRoute(w http.ResponseWriter, r *http.Request) {
	h.onRoute(w, r, h.api.ResumeRoute)
}

func (h *handler) onRoute(w http.ResponseWriter, r *http.Request, do func(string) error) {
	name, err := names(r, "*")
	if err == nil {
		err = do(name[0])
	}
	respondDone(w, err)
}

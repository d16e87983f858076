package http

import (
	"net/http"

	"github.com/go-chi/chi/v5"

	"github.com/penstock-io/penstock/api"
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

// sourceRoutes adds the paths of where events come from.
func (h *handler) sourceRoutes(m *chi.Mux) {
	m.Get(ownPrefix+"/triggers", h.onTriggers)
	m.Post(ownPrefix+"/triggers/{name}/run", h.onRunTrigger)
	m.Get(ownPrefix+"/webhooks", h.onWebhooks)
}

func (h *handler) onTriggers(w http.ResponseWriter, _ *http.Request) {
	respondSecret(w, struct {
		Triggers []api.Trigger `json:"triggers"`
	}{h.api.Triggers()})
}

func (h *handler) onWebhooks(w http.ResponseWriter, _ *http.Request) {
	respondSecret(w, struct {
		Webhooks []api.Webhook `json:"webhooks"`
	}{h.api.Webhooks()})
}

// onRunTrigger answers 202 when the run has not ended yet.
func (h *handler) onRunTrigger(w http.ResponseWriter, r *http.Request) {
	name, err := names(r, "name")
	var run *api.TriggerRun
	if err == nil {
		run, err = h.api.RunTrigger(r.Context(), name[0])
	}
	if err != nil {
		respondError(w, err)
		return
	}
	status := http.StatusOK
	if run.Outcome == api.UnderWay {
		status = http.StatusAccepted
	}
	respondJSON(w, status, run)
}

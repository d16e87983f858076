package http

import (
	"net/http"

	"github.com/penstock-io/penstock/telemetry"
)

func (h *handler) onLogLevels(w http.ResponseWriter, _ *http.Request) {
	respondJSON(w, http.StatusOK, struct {
		Levels []telemetry.Level `json:"levels"`
	}{h.api.LogLevels()})
}

// onSetLogLevel answers with the levels as they are then.
func (h *handler) onSetLogLevel(w http.ResponseWriter, r *http.Request) {
	var in telemetry.Level
	body, err := h.readBody(w, r)
	if err == nil {
		err = strictly(body, &in)
	}
	if err == nil {
		err = h.api.SetLogLevel(in.Part, in.Level)
	}
	if err != nil {
		respondError(w, err)
		return
	}
	h.onLogLevels(w, r)
}

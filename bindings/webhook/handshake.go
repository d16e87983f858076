package webhook

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// handshake answers the OPTIONS request with which a sender of CloudEvents
// asks for consent. The callback it may offer is not used: consent is given at
// once or not at all.
func (h *hook) handshake(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Allow", strings.Join(h.o.Methods, ", "))
	origin := r.Header.Get("Webhook-Request-Origin")
	if origin == "" || len(origin) > maxText || !h.allows(origin) {
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	// The specification writes the names so; receivers may compare them as
	// they are.
	rate := "*"
	if h.o.Rate > 0 {
		rate = strconv.Itoa(h.o.Rate)
	}
	w.Header()["WebHook-Allowed-Origin"] = []string{origin}
	w.Header()["WebHook-Allowed-Rate"] = []string{rate}
	w.WriteHeader(http.StatusOK)
}

// allows tells whether origin is one of the allowed, without regard to case.
func (h *hook) allows(origin string) bool {
	return slices.ContainsFunc(h.o.Origins, func(o string) bool { return o == "*" || strings.EqualFold(o, origin) })
}

package http

import (
	"net/http"
	"strings"

	"github.com/go-chi/chi/v5"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/penstock-io/penstock/api"
	"github.com/penstock-io/penstock/invoke/message"
)

// invokePattern is that of calls of other apps, by whichever way their target is
// named. They do not go through the router, which knows nine verbs.
const (
	invokePattern = "/v1.0/invoke/*"
	invokePrefix  = "/v1.0/invoke/"
	appIDHeader   = "Dapr-App-Id"
)

// callee is whom a request calls, and what; both escaped as they were sent.
type callee struct {
	target, method string
	basic          bool // the target stood in the header Authorization
}

// callee finds out whether a request is a call of another app: by its path, or,
// where there is no API at that path, by the header dapr-app-id or a user of that
// name.
func (h *handler) callee(r *http.Request, path string) (c callee, ok bool) {
	if h.public {
		return c, false
	}
	if rest, ok := strings.CutPrefix(path, invokePrefix); ok {
		target, method, found := strings.Cut(rest, "/method/")
		if !found {
			if target, found = strings.CutSuffix(rest, "/method"); !found {
				return c, true
			}
		}
		if target, err := unescape("target", target); err == nil {
			c.target = target
		}
		c.method = method
		return c, true
	}
	id, basic := r.Header.Get(appIDHeader), false
	if id == "" {
		user, password, _ := r.BasicAuth()
		if basic = strings.EqualFold(user, appIDHeader); basic {
			id = password
		}
	}
	if id == "" || h.mux.Find(chi.NewRouteContext(), r.Method, path) != "" {
		return c, false
	}
	return callee{target: id, method: path, basic: basic}, true
}

// invoke carries out a call. The answer goes out as it comes in.
func (h *handler) invoke(w http.ResponseWriter, r *http.Request, c callee) {
	path, err := api.InvokePath(c.method)
	if err != nil {
		respondError(w, err)
		return
	}
	m, received := message.Receive(w, r, path)
	if c.basic {
		delete(m.Header, "Authorization")
	}
	answer, err := h.api.Invoke(r.Context(), c.target, m)
	received()
	if err != nil {
		respondError(w, err)
		return
	}
	defer answer.Body.Close()
	if answer.RPC != nil && answer.RPC.Code() != 0 {
		respondStatus(w, answer)
		return
	}
	if answer.Upgraded != nil {
		if err := message.Tunnel(w, answer, m.Upgrade); err != nil {
			respondError(w, err)
		}
		return
	}
	message.Relay(w, answer)
}

// respondStatus answers with the status of an app that speaks gRPC.
func respondStatus(w http.ResponseWriter, answer *message.Response) {
	message.Head(w.Header(), answer)
	body, err := protojson.Marshal(answer.RPC.Proto())
	if err != nil { // a detail of a type that is not known here
		plain := answer.RPC.Proto()
		plain.Details = nil
		body, _ = protojson.Marshal(plain) // a number and a text
	}
	w.Header().Del("Trailer")
	respond(w, answer.Status, "application/json", body)
}

package http

import (
	"encoding/json"
	"net/http"
	"unicode/utf8"

	"github.com/penstock-io/penstock/api"
	"github.com/penstock-io/penstock/bindings"
)

// onBinding calls an output binding.
func (h *handler) onBinding(w http.ResponseWriter, r *http.Request) {
	call, err := h.bindingCall(w, r)
	var resp *bindings.Response
	if err == nil {
		resp, err = h.api.InvokeBinding(r.Context(), call)
	}
	switch {
	case err != nil:
		respondError(w, err)
	case resp == nil || len(resp.Data) == 0 && len(resp.Metadata) == 0:
		w.WriteHeader(http.StatusNoContent)
	default:
		for k, v := range resp.Metadata {
			w.Header().Set(metadataPrefix+k, v)
		}
		respond(w, http.StatusOK, kindOf(resp.Data), resp.Data)
	}
}

func (h *handler) bindingCall(w http.ResponseWriter, r *http.Request) (*api.Binding, error) {
	path, err := names(r, "name")
	if err != nil {
		return nil, err
	}
	call := &api.Binding{Name: path[0]}
	if call.Trace, err = traceOf(r); err != nil {
		return nil, err
	}
	query, err := queryMetadata(r.URL.RawQuery, api.BadRequest)
	if err != nil {
		return nil, err
	}
	body, err := h.readBody(w, r)
	if err != nil {
		return nil, err
	}
	call.Request, err = readBinding(body)
	for k, v := range query {
		if _, set := call.Request.Metadata[k]; !set {
			if call.Request.Metadata == nil {
				call.Request.Metadata = map[string]string{}
			}
			call.Request.Metadata[k] = v
		}
	}
	return call, err
}

// readBinding reads {data, metadata, operation}. Data is handed on byte for
// byte, a JSON string as its text.
func readBinding(body []byte) (bindings.Request, error) {
	if !utf8.Valid(body) {
		return bindings.Request{}, api.Errorf(api.Malformed, "read binding request: the body is not UTF-8")
	}
	var b struct {
		Data      json.RawMessage   `json:"data"`
		Metadata  map[string]string `json:"metadata"`
		Operation string            `json:"operation"`
	}
	if err := json.Unmarshal(body, &b); err != nil {
		return bindings.Request{}, api.Errorf(api.Malformed,
			"read binding request: the body is not {data, metadata, operation} with text as metadata: %w", err)
	}
	r := bindings.Request{Operation: b.Operation, Metadata: b.Metadata, Data: b.Data}
	switch {
	case string(b.Data) == "null":
		r.Data = nil
	case len(b.Data) > 0 && b.Data[0] == '"':
		text, err := textOf(b.Data)
		if err != nil {
			return r, api.Errorf(api.Malformed, "read binding request: data: %w", err)
		}
		r.Data = []byte(text)
	}
	return r, nil
}

// kindOf returns the content type of an answer that does not say what it is.
func kindOf(data []byte) string {
	switch {
	case json.Valid(data):
		return "application/json"
	case utf8.Valid(data):
		return "text/plain; charset=utf-8"
	default:
		return "application/octet-stream"
	}
}

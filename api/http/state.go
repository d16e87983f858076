package http

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"unicode/utf8"

	"github.com/go-chi/chi/v5"

	"github.com/penstock-io/penstock/api"
	"github.com/penstock-io/penstock/state"
)

// stateRoutes are the paths of the state API.
func (h *handler) stateRoutes(m *chi.Mux) {
	m.Get("/v1.0/state/{store}/{key}", h.onGetState)
	m.Delete("/v1.0/state/{store}/{key}", h.onDeleteState)
	write(m, "/v1.0/state/{store}", h.onSaveState)
	write(m, "/v1.0/state/{store}/bulk", h.onBulkGetState)
	write(m, "/v1.0/state/{store}/transaction", h.onTransactState)
	write(m, "/v1.0-alpha1/state/{store}/query", h.onQueryState)
	m.Get(ownPrefix+"/state/{store}", h.onStateKeys)
}

// stateCall is what requests of the state API have in common.
type stateCall struct {
	store, key string
	metadata   map[string]string
	options    state.Options
}

// stateCall reads the path and the query.
func (h *handler) stateCall(r *http.Request, params ...string) (c stateCall, err error) {
	path, err := names(r, params...)
	if err != nil {
		return c, err
	}
	if c.store = path[0]; len(path) > 1 {
		c.key = path[1]
	}
	if r.URL.RawQuery == "" {
		return c, nil
	}
	if c.metadata, err = queryMetadata(r.URL.RawQuery, api.BadRequest); err != nil {
		return c, err
	}
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return c, api.Errorf(api.BadRequest, "read query: %w", err)
	}
	c.options = state.Options{Concurrency: q.Get("concurrency"), Consistency: q.Get("consistency")}
	return c, nil
}

func (h *handler) onGetState(w http.ResponseWriter, r *http.Request) {
	c, err := h.stateCall(r, "store", "key")
	var read state.Read
	if err == nil {
		read, err = c.read()
	}
	var it state.Item
	if err == nil {
		it, err = h.api.GetState(r.Context(), c.store, c.key, read)
	}
	switch {
	case err != nil:
		respondError(w, err)
	case !it.Found:
		w.WriteHeader(http.StatusNoContent)
	default:
		if it.ETag != "" {
			w.Header()["Etag"] = []string{it.ETag}
		}
		for k, v := range api.StateMetadata(&it) {
			w.Header().Set(metadataPrefix+k, v)
		}
		respond(w, http.StatusOK, "application/json", it.Value)
	}
}

func (c *stateCall) read() (r state.Read, err error) {
	r.Metadata = c.metadata
	if r.Strong, err = c.options.Strong(); err != nil {
		return r, api.Errorf(api.Malformed, "%w", err)
	}
	return r, nil
}

func (h *handler) onDeleteState(w http.ResponseWriter, r *http.Request) {
	c, err := h.stateCall(r, "store", "key")
	change := state.Change{Key: c.key, Metadata: c.metadata}
	if err == nil {
		if bad := c.options.Put(&change); bad != nil {
			err = api.Errorf(api.Malformed, "%w", bad)
		}
	}
	if tags := r.Header["If-Match"]; len(tags) > 0 {
		change.ETag = new(unquote(tags[0]))
	}
	if err == nil {
		err = h.api.DeleteState(r.Context(), c.store, change)
	}
	respondDone(w, err)
}

func (h *handler) onSaveState(w http.ResponseWriter, r *http.Request) {
	c, err := h.stateCall(r, "store")
	var body []byte
	if err == nil {
		body, err = h.readJSON(w, r)
	}
	var items []state.Document
	if err == nil {
		err = decode(body, &items, "state", "an array of {key, value, etag, metadata, options}")
	}
	changes := make([]state.Change, len(items))
	for i := range items {
		if err == nil {
			changes[i], err = change(&items[i], c.metadata)
		}
	}
	if err == nil {
		err = h.api.SaveState(r.Context(), c.store, changes)
	}
	respondDone(w, err)
}

// unquote takes off the quotation marks that HTTP wants around an ETag and Dapr
// does without.
func unquote(tag string) string {
	if len(tag) >= 2 && tag[0] == '"' && tag[len(tag)-1] == '"' {
		return tag[1 : len(tag)-1]
	}
	return tag
}

// readJSON reads a body that must be UTF-8, as JSON is.
func (h *handler) readJSON(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	body, err := h.readBody(w, r)
	if err == nil && !utf8.Valid(body) {
		err = api.Errorf(api.Malformed, "read request: the body is not UTF-8")
	}
	return body, err
}

func decode(body []byte, into any, what, want string) error {
	if err := json.Unmarshal(body, into); err != nil {
		return api.Errorf(api.Malformed, "read %s: the body is not %s: %w", what, want, err)
	}
	return nil
}

// change makes a document a change; what the query says of metadata counts more.
func change(d *state.Document, query map[string]string) (state.Change, error) {
	if d.Key == "" {
		return state.Change{}, api.Errorf(api.Malformed, `read state: "key" is a required field`)
	}
	c, err := d.Change()
	if err != nil {
		return c, api.Errorf(api.Malformed, "%w", err)
	}
	if len(query) > 0 {
		c.Metadata = maps.Clone(query)
		for k, v := range d.Metadata {
			if _, set := query[k]; !set {
				c.Metadata[k] = v
			}
		}
	}
	return c, nil
}

// bulkItem is one item of an answer.
type bulkItem struct {
	Key      string            `json:"key"`
	Data     json.RawMessage   `json:"data,omitempty"`
	ETag     string            `json:"etag,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"`
	Error    string            `json:"error,omitempty"`
}

func (h *handler) onBulkGetState(w http.ResponseWriter, r *http.Request) {
	c, err := h.stateCall(r, "store")
	var body []byte
	if err == nil {
		body, err = h.readJSON(w, r)
	}
	var in struct {
		Keys        []string          `json:"keys"`
		Parallelism int               `json:"parallelism"`
		Metadata    map[string]string `json:"metadata"`
	}
	if err == nil {
		err = decode(body, &in, "keys", "{keys, parallelism, metadata}")
	}
	read := state.Read{Parallel: in.Parallelism, Metadata: in.Metadata}
	for k, v := range c.metadata {
		if read.Metadata == nil {
			read.Metadata = map[string]string{}
		}
		read.Metadata[k] = v
	}
	var items []state.Item
	if err == nil {
		items, err = h.api.BulkGetState(r.Context(), c.store, in.Keys, read)
	}
	if err != nil {
		respondError(w, err)
		return
	}
	out := make([]bulkItem, len(items))
	for i := range items {
		out[i] = answer(in.Keys[i], &items[i])
	}
	respondJSON(w, http.StatusOK, out)
}

// answer is an item as answers have it. A value that is not JSON, which gRPC
// can save, is a JSON string of its text.
func answer(key string, it *state.Item) bulkItem {
	out := bulkItem{Key: key, ETag: it.ETag, Metadata: api.StateMetadata(it)}
	switch {
	case it.Err != nil:
		return bulkItem{Key: key, Error: it.Err.Error()}
	case len(it.Value) == 0:
	case json.Valid(it.Value):
		out.Data = it.Value
	default:
		out.Data, _ = json.Marshal(string(it.Value)) // a string always can be
	}
	return out
}

func (h *handler) onTransactState(w http.ResponseWriter, r *http.Request) {
	c, err := h.stateCall(r, "store")
	var body []byte
	if err == nil {
		body, err = h.readJSON(w, r)
	}
	var in struct {
		Operations []struct {
			Operation string         `json:"operation"`
			Request   state.Document `json:"request"`
		} `json:"operations"`
		Metadata map[string]string `json:"metadata"`
	}
	if err == nil {
		err = decode(body, &in, "transaction", "{operations: [{operation, request}], metadata}")
	}
	changes := make([]state.Change, len(in.Operations))
	for i := range in.Operations {
		if err != nil {
			break
		}
		op := &in.Operations[i]
		changes[i], err = change(&op.Request, c.metadata)
		changes[i].Delete = op.Operation == "delete"
		if op.Operation != "upsert" && op.Operation != "delete" {
			err = api.Errorf(api.StateOperation, "read transaction: operation %q is neither upsert nor delete", cut(op.Operation))
		}
	}
	var tr api.Trace
	if err == nil {
		tr, err = traceOf(r)
	}
	if err == nil {
		err = h.api.TransactState(r.Context(), c.store, changes, tr)
	}
	respondDone(w, err)
}

// onQueryState answers a query, with 204 when nothing satisfies it.
func (h *handler) onQueryState(w http.ResponseWriter, r *http.Request) {
	c, err := h.stateCall(r, "store")
	var body []byte
	if err == nil {
		body, err = h.readJSON(w, r)
	}
	var page state.Page
	if err == nil {
		page, err = h.api.QueryState(r.Context(), c.store, body, c.metadata)
	}
	switch {
	case err != nil:
		respondError(w, err)
		return
	case len(page.Keys) == 0:
		w.WriteHeader(http.StatusNoContent)
		return
	}
	out := struct {
		Results []bulkItem `json:"results"`
		Token   string     `json:"token,omitempty"`
	}{make([]bulkItem, len(page.Keys)), page.Token}
	for i := range page.Keys {
		out.Results[i] = answer(page.Keys[i], &page.Items[i])
	}
	respondJSON(w, http.StatusOK, out)
}

// maxKeys is the most keys of one page.
const maxKeys = 1000

// onStateKeys lists keys: ours, Dapr has no such call.
func (h *handler) onStateKeys(w http.ResponseWriter, r *http.Request) {
	c, err := h.stateCall(r, "store")
	if err != nil {
		respondError(w, err)
		return
	}
	q := r.URL.Query()
	limit := maxKeys
	if text := q.Get("limit"); text != "" {
		if limit, err = strconv.Atoi(text); err != nil || limit < 1 || limit > maxKeys {
			err = api.Errorf(api.BadRequest, "read limit: %q is not a number from 1 to %d", cut(text), maxKeys)
		}
	}
	var out struct {
		Keys  []string `json:"keys"`
		Token string   `json:"token,omitempty"`
	}
	if err == nil {
		out.Keys, out.Token, err = h.api.StateKeys(r.Context(), c.store, q.Get("prefix"), q.Get("token"), limit)
	}
	if err != nil {
		respondError(w, err)
		return
	}
	if out.Keys == nil {
		out.Keys = []string{}
	}
	respondJSON(w, http.StatusOK, out)
}

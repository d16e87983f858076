package http

import (
	"bytes"
	"encoding/json"
	"math"
	"net/http"
	"strconv"
	"unicode/utf8"

	"github.com/go-chi/chi/v5"

	"github.com/penstock-io/penstock/api"
	"github.com/penstock-io/penstock/lock"
)

// fenceHeader carries the fencing token on Dapr's path, whose body has no place
// for it.
const fenceHeader = "Penstock-Fencing-Token"

// lockRoutes adds the paths of locks: Dapr's, and those with renewal and tokens,
// which Dapr does not have.
func (h *handler) lockRoutes(m *chi.Mux) {
	m.Post("/v1.0-alpha1/lock/{store}", h.onTryLock)
	m.Post("/v1.0-alpha1/unlock/{store}", h.onUnlock)
	m.Post(ownPrefix+"/lock/{store}", h.onTryLockToken)
	m.Post(ownPrefix+"/lock/{store}/renew", h.onRenewLock)
	m.Post(ownPrefix+"/unlock/{store}", h.onUnlock)
}

func (h *handler) onTryLock(w http.ResponseWriter, r *http.Request) {
	g, err := h.tryLock(w, r)
	if err != nil {
		respondError(w, err)
		return
	}
	if g.Held {
		w.Header().Set(fenceHeader, strconv.FormatInt(g.Token, 10))
	}
	respondJSON(w, http.StatusOK, struct {
		Success bool `json:"success"`
	}{g.Held})
}

func (h *handler) onTryLockToken(w http.ResponseWriter, r *http.Request) {
	g, err := h.tryLock(w, r)
	if err != nil {
		respondError(w, err)
		return
	}
	respondJSON(w, http.StatusOK, struct {
		Success bool  `json:"success"`
		Token   int64 `json:"fencingToken,omitempty"`
	}{g.Held, g.Token})
}

func (h *handler) tryLock(w http.ResponseWriter, r *http.Request) (lock.Grant, error) {
	l, err := h.lockRequest(w, r)
	if err != nil {
		return lock.Grant{}, err
	}
	return h.api.TryLock(r.Context(), l)
}

func (h *handler) onRenewLock(w http.ResponseWriter, r *http.Request) {
	l, err := h.lockRequest(w, r)
	st := lock.Failed
	if err == nil {
		st, err = h.api.RenewLock(r.Context(), l)
	}
	respondLock(w, st, err)
}

func (h *handler) onUnlock(w http.ResponseWriter, r *http.Request) {
	l, err := h.lockRequest(w, r)
	st := lock.Failed
	if err == nil {
		st, err = h.api.Unlock(r.Context(), l)
	}
	respondLock(w, st, err)
}

func respondLock(w http.ResponseWriter, st lock.Status, err error) {
	if err != nil {
		respondError(w, err)
		return
	}
	respondJSON(w, http.StatusOK, struct {
		Status lock.Status `json:"status"`
	}{st})
}

// lockRequest reads {resourceId, lockOwner, expiryInSeconds}. An empty body has
// none of them.
func (h *handler) lockRequest(w http.ResponseWriter, r *http.Request) (*api.Lock, error) {
	path, err := names(r, "store")
	if err != nil {
		return nil, err
	}
	body, err := h.readBody(w, r)
	if err != nil {
		return nil, err
	}
	var in struct {
		Resource string `json:"resourceId"`
		Owner    string `json:"lockOwner"`
		Expiry   int32s `json:"expiryInSeconds"`
	}
	if len(body) > 0 {
		if !utf8.Valid(body) {
			return nil, api.Errorf(api.Malformed, "read lock request: the body is not UTF-8")
		}
		if err := json.Unmarshal(body, &in); err != nil {
			return nil, api.Errorf(api.Malformed, "read lock request: the body is not {resourceId, lockOwner, expiryInSeconds}: %w", err)
		}
	}
	return &api.Lock{Store: path[0], Resource: in.Resource, Owner: in.Owner, Seconds: int32(in.Expiry)}, nil
}

// int32s is an int32 as JSON of protocol buffers has it: a whole number, also
// written as a text.
type int32s int32

// UnmarshalJSON implements [json.Unmarshaler].
func (n *int32s) UnmarshalJSON(text []byte) error {
	text = bytes.Trim(text, `"`)
	if string(text) == "null" {
		return nil
	}
	v, err := strconv.ParseFloat(string(text), 64)
	if err != nil || v != math.Trunc(v) || v < math.MinInt32 || v > math.MaxInt32 {
		return api.Errorf(api.Malformed, "%s is not a whole number of 32 bits", cut(string(text)))
	}
	*n = int32s(v)
	return nil
}

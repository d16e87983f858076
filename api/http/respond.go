package http

import (
	"encoding/json"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/penstock-io/penstock/api"
	"github.com/penstock-io/penstock/fault"
)

// respondError writes an error as the contract wants it: status, errorCode,
// message, and details where Dapr has them.
func respondError(w http.ResponseWriter, err error) {
	e := api.AsError(err)
	if sw, ok := w.(*statusWriter); ok {
		sw.problem = &e.Problem
	}
	setRetryAfter(w, e)
	respondJSON(w, e.Problem.HTTPStatus(), e)
}

// setRetryAfter passes on the pause that the other side asked for.
func setRetryAfter(w http.ResponseWriter, err error) {
	if after := fault.RetryAfter(err); after > 0 {
		w.Header().Set("Retry-After", strconv.FormatInt(int64(math.Ceil(float64(after)/float64(time.Second))), 10))
	}
}

func respondJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		status, body = http.StatusInternalServerError, []byte(`{"errorCode":"ERR_INTERNAL","message":"encode answer"}`)
	}
	respond(w, status, "application/json", body)
}

// respond writes a whole answer. Writing fails only when the client is gone,
// and then there is nobody to tell.
func respond(w http.ResponseWriter, status int, contentType string, body []byte) {
	header := w.Header()
	values := [...]string{contentType, "nosniff", strconv.Itoa(len(body))} // one allocation for all
	header["Content-Type"] = values[0:1:1]
	header["X-Content-Type-Options"] = values[1:2:2]
	header["Content-Length"] = values[2:3:3]
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

package http

import (
	"cmp"
	"net/http"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/penstock-io/penstock/api"
)

// publishPattern is that of requests which do not go through the router.
const publishPattern = "/v1.0/publish/{bus}/*"

// pattern returns the pattern of the API that a request is dispatched to; empty
// when there is none.
func (h *handler) pattern(r *http.Request, path string) string {
	if _, ok := publishTarget(r.Method, path); ok && !h.public {
		return publishPattern
	}
	if _, ok := h.callee(r, path); ok {
		return invokePattern
	}
	return h.mux.Find(chi.NewRouteContext(), r.Method, path)
}

// denied answers requests for APIs that the Configuration takes away. It tells
// whether it answered. Whatever has a route is looked at, so that no handler
// has to think of it.
func (h *handler) denied(w http.ResponseWriter, r *http.Request, path string) bool {
	if h.own || !h.api.Restricted() {
		return false
	}
	pattern := h.pattern(r, path)
	if pattern == "" {
		return false
	}
	version, name, _ := strings.Cut(strings.TrimPrefix(pattern, "/"), "/")
	if err := h.api.Allow(api.HTTP, version, name); err != nil {
		respondError(w, err)
		return true
	}
	return false
}

// noAPI stands for the path of a request that no API is for.
const noAPI = "(no API)"

// ended counts a request, and logs it where that was asked for.
func (h *handler) ended(r *http.Request, path string, w *statusWriter, start time.Time, logs bool) {
	if h.metrics != nil {
		h.metrics.HTTPRequest(r.Method, cmp.Or(h.pattern(r, path), noAPI), w.code(), start)
		if w.problem != nil {
			h.metrics.ErrorCode(w.problem.Code(), w.problem.Category())
		}
	}
	if logs {
		h.logged(r, path, w, start)
	}
}

// logged writes the line of a request that has ended. The words are Dapr's,
// because tools look for them.
func (h *handler) logged(r *http.Request, path string, w *statusWriter, start time.Time) {
	if h.api.Log().Obfuscate {
		path = cmp.Or(h.pattern(r, path), noAPI)
	}
	h.log.Info("HTTP API Called", "method", cut(r.Method)+" "+cut(withoutUser(path)), "code", w.code(), "size", w.size,
		"duration", time.Since(start).Milliseconds(), "useragent", cut(r.UserAgent()))
}

// withoutUser takes the user and password out of each URL in a path, which may be
// called through the API. All else stays as it is.
func withoutUser(path string) string {
	for from := 0; from < len(path); {
		colon := written(path[from:], ":", "%3a")
		host := from + colon + slashes(path[from+colon:])
		if colon == 0 || host == from+colon {
			from++
			continue
		}
		end := host
		for end < len(path) && slashes(path[end:]) == 0 {
			end++
		}
		from = host
		if user := max(strings.LastIndexByte(path[host:end], '@'), strings.LastIndex(path[host:end], "%40")); user >= 0 {
			path = path[:host] + "***" + path[host+user:]
			from += len("***")
		}
	}
	return path
}

// written is the length of the character that a text begins with, as it is or
// escaped; 0: it begins with another one.
func written(text, plain, escaped string) int {
	switch {
	case strings.HasPrefix(text, plain):
		return len(plain)
	case len(text) >= len(escaped) && strings.EqualFold(text[:len(escaped)], escaped):
		return len(escaped)
	}
	return 0
}

// slashes is the length of the slashes that a text begins with, as they are or
// escaped.
func slashes(text string) (n int) {
	for {
		one := written(text[n:], "/", "%2f")
		if one == 0 {
			return n
		}
		n += one
	}
}

// cut keeps log lines readable whatever a client sends.
func cut(s string) string {
	const limit = 256
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "") + "..."
}

// statusWriter remembers for the log how a request was answered.
type statusWriter struct {
	http.ResponseWriter
	status int
	size   int64 // of the body, in bytes
	// problem is what the answer says is wrong; nil: nothing.
	problem *api.Problem
}

// WriteHeader implements [http.ResponseWriter].
func (w *statusWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements [http.ResponseWriter].
func (w *statusWriter) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	w.size += int64(n)
	return n, err
}

// Unwrap lets [http.ResponseController] reach the connection.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *statusWriter) code() int {
	if w.status == 0 {
		return http.StatusOK
	}
	return w.status
}

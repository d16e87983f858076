package middleware

import (
	"net/http"
	"sync"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
)

// Handler is one configured middleware: the type everybody but implementations
// uses.
type Handler struct {
	name     string
	instance *component.Instance[Driver]
}

// New makes the handler of a component; nothing is opened before Run of its
// instance.
func New(def component.Definition, env component.Env, c config.Component) (*Handler, error) {
	return &Handler{name: c.Name, instance: component.NewInstance[Driver](def, env, c.Metadata, c.InitTimeout)}, nil
}

// Instance returns the component's life: opening, state, closing.
func (h *Handler) Instance() *component.Instance[Driver] { return h.instance }

// Name returns the component's name.
func (h *Handler) Name() string { return h.name }

// Wrap returns a handler that passes requests through the middleware to next.
// As long as the middleware is not open, it answers 503. A request that is in it
// keeps it open.
func (h *Handler) Wrap(next http.Handler) http.Handler {
	return &wrapped{h: h, next: next}
}

type wrapped struct {
	h    *Handler
	next http.Handler

	once   sync.Once // an instance opens one driver, and only one
	driver http.Handler
}

// ServeHTTP implements [http.Handler].
func (w *wrapped) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	d, err := w.h.instance.Acquire()
	if err != nil {
		refuse(rw, w.h.name)
		return
	}
	defer w.h.instance.Release()
	w.once.Do(func() { w.driver = d.Wrap(w.next) })
	w.driver.ServeHTTP(rw, r)
}

// refuse answers for a middleware that is not there. Why it is not is told by
// the log and the metadata document, not to whoever calls.
func refuse(w http.ResponseWriter, name string) {
	w.Header().Set("Retry-After", "1")
	Respond(w, http.StatusServiceUnavailable, "middleware "+name+" is not ready")
}

// Respond answers with a plain text, as Dapr's middlewares do; an empty text is
// that of the status.
func Respond(w http.ResponseWriter, status int, text string) {
	if text == "" {
		text = http.StatusText(status)
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text)) // there is nobody else to tell
}

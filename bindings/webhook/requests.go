package webhook

import (
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/penstock-io/penstock/bindings"
)

// requests remembers those that were answered last.
type requests struct {
	mu   sync.Mutex
	ring [bindings.MaxRequests]bindings.HookRequest
	n    int // how many there were
}

// maxIDs is how many ids of a request's events are remembered.
const maxIDs = 4

// add notes the answer to a request. Of what the sender wrote only the ids of
// events that were taken are kept.
func (rs *requests) add(r *http.Request, a *answer, began time.Time, took time.Duration) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.ring[rs.n%len(rs.ring)] = bindings.HookRequest{
		Time: began, Method: r.Method, Status: a.status, Bytes: max(r.ContentLength, 0), Duration: took,
		Remote: r.RemoteAddr, Answer: oneLine(a.body), IDs: a.ids,
	}
	rs.n++
}

// oneLine is an answer as it is shown.
func oneLine(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	return strings.ToValidUTF8(s[:min(len(s), 200)], "")
}

// last returns them, the newest first.
func (rs *requests) last() []bindings.HookRequest {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	out := make([]bindings.HookRequest, 0, len(rs.ring))
	for n := rs.n; n > 0 && n > rs.n-len(rs.ring); n-- {
		out = append(out, rs.ring[(n-1)%len(rs.ring)])
	}
	return out
}

// idsOf are those of a request's events.
func idsOf(items []item) (ids []string) {
	for _, it := range items[:min(len(items), maxIDs)] {
		if it.event != nil {
			ids = append(ids, strings.Clone(it.event.ID()))
		}
	}
	return ids
}

// Hook implements [bindings.Hooked].
func (r *receiver) Hook() bindings.Hook {
	return bindings.Hook{
		URL: "http://" + r.listener.address + r.hook.path, Path: r.hook.path, Signature: r.hook.o.preset(), Taking: r.hook.ready(),
		Requests: r.hook.requests.last(),
	}
}

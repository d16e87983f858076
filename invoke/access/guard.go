package access

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/invoke/identity"
	"github.com/penstock-io/penstock/invoke/message"
)

// Guard asks the list in use. A nil Guard, and one without a list, allows every
// call. It is safe for concurrent use.
type Guard struct {
	log  *slog.Logger
	list atomic.Pointer[List]

	mu     sync.Mutex // guards what follows
	logged time.Time  // when a call was logged last
	unsaid int        // calls that were denied since, and not logged
}

// NewGuard makes a Guard without a list. Calls that it denies are logged, one a
// second at most.
func NewGuard(log *slog.Logger) *Guard { return &Guard{log: log} }

// Set puts another list in place of the one in use, for calls that begin after it.
func (g *Guard) Set(l *List) { g.list.Store(l) }

// Check returns an error of kind denied, in Dapr's words, for a call that may not
// go on.
func (g *Guard) Check(c Call) error {
	if g == nil {
		return nil
	}
	l := g.list.Load()
	if l.Allows(c) {
		return nil
	}
	if c.Own {
		c.Caller = l.own
	}
	id := "(unknown)"
	if c.Caller != (identity.ID{}) {
		id = c.Caller.String()
	}
	operation := message.Plain(c.Path)
	g.tell(id, operation, c.Verb)
	return fault.New(fault.Denied, "access control policy has denied access to id: %.300s operation: %.200s verb: %.32s", id, operation, orNone(c.Verb))
}

func orNone(verb string) string {
	if verb == "" {
		return "NONE"
	}
	return verb
}

// tell logs a call that is denied. Whoever is denied may call as often as they
// like: one line a second is enough to find out who it is.
func (g *Guard) tell(id, operation, verb string) {
	g.mu.Lock()
	now := time.Now()
	if now.Sub(g.logged) < time.Second {
		g.unsaid++
		g.mu.Unlock()
		return
	}
	unsaid := g.unsaid
	g.logged, g.unsaid = now, 0
	g.mu.Unlock()
	g.log.Warn("Call denied by access control", "caller", id, "operation", cut(operation), "verb", verb, "denied_before", unsaid)
}

// cut shortens a path for the log.
func cut(s string) string {
	const limit = 200
	return s[:min(len(s), limit)]
}

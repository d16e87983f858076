package webhook

import (
	"sync"
	"time"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
)

// maxRemembered bounds the delivered ids kept in memory.
const maxRemembered = 65536

// entry is one delivery: under way until done is closed, then settled.
type entry struct {
	done    chan struct{}
	outcome cloudevents.Outcome // read after done
}

// memory joins repetitions of a delivery to the first one, and remembers those
// that were taken for a while. What is under way is bounded by the router's
// window, the rest by maxRemembered.
type memory struct {
	now func() time.Time

	mu      sync.Mutex
	window  time.Duration
	entries map[string]*entry
	settled []settled // oldest first
}

type settled struct {
	key string
	at  time.Time
}

func newMemory(window time.Duration, now func() time.Time) *memory {
	return &memory{window: window, now: now, entries: map[string]*entry{}}
}

// openMemory returns the memory of one component. The next version of the same
// component shares it.
func openMemory(env component.Env, window time.Duration) (*memory, func() error, error) {
	m, release, err := component.Share(env.Shared, "webhook ids "+env.Name, func() (*memory, func() error, error) {
		return newMemory(window, time.Now), func() error { return nil }, nil
	})
	if err != nil {
		return nil, nil, err
	}
	m.mu.Lock()
	m.window = window
	m.mu.Unlock()
	return m, release, nil
}

// claim returns the delivery of that key and whether the caller must carry it
// out, and then call finish.
func (m *memory) claim(key string) (e *entry, fresh bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.forget()
	if e = m.entries[key]; e != nil {
		return e, false
	}
	e = &entry{done: make(chan struct{})}
	m.entries[key] = e
	return e, true
}

// finish settles a delivery. One that was not taken is forgotten at once, so
// that a repetition is delivered again. A second outcome changes nothing.
func (m *memory) finish(key string, e *entry, o cloudevents.Outcome) {
	m.mu.Lock()
	defer m.mu.Unlock()
	select {
	case <-e.done:
		return // the first outcome counts
	default:
	}
	e.outcome = o
	close(e.done)
	if !taken(o) || m.window == 0 {
		delete(m.entries, key)
		return
	}
	m.settled = append(m.settled, settled{key, m.now()})
	m.forget()
}

// forget drops what is too old or too much. mu is held.
func (m *memory) forget() {
	n := max(0, len(m.settled)-maxRemembered)
	oldest := m.now().Add(-m.window)
	for n < len(m.settled) && m.settled[n].at.Before(oldest) {
		n++
	}
	for _, s := range m.settled[:n] {
		delete(m.entries, s.key)
	}
	clear(m.settled[:n]) // the array lives on until append replaces it
	m.settled = m.settled[n:]
}

// taken tells whether the sender is done with a delivery that ended so.
func taken(o cloudevents.Outcome) bool {
	return o.Verdict == cloudevents.Ack || o.Verdict == cloudevents.Drop
}

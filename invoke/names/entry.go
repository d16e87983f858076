package names

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/penstock-io/penstock/fault"
)

// entry is what is known of one app.
type entry struct {
	app   App
	view  atomic.Pointer[view] // nil before the first answer
	doubt atomic.Bool          // an instance was away: ask again soon

	mu      sync.Mutex    // guards looking; view is written with it held
	looking chan struct{} // closed when the question under way has ended; nil: none
}

// view is one answer, which does not change.
type view struct {
	peers []*peer
	err   error     // instead of peers
	at    time.Time // when it came
	next  time.Time // when to ask again
	until time.Time // when to wait for the answer
}

// due tells whether to ask again in the background.
func (e *entry) due(v *view, now time.Time) bool {
	return now.After(v.next) || e.doubt.Load() && now.Sub(v.at) > failing
}

// idle tells whether no question is under way.
func (e *entry) idle() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.looking == nil
}

// since is when the app was last asked about, within what an answer is fresh.
func (e *entry) since() time.Time {
	if v := e.view.Load(); v != nil {
		return v.at
	}
	return time.Time{}
}

// learn takes the answer to the question under way. Instances that stay keep
// what is known of them; a resolver that fails leaves what it said before.
func (e *entry) learn(addresses []string, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	defer func() { close(e.looking); e.looking = nil }()
	e.doubt.Store(false)
	old := e.view.Load()
	now := time.Now()
	switch {
	case err == nil:
		e.view.Store(&view{peers: e.peers(old, addresses), at: now, next: now.Add(fresh), until: now.Add(stale)})
	case fault.KindOf(err) == fault.NotFound:
		err = fault.Wrap(err, "find app %q", short(e.app.ID))
		e.view.Store(&view{err: err, at: now, next: now.Add(missing), until: now.Add(missing)})
	case old != nil && old.err == nil:
		e.view.Store(&view{peers: old.peers, at: now, next: now.Add(failing), until: now.Add(stale)})
	default:
		err = fault.Wrap(err, "find app %q", short(e.app.ID))
		e.view.Store(&view{err: err, at: now, next: now.Add(failing), until: now.Add(failing)})
	}
}

// peers returns the instances at addresses, those known already as they are.
func (e *entry) peers(old *view, addresses []string) []*peer {
	known := map[string]*peer{}
	if old != nil {
		for _, p := range old.peers {
			known[p.address] = p
		}
	}
	list := make([]*peer, 0, len(addresses))
	for _, a := range addresses {
		p := known[a]
		if p == nil {
			p = newPeer(a, &e.doubt)
		}
		list = append(list, p)
	}
	return list
}

// pick chooses one of at least one instance: of two by chance the one with fewer
// calls under way. One whose time to be tried again has come goes first. When all
// are away any of them does.
func (v *view) pick(now time.Time) (*peer, func(error)) {
	n := len(v.peers)
	if n == 1 {
		p := v.peers[0]
		p.calls.Add(1)
		return p, p.done
	}
	first, probe := v.usable(rand.IntN(n), nil, now)
	if first == nil {
		first = v.peers[rand.IntN(n)]
		first.calls.Add(1)
		return first, first.done
	}
	if !probe {
		var second *peer
		if second, probe = v.usable(rand.IntN(n), first, now); second != nil && (probe || second.calls.Load() < first.calls.Load()) {
			first = second
		}
	}
	first.calls.Add(1)
	if probe {
		return first, first.probed
	}
	return first, first.done
}

// away tells whether no instance could be reached last time.
func (v *view) away() bool {
	for _, p := range v.peers {
		if !p.away.Load() {
			return false
		}
	}
	return len(v.peers) > 0
}

// usable returns the first instance from place at on that may be called, other
// than not, and whether it is to be called as a probe. nil when there is none.
func (v *view) usable(at int, not *peer, now time.Time) (p *peer, probe bool) {
	n := len(v.peers)
	for i := range n {
		p := v.peers[(at+i)%n]
		if p == not {
			continue
		}
		if ok, probe := p.usable(now); ok {
			return p, probe
		}
	}
	return nil, false
}

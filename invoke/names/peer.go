package names

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/penstock-io/penstock/fault"
)

// Pauses of an instance that cannot be reached. They double.
const (
	awayFirst = 250 * time.Millisecond
	awayMost  = 30 * time.Second
	// slowMost is how many calls in a row may run into their time-out.
	slowMost = 3
)

// peer is one instance.
type peer struct {
	address string
	calls   atomic.Int64 // under way
	doubt   *atomic.Bool // of its app
	slow    atomic.Int32 // time-outs in a row
	away    atomic.Bool  // it is not to be called before again

	mu      sync.Mutex    // guards what follows
	again   time.Time     // when a probe may go
	probing bool          // one is under way
	pause   time.Duration // the last one; zero when the instance is not away

	done, probed func(error) // made once, so that a call allocates nothing
}

func newPeer(address string, doubt *atomic.Bool) *peer {
	p := &peer{address: address, doubt: doubt}
	p.done = func(err error) { p.finish(err, false) }
	p.probed = func(err error) { p.finish(err, true) }
	return p
}

// usable tells whether the instance may be called now, and whether as a probe:
// of one that is away there is one at a time.
func (p *peer) usable(now time.Time) (ok, probe bool) {
	if !p.away.Load() {
		return true, false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case !p.away.Load():
		return true, false
	case p.probing || now.Before(p.again):
		return false, false
	}
	p.probing = true
	return true, true
}

// finish ends a call.
func (p *peer) finish(err error, probe bool) {
	p.calls.Add(-1)
	if err == nil && !probe && !p.away.Load() {
		if p.slow.Load() != 0 {
			p.slow.Store(0)
		}
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if probe {
		p.probing = false
	}
	switch p.verdict(err, probe) {
	case reached:
		p.pause = 0
		p.slow.Store(0)
		p.away.Store(false)
	case gone:
		p.doubt.Store(true)
		// Calls that were under way when the instance went away tell nothing new.
		if probe || !p.away.Load() {
			p.pause = min(max(awayFirst, 2*p.pause), awayMost)
			p.again = time.Now().Add(p.pause)
			p.away.Store(true)
		}
	}
}

// verdict is what the end of a call says of the instance.
type verdict int

const (
	nothing verdict = iota
	reached
	gone
)

func (p *peer) verdict(err error, probe bool) verdict {
	switch {
	case err == nil:
		return reached
	case errors.Is(err, context.Canceled):
		return nothing
	}
	switch fault.KindOf(err) {
	case fault.Unavailable:
		return gone
	case fault.Timeout:
		if p.slow.Add(1) >= slowMost || probe {
			return gone
		}
		return nothing
	}
	return reached
}

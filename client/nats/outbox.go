package nats

import (
	"runtime"
	"sync"

	"github.com/nats-io/nats.go"
)

// letter is one message on its way out, and what its answer is known by.
type letter struct {
	token uint64
	msg   *nats.Msg
}

// outbox sends what several callers have to send in one go. The library writes to
// the socket as soon as the goroutine that published has nothing else to do; with
// a goroutine for each message that was a system call for each third of them, and
// half of what a publish cost.
type outbox struct {
	post func([]letter)

	mu      sync.Mutex
	waiting []letter
	spare   []letter // for the next ones
	busy    bool     // somebody sends
}

// send sends letters in their order. It returns when they are sent, or somebody
// else is about to send them.
func (o *outbox) send(all []letter) {
	if len(all) == 0 {
		return
	}
	o.mu.Lock()
	o.waiting = append(o.waiting, all...)
	lead := !o.busy
	o.busy = true
	o.mu.Unlock()
	if lead && o.round() {
		go func() { // the caller has its own answer to wait for
			for o.round() {
			}
		}()
	}
}

// round sends what there is; false when nothing has come meanwhile, so nobody
// sends now.
func (o *outbox) round() bool {
	runtime.Gosched() // who was woken by the same answers as this one writes first
	o.mu.Lock()
	all := o.waiting
	o.waiting, o.spare = o.spare, nil
	o.mu.Unlock()
	o.post(all)
	clear(all)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.spare = all[:0]
	o.busy = len(o.waiting) > 0
	return o.busy
}

package nats

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// acks takes the answers of streams to publishes. The library has its own for
// that, which costs five times as much for each message.
type acks struct {
	nc *nats.Conn

	listens atomic.Bool // open has been there

	mu      sync.Mutex
	prefix  string // of the reply subjects; empty before the first publish
	sub     *nats.Subscription
	lost    chan nats.Status
	ended   chan struct{} // closed when watch has ended
	next    uint64
	waiting map[uint64]waiter

	calls sync.Pool // of *call that have ended
}

// waiter is one message whose answer is not there yet. It has a place in its
// publisher's window.
type waiter struct {
	call   *call
	at     int
	window *window
}

func (w waiter) answer(a answered) { w.call.answer(w.at, a) }

// window bounds the publishes of one publisher that are under way; the lock of
// acks guards it.
type window struct {
	under int
	room  chan struct{} // closed when there is a place again; nil when nobody waits
}

// leave makes a place free.
func (w *window) leave() {
	w.under--
	if w.room != nil {
		close(w.room)
		w.room = nil
	}
}

// call is several messages that are awaited together.
type call struct {
	tokens   []uint64 // of those that are under way; 0: it could not begin
	letters  []letter // that are not sent yet
	patience *time.Timer
	done     chan struct{} // gets one when all are answered

	mu      sync.Mutex
	left    int
	answers []answered
}

// answered is how one message fared: err, or a duplicate of another.
type answered struct {
	err       error
	duplicate *jetstream.PubAck
}

// call begins one of n messages; give ends it when all are answered.
func (a *acks) call(n int) *call {
	c, ok := a.calls.Get().(*call)
	if !ok {
		c = &call{done: make(chan struct{}, 1), patience: time.NewTimer(publishTimeout)}
	}
	c.patience.Reset(publishTimeout)
	c.left, c.letters = n, c.letters[:0]
	c.tokens, c.answers = append(c.tokens[:0], make([]uint64, n)...), append(c.answers[:0], make([]answered, n)...)
	return c
}

// give keeps a call that has ended for the next one.
func (a *acks) give(c *call) {
	c.patience.Stop()
	clear(c.answers) // what they hold is not kept
	clear(c.letters)
	a.calls.Put(c)
}

// answer notes the answer to one message. The last one ends the call.
func (c *call) answer(at int, a answered) {
	c.mu.Lock()
	c.answers[at] = a
	c.left--
	last := c.left == 0
	c.mu.Unlock()
	if last {
		c.done <- struct{}{}
	}
}

// open begins to listen for answers.
func (a *acks) open() error {
	if a.listens.Load() {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.sub != nil {
		return nil
	}
	prefix := a.nc.NewInbox() + "."
	sub, err := a.nc.Subscribe(prefix+"*", a.receive)
	if err != nil {
		return err
	}
	_ = sub.SetPendingLimits(-1, -1) // the window of the publishers bounds it
	a.prefix, a.sub, a.waiting = prefix, sub, map[uint64]waiter{}
	a.lost, a.ended = a.nc.StatusChanged(nats.RECONNECTING, nats.CLOSED), make(chan struct{})
	go a.watch(a.lost, a.ended)
	a.listens.Store(true)
	return nil
}

// watch ends what waits when its connection is lost: the answer went with it.
func (a *acks) watch(lost <-chan nats.Status, ended chan<- struct{}) {
	defer close(ended)
	for range lost {
		a.mu.Lock()
		gone := a.waiting
		a.waiting = map[uint64]waiter{}
		for _, w := range gone {
			w.window.leave()
		}
		a.mu.Unlock()
		for _, w := range gone {
			w.answer(answered{err: nats.ErrDisconnected})
		}
	}
}

// expect takes a place in the window and makes the reply subject of one message.
// Without a place it returns what is closed when there is one again.
func (a *acks) expect(w waiter) (token uint64, reply string, room <-chan struct{}) {
	a.mu.Lock()
	if w.window.under >= mostPending {
		if w.window.room == nil {
			w.window.room = make(chan struct{})
		}
		room = w.window.room
		a.mu.Unlock()
		return 0, "", room
	}
	w.window.under++
	a.next++
	token = a.next
	a.waiting[token] = w
	a.mu.Unlock()
	return token, a.prefix + strconv.FormatUint(token, 36), nil
}

// awaited leaves out of letters those whose answer nobody wants any more.
func (a *acks) awaited(letters []letter) []letter {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.DeleteFunc(letters, func(l letter) bool {
		_, ok := a.waiting[l.token]
		return !ok
	})
}

// forget gives up waiting; false when there is an answer already.
func (a *acks) forget(token uint64) (waiter, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	w, ok := a.waiting[token]
	if ok {
		delete(a.waiting, token)
		w.window.leave()
	}
	return w, ok
}

func (a *acks) receive(m *nats.Msg) {
	token, err := strconv.ParseUint(m.Subject[strings.LastIndexByte(m.Subject, '.')+1:], 36, 64)
	if err != nil {
		return
	}
	if w, ok := a.forget(token); ok {
		w.answer(read(m))
	}
}

// read reads the answer of a stream. Nearly all of them say just where the
// message is stored.
func read(m *nats.Msg) answered {
	if len(m.Data) == 0 && m.Header.Get("Status") == "503" {
		return answered{err: jetstream.ErrNoStreamResponse}
	}
	if bytes.HasPrefix(m.Data, []byte(`{"stream":`)) && !bytes.Contains(m.Data, []byte(`"error"`)) && !bytes.Contains(m.Data, []byte(`"duplicate"`)) {
		return answered{}
	}
	var said struct {
		jetstream.PubAck
		Error *jetstream.APIError `json:"error"`
	}
	switch err := json.Unmarshal(m.Data, &said); {
	case err != nil || said.Error == nil && said.Stream == "":
		return answered{err: jetstream.ErrInvalidJSAck}
	case said.Error != nil:
		return answered{err: said.Error}
	case said.Duplicate:
		return answered{duplicate: &said.PubAck}
	}
	return answered{}
}

// wait waits for all answers of a call. What has none by then has an error.
func (a *acks) wait(ctx context.Context, c *call) {
	var err error
	select {
	case <-c.done:
		return
	case <-ctx.Done():
		err = ctx.Err()
	case <-c.patience.C:
		err = nats.ErrTimeout
	}
	for _, token := range c.tokens {
		if w, ok := a.forget(token); ok {
			w.answer(answered{err: err})
		}
	}
	<-c.done // the rest is being answered
}

func (a *acks) close() {
	a.mu.Lock()
	sub, lost, ended := a.sub, a.lost, a.ended
	a.mu.Unlock()
	if sub == nil {
		return
	}
	_ = sub.Unsubscribe() // it has gone with its connection
	a.nc.RemoveStatusListener(lost)
	<-ended
}

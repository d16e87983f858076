package mqtt

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
)

// Feed says what to read and how.
type Feed struct {
	// Filter is the topic, maybe with + and #, or $share/group/topic.
	Filter string
	// Group makes, with the filter, the name of the session that the server keeps.
	Group string
	// Forget has the server forget the subscription when the read ends.
	Forget bool
	// KeepLeft keeps what was left for the next read.
	KeepLeft bool
	// Decode fills a delivery in: its Body, Attempt and Settle are there already.
	Decode func(*Received, *cloudevents.Delivery) error
}

// sessionKey tells sessions apart.
type sessionKey struct {
	group, filter string
	slot          int
}

// The states of an entry.
const (
	queued  = iota // to be handed out
	out            // handed out
	waiting        // for its retry
	parked         // for the next read
	stale          // of a connection that ended: the server sends it again, or it is gone
	done           // settled; the acknowledgement is to be sent
)

// entry is one message that the server waits for an acknowledgement of. Guarded
// by the lock of its session.
type entry struct {
	*Received
	state   int
	attempt int
	gen     int       // of the connection that it came with last; -1: of none
	due     time.Time // of its retry
	event   *cloudevents.Event
}

// session is one subscription that the server keeps under a client id. It is
// connected while somebody reads, or something that was read is not settled.
type session struct {
	client *Client
	filter string
	id     string
	agree  bool // on who reads
	limit  int

	dialing chan struct{} // one at a time
	mu      sync.Mutex
	changed chan struct{} // closed, and made anew, with every change
	readers int
	forget  bool
	left    time.Time // when the last reader went
	w       wire      // nil: not connected
	cut     error     // why; nil when nobody read
	gen     int       // counts: one more with each connection, and with each end of one
	last    int       // gen of the last that was made
	known   bool      // the server has the subscription
	entries map[*entry]struct{}
	loose   int // entries that come again with no connection
	byID    map[uint16]*entry
	order   []*entry // of this connection, as they came, without an acknowledgement
	ready   []*entry
}

// session returns that of a feed; slot counts those of a shared subscription.
func (c *Client) session(f *Feed, slot int) *session {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := sessionKey{f.Group, f.Filter, slot}
	s := c.sessions[key]
	if s == nil {
		s = &session{
			client: c, filter: f.Filter, id: plainName(f.Group, f.Filter), limit: c.config.MaxInFlight, agree: c.config.LeaseTopic != "none",
			dialing: make(chan struct{}, 1), changed: make(chan struct{}),
			entries: map[*entry]struct{}{}, byID: map[uint16]*entry{},
		}
		if slot > 0 {
			s.id = plainName(f.Group, f.Filter, strconv.Itoa(slot))
		}
		if c.config.CleanSession {
			s.id, s.agree = "penstock-"+rand.Text()[:12], false
		}
		c.sessions[key] = s
	}
	return s
}

// Read hands what comes to emit until ctx ends, then returns nil. Outcomes may
// still arrive until Close. Several reads of one feed share what comes. While
// another process has the lease of the group, Read waits.
func (c *Client) Read(ctx context.Context, f Feed, emit cloudevents.EmitFunc) error {
	if err := CheckFilter(f.Filter); err != nil {
		return err
	}
	if !c.enter() {
		return fault.New(fault.Unavailable, "subscribe %q: already closed", f.Filter)
	}
	defer c.running.Done()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	defer context.AfterFunc(c.ctx, stop)()
	s, err := c.place(ctx, &f)
	if err == nil {
		s.enter(&f)
		err = s.read(ctx, &f, emit)
		s.exit()
	}
	switch {
	case c.ctx.Err() != nil:
		return fault.New(fault.Unavailable, "subscribe %q: closed", f.Filter)
	case ctx.Err() != nil:
		return nil
	}
	return fault.Wrap(classify(err), "subscribe %q", f.Filter)
}

// Prepare makes the session of a feed, so that nothing published after it
// returned is missed. When another process reads for the group it is there.
func (c *Client) Prepare(ctx context.Context, f Feed) error {
	if err := CheckFilter(f.Filter); err != nil {
		return err
	}
	if !c.enter() {
		return fault.New(fault.Unavailable, "subscribe %q: already closed", f.Filter)
	}
	defer c.running.Done()
	s := c.session(&f, 0)
	s.enter(&f)
	defer s.exit()
	return fault.Wrap(classify(s.connected(ctx, true)), "subscribe %q", f.Filter)
}

// mostSlots is how many processes may share a subscription.
const mostSlots = 256

// place returns the session to read: of a subscription that the server shares out
// the first that no other process reads.
func (c *Client) place(ctx context.Context, f *Feed) (*session, error) {
	first := c.session(f, 0)
	if !strings.HasPrefix(f.Filter, share) || !first.agree {
		return first, nil
	}
	for slot := range mostSlots {
		s := c.session(f, slot)
		l := c.lease(s.id)
		held, err := l.hold(ctx, true)
		if held != nil {
			defer l.leave() // when the session has it
			return s, s.connected(ctx, true)
		}
		l.leave()
		if err != nil {
			return nil, err
		}
	}
	return nil, fault.New(fault.Exhausted, "%d processes share the subscription already", mostSlots)
}

func (s *session) enter(f *Feed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.readers++
	s.forget = f.Forget
	for e := range s.entries {
		if e.state == parked {
			s.queue(e)
		}
	}
	s.change()
}

func (s *session) exit() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.readers--; s.readers == 0 {
		s.left = time.Now()
	}
	s.change()
}

// change wakes everybody who waits. The lock is held.
func (s *session) change() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// queue has an entry handed out. The lock is held.
func (s *session) queue(e *entry) {
	e.state = queued
	s.ready = append(s.ready, e)
}

// read hands out until ctx ends or the connection is lost.
func (s *session) read(ctx context.Context, f *Feed, emit cloudevents.EmitFunc) error {
	for {
		if err := s.connected(ctx, false); err != nil {
			return err
		}
		e, err := s.next(ctx)
		if err != nil {
			return err
		}
		if e == nil { // the lease is another's now
			continue
		}
		d := &taken{s: s, e: e, keep: f.KeepLeft}
		d.Body, d.Attempt, d.Settle = e.Body, e.attempt, d.settle
		if err := f.Decode(e.Received, &d.Delivery); err != nil {
			s.putBack(e)
			return fault.Wrap(err, "read message")
		}
		if e.event != nil {
			d.Event = e.event
		} else {
			e.event = d.Event // it has the same id when it is handed out again
		}
		if err := emit(ctx, &d.Delivery); err != nil {
			s.putBack(e)
			return err
		}
	}
}

// errMoved says that the connection was cut because the lease is another's.
var errMoved = errors.New("another process reads for the group")

// next waits for an entry to hand out; nil when the lease has moved.
func (s *session) next(ctx context.Context) (*entry, error) {
	for {
		s.mu.Lock()
		if s.w == nil {
			err := s.cut
			s.mu.Unlock()
			if errors.Is(err, errMoved) || err == nil {
				return nil, nil
			}
			return nil, err
		}
		if len(s.ready) > 0 {
			e := s.ready[0]
			s.ready[0] = nil
			s.ready = s.ready[1:]
			e.state = out
			s.mu.Unlock()
			return e, nil
		}
		changed := s.changed
		s.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// putBack has an entry that was not taken handed out next.
func (s *session) putBack(e *entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.lost(s) {
		e.state = stale
		return
	}
	e.state = queued
	s.ready = slices.Insert(s.ready, 0, e)
	s.change()
}

// taken is one handing out of an entry.
type taken struct {
	cloudevents.Delivery
	s       *session
	e       *entry
	keep    bool
	settled atomic.Bool
}

// settle implements Delivery.Settle.
func (d *taken) settle(o cloudevents.Outcome) {
	if !d.settled.CompareAndSwap(false, true) {
		return
	}
	s, e := d.s, d.e
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.change()
	switch o.Verdict {
	case cloudevents.Retry:
		e.attempt++
		e.due = time.Now().Add(o.After)
		s.later(e)
	case cloudevents.Leave:
		switch {
		case d.keep && s.client.ctx.Err() == nil:
			e.state = parked
		case e.lost(s):
			e.state = stale
		default:
			s.queue(e)
		}
	default:
		e.state = done
		if e.gen < 0 {
			s.drop(e)
		}
	}
}

// later has an entry handed out when it is due; one of a connection that ended
// when the server has sent it again. The lock is held.
func (s *session) later(e *entry) {
	left := time.Until(e.due)
	switch {
	case e.lost(s):
		e.state = stale
	case left <= 0:
		s.queue(e)
	default:
		e.state = waiting
		gen := e.gen
		time.AfterFunc(left, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			if e.state == waiting && e.gen == gen {
				s.queue(e)
				s.change()
			}
		})
	}
}

// lost tells whether the connection is gone that an entry came with last. The
// lock of its session is held.
func (e *entry) lost(s *session) bool { return e.gen >= 0 && e.gen != s.gen }

// drop forgets an entry. The lock is held.
func (s *session) drop(e *entry) {
	if e.gen < 0 {
		s.loose--
	}
	delete(s.entries, e)
	if s.byID[e.id] == e {
		delete(s.byID, e.id)
	}
}

// received takes a message from the server. It blocks while there are too many:
// that holds the server up.
func (s *session) received(gen int, m *Received) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.gen == gen && s.w != nil && len(s.order)+s.loose >= s.limit {
		changed := s.changed
		s.mu.Unlock()
		<-changed
		s.mu.Lock()
	}
	if s.gen != gen {
		return // the server has it still
	}
	defer s.change()
	if s.again(m) {
		e := s.byID[m.id]
		e.gen, e.ack = gen, m.ack
		s.order = append(s.order, e)
		if e.state == stale {
			s.later(e)
		}
		return
	}
	e := &entry{Received: m, attempt: 1, gen: gen}
	if m.QoS > 0 {
		s.byID[m.id] = e
		s.order = append(s.order, e)
	} else {
		e.gen = -1
		s.loose++
	}
	s.entries[e] = struct{}{}
	if s.own(m.Topic) {
		e.state = done
		if m.QoS == 0 {
			s.drop(e)
		}
		return
	}
	s.queue(e)
}

// again tells whether a message is one that is held, sent again.
func (s *session) again(m *Received) bool {
	if !m.dup || m.QoS == 0 {
		return false
	}
	e := s.byID[m.id]
	return e != nil && e.gen != s.gen && e.Topic == m.Topic && bytes.Equal(e.Body, m.Body)
}

// own tells whether a topic is one of leases, which a wildcard may match.
func (s *session) own(topic string) bool {
	t := s.client.config.LeaseTopic
	return len(topic) > len(t) && topic[len(t)] == '/' && strings.HasPrefix(topic, t)
}

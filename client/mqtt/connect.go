package mqtt

import (
	"context"
	"time"

	"github.com/penstock-io/penstock/fault"
)

const (
	lingerFor      = 2 * time.Second // how long a connection is kept that nobody reads
	unsubscribeFor = 5 * time.Second
	// The connection for the lease, and TCP, find out that the server is gone; what
	// is read must not be taken for lost because it is held up here.
	sessionSilence = 10 * time.Minute
)

// connected sees to it that the session is connected, and waits for the lease for
// that; giveUp is not to wait when another process has it.
func (s *session) connected(ctx context.Context, giveUp bool) error {
	if s.up() {
		return nil
	}
	var l *lease
	var held <-chan struct{}
	if s.agree {
		l = s.client.lease(s.id)
		var err error
		if held, err = l.hold(ctx, giveUp); held == nil {
			l.leave()
			return err
		}
	}
	err := s.dial(ctx, l, held)
	if err != nil && l != nil {
		l.leave()
	}
	return err
}

func (s *session) up() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w != nil
}

// dial connects and starts what serves the connection, which leaves the lease at
// its end.
func (s *session) dial(ctx context.Context, l *lease, held <-chan struct{}) error {
	select {
	case s.dialing <- struct{}{}:
		defer func() { <-s.dialing }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if s.up() {
		if l != nil {
			l.leave()
		}
		return nil
	}
	gen := s.begin()
	lost := make(chan error, 1)
	conf := s.client.config
	w, present, err := conf.dial(ctx, dialing{
		id: s.id, clean: conf.CleanSession, silence: sessionSilence,
		receive: func(m *Received) { s.received(gen, m) }, lost: func(err error) { lost <- classify(err) },
	})
	if err != nil {
		s.end(err)
		return err
	}
	if s.mu.Lock(); !present {
		s.orphan()
	}
	known := s.known && present
	s.mu.Unlock()
	if !known { // to subscribe again would bring the retained messages again
		asking, cancel := context.WithTimeout(ctx, connectTimeout)
		err := w.subscribe(asking, s.filter, byte(conf.QoS))
		cancel()
		if err != nil {
			s.end(err)
			w.close()
			return err
		}
	}
	s.mu.Lock()
	s.w, s.cut, s.known, s.last = w, nil, true, gen
	s.change()
	s.mu.Unlock()
	s.client.running.Add(1) // a read is counted as long as this runs
	go s.serve(w, l, held, lost)
	return nil
}

// begin prepares for a connection: what is held waits for the server to send it
// again. What the server did not send again with the last one is forgotten.
func (s *session) begin() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gen++
	s.order = nil
	ready := s.ready[:0]
	for _, e := range s.ready {
		if e.gen < 0 {
			ready = append(ready, e)
		}
	}
	s.ready = ready
	for e := range s.entries {
		switch {
		case e.gen < 0:
		case (e.state == stale || e.state == done) && e.gen < s.last:
			s.drop(e)
		case e.state == queued || e.state == waiting || e.state == parked:
			e.state = stale
		}
	}
	return s.gen
}

// orphan is told that the server has forgotten the session: what is held does not
// come again, and is ours alone. The lock is held.
func (s *session) orphan() {
	for e := range s.entries {
		if e.gen < 0 || e.gen == s.gen {
			continue
		}
		if e.state == done {
			s.drop(e)
			continue
		}
		e.gen = -1
		s.loose++
		if s.byID[e.id] == e {
			delete(s.byID, e.id)
		}
		if e.state == stale {
			s.later(e)
		}
	}
}

// end is told that the connection is over: err says why, nil that nobody reads.
func (s *session) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gen++
	s.w, s.cut = nil, err
	s.change()
}

// serve acknowledges what is settled, in order, until the connection is lost, the
// lease is another's, or nobody needs the connection any more.
func (s *session) serve(w wire, l *lease, held <-chan struct{}, lost <-chan error) {
	defer s.client.running.Done()
	if l != nil {
		defer l.leave()
	}
	closing := s.client.ctx.Done()
	spare := time.NewTimer(lingerFor)
	defer spare.Stop()
	for {
		acked, idle, changed := s.acknowledge()
		if acked {
			continue
		}
		if idle == 0 {
			s.leave(w)
			return
		}
		if idle < 0 {
			idle = time.Minute
		}
		spare.Reset(idle)
		select {
		case <-changed:
		case <-spare.C:
		case <-closing:
			closing = nil
		case <-held:
			s.end(errMoved)
			w.close()
			return
		case err := <-lost:
			if err == nil {
				err = fault.New(fault.Unavailable, "connection lost")
			}
			s.end(err)
			w.close()
			return
		}
	}
}

// leave disconnects because nobody reads.
func (s *session) leave(w wire) {
	s.mu.Lock()
	forget := s.forget
	s.mu.Unlock()
	if forget {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(s.client.ctx), unsubscribeFor)
		if w.unsubscribe(ctx, s.filter) == nil {
			s.mu.Lock()
			s.known = false
			s.mu.Unlock()
		}
		cancel()
	}
	s.end(nil)
	w.close()
}

// acknowledge sends the acknowledgements that are due: in the order in which the
// messages came, up to the first that is not settled. idle is how long until the
// connection is needed no more; negative: it is.
func (s *session) acknowledge() (acked bool, idle time.Duration, changed <-chan struct{}) {
	s.mu.Lock()
	n := 0
	for n < len(s.order) && s.order[n].state == done {
		n++
	}
	acks := make([]func(), n)
	for i, e := range s.order[:n] {
		acks[i] = e.ack
		s.drop(e)
	}
	s.order = s.order[n:]
	if n > 0 {
		s.change()
	}
	idle, changed = s.spare(), s.changed
	s.mu.Unlock()
	for _, ack := range acks {
		ack()
	}
	return n > 0, idle, changed
}

// spare returns how long until the connection is not needed any more; negative:
// it is needed. The lock is held.
func (s *session) spare() time.Duration {
	if s.readers > 0 {
		return -1
	}
	if s.client.ctx.Err() != nil {
		return 0
	}
	for e := range s.entries {
		if e.state == out {
			return -1
		}
	}
	return max(0, lingerFor-time.Since(s.left))
}

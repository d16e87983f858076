package router

// lanes keeps the order of a route's deliveries while they wait to be handed
// over.
//
// A lane is a key that is held. It is not a fixed one of N: hashing keys on N
// lanes would let a slow key hold up every other that happens to fall beside
// it. Here a key has a queue of its own as long as one of its deliveries is
// held, the head of each queue may be ready, and free places go to the ready
// ones in turn. A delivery without a key is a lane by itself.
//
// The queues are links between the passages, so a lane costs one map entry and
// no allocation. Everything runs under the flow's mutex; the number of passages
// is bounded by the window.
type lanes struct {
	tails map[string]*passage // the last held passage of each key
	first *passage            // ready ones, oldest first, linked by next
	last  *passage
}

// add takes in a new passage; it is ready unless one of its key is before it.
func (l *lanes) add(p *passage) {
	if p.key == "" {
		l.ready(p)
		return
	}
	if l.tails == nil {
		l.tails = map[string]*passage{}
	}
	before := l.tails[p.key]
	l.tails[p.key] = p
	if before != nil {
		before.after = p
		p.state = queued
		return
	}
	l.ready(p)
}

// ready puts p behind the other ready ones.
func (l *lanes) ready(p *passage) {
	p.state = ready
	if l.last == nil {
		l.first = p
	} else {
		l.last.next = p
	}
	l.last = p
}

// pop takes the one that has been ready for longest, or returns nil.
func (l *lanes) pop() *passage {
	p := l.first
	if p == nil {
		return nil
	}
	if l.first = p.next; l.first == nil {
		l.last = nil
	}
	p.next = nil
	return p
}

// done takes out p, the head of its lane, and returns the one after it: nil
// when the lane is empty and forgotten.
func (l *lanes) done(p *passage) *passage {
	if p.key == "" {
		return nil
	}
	after := p.after
	p.after = nil
	if after == nil {
		delete(l.tails, p.key)
	}
	return after
}

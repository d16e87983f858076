package journal

import (
	"strings"
	"time"
)

// Event is what is told of an event.
type Event struct {
	ID, Source, Type, Subject, TraceID string
	Size                               int64
	// Payload is asked for the data when somebody watches it; nil is none.
	Payload interface{ Data() []byte }
}

// Round is one round of a delivery that is under way. Its owner may use it again
// after End; until then it must not be copied. One goroutine at a time uses it.
type Round struct {
	journal    *Journal
	prev, next *Round // of those under way, under the journal's mutex

	event           Event
	route           string
	number, attempt int
	began           time.Time

	// The journal's mutex guards these until the round is not under way any more.
	tries [MaxTries]try
	made  int // how many were, kept or not

	// last is what came of the last try, until there is a reason to lock.
	last try
}

type try struct {
	target      string
	began, took int64 // after the begin of the round; how long, 0 while it is under way
	outcome     Outcome
	reason      string
}

// Nth says which round a round is.
type Nth struct {
	Route          string
	Round, Attempt int
}

// Begin tells that r begins now.
func (j *Journal) Begin(r *Round, e Event, n Nth, now time.Time) {
	if j == nil {
		return
	}
	r.journal, r.event, r.route, r.number, r.attempt, r.began, r.made = j, e, n.Route, n.Round, n.Attempt, now, 0
	j.mu.Lock()
	r.prev, r.next = j.under.prev, &j.under
	r.prev.next, r.next.prev = r, r
	j.mu.Unlock()
}

// kept is how many tries are.
func (r *Round) kept() int { return min(r.made, MaxTries) }

// Try tells that a target is called, so long after the begin of the round.
func (r *Round) Try(target string, after time.Duration) {
	if r.journal == nil {
		return
	}
	r.journal.mu.Lock()
	r.note()
	if r.made < MaxTries {
		t := &r.tries[r.made]
		t.target, t.began = target, int64(after)
	}
	r.made++
	r.journal.mu.Unlock()
}

// Tried tells what came of it, so long after the begin of the round.
func (r *Round) Tried(o Outcome, reason string, after time.Duration) {
	r.last.outcome, r.last.reason, r.last.took = o, reason, int64(after)
}

// note writes down what came of the last try.
func (r *Round) note() {
	if r.last.outcome != UnderWay && r.made > 0 && r.made <= MaxTries {
		t := &r.tries[r.made-1]
		t.took, t.outcome, t.reason = r.last.took-t.began, r.last.outcome, r.last.reason
	}
	r.last = try{}
}

// Ending is how a round ended.
type Ending struct {
	Outcome Outcome
	Reason  string
	Wait    time.Duration // before the next round
}

// End tells that the round ends, so long after it began. Nothing of the event is
// held afterwards.
func (r *Round) End(e Ending, after time.Duration) {
	j := r.journal
	if j == nil {
		return
	}
	f := fixed{
		ended: r.began.Add(after).UnixNano(), duration: int64(after), wait: int64(e.Wait), size: r.event.Size,
		round: uint32(r.number), attempt: uint32(r.attempt), outcome: e.Outcome,
	}
	data, wanted := j.preview(r, e.Outcome)
	j.mu.Lock()
	r.note()
	r.prev.next, r.next.prev = r.next, r.prev
	j.seq++
	f.seq = j.seq
	s := j.ring.room(f.seq)
	s.used += r.encode(s.data[s.used:], &f, e.Reason)
	if wanted && j.previews != nil {
		j.previews.put(f.seq, data)
	}
	if j.wake != nil {
		close(j.wake)
		j.wake = nil
	}
	j.mu.Unlock()
	r.forget()
}

// forget lets go of what the round held.
func (r *Round) forget() {
	for i := range r.kept() {
		r.tries[i] = try{}
	}
	r.journal, r.prev, r.next, r.event, r.route, r.made = nil, nil, nil, Event{}, "", 0
}

// entry tells of a round that has not ended. It runs under the journal's mutex.
func (r *Round) entry(now time.Time) Entry {
	e := Entry{
		Time: r.began.UTC(), Route: r.route, Size: r.event.Size, Round: r.number, Attempt: r.attempt, Duration: Millis(now.Sub(r.began)),
		ID: own(r.event.ID), Source: own(r.event.Source), Type: own(r.event.Type), Subject: own(r.event.Subject), TraceID: own(r.event.TraceID),
	}
	for _, t := range r.tries[:r.kept()] {
		if t.outcome == UnderWay {
			t.took = int64(now.Sub(r.began)) - t.began
		}
		e.Tries = append(e.Tries, Try{Target: t.target, After: Millis(t.began), Duration: Millis(t.took), Outcome: t.outcome, Reason: own(t.reason)})
	}
	return e
}

// own is a text that is no part of a body.
func own(s string) string { return strings.ToValidUTF8(strings.Clone(clip(s)), "") }

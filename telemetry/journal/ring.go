package journal

import (
	"encoding/binary"
	"strings"
	"time"
)

// segmentBytes is the unit in which the ring takes room and forgets; a record is
// never longer.
const segmentBytes = 64 << 10

// ring holds records one behind the other. Segments are counted on for ever, and
// the newest are kept.
type ring struct {
	slots  []*segment // segment n is in slot n % len
	oldest uint64
	newest uint64 // its slot is nil before the first record
}

type segment struct {
	first uint64 // Seq of its first record
	used  int
	data  [segmentBytes]byte
}

func newRing(bytes int) ring { return ring{slots: make([]*segment, max(bytes/segmentBytes, 2))} }

func (r *ring) at(n uint64) *segment { return r.slots[n%uint64(len(r.slots))] }

// room returns the segment for the record of that number, which has maxRecord bytes
// behind those in use.
func (r *ring) room(seq uint64) *segment {
	s := r.at(r.newest)
	if s == nil || s.used+maxRecord > segmentBytes {
		s = r.turn(s != nil)
		s.first, s.used = seq, 0
	}
	return s
}

// turn begins the next segment, in the place of the oldest when there is no more
// room.
func (r *ring) turn(next bool) *segment {
	if next {
		r.newest++
	}
	if all := uint64(len(r.slots)); r.newest-r.oldest >= all {
		r.oldest++
	}
	at := r.newest % uint64(len(r.slots))
	if r.slots[at] == nil {
		r.slots[at] = &segment{}
	}
	return r.slots[at]
}

// place is where a reader is: behind the record of number seq.
type place struct {
	segment uint64
	offset  int
	seq     uint64
}

// end is the place behind everything.
func (r *ring) end(seq uint64) place {
	p := place{segment: r.newest, seq: seq}
	if s := r.at(r.newest); s != nil {
		p.offset = s.used
	}
	return p
}

// next copies what follows p in its segment, or in the first behind it, to dst,
// and returns how many records were forgotten before. Nothing is copied when p is
// the end.
func (r *ring) next(p *place, dst []byte) (data []byte, lost uint64) {
	if p.segment < r.oldest {
		*p = place{segment: r.oldest, seq: p.seq}
		lost = r.at(r.oldest).first - 1 - p.seq
		p.seq += lost
	}
	s := r.at(p.segment)
	if s == nil {
		return nil, lost
	}
	if p.offset == s.used && p.segment < r.newest {
		p.segment, p.offset = p.segment+1, 0
		s = r.at(p.segment)
	}
	data = append(dst[:0], s.data[p.offset:s.used]...)
	p.offset = s.used
	return data, lost
}

// A record is a head, the lengths of its texts, and the texts; then the same for
// each try.
const (
	headBytes = 2 + 1 + 1 + 8 + 8 + 8 + 8 + 8 + 4 + 4 + texts
	tryBytes  = 1 + 8 + 8 + 2
	texts     = 7
	maxRecord = headBytes + texts*MaxText + MaxTries*(tryBytes+2*MaxText)
)

// fixed is the part of an entry that is not text.
type fixed struct {
	seq            uint64
	ended          int64 // Unix time in nanoseconds
	duration, wait int64
	size           int64
	round, attempt uint32
	outcome        Outcome
}

func (r *Round) texts(reason string) [texts]string {
	return [texts]string{r.event.ID, r.event.Source, r.event.Type, r.event.Subject, r.event.TraceID, r.route, reason}
}

// encode writes a record into b, which has maxRecord bytes, and returns its length.
func (r *Round) encode(b []byte, f *fixed, reason string) int {
	le := binary.LittleEndian
	b[2], b[3] = byte(f.outcome), byte(r.kept())
	le.PutUint64(b[4:], f.seq)
	le.PutUint64(b[12:], uint64(f.ended))
	le.PutUint64(b[20:], uint64(f.duration))
	le.PutUint64(b[28:], uint64(f.wait))
	le.PutUint64(b[36:], uint64(f.size))
	le.PutUint32(b[44:], f.round)
	le.PutUint32(b[48:], f.attempt)
	at := headBytes
	for i, s := range r.texts(reason) {
		n := copy(b[at:], clip(s))
		b[headBytes-texts+i] = byte(n)
		at += n
	}
	for i := range r.kept() {
		t := &r.tries[i]
		b[at] = byte(t.outcome)
		le.PutUint64(b[at+1:], uint64(t.began))
		le.PutUint64(b[at+9:], uint64(t.took))
		target, reason := clip(t.target), clip(t.reason)
		b[at+17], b[at+18] = byte(len(target)), byte(len(reason))
		at += tryBytes
		at += copy(b[at:], target)
		at += copy(b[at:], reason)
	}
	le.PutUint16(b, uint16(at))
	return at
}

// record is one as it lies in the ring.
type record []byte

// cut takes the first record off data.
func cut(data []byte) (rec record, rest []byte) {
	n := binary.LittleEndian.Uint16(data)
	return record(data[:n]), data[n:]
}

func (rec record) seq() uint64      { return binary.LittleEndian.Uint64(rec[4:]) }
func (rec record) outcome() Outcome { return Outcome(rec[2]) }
func (rec record) ended() int64     { return int64(binary.LittleEndian.Uint64(rec[12:])) }
func (rec record) duration() time.Duration {
	return time.Duration(binary.LittleEndian.Uint64(rec[20:]))
}

// The texts, in the order of Round.texts.
const (
	textID = iota
	textSource
	textType
	textSubject
	textTrace
	textRoute
	textReason
)

func (rec record) text(k int) []byte {
	lengths := rec[headBytes-texts : headBytes]
	at := headBytes
	for _, n := range lengths[:k] {
		at += int(n)
	}
	return rec[at : at+int(lengths[k])]
}

// entry makes an Entry that owns its texts.
func (rec record) entry() Entry {
	le := binary.LittleEndian
	e := Entry{
		Seq: rec.seq(), Time: time.Unix(0, rec.ended()).UTC(), Outcome: rec.outcome(),
		ID: valid(rec.text(textID)), Source: valid(rec.text(textSource)), Type: valid(rec.text(textType)), Subject: valid(rec.text(textSubject)),
		TraceID: valid(rec.text(textTrace)), Route: valid(rec.text(textRoute)), Reason: valid(rec.text(textReason)),
		Duration: Millis(rec.duration()), Wait: Millis(le.Uint64(rec[28:])), Size: int64(le.Uint64(rec[36:])),
		Round: int(le.Uint32(rec[44:])), Attempt: int(le.Uint32(rec[48:])),
	}
	at := headBytes
	for _, n := range rec[headBytes-texts : headBytes] {
		at += int(n)
	}
	for range rec[3] {
		t := Try{Outcome: Outcome(rec[at]), After: Millis(le.Uint64(rec[at+1:])), Duration: Millis(le.Uint64(rec[at+9:]))}
		target, reason := int(rec[at+17]), int(rec[at+18])
		at += tryBytes
		t.Target = valid(rec[at : at+target])
		t.Reason = valid(rec[at+target : at+target+reason])
		at += target + reason
		e.Tries = append(e.Tries, t)
	}
	return e
}

// clip is what is kept of a text.
func clip(s string) string { return s[:min(len(s), MaxText)] }

// valid is a text with nothing in it that JSON cannot have: it may have been cut
// within a letter.
func valid(b []byte) string { return strings.ToValidUTF8(string(b), "") }

package journal

import (
	"bytes"
	"context"
	"time"

	"github.com/penstock-io/penstock/fault"
)

// Bounds of watching.
const (
	// MaxWatchers is how many may watch at a time.
	MaxWatchers = 100
	// DefaultRate is how many entries a second a watcher gets at most, when it
	// does not say; MaxRate is the most that it may ask for.
	DefaultRate = 1000
	MaxRate     = 10_000
	// MaxPreview is how many bytes of a payload are shown.
	MaxPreview = 4 << 10

	// interval is how often a watcher looks at most, so that its cost is bounded.
	interval = 100 * time.Millisecond
	// maxPreviews is how many previews are kept: what comes until all have looked.
	maxPreviews = 256
)

// Watching says what somebody wants to see.
type Watching struct {
	Filter Filter
	// Rate bounds the entries of a second; zero is [DefaultRate], and what is
	// above is lost.
	Rate int
	// Payload asks for previews of payloads, at most [MaxPreview] bytes each.
	Payload bool
	// After goes on behind the entry of that number, as far as it is still there;
	// the Since of Filter begins with what happened then. Without either a
	// watcher begins now.
	After uint64
}

// Watcher follows a journal. One goroutine at a time uses it.
type Watcher struct {
	journal *Journal
	o       Watching
	at      place
	limit   int // entries of one look
	looked  time.Time
	buf     []byte

	forgotten uint64 // before the first look
	more      int    // entries that the first look may have above limit
}

// Watch begins to follow; Close must be called. Kind Exhausted when
// [MaxWatchers] do so already.
func (j *Journal) Watch(o Watching) (*Watcher, error) {
	if j == nil {
		return nil, fault.New(fault.Unavailable, "watch events: there is no journal")
	}
	if o.Rate <= 0 {
		o.Rate = DefaultRate
	}
	o.Rate = min(o.Rate, MaxRate)
	w := &Watcher{journal: j, o: o, buf: make([]byte, 0, segmentBytes)}
	w.limit = max(1, o.Rate*int(interval/time.Millisecond)/1000)
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.watchers >= MaxWatchers {
		return nil, fault.New(fault.Exhausted, "watch events: %d watch already", MaxWatchers)
	}
	j.watchers++
	w.at = j.ring.end(j.seq)
	if o.After > 0 || !o.Filter.Since.IsZero() {
		w.resume()
	}
	if o.Payload {
		if j.previews == nil {
			j.previews = &previews{}
		}
		j.shown.Store(true)
		j.previews.filters = append(j.previews.filters, &w.o.Filter)
	}
	return w, nil
}

// resume goes back to the entry behind After, or as far as there is one; a number
// that there never was is from the journal of another process.
func (w *Watcher) resume() {
	j := w.journal
	if w.o.After > j.seq {
		w.o.After = 0
	}
	w.at = place{segment: j.ring.oldest}
	if s := j.ring.at(j.ring.oldest); s != nil {
		w.at.seq = s.first - 1
	}
	if w.o.After > 0 && w.at.seq > w.o.After {
		w.forgotten = w.at.seq - w.o.After
	}
	w.more = w.o.Rate // of one second, at once
}

// Close ends it. It may be called twice.
func (w *Watcher) Close() {
	j := w.journal
	if j == nil {
		return
	}
	w.journal = nil
	j.mu.Lock()
	defer j.mu.Unlock()
	j.watchers--
	if w.o.Payload && j.previews.drop(&w.o.Filter) {
		j.previews = nil
		j.shown.Store(false)
	}
}

// Batch is what a watcher sees at once.
type Batch struct {
	Entries []Entry
	// Lost is how many entries were not shown because there were too many; those
	// that the journal had forgotten are counted whatever the filter.
	Lost uint64
}

// ErrEnded is what Next returns when nothing more will come.
var ErrEnded = fault.New(fault.Unavailable, "watch events: the instance is stopping")

// Next waits until there is something and returns it. The error is that of ctx, or
// [ErrEnded].
func (w *Watcher) Next(ctx context.Context) (Batch, error) {
	for {
		if err := pause(ctx, interval-time.Since(w.looked)); err != nil {
			return Batch{}, err
		}
		wake := w.journal.more(w.at.seq)
		w.looked = time.Now()
		if b := w.look(); len(b.Entries) > 0 || b.Lost > 0 {
			return b, nil
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return Batch{}, ctx.Err()
		case <-w.journal.ended:
			if b := w.look(); len(b.Entries) > 0 || b.Lost > 0 {
				return b, nil
			}
			return Batch{}, ErrEnded
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// more is closed when there is an entry behind the one of that number.
func (j *Journal) more(seq uint64) <-chan struct{} {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.seq > seq {
		closed := make(chan struct{})
		close(closed)
		return closed
	}
	if j.wake == nil {
		j.wake = make(chan struct{})
	}
	return j.wake
}

// look reads to the end.
func (w *Watcher) look() (b Batch) {
	j := w.journal
	b.Lost, w.forgotten = w.forgotten, 0
	limit := w.limit + w.more
	w.more = 0
	for {
		j.mu.Lock()
		data, lost := j.ring.next(&w.at, w.buf)
		shown := j.previews
		j.mu.Unlock()
		b.Lost += lost
		if len(data) == 0 {
			return b
		}
		for rec := record(nil); len(data) > 0; {
			rec, data = cut(data)
			w.at.seq = rec.seq()
			switch {
			case w.at.seq <= w.o.After || !w.o.Filter.matches(rec):
			case len(b.Entries) >= limit:
				b.Lost++
			default:
				e := rec.entry()
				if w.o.Payload {
					e.Payload = j.payload(shown, e.Seq)
				}
				b.Entries = append(b.Entries, e)
			}
		}
	}
}

func (j *Journal) payload(p *previews, seq uint64) []byte {
	if p == nil {
		return nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return p.get(seq)
}

// previews are the beginnings of payloads, for as long as somebody asks for them.
// The journal's mutex guards them.
type previews struct {
	filters []*Filter
	slots   [maxPreviews]struct {
		seq  uint64
		data []byte
	}
}

func (p *previews) put(seq uint64, data []byte) {
	s := &p.slots[seq%maxPreviews]
	s.seq, s.data = seq, data
}

func (p *previews) get(seq uint64) []byte {
	if s := &p.slots[seq%maxPreviews]; s.seq == seq {
		return s.data
	}
	return nil
}

// drop takes a filter out and tells whether it was the last.
func (p *previews) drop(f *Filter) bool {
	for i, other := range p.filters {
		if other == f {
			p.filters = append(p.filters[:i], p.filters[i+1:]...)
			break
		}
	}
	return len(p.filters) == 0
}

func (p *previews) want(r *Round, o Outcome) bool {
	for _, f := range p.filters {
		if f.matchesRound(r, o) {
			return true
		}
	}
	return false
}

// preview returns the beginning of the payload when somebody wants to see it.
func (j *Journal) preview(r *Round, o Outcome) (data []byte, wanted bool) {
	if !j.shown.Load() || r.event.Payload == nil {
		return nil, false
	}
	j.mu.Lock()
	wanted = j.previews != nil && j.previews.want(r, o)
	j.mu.Unlock()
	if !wanted {
		return nil, false
	}
	all := r.event.Payload.Data()
	return bytes.Clone(all[:min(len(all), MaxPreview)]), true
}

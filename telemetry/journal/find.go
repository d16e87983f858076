package journal

import (
	"slices"
	"strings"
	"time"
)

// Filter says which entries are meant; an empty field means any. Route and Type
// may end in * for all that begin so.
type Filter struct {
	Route, Type string
	ID, TraceID string
	// Outcomes are those that are meant; none means any.
	Outcomes []Outcome
	// Since leaves out what ended before.
	Since time.Time
}

// likes tells whether a filter of a name, cut as the name was, takes it.
func likes[T string | []byte](pattern string, name T) bool {
	if start, open := strings.CutSuffix(pattern, "*"); open {
		return len(name) >= len(start) && string(name[:len(start)]) == start
	}
	return pattern == "" || string(name) == clip(pattern)
}

func same[T string | []byte](want string, got T) bool { return want == "" || string(got) == clip(want) }

func (f *Filter) wants(o Outcome) bool { return len(f.Outcomes) == 0 || slices.Contains(f.Outcomes, o) }

func (f *Filter) matches(rec record) bool {
	return same(f.ID, rec.text(textID)) && same(f.TraceID, rec.text(textTrace)) && f.wants(rec.outcome()) &&
		likes(f.Route, rec.text(textRoute)) && likes(f.Type, rec.text(textType)) &&
		(f.Since.IsZero() || rec.ended() >= f.Since.UnixNano())
}

func (f *Filter) matchesRound(r *Round, o Outcome) bool {
	return same(f.ID, clip(r.event.ID)) && same(f.TraceID, clip(r.event.TraceID)) && f.wants(o) &&
		likes(f.Route, clip(r.route)) && likes(f.Type, clip(r.event.Type))
}

// Find returns the newest entries that f means, at most limit, the oldest first.
func (j *Journal) Find(f Filter, limit int) []Entry {
	if j == nil || limit <= 0 {
		return nil
	}
	var found []Entry
	j.each(func(rec record) bool {
		if f.matches(rec) {
			found = append(found, rec.entry())
		}
		return len(found) < limit
	})
	slices.Reverse(found)
	return found
}

// each calls see with every record, the newest first, until it returns false. The
// mutex is held for the copy of one segment at a time.
func (j *Journal) each(see func(record) bool) {
	j.mu.Lock()
	n, oldest := j.ring.newest, j.ring.oldest
	j.mu.Unlock()
	buf := make([]byte, segmentBytes)
	var starts []int
	for ; n+1 > oldest; n-- {
		j.mu.Lock()
		oldest = j.ring.oldest
		var data []byte
		if s := j.ring.at(n); s != nil && n >= oldest {
			data = append(buf[:0], s.data[:s.used]...)
		}
		j.mu.Unlock()
		starts = starts[:0]
		for at := 0; at < len(data); {
			starts = append(starts, at)
			rec, _ := cut(data[at:])
			at += len(rec)
		}
		for _, at := range slices.Backward(starts) {
			if rec, _ := cut(data[at:]); !see(rec) {
				return
			}
		}
		if n == 0 {
			return
		}
	}
}

// UnderWay returns the rounds that f means and that have not ended, at most limit,
// the oldest first.
func (j *Journal) UnderWay(f Filter, limit int) []Entry {
	if j == nil || !f.wants(UnderWay) {
		return nil
	}
	now := time.Now()
	var list []Entry
	j.mu.Lock()
	defer j.mu.Unlock()
	for r := j.under.next; r != &j.under && len(list) < limit; r = r.next {
		if f.matchesRound(r, UnderWay) {
			list = append(list, r.entry(now))
		}
	}
	return list
}

// Recent is what a route did lately.
type Recent struct {
	// Window is the time that the numbers are about: the one asked for, or less
	// when the journal does not go back so far.
	Window Millis `json:"windowMs"`
	// Rate is how many rounds ended in a second, Errors how many of them neither
	// with an ack nor with a drop.
	Rate   float64 `json:"rate"`
	Errors float64 `json:"errors"`
	// P50 and P99 are of the durations of rounds.
	P50 Millis `json:"p50Ms"`
	P99 Millis `json:"p99Ms"`
	// Oldest is the age of the oldest round under way; zero when none is.
	Oldest Millis `json:"oldestMs"`
}

// Recent returns what each route did within the window that ends now; a route
// that did nothing is not in it.
func (j *Journal) Recent(window time.Duration) map[string]Recent {
	if j == nil || window <= 0 {
		return nil
	}
	now := time.Now()
	since := now.Add(-window).UnixNano()
	took, failed := map[string][]time.Duration{}, map[string]int{}
	reached, oldest := false, now.UnixNano()
	j.each(func(rec record) bool {
		if rec.ended() < since {
			reached = true
			return false
		}
		oldest = min(oldest, rec.ended())
		route := rec.text(textRoute)
		took[string(route)] = append(took[string(route)], rec.duration())
		if o := rec.outcome(); o != Ack && o != Drop {
			failed[string(route)]++
		}
		return true
	})
	if !reached && j.forgot() {
		window = max(time.Duration(now.UnixNano()-oldest), time.Millisecond)
	}
	out := map[string]Recent{}
	for route, all := range took {
		slices.Sort(all)
		out[route] = Recent{
			Window: Millis(window), Rate: float64(len(all)) / window.Seconds(), Errors: float64(failed[route]) / window.Seconds(),
			P50: Millis(all[len(all)/2]), P99: Millis(all[len(all)*99/100]),
		}
	}
	for route, age := range j.ages(now) {
		r := out[route]
		r.Window, r.Oldest = Millis(window), Millis(age)
		out[route] = r
	}
	return out
}

// forgot tells whether anything was.
func (j *Journal) forgot() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.ring.oldest > 0
}

// ages are those of the oldest rounds under way.
func (j *Journal) ages(now time.Time) map[string]time.Duration {
	out := map[string]time.Duration{}
	j.mu.Lock()
	defer j.mu.Unlock()
	for r := j.under.next; r != &j.under; r = r.next {
		out[r.route] = max(out[r.route], now.Sub(r.began))
	}
	return out
}

package ledger

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// Rules are what a run is held to beyond what holds for every run.
type Rules struct {
	// Order: the events of one key have their first effects in order.
	Order bool
	// Exclusive: calls to the app for one key never overlap.
	Exclusive bool
	// Poison are the events that must become dead letters, and no others.
	Poison map[string]bool
	// Recovery is how long after a fault was healed, and no other struck, the first
	// event that is published then may take to be delivered; 0 is any time.
	Recovery time.Duration
	// Takeover is how long after a fault strikes every event that was promised
	// before may take to be delivered; 0 is any time.
	Takeover time.Duration
	// Shared is how many replicas must have had effects before the first fault; 0
	// is no rule.
	Shared int
	// Watched: the broker's positions were seen, so an event that is never
	// acknowledged shows.
	Watched bool
}

// Report is what the books say.
type Report struct {
	Accepted  int // answered with success
	Delivered int // different events with an effect
	Recovered int // delivered though the producer got no answer
	Letters   int // different dead letters
	Effects   int // of all deliveries, so more than Delivered by those that came twice

	Lost      []string // promised, and neither delivered nor a dead letter
	Excluded  []string // of those, the ones that were taken away with their queue
	Phantom   []string // delivered, but never sent, or with other bytes
	Early     []string // acknowledged before their effect
	Unsettled []string // delivered and never acknowledged
	Disorder  []string // first effects out of order
	Overlaps  []string // calls for one key at the same time
	Letter    []string // dead letters that should not be, are missing or have other bytes

	Duplicates, Bound int
	Twice             []string // what the duplicates were, once for each
	// Recovery is the longest time from a healed fault to the delivery of an event that
	// was published afterwards, and
	// Takeover that from a fault to the delivery of all that was promised before.
	Recovery, Takeover time.Duration
	// Shares are how many effects each replica had before the first fault.
	Shares map[string]int
	// Drained is how long after the last fault nothing was awaited any more;
	// negative when that was never so.
	Drained time.Duration

	rules Rules
}

// Check reads the books.
func Check(b Books, rules Rules) *Report {
	c := newChecker(b, rules)
	c.effects()
	c.letters()
	c.lost()
	c.early()
	c.order()
	c.overlaps()
	c.times()
	c.shares()
	return c.report
}

// Problems are the rules that were broken, in words.
func (r *Report) Problems() []string { return append(r.Wrong(), r.Slow(1)...) }

// Slow are the limits of time that were passed, when each is so many times what
// the rules say. A machine that does too much at once passes them too.
func (r *Report) Slow(times int) (problems []string) {
	slow := func(what string, took, limit time.Duration) {
		if limit *= time.Duration(times); limit > 0 && took > limit {
			problems = append(problems, fmt.Sprintf("%s after %v, at most %v", what, took.Round(time.Millisecond), limit))
		}
	}
	slow("delivered again", r.Recovery, r.rules.Recovery)
	slow("taken over", r.Takeover, r.rules.Takeover)
	return problems
}

// Wrong are the problems that no machine excuses.
func (r *Report) Wrong() (problems []string) {
	some := func(what string, ids []string) {
		if len(ids) > 0 {
			problems = append(problems, fmt.Sprintf("%s: %d: %s", what, len(ids), strings.Join(ids[:min(5, len(ids))], "; ")))
		}
	}
	some("lost", r.Lost)
	some("phantom", r.Phantom)
	some("acknowledged early", r.Early)
	some("dead letters", r.Letter)
	if r.rules.Watched {
		some("never acknowledged", r.Unsettled)
	}
	if r.rules.Order {
		some("out of order", r.Disorder)
	}
	if r.rules.Exclusive {
		some("overlapping calls of one key", r.Overlaps)
	}
	problems = append(problems, r.twice()...)
	problems = append(problems, r.nothing()...)
	if r.Drained < 0 {
		problems = append(problems, "events were still awaited when the run ended")
	}
	if len(r.Shares) < r.rules.Shared {
		problems = append(problems, fmt.Sprintf("shared by %d, want %d: %v", len(r.Shares), r.rules.Shared, r.Shares))
	}
	if sum := r.Delivered + r.Letters + len(r.Lost) + len(r.Excluded); r.Accepted+r.Recovered != sum {
		problems = append(problems, fmt.Sprintf("conservation: %d accepted and %d recovered, but %d delivered, %d dead letters, %d lost and %d excluded",
			r.Accepted, r.Recovered, r.Delivered, r.Letters, len(r.Lost), len(r.Excluded)))
	}
	return problems
}

// twice is the problem of too many duplicates.
func (r *Report) twice() []string {
	if r.Duplicates <= r.Bound {
		return nil
	}
	return []string{fmt.Sprintf("duplicates: %d, at most %d were in flight", r.Duplicates, r.Bound)}
}

// nothing is the problem of a run that shows nothing.
func (r *Report) nothing() []string {
	if r.Accepted > 0 && r.Effects > 0 {
		return nil
	}
	return []string{"nothing was accepted or nothing delivered: the run shows nothing"}
}

// life is what the books say of one event.
type life struct {
	id, key string
	seq     int
	sum     uint32
	intent  time.Duration
	promise time.Duration // never when it was not
	refused bool
	effect  time.Duration // the first; never when there was none
	place   int           // of the first effect among all
	letter  bool
}

const never = time.Duration(math.MaxInt64)

type checker struct {
	books  Books
	report *Report
	lives  map[string]*life
	keys   map[string][]*life // by seq
	goes   time.Duration      // when the deletion began
	gone   time.Duration      // what was published until then may be deleted
	all    []Entry            // effects, in order
}

func newChecker(b Books, rules Rules) *checker {
	c := &checker{books: b, report: &Report{rules: rules}, lives: map[string]*life{}, keys: map[string][]*life{}, goes: never, gone: -1}
	for _, e := range b.Producer {
		switch e.What {
		case Intent:
			l := &life{id: e.ID, key: e.Key, seq: e.Seq, sum: e.Sum, intent: e.At, promise: never, effect: never, place: math.MaxInt}
			c.lives[e.ID] = l
			c.keys[e.Key] = append(c.keys[e.Key], l)
		case OK:
			c.lives[e.ID].promise = e.At
			c.report.Accepted++
		case Failed:
			c.lives[e.ID].refused = true
		}
	}
	for _, e := range b.Faults {
		switch e.What {
		case Fault:
			c.report.Bound += e.Limit
		case Deleted:
			c.goes = min(c.goes, e.At)
		case Recreated:
			c.gone = e.At
		}
	}
	return c
}

// effects goes through the deliveries of app and sink in the order of time.
func (c *checker) effects() {
	r := c.report
	for _, book := range [][]Entry{c.books.App, c.books.Sink} {
		for _, e := range book {
			if e.What == Effect {
				c.all = append(c.all, e)
			}
		}
	}
	slices.SortStableFunc(c.all, func(a, b Entry) int { return cmp.Compare(a.At, b.At) })
	r.Effects = len(c.all)
	for i, e := range c.all {
		l := c.lives[e.ID]
		switch {
		case l == nil:
			r.Phantom = append(r.Phantom, e.ID+" was never sent")
		case l.refused:
			r.Phantom = append(r.Phantom, e.ID+" was refused and came all the same")
		case l.sum != e.Sum:
			r.Phantom = append(r.Phantom, e.ID+" came with other bytes")
		}
		if l == nil {
			continue
		}
		if l.effect < never {
			r.Duplicates++
			r.Twice = append(r.Twice, l.id)
			continue
		}
		l.effect, l.place = e.At, i
		r.Delivered++
		if l.promise == never && !l.refused {
			r.Recovered++
		}
	}
}

// letters compares the dead letters with those that there must be.
func (c *checker) letters() {
	r := c.report
	for _, book := range [][]Entry{c.books.App, c.books.Sink} {
		for _, e := range book {
			if e.What == Letter {
				c.letter(e)
			}
		}
	}
	for id := range r.rules.Poison {
		if l := c.lives[id]; l == nil || l.promise < never && !l.letter {
			r.Letter = append(r.Letter, id+" is missing")
		}
	}
	slices.Sort(r.Letter)
}

func (c *checker) letter(e Entry) {
	r, l := c.report, c.lives[e.ID]
	switch {
	case l == nil:
		r.Letter = append(r.Letter, e.ID+" was never sent")
		return
	case !r.rules.Poison[e.ID]:
		r.Letter = append(r.Letter, e.ID+" is not poison")
	case l.sum != e.Sum:
		r.Letter = append(r.Letter, e.ID+" has other bytes")
	}
	if l.letter {
		r.Duplicates++
		r.Twice = append(r.Twice, l.id)
		return
	}
	l.letter = true
	if l.effect < never {
		return // counted as delivered; that it is here too was told above
	}
	r.Letters++
	if l.promise == never && !l.refused {
		r.Recovered++
	}
}

// arrived tells whether an event came to its end, and excluded whether its queue
// was deleted under it.
func (l *life) arrived() bool { return l.effect < never || l.letter }

func (c *checker) excluded(l *life) bool { return !l.arrived() && l.intent <= c.gone }

func (c *checker) lost() {
	for _, l := range c.sorted() {
		switch {
		case l.promise == never || l.arrived():
		case c.excluded(l):
			c.report.Excluded = append(c.report.Excluded, l.id)
		default:
			c.report.Lost = append(c.report.Lost, l.id)
		}
	}
}

// takenAway tells whether a broker that no longer holds an event may have deleted it,
// though it still came to its end: a sidecar had it already.
func (c *checker) takenAway(l *life, at time.Duration) bool {
	return c.excluded(l) || at >= c.goes && l.intent <= c.gone
}

// sorted are the lives in the order of their intents.
func (c *checker) sorted() []*life {
	all := make([]*life, 0, len(c.lives))
	for _, e := range c.books.Producer {
		if e.What == Intent {
			all = append(all, c.lives[e.ID])
		}
	}
	return all
}

// early looks for events that the broker had as acknowledged before they had an
// effect. An event whose effect came while the broker was looked at counts as
// delivered before, so nothing is found that is not so. Of dead letters the time
// is not known: they reach the app through the broker again.
func (c *checker) early() {
	r := c.report
	settled := map[string]bool{}
	lives := c.sorted()
	counted := false
	for _, p := range c.books.Broker {
		if p.Counted {
			counted = true
			c.counted(p, lives)
			continue
		}
		for _, id := range p.IDs {
			settled[id] = true
			if l := c.lives[id]; l != nil && l.effect > p.At && !l.letter && !c.takenAway(l, p.At) {
				r.Early = append(r.Early, fmt.Sprintf("%s at %v", id, p.At.Round(time.Millisecond)))
			}
		}
	}
	if counted {
		c.rest(c.books.Broker[len(c.books.Broker)-1].Held, lives)
		return
	}
	if len(c.books.Broker) == 0 {
		return
	}
	for _, l := range lives {
		if l.promise < never && l.arrived() && !settled[l.id] {
			r.Unsettled = append(r.Unsettled, l.id)
		}
	}
}

// counted compares a number: what was promised before the look began, and had no
// effect when it ended, must be held.
func (c *checker) counted(p Entry, lives []*life) {
	owed := 0
	for _, l := range lives {
		if l.promise < p.From && l.effect > p.At && !l.letter && !c.takenAway(l, p.At) {
			owed++
		}
	}
	if p.Held < owed {
		c.report.Early = append(c.report.Early, fmt.Sprintf("at %v the broker held %d of %d", p.At.Round(time.Millisecond), p.Held, owed))
	}
}

// rest compares what the broker holds at the end with what it may hold: events
// of which the producer has no answer.
func (c *checker) rest(held int, lives []*life) {
	may := 0
	for _, l := range lives {
		if l.promise == never && !l.refused && !l.arrived() {
			may++
		}
	}
	if held > may {
		c.report.Unsettled = append(c.report.Unsettled, fmt.Sprintf("the broker holds %d", held))
	}
}

// order compares the first effects of each key with the order of publishing.
// What was not promised orders nothing: it may come late or never.
func (c *checker) order() {
	for _, lives := range c.keys {
		slices.SortStableFunc(lives, func(a, b *life) int { return cmp.Compare(a.seq, b.seq) })
		var latest *life
		for _, l := range lives {
			if l.promise == never || l.effect == never {
				continue
			}
			if latest != nil && l.place < latest.place {
				c.report.Disorder = append(c.report.Disorder, l.id+" came before "+latest.id)
				continue
			}
			latest = l
		}
	}
	slices.Sort(c.report.Disorder)
}

// overlaps looks for two calls of one key at the same time.
func (c *checker) overlaps() {
	open := map[string]map[int64]string{} // by key and call: the event
	for _, e := range c.books.App {
		switch e.What {
		case Begin:
			calls := open[e.Key]
			if calls == nil {
				calls = map[int64]string{}
				open[e.Key] = calls
			}
			for _, other := range calls {
				c.report.Overlaps = append(c.report.Overlaps, e.ID+" began while "+other+" was under way")
				break
			}
			calls[e.Call] = e.ID
		case Reply:
			delete(open[e.Key], e.Call)
		}
	}
}

// times finds out how long it took to go on.
func (c *checker) times() {
	r := c.report
	last := time.Duration(0)
	r.Drained = -1
	for _, e := range c.books.Faults {
		switch e.What {
		case Healed:
			last = e.At
			r.Recovery = max(r.Recovery, c.recovery(e.At))
		case Fault:
			last = e.At
			r.Takeover = max(r.Takeover, c.takeover(e.At))
		case Drained:
			r.Drained = e.At - last
		}
	}
}

// recovery is how long after a time the first event that was published since
// was delivered; 0 when the next fault came before, which is followed by a time to
// recover of its own.
func (c *checker) recovery(at time.Duration) time.Duration {
	first := never
	for _, l := range c.lives {
		if l.intent >= at {
			first = min(first, l.effect)
		}
	}
	if first == never {
		return 0 // nothing was published since
	}
	for _, e := range c.books.Faults {
		if e.What == Fault && e.At > at && e.At < first {
			return 0
		}
	}
	return first - at
}

// takeover is how long after a time all that had been promised until then was
// delivered.
func (c *checker) takeover(at time.Duration) (took time.Duration) {
	for _, l := range c.lives {
		if l.promise <= at && l.effect < never && l.effect > at {
			took = max(took, l.effect-at)
		}
	}
	return took
}

// shares counts what each replica did before the first fault.
func (c *checker) shares() {
	first := never
	for _, e := range c.books.Faults {
		if e.What == Fault {
			first = min(first, e.At)
		}
	}
	c.report.Shares = map[string]int{}
	for _, e := range c.books.App {
		if e.What == Effect && e.At < first {
			c.report.Shares[e.Replica]++
		}
	}
}

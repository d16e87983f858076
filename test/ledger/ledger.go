// Package ledger proves that nothing is lost. It keeps books on what a producer
// was promised, what an app did, what a broker still holds and what a sink got,
// all on one clock, and a checker that reads nothing but the books.
//
// The tests of this package keep such books while real penstock processes work
// with a real broker and everything around them fails: see docs/testing.md. The
// checker is held by tests of its own, and by mutants, which are brokers that
// lose, double, swap and lie on purpose.
package ledger

import (
	"maps"
	"sync"
	"time"
)

// What is what an [Entry] tells of.
type What string

// Entries of the producer's book: an intent before each publish and one of the
// three others after it. A publish without an answer is unknown, and so is one
// whose answer may be wrong.
const (
	Intent  What = "intent"
	OK      What = "ok"
	Failed  What = "failed" // certainly not published
	Unknown What = "unknown"
)

// Entries of the app's book and of the sink's, which has no replies. The effect
// is written before the reply is sent.
const (
	Begin  What = "begin"
	Effect What = "effect"
	Reply  What = "reply"
	Letter What = "letter" // a dead letter
)

// Position is an entry of the broker's book: what had been acknowledged when the
// broker was looked at, some time between From and At.
const Position What = "position"

// Entries of the book of faults.
const (
	Fault  What = "fault"
	Healed What = "healed"
	// Deleted and Recreated are when it began that the queue, stream or group was
	// taken away, and when it was seen again. What was published before the latter may be
	// gone with it.
	Deleted   What = "deleted"
	Recreated What = "recreated"
	Drained   What = "drained" // nothing was awaited any more
)

// Entry is one line of a book. Which fields count depends on What.
type Entry struct {
	At   time.Duration `json:"at"` // since the books were opened
	What What          `json:"what"`
	// ID, Key and Seq say which event: the Seq-th of its key. Sum is the checksum
	// of its data.
	ID  string `json:"id,omitempty"`
	Key string `json:"key,omitempty"`
	Seq int    `json:"seq,omitempty"`
	Sum uint32 `json:"sum,omitempty"`
	// Call ties a begin, an effect and a reply together. Replica is whose call it
	// was, and Code what it was answered with.
	Call    int64  `json:"call,omitempty"`
	Replica string `json:"replica,omitempty"`
	Code    int    `json:"code,omitempty"`
	// From is when a look at the broker began, IDs which events were seen as
	// acknowledged for the first time. Where the broker shows only a number,
	// Counted is set and Held is how many it had not been acknowledged.
	From    time.Duration `json:"from,omitempty"`
	IDs     []string      `json:"ids,omitempty"`
	Counted bool          `json:"counted,omitempty"`
	Held    int           `json:"held,omitempty"`
	// Limit is how many events may come twice for a fault: those in flight where
	// it strikes.
	Limit int    `json:"limit,omitempty"`
	Note  string `json:"note,omitempty"`
}

// Books are everything that was written down in one run. Each grows at its end
// only.
type Books struct {
	Producer, App, Broker, Sink, Faults []Entry
}

// Keeper writes the books. Its methods may be called from any goroutine; those
// of one book are written in the order of their times.
type Keeper struct {
	opened time.Time

	mu       sync.Mutex
	books    Books
	intents  map[string]time.Duration
	promised map[string]bool // answered with success
	done     map[string]bool // had an effect or became a dead letter
	gone     time.Duration   // what was published until then may be deleted
}

// NewKeeper opens empty books.
func NewKeeper() *Keeper {
	return &Keeper{opened: time.Now(), gone: -1, intents: map[string]time.Duration{}, promised: map[string]bool{}, done: map[string]bool{}}
}

// Now is the time on the clock of the books.
func (k *Keeper) Now() time.Duration { return time.Since(k.opened) }

// Replicas is how many replicas have had an effect.
func (k *Keeper) Replicas() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	all := map[string]bool{}
	for _, e := range k.books.App {
		if e.What == Effect {
			all[e.Replica] = true
		}
	}
	return len(all)
}

// Producer writes down what the producer did.
func (k *Keeper) Producer(e Entry) {
	k.write(&k.books.Producer, e)
}

// App writes down what the app did.
func (k *Keeper) App(e Entry) { k.write(&k.books.App, e) }

// Broker writes down what the broker was seen to hold.
func (k *Keeper) Broker(e Entry) { k.write(&k.books.Broker, e) }

// Sink writes down what an output binding's target got.
func (k *Keeper) Sink(e Entry) { k.write(&k.books.Sink, e) }

// Fault writes down what was broken and mended.
func (k *Keeper) Fault(e Entry) { k.write(&k.books.Faults, e) }

func (k *Keeper) write(book *[]Entry, e Entry) {
	k.mu.Lock()
	defer k.mu.Unlock()
	e.At = k.Now()
	*book = append(*book, e)
	switch e.What {
	case Intent:
		k.intents[e.ID] = e.At
	case OK:
		k.promised[e.ID] = true
	case Effect, Letter:
		k.done[e.ID] = true
	case Recreated:
		k.gone = e.At
	}
}

// Promised are the events that were answered with success so far.
func (k *Keeper) Promised() map[string]bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return maps.Clone(k.promised)
}

// Awaited is how many events were promised and are neither delivered nor
// dead-lettered, nor taken away with their queue.
func (k *Keeper) Awaited() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	n := 0
	for id := range k.promised {
		if !k.done[id] && k.intents[id] > k.gone {
			n++
		}
	}
	return n
}

// Since tells whether an event that was sent since a time came to its end.
func (k *Keeper) Since(at time.Duration) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	for id := range k.done {
		if sent, ok := k.intents[id]; ok && sent >= at {
			return true
		}
	}
	return false
}

// Counts are how many events were promised, and how many effects there were.
func (k *Keeper) Counts() (promised, done int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.promised), len(k.done)
}

// Close returns the books. Nothing is to be written any more.
func (k *Keeper) Close() Books {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.books
}

// Package journal remembers what happened to events lately: each round of each
// delivery with its tries, how it ended, why and how long it took.
//
// Whoever serves routes embeds a [Round] in what it keeps of a delivery's round
// and tells it of the beginning, the tries and the end. Whoever looks asks
// [Journal.Find] for what was, [Journal.UnderWay] for what has not ended, and
// [Journal.Recent] for rates and latencies, or follows with [Journal.Watch].
//
// It promises that writing never waits for anybody who reads, costs no allocation
// and no more than a copy of a few hundred bytes; that it holds at most the bytes
// it was given, the newest; that no payload is in it, except previews, apart and
// only while somebody watches who asked for them; and that who watches too slowly
// is told how many entries were lost.
package journal

import (
	"encoding/json"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/penstock-io/penstock/fault"
)

// Bounds of what is remembered.
const (
	// DefaultBytes is what a journal holds at most, about 20,000 rounds. It is
	// taken as it is needed.
	DefaultBytes = 4 << 20
	// MaxText is how many bytes of any text are kept.
	MaxText = 255
	// MaxTries is how many tries of one round are kept, the first ones.
	MaxTries = 8
)

// Outcome is how a round or a try ended.
type Outcome uint8

// The outcomes. Those of a try are Ack, Retry, Drop and Leave.
const (
	UnderWay   Outcome = iota // it has not ended
	Ack                       // delivered
	Retry                     // another try follows here
	GiveBack                  // given back to its source, which delivers it again
	Drop                      // given up on purpose, without a dead letter
	DeadLetter                // given up, and the dead letter is durable
	Leave                     // left with its source, at a stop
)

func words() []string {
	return []string{"underway", "ack", "retry", "giveback", "drop", "deadletter", "leave"}
}

// String returns the word for it.
func (o Outcome) String() string {
	if all := words(); int(o) < len(all) {
		return all[o]
	}
	return "unknown"
}

// ParseOutcome reads such a word. Kind Invalid.
func ParseOutcome(word string) (Outcome, error) {
	for o, w := range words() {
		if w == word {
			return Outcome(o), nil
		}
	}
	return 0, fault.New(fault.Invalid, "outcome %.64q is none of %v", word, words())
}

// MarshalText writes the word.
func (o Outcome) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// UnmarshalText reads the word.
func (o *Outcome) UnmarshalText(text []byte) (err error) {
	*o, err = ParseOutcome(string(text))
	return err
}

// Millis is a duration that JSON has as a number of milliseconds.
type Millis time.Duration

// MarshalJSON writes the number, with microseconds behind the point.
func (m Millis) MarshalJSON() ([]byte, error) {
	return strconv.AppendFloat(nil, float64(time.Duration(m).Microseconds())/1e3, 'f', -1, 64), nil
}

// UnmarshalJSON reads such a number.
func (m *Millis) UnmarshalJSON(text []byte) error {
	var ms float64
	err := json.Unmarshal(text, &ms)
	*m = Millis(ms * float64(time.Millisecond))
	return err
}

// Entry is one round of one delivery. Texts are cut after [MaxText] bytes.
type Entry struct {
	// Seq numbers the entries of one journal, from 1 and without gaps; zero for a
	// round that is under way.
	Seq uint64 `json:"seq,omitempty"`
	// Time is when the round ended, or began when it is under way.
	Time  time.Time `json:"time"`
	Route string    `json:"route"`
	// ID, Source, Type and Subject are those of the event as it came; empty when
	// it could not be decoded.
	ID      string `json:"id"`
	Source  string `json:"source"`
	Type    string `json:"type"`
	Subject string `json:"subject,omitempty"`
	// TraceID is that of the event's traceparent.
	TraceID string `json:"traceId,omitempty"`
	// Size is that of the event, in bytes.
	Size int64 `json:"size"`
	// Round counts since the event was taken from its source, Attempt as the
	// source and the app know it.
	Round   int `json:"round"`
	Attempt int `json:"attempt"`
	// Outcome is what the source is told or what follows; Reason is why.
	Outcome Outcome `json:"outcome"`
	Reason  string  `json:"reason,omitempty"`
	// Wait is the pause before the next round, for Retry.
	Wait Millis `json:"waitMs,omitempty"`
	// Duration is that of the round, with steps, tries and settling.
	Duration Millis `json:"durationMs"`
	// Tries are calls of targets, in their order.
	Tries []Try `json:"tries,omitempty"`
	// Payload is the beginning of the event's data, for who watches and asked
	// for it.
	Payload []byte `json:"payload,omitempty"`
}

// Try is one call of a target.
type Try struct {
	Target string `json:"target"`
	// After is how long after the begin of the round it began.
	After    Millis  `json:"afterMs"`
	Duration Millis  `json:"durationMs"`
	Outcome  Outcome `json:"outcome"`
	Reason   string  `json:"reason,omitempty"`
}

// Journal is safe for concurrent use; a nil one remembers nothing.
type Journal struct {
	mu       sync.Mutex // guards all of it, held for a copy at most
	ring     ring
	seq      uint64 // of the newest entry
	under    Round  // head of the list of rounds under way
	wake     chan struct{}
	previews *previews // nil: nobody asks for payloads
	watchers int

	ended chan struct{} // closed by End, once
	once  sync.Once
	shown atomic.Bool // whether there are previews; read without the mutex
}

// New makes a journal that holds at most so many bytes; zero is [DefaultBytes].
func New(bytes int) *Journal {
	if bytes <= 0 {
		bytes = DefaultBytes
	}
	j := &Journal{ring: newRing(bytes), ended: make(chan struct{})}
	j.under.next, j.under.prev = &j.under, &j.under
	return j
}

// End tells those who watch that nothing more will come. It may be called twice;
// what is remembered stays.
func (j *Journal) End() { j.once.Do(func() { close(j.ended) }) }

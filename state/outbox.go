package state

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/instances"
)

// Outbox says what is published for transactions of a store; the zero value is
// nothing.
type Outbox struct {
	// PubSub and Topic are where to.
	PubSub, Topic string
}

// Enabled tells whether anything is published.
func (o Outbox) Enabled() bool { return o.PubSub != "" }

// Row is one event that a transaction wants published. It is an item of the
// store itself, saved in the same transaction: either both the state and the
// event are there, or neither is. It is deleted when the event is published.
type Row struct {
	// Key is the state's key, by which events are ordered.
	Key string `json:"key"`
	// ID is the event's, the same however often it is published, and the row's
	// key in the store.
	ID          string            `json:"id"`
	Data        []byte            `json:"data"`
	ContentType string            `json:"contentType"`
	Metadata    map[string]string `json:"metadata,omitempty"`
	Trace       string            `json:"trace,omitempty"`
	// Owner is the process that publishes it, and Owned when it last said so.
	Owner Owner     `json:"owner"`
	Owned time.Time `json:"owned"`
}

// Owner is a process on a host.
type Owner struct {
	Host    string            `json:"host"`
	Process instances.Process `json:"process"`
}

// gone tells whether the owner of a row has died: it says so itself on this
// host, elsewhere it has not been heard of.
func (r *Row) gone(me Owner, now time.Time) bool {
	if r.Owner == me {
		return false
	}
	return now.Sub(r.Owned) > abandoned || r.Owner.Host == me.Host && !r.Owner.Process.Alive()
}

// ReadRow reads the body of a delivery of [OutboxQueue].
func ReadRow(body []byte) (Row, error) {
	var r Row
	if err := json.Unmarshal(body, &r); err != nil {
		return r, fault.New(fault.Invalid, "read outbox row: %w", err)
	}
	return r, nil
}

const (
	// rowPrefix begins the keys of rows, as Dapr's marks do.
	rowPrefix = "outbox-"
	// abandoned is how long a row is left to an owner that says nothing.
	abandoned = time.Minute
	// projection marks an operation that is not saved: its value is what is
	// published for the key.
	projection = "outbox.projection"
)

// OutboxQueue holds the rows of a store that are to be published. Make one with
// [Store.Queue]; somebody must run its source.
type OutboxQueue struct {
	store *Store
	me    Owner
	name  string       // ends the ids of rows made here
	last  atomic.Int64 // the time in the newest of them

	wake chan struct{} // holds one token while there is news

	mu      sync.Mutex          // guards what follows
	pending map[string]struct{} // ids of transactions that have not returned
	fresh   []Row               // committed here, in order
	waiting map[string]struct{} // ids of fresh that are still to be emitted
	known   map[string]struct{} // ids of rows under way
	deleted map[string]struct{} // since a visit read its page; nil without one
	more    bool                // rows are in the store that are not in fresh
}

// maxFresh bounds the rows that wait in memory; what is beyond waits in the
// store and is read from there.
const maxFresh = 4096

// Queue returns the store's outbox; nil when it has none.
func (s *Store) Queue() *OutboxQueue { return s.queue }

func newQueue(s *Store) *OutboxQueue {
	host, err := os.Hostname()
	if err != nil {
		host = "" // rows are then left alone for a minute
	}
	return &OutboxQueue{
		store: s, name: rand.Text()[:10], me: Owner{Host: host, Process: instances.Of(os.Getpid())},
		wake: make(chan struct{}, 1), more: true,
		pending: map[string]struct{}{}, waiting: map[string]struct{}{}, known: map[string]struct{}{},
	}
}

// rows splits a transaction into what is saved and what is published for it.
func (q *OutboxQueue) rows(changes []Change, trace string) (saved []Change, rows []Row) {
	instead := map[string]*Change{}
	for i, c := range changes {
		if strings.EqualFold(c.Metadata[projection], "true") {
			instead[c.Key] = &changes[i]
			continue
		}
		saved = append(saved, c)
	}
	for i := range saved {
		c := &saved[i]
		if c.Delete {
			continue
		}
		from := c
		if p := instead[c.Key]; p != nil {
			from = p
		}
		rows = append(rows, q.row(c.Key, from, trace))
	}
	return saved, rows
}

func (q *OutboxQueue) row(key string, c *Change, trace string) Row {
	at := time.Now().UnixNano()
	for { // keys grow, also when the clock does not
		last := q.last.Load()
		at = max(at, last+1)
		if q.last.CompareAndSwap(last, at) {
			break
		}
	}
	id := fmt.Sprintf("%s%016x-%s", rowPrefix, at, q.name)
	r := Row{Key: key, ID: id, Data: c.Value, Trace: trace, Owner: q.me, Owned: time.Now(), Metadata: published(c.Metadata)}
	switch r.ContentType = c.Metadata["contentType"]; {
	case r.ContentType != "":
	case json.Valid(c.Value):
		r.ContentType = "application/json"
	case c.Binary:
		r.ContentType = "application/octet-stream"
	default:
		r.ContentType = "text/plain"
	}
	return r
}

// published is the request metadata that is about the event: the overrides of
// its attributes.
func published(metadata map[string]string) map[string]string {
	var out map[string]string
	for k, v := range metadata {
		if strings.HasPrefix(strings.ToLower(k), "cloudevent.") {
			if out == nil {
				out = map[string]string{}
			}
			out[k] = v
		}
	}
	return out
}

// change saves a row.
func (r *Row) change() Change {
	b, _ := json.Marshal(r) // it has nothing that cannot be
	return Change{Key: r.ID, Value: b}
}

// begin notes rows that are about to be committed: what the store says of them
// meanwhile is not for a visit.
func (q *OutboxQueue) begin(rows []Row) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i := range rows {
		q.pending[rows[i].ID] = struct{}{}
	}
}

// end takes rows that were committed. After an error that leaves it open whether
// they were, a look at the store finds out.
func (q *OutboxQueue) end(rows []Row, err error) {
	q.mu.Lock()
	for i := range rows {
		delete(q.pending, rows[i].ID)
	}
	switch {
	case err != nil:
		q.more = q.more || !refused(err)
	case len(q.fresh)+len(rows) > maxFresh:
		q.more = true
	default:
		q.fresh = append(q.fresh, rows...)
		for i := range rows {
			q.waiting[rows[i].ID] = struct{}{}
		}
	}
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// refused tells whether an error says that nothing was done.
func refused(err error) bool {
	kind := fault.KindOf(err)
	return kind == fault.Invalid || kind == fault.Conflict || kind == fault.Denied
}

package sqlite

import (
	"context"
	"database/sql"
	"slices"
	"sync"
	"time"
)

const (
	outboxLimit = 8192 // outcomes not yet written, of all groups; then delivery waits
	outboxBatch = 1024 // outcomes in one transaction
	outboxPause = 250 * time.Millisecond
)

// change is what an outcome does to a waiting message.
type change struct {
	e       *entry
	kind    changeKind
	due     int64
	attempt int
}

type changeKind uint8

const (
	remove  changeKind = iota // it is done
	later                     // it is due again, having been tried
	counted                   // it is being tried
)

type changeKey struct {
	q  *queue
	id int64
}

// outbox collects changes while a transaction is under way and writes them in
// the next. Of several changes to one message the last counts, so that a fast
// delivery costs one write.
type outbox struct {
	b    *broker
	bell chan struct{}

	mu      sync.Mutex
	changes map[changeKey]change
}

func newOutbox(b *broker) *outbox {
	return &outbox{b: b, bell: make(chan struct{}, 1), changes: map[changeKey]change{}}
}

func (o *outbox) add(q *queue, c change) {
	o.mu.Lock()
	o.changes[changeKey{q, c.e.id}] = c
	o.mu.Unlock()
	ring(o.bell)
}

func (o *outbox) full() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.changes) >= outboxLimit
}

// run writes until ctx ends, and then what is left and the end of our leases.
func (o *outbox) run(ctx context.Context) {
	write := context.WithoutCancel(ctx) // a local transaction, bounded by the busy timeout
	failing := false
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-o.bell:
		}
		err := o.flush(write)
		if failing != (err != nil) {
			failing = err != nil
			o.log(err)
		}
		if err != nil {
			pause(ctx, outboxPause)
			ring(o.bell)
		}
	}
	err := o.flush(write)
	if err == nil {
		err = o.b.db.Write(write, func(tx *sql.Tx) error {
			_, err := tx.Exec("UPDATE pubsub_queues SET owner = '' WHERE owner = ?", o.b.owner)
			return err
		})
	}
	if err != nil {
		o.b.log.Error("outcomes are not written: their messages will be delivered again", "file", o.b.db.Path(), "error", err)
	}
}

func (o *outbox) log(err error) {
	if err != nil {
		o.b.log.Error("outcomes cannot be written: deliveries wait and are tried again", "file", o.b.db.Path(), "error", err)
		return
	}
	o.b.log.Info("outcomes are written again", "file", o.b.db.Path())
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// flush writes all changes; those of a failed transaction stay.
func (o *outbox) flush(ctx context.Context) error {
	for {
		batch := o.take()
		if len(batch) == 0 {
			return nil
		}
		var did effect
		err := o.b.db.Write(ctx, func(tx *sql.Tx) (err error) {
			did, err = o.write(tx, batch)
			return err
		})
		if err != nil {
			o.putBack(batch)
			return err
		}
		for queue, n := range did.removed {
			o.b.add(queue, -n)
		}
		done := map[*queue][]change{}
		for k, c := range batch {
			done[k.q] = append(done[k.q], c)
		}
		for q, changes := range done {
			q.written(changes, did.lost[q])
		}
	}
}

func (o *outbox) take() map[changeKey]change {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.changes) <= outboxBatch {
		batch := o.changes
		o.changes = make(map[changeKey]change, len(batch))
		return batch
	}
	batch := make(map[changeKey]change, outboxBatch)
	for k, c := range o.changes {
		batch[k] = c
		delete(o.changes, k)
		if len(batch) == outboxBatch {
			break
		}
	}
	return batch
}

func (o *outbox) putBack(batch map[changeKey]change) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for k, c := range batch {
		if _, newer := o.changes[k]; !newer {
			o.changes[k] = c
		}
	}
}

// effect is what a batch of changes did.
type effect struct {
	removed map[int64]int   // messages that left each queue
	lost    map[*queue]bool // somebody else has these groups
}

const (
	setLater = `UPDATE pubsub_pending SET due = ?, attempt = ? WHERE queue = ? AND id = ?
		AND EXISTS (SELECT 1 FROM pubsub_queues WHERE id = queue AND owner = ?)`
	setCounted = `UPDATE pubsub_pending SET attempt = ? WHERE queue = ? AND id = ?
		AND EXISTS (SELECT 1 FROM pubsub_queues WHERE id = queue AND owner = ?)`
)

// write applies the changes. Those that keep a message count only while we
// hold the group: whoever took it over knows better.
func (o *outbox) write(tx *sql.Tx, batch map[changeKey]change) (did effect, err error) {
	did = effect{removed: map[int64]int{}, lost: map[*queue]bool{}}
	removed := map[int64][]int64{}
	for k, c := range batch {
		n := int64(1)
		switch c.kind {
		case remove:
			removed[k.q.id] = append(removed[k.q.id], k.id)
		case later:
			n, err = o.b.exec(tx, setLater, c.due, c.attempt, k.q.id, k.id, o.b.owner)
		case counted:
			_, err = o.b.exec(tx, setCounted, c.attempt, k.q.id, k.id, o.b.owner)
		}
		if err != nil {
			return did, err
		}
		if n == 0 {
			did.lost[k.q] = true
		}
	}
	for queue, ids := range removed {
		slices.Sort(ids) // neighbours are on one page
		if did.removed[queue], err = o.b.remove(tx, queue, ids); err != nil {
			return did, err
		}
	}
	return did, nil
}

// removeMessage takes a message out of the file when no queue has it any more.
// Only one that says its topic can be in a wildcard's.
const removeMessage = `DELETE FROM pubsub_messages WHERE id = ?1
	AND NOT EXISTS (SELECT 1 FROM pubsub_queues q JOIN pubsub_pending p ON p.queue = q.id AND p.id = ?1
		WHERE q.topic = (SELECT topic FROM pubsub_queues WHERE id = ?2))
	AND (topic = '' OR
		NOT EXISTS (SELECT 1 FROM pubsub_queues q JOIN pubsub_pending p ON p.queue = q.id AND p.id = ?1
			WHERE q.topic = pubsub_messages.topic)
		AND NOT EXISTS (SELECT 1 FROM pubsub_queues q JOIN pubsub_pending p ON p.queue = q.id AND p.id = ?1
			WHERE substr(q.topic, -1) = '*'))`

// remove takes messages out of a queue, and out of the file when no other
// queue has them. It returns how many were there.
func (b *broker) remove(tx *sql.Tx, queue int64, ids []int64) (n int, err error) {
	for _, id := range ids {
		gone, err := b.exec(tx, `DELETE FROM pubsub_pending WHERE queue = ? AND id = ?`, queue, id)
		if err != nil {
			return 0, err
		}
		if gone == 0 {
			continue // expired, or done by whoever took the group over
		}
		n++
		if _, err = b.exec(tx, removeMessage, id, queue); err != nil {
			return 0, err
		}
	}
	return n, nil
}

// exec runs a statement that stays prepared, and returns how many rows it
// changed.
func (b *broker) exec(tx *sql.Tx, query string, args ...any) (int64, error) {
	st, err := b.db.Stmt(tx, query)
	if err != nil {
		return 0, err
	}
	res, err := st.Exec(args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

func ring(bell chan struct{}) {
	select {
	case bell <- struct{}{}:
	default:
	}
}

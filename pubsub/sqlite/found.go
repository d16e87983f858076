package sqlite

import (
	"cmp"
	"context"
	"database/sql"
	"slices"

	client "github.com/penstock-io/penstock/client/sqlite"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
)

// found is a message just read, with its ordering key.
type found struct {
	entry *entry
	key   string
	due   int64
}

// query reads messages until their bodies are more than scanBytes, and tells
// whether there are probably more. The last argument is the limit of rows.
func (r *reader) query(ctx context.Context, st *sql.Stmt, args ...any) ([]found, bool, error) {
	r.mu.Lock()
	key := r.key
	r.mu.Unlock()
	rows, err := st.QueryContext(ctx, args...)
	if err != nil {
		return nil, false, client.Classify(err)
	}
	defer rows.Close()
	var out []found
	size := 0
	for rows.Next() {
		e := &entry{loaded: true}
		var due int64
		var metadata []byte
		if err := rows.Scan(&e.id, &due, &e.attempt, &e.expires, &e.key, &metadata, &e.body, &e.topic); err != nil {
			return nil, false, client.Classify(err)
		}
		if e.metadata, err = decodeMetadata(metadata); err != nil {
			return nil, false, fault.Wrap(err, "read message %d", e.id)
		}
		out = append(out, found{e, r.keyOf(e, key), due})
		if size += len(e.body); size > scanBytes {
			return out, true, nil
		}
	}
	limit, ok := args[len(args)-1].(int)
	return out, ok && len(out) >= limit, client.Classify(rows.Err())
}

func (r *reader) keyOf(e *entry, key func(*cloudevents.Delivery) string) string {
	if key == nil {
		return e.key
	}
	*r.scratch = cloudevents.Delivery{Body: e.body, Metadata: e.metadata, Key: e.key, Attempt: e.attempt + 1}
	return key(r.scratch)
}

// admit makes a message ready when its key is free, else it waits in its lane.
func (q *queue) admit(f found) {
	if f.key == "" {
		q.makeReady(f.entry)
		return
	}
	l := q.lanes[f.key]
	switch {
	case l == nil:
		f.entry.lane = &lane{key: f.key}
		q.lanes[f.key] = f.entry.lane
		q.makeReady(f.entry)
	case l.more > 0 && f.entry.id >= l.more: // met again when the lane gets there
	case q.crowded(l) && (len(l.wait) == 0 || l.wait[len(l.wait)-1].id < f.entry.id):
		l.more = f.entry.id
	default:
		q.hold(l, f.entry)
	}
}

// crowded tells whether a lane has no room for more. When all lanes together
// have none, the longest gives up half of what it remembers: keys that move on
// need the room, and one that is stuck does not.
func (q *queue) crowded(l *lane) bool {
	if len(l.wait) >= laneLimit {
		return true
	}
	if q.held < heldLimit {
		return false
	}
	longest := l
	for _, o := range q.lanes {
		if len(o.wait) > len(longest.wait) {
			longest = o
		}
	}
	keep := len(longest.wait) / 2
	if longest == l || keep == 0 {
		return true
	}
	longest.more = longest.wait[keep].id
	for _, e := range longest.wait[keep:] {
		q.heldFor -= int64(len(e.body))
		q.held--
	}
	longest.wait = slices.Clone(longest.wait[:keep])
	return false
}

// hold remembers e behind the others of its key, with its body while there is
// room for that.
func (q *queue) hold(l *lane, e *entry) {
	if q.heldFor+int64(len(e.body)) > heldBytes {
		e = &entry{id: e.id}
	}
	at, known := slices.BinarySearchFunc(l.wait, e.id, func(o *entry, id int64) int { return cmp.Compare(o.id, id) })
	if known {
		return
	}
	l.wait = slices.Insert(l.wait, at, e)
	q.heldFor += int64(len(e.body))
	q.held++
}

// ids runs a query that returns ids.
func (b *broker) ids(tx *sql.Tx, query string, args ...any) ([]int64, error) {
	st, err := b.db.Stmt(tx, query)
	if err != nil {
		return nil, err
	}
	rows, err := st.Query(args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var ids []int64
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, rows.Err()
}

package sqlite

import (
	"database/sql"
	"encoding/binary"
	"maps"
	"slices"
	"time"

	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/pubsub"
)

// row is a message on its way into the file.
type row struct {
	key          string
	due, expires int64 // milliseconds; 0 is now and never
	metadata     []byte
	body         []byte
}

func newRow(m *pubsub.Message, now time.Time) row {
	r := row{key: m.Key, metadata: encodeMetadata(m.Metadata), body: m.Data}
	if m.DeliverAt.After(now) {
		r.due = millis(m.DeliverAt)
	}
	if !m.Expires.IsZero() {
		r.expires = max(millis(m.Expires), 1)
	}
	return r
}

// insertion writes rows for every group of a topic in one transaction.
type insertion struct {
	b     *broker
	tx    *sql.Tx
	topic string
	now   int64
	opts  options
}

// target is a queue that gets the rows.
type target struct {
	id    int64
	group string
	wild  bool // of a wildcard: the message must say what its topic is
}

// A message for a wildcard says what its topic is.
const (
	insertMessage = `INSERT INTO pubsub_messages (created, expires, key, metadata, body) VALUES (?, ?, ?, ?, ?)`
	insertNamed   = `INSERT INTO pubsub_messages (created, expires, key, metadata, body, topic) VALUES (?, ?, ?, ?, ?, ?)`
)

// run returns the queues that got the rows.
func (w insertion) run(rows []row) ([]target, error) {
	targets, err := w.targets()
	if err != nil || len(targets) == 0 {
		return nil, err
	}
	insert := insertMessage
	for _, t := range targets {
		if t.wild {
			insert = insertNamed
		}
		if err := w.room(t, int64(len(rows))); err != nil {
			return nil, err
		}
	}
	message, err := w.b.db.Stmt(w.tx, insert)
	if err != nil {
		return nil, err
	}
	pending, err := w.b.db.Stmt(w.tx, `INSERT INTO pubsub_pending (queue, id, due, attempt) VALUES (?, ?, ?, 0)`)
	if err != nil {
		return nil, err
	}
	for i := range rows {
		r := &rows[i]
		args := [...]any{w.now, r.expires, r.key, r.metadata, r.body, nil}
		n := len(args) - 1
		if insert == insertNamed {
			args[n] = w.topic
			n++
		}
		res, err := message.Exec(args[:n]...)
		if err != nil {
			return nil, err
		}
		id, err := res.LastInsertId()
		if err != nil {
			return nil, err
		}
		for _, t := range targets {
			if _, err := pending.Exec(t.id, id, r.due); err != nil {
				return nil, err
			}
		}
	}
	return targets, nil
}

// targets returns the queues of the topic. All publishers that share a
// transaction share the look.
func (w insertion) targets() ([]target, error) {
	seen := &w.b.seen
	if seen.tx != w.tx {
		seen.tx, seen.targets = w.tx, map[string][]target{}
	}
	if found, ok := seen.targets[w.topic]; ok {
		return found, nil
	}
	found, err := w.findTargets()
	if err != nil {
		return nil, err
	}
	seen.targets[w.topic] = found
	return found, nil
}

// findTargets makes the queue for the group to come when there is none and a
// retention.
func (w insertion) findTargets() ([]target, error) {
	targets, err := w.matching()
	if err != nil || len(targets) > 0 || w.opts.Retention == 0 || pubsub.Wildcard(w.topic) {
		return targets, err
	}
	res, err := w.tx.Exec(`INSERT INTO pubsub_queues (topic, consumer, seen) VALUES (?, '', ?)`, w.topic, w.now)
	if err != nil {
		return nil, err
	}
	id, err := res.LastInsertId()
	return []target{{id: id}}, err
}

// room checks the backlog. What nobody has asked for yet makes room by itself.
// Publishers that share a transaction do not see each other, nor those of
// other processes since the last clean-up: the bound may be passed by as much.
func (w insertion) room(t target, n int64) error {
	w.b.countMu.Lock()
	waiting := w.b.waiting[t.id]
	w.b.countMu.Unlock()
	over := waiting + n - int64(w.opts.MaxBacklog)
	switch {
	case over <= 0:
		return nil
	case n > int64(w.opts.MaxBacklog):
		return fault.New(fault.Invalid, "a batch of %d messages is more than maxBacklog (%d)", n, w.opts.MaxBacklog)
	case t.group == "":
		return w.b.dropOldest(w.tx, t.id, over)
	}
	return fault.New(fault.Exhausted, "group %q has %d messages waiting (maxBacklog %d); read them, or set groupRetention if it is gone for good",
		t.group, waiting, w.opts.MaxBacklog)
}

// encodeMetadata writes each key and value behind its length, in the order of
// the keys; nil for none.
func encodeMetadata(m map[string]string) []byte {
	if len(m) == 0 {
		return nil
	}
	size := 0
	for k, v := range m {
		size += len(k) + len(v) + 4
	}
	out := make([]byte, 0, size)
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = binary.AppendUvarint(out, uint64(len(k)))
		out = append(out, k...)
		out = binary.AppendUvarint(out, uint64(len(m[k])))
		out = append(out, m[k]...)
	}
	return out
}

// decodeMetadata reads what encodeMetadata wrote.
func decodeMetadata(b []byte) (map[string]string, error) {
	if len(b) == 0 {
		return nil, nil
	}
	m := map[string]string{}
	for len(b) > 0 {
		var k, v string
		var ok bool
		if k, b, ok = cutText(b); ok {
			v, b, ok = cutText(b)
		}
		if !ok {
			return nil, fault.New(fault.Invalid, "decode metadata: it ends early")
		}
		m[k] = v
	}
	return m, nil
}

func cutText(b []byte) (text string, rest []byte, ok bool) {
	n, used := binary.Uvarint(b)
	if used <= 0 || n > uint64(len(b)-used) {
		return "", nil, false
	}
	b = b[used:]
	return string(b[:n]), b[n:], true
}

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
	id, waiting int64
	group       string
}

func (w insertion) run(rows []row) error {
	targets, err := w.targets()
	if err != nil || len(targets) == 0 {
		return err
	}
	for _, t := range targets {
		if err := w.room(t, int64(len(rows))); err != nil {
			return err
		}
	}
	message, err := w.b.db.Stmt(w.tx, `INSERT INTO pubsub_messages (created, expires, key, metadata, body) VALUES (?, ?, ?, ?, ?)`)
	if err != nil {
		return err
	}
	pending, err := w.b.db.Stmt(w.tx, `INSERT INTO pubsub_pending (queue, id, due, attempt) VALUES (?, ?, ?, 0)`)
	if err != nil {
		return err
	}
	for i := range rows {
		r := &rows[i]
		res, err := message.Exec(w.now, r.expires, r.key, r.metadata, r.body)
		if err != nil {
			return err
		}
		id, err := res.LastInsertId()
		if err != nil {
			return err
		}
		for _, t := range targets {
			if _, err := pending.Exec(t.id, id, r.due); err != nil {
				return err
			}
		}
	}
	count, err := w.b.db.Stmt(w.tx, `UPDATE pubsub_queues SET waiting = waiting + ? WHERE id = ?`)
	if err != nil {
		return err
	}
	for _, t := range targets {
		if _, err := count.Exec(len(rows), t.id); err != nil {
			return err
		}
	}
	return nil
}

// targets returns the queues of the topic. Without a group, and with a
// retention, that is the one for the group to come.
func (w insertion) targets() ([]target, error) {
	st, err := w.b.db.Stmt(w.tx, `SELECT id, waiting, consumer FROM pubsub_queues WHERE topic = ?`)
	if err != nil {
		return nil, err
	}
	found, err := st.Query(w.topic)
	if err != nil {
		return nil, err
	}
	defer found.Close()
	var targets []target
	for found.Next() {
		var t target
		if err := found.Scan(&t.id, &t.waiting, &t.group); err != nil {
			return nil, err
		}
		targets = append(targets, t)
	}
	if err := found.Err(); err != nil || len(targets) > 0 || w.opts.Retention == 0 {
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
func (w insertion) room(t target, n int64) error {
	over := t.waiting + n - int64(w.opts.MaxBacklog)
	switch {
	case over <= 0:
		return nil
	case t.group == "":
		return w.b.dropOldest(w.tx, t.id, over)
	case n > int64(w.opts.MaxBacklog):
		return fault.New(fault.Invalid, "a batch of %d messages is more than maxBacklog (%d)", n, w.opts.MaxBacklog)
	}
	return fault.New(fault.Exhausted, "group %q has %d messages waiting (maxBacklog %d); read them, or set groupRetention if it is gone for good",
		t.group, t.waiting, w.opts.MaxBacklog)
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

package sqlite

import (
	"database/sql"

	"github.com/penstock-io/penstock/pubsub"
)

// A wildcard's group is a queue whose topic ends in *. A message that is in one
// says which topic it was published to; all others leave that to their queue.

// matching returns the queues that get the messages of a topic.
func (w insertion) matching() ([]target, error) {
	st, err := w.b.db.Stmt(w.tx, `SELECT id, consumer, topic FROM pubsub_queues WHERE topic = ?1 AND substr(topic, -1) <> '*'
		UNION ALL SELECT id, consumer, topic FROM pubsub_queues WHERE substr(topic, -1) = '*'`)
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
		var topic string
		if err := found.Scan(&t.id, &t.group, &topic); err != nil {
			return nil, err
		}
		if t.wild = pubsub.Wildcard(topic); t.wild && !pubsub.Matches(topic, w.topic) {
			continue
		}
		targets = append(targets, t)
	}
	return targets, found.Err()
}

// claim gives a wildcard's new group what was kept for the first group of the
// topics that it matches.
func (b *broker) claim(tx *sql.Tx, queue int64, wildcard string) error {
	kept, err := b.unclaimed(tx, wildcard)
	if err != nil {
		return err
	}
	for id, topic := range kept {
		if _, err := tx.Exec(`UPDATE pubsub_messages SET topic = ? WHERE id IN (SELECT id FROM pubsub_pending WHERE queue = ?)`, topic, id); err != nil {
			return err
		}
		n, err := b.exec(tx, `UPDATE pubsub_pending SET queue = ? WHERE queue = ?`, queue, id)
		if err != nil {
			return err
		}
		if _, err := tx.Exec(`DELETE FROM pubsub_queues WHERE id = ?`, id); err != nil {
			return err
		}
		b.add(queue, int(n))
	}
	return nil
}

// unclaimed returns the queues of topics without a group that a wildcard
// matches, with their topics.
func (b *broker) unclaimed(tx *sql.Tx, wildcard string) (map[int64]string, error) {
	rows, err := tx.Query(`SELECT id, topic FROM pubsub_queues WHERE consumer = ''`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	kept := map[int64]string{}
	for rows.Next() {
		var id int64
		var topic string
		if err := rows.Scan(&id, &topic); err != nil {
			return nil, err
		}
		if pubsub.Matches(wildcard, topic) {
			kept[id] = topic
		}
	}
	return kept, rows.Err()
}

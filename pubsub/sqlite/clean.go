package sqlite

import (
	"context"
	"database/sql"
	"time"
)

const (
	cleanRows   = 500  // removed in one transaction, so that publishers do not wait
	vacuumPages = 1000 // given back in one transaction, and the least worth it
)

// clean removes what is of no use any more, now and every cleanupInterval.
func (b *broker) clean(ctx context.Context) {
	tick := time.NewTicker(b.opts.CleanupInterval)
	defer tick.Stop()
	failing := false
	for {
		err := b.cleanOnce(ctx, b.opts)
		if (err != nil) != failing && ctx.Err() == nil {
			if failing = err != nil; failing {
				b.log.Warn("clean-up does not work: the file grows", "file", b.db.Path(), "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := b.count(ctx); err != nil && ctx.Err() == nil {
				b.log.Warn("backlog is not counted", "file", b.db.Path(), "error", err)
			}
		}
	}
}

func (b *broker) cleanOnce(ctx context.Context, o options) error {
	now := time.Now()
	steps := []func(*sql.Tx) (more bool, err error){
		func(tx *sql.Tx) (bool, error) { return b.cleanExpired(tx, now.UnixMilli()) },
		func(tx *sql.Tx) (bool, error) { return b.cleanUnclaimed(tx, now.Add(-o.Retention).UnixMilli()) },
		func(tx *sql.Tx) (bool, error) { return b.cleanGroups(tx, now, o.GroupRetention) },
		b.vacuum,
	}
	for _, step := range steps {
		for more := true; more && ctx.Err() == nil; {
			err := b.db.Write(ctx, func(tx *sql.Tx) (err error) {
				more, err = step(tx)
				return err
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// cleanExpired removes messages that are worth nothing any more from all
// queues, those under way included: their outcome finds nothing to change.
func (b *broker) cleanExpired(tx *sql.Tx, now int64) (bool, error) {
	ids, err := b.ids(tx, `SELECT id FROM pubsub_messages WHERE expires > 0 AND expires <= ? LIMIT ?`, now, cleanRows)
	if err != nil {
		return false, err
	}
	for _, id := range ids {
		if _, err := b.exec(tx, `DELETE FROM pubsub_pending WHERE id = ? AND queue IN (SELECT id FROM pubsub_queues)`, id); err != nil {
			return false, err
		}
		if _, err := b.exec(tx, `DELETE FROM pubsub_messages WHERE id = ?`, id); err != nil {
			return false, err
		}
	}
	return len(ids) == cleanRows, nil
}

// cleanUnclaimed removes old messages of topics that have no group yet, and
// the topics when nothing is left of them.
func (b *broker) cleanUnclaimed(tx *sql.Tx, before int64) (bool, error) {
	queues, err := b.ids(tx, `SELECT id FROM pubsub_queues WHERE consumer = ''`)
	if err != nil {
		return false, err
	}
	for _, q := range queues {
		ids, err := b.ids(tx, `SELECT id FROM (
			SELECT p.id, m.created FROM pubsub_pending p JOIN pubsub_messages m ON m.id = p.id
			WHERE p.queue = ?1 ORDER BY p.id LIMIT ?3) WHERE created <= ?2`, q, before, cleanRows)
		if err != nil {
			return false, err
		}
		if len(ids) > 0 {
			_, err := b.remove(tx, q, ids)
			return true, err
		}
	}
	b.seen.tx = nil
	_, err = b.exec(tx, `DELETE FROM pubsub_queues WHERE consumer = '' AND seen <= ?
		AND NOT EXISTS (SELECT 1 FROM pubsub_pending WHERE queue = pubsub_queues.id)`, before)
	return false, err
}

// cleanGroups removes groups that nobody has read for a long time.
func (b *broker) cleanGroups(tx *sql.Tx, now time.Time, retention time.Duration) (bool, error) {
	if retention == 0 {
		return false, nil
	}
	before := now.Add(-retention).UnixMilli()
	queues, err := b.ids(tx, `SELECT id FROM pubsub_queues WHERE consumer <> '' AND seen <= ? AND (owner = '' OR leased + lease <= ?) LIMIT 1`,
		before, now.UnixMilli())
	if err != nil || len(queues) == 0 {
		return false, err
	}
	ids, err := b.ids(tx, `SELECT id FROM pubsub_pending WHERE queue = ? LIMIT ?`, queues[0], cleanRows)
	if err != nil {
		return false, err
	}
	if len(ids) > 0 {
		_, err := b.remove(tx, queues[0], ids)
		return true, err
	}
	b.seen.tx = nil
	_, err = b.exec(tx, `DELETE FROM pubsub_queues WHERE id = ?`, queues[0])
	return true, err
}

// dropOldest makes room in a queue.
func (b *broker) dropOldest(tx *sql.Tx, queue, n int64) error {
	ids, err := b.ids(tx, `SELECT id FROM pubsub_pending WHERE queue = ? ORDER BY id LIMIT ?`, queue, n)
	if err != nil {
		return err
	}
	_, err = b.remove(tx, queue, ids)
	if err == nil {
		b.add(queue, -len(ids))
	}
	return err
}

// vacuum gives pages back to the system when more than a quarter is free.
func (b *broker) vacuum(tx *sql.Tx) (bool, error) {
	var free, all int64
	if err := tx.QueryRow("PRAGMA freelist_count").Scan(&free); err != nil {
		return false, err
	}
	if err := tx.QueryRow("PRAGMA page_count").Scan(&all); err != nil {
		return false, err
	}
	if free < vacuumPages || free < all/4 {
		return false, nil
	}
	if _, err := tx.Exec("PRAGMA incremental_vacuum(1000)"); err != nil {
		return false, err
	}
	before := free // a file that others made may not be able to shrink
	err := tx.QueryRow("PRAGMA freelist_count").Scan(&free)
	return free < before, err
}

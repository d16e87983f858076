package sqlite

import (
	"context"
	"database/sql"
	"time"
)

// lease takes or keeps the group for this process.
func (r *reader) lease(ctx context.Context) (ours bool, err error) {
	r.mu.Lock()
	lost := r.lost
	r.lost = false
	r.mu.Unlock()
	if time.Now().Before(r.renewAt) && !lost {
		return true, nil
	}
	length := r.b.opts.RedeliverInterval
	start := time.Now()
	var kept, taken bool
	err = r.b.db.Write(ctx, func(tx *sql.Tx) (err error) {
		now := start.UnixMilli()
		if kept, err = r.own(tx, now, length, `owner = ?5`, r.b.owner); err != nil || kept {
			return err
		}
		// A lease from the future is one from before the clock was set back.
		taken, err = r.own(tx, now, length, `(owner = ?5 OR leased + lease <= ?1 OR leased > ?1 + 1000)`, "")
		return err
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err != nil:
		r.lost = lost
		return false, err
	case !kept: // or somebody else had it meanwhile
		r.rescan = true
		if !taken {
			r.renewAt, r.leaseEnd = time.Time{}, time.Time{}
			return false, nil
		}
	}
	r.leaseEnd, r.renewAt = start.Add(length), start.Add(length/3)
	if len(r.ready) > 0 {
		ring(r.wake)
	}
	return true, nil
}

// own writes us down as the owner if the condition holds.
func (r *reader) own(tx *sql.Tx, now int64, length time.Duration, condition, owner string) (bool, error) {
	n, err := r.b.exec(tx, `UPDATE pubsub_queues SET owner = ?2, leased = ?1, lease = ?3, seen = ?1 WHERE id = ?4 AND `+condition,
		now, r.b.owner, length.Milliseconds(), r.id, owner)
	return n > 0, err
}

// retire gives the group up when still nobody needs the queue.
func (r *reader) retire(ctx context.Context) bool {
	// First of all nothing more is handed out: a member may join any time.
	r.mu.Lock()
	r.renewAt, r.leaseEnd, r.rescan = time.Time{}, time.Time{}, true
	r.mu.Unlock()
	if !r.idle() {
		return false
	}
	err := r.b.db.Write(context.WithoutCancel(ctx), func(tx *sql.Tx) error {
		_, err := r.b.exec(tx, "UPDATE pubsub_queues SET owner = '' WHERE id = ? AND owner = ?", r.id, r.b.owner)
		return err
	})
	if err != nil { // the lease ends by itself
		r.b.log.Warn("group is not given up before its lease ends", "topic", r.name.topic, "group", r.name.group, "error", err)
	}
	return r.b.retire(r.queue)
}

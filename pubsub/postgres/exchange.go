package postgres

import (
	"context"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
)

// claimBytes is how much of bodies one claim brings, and one message more.
const claimBytes = 4 << 20

// The wait after an exchange that failed doubles from the first to the last.
const (
	firstPause = 50 * time.Millisecond
	lastPause  = 2 * time.Second
)

// closeTime is how long a member that closes tries to write what was settled.
const closeTime = 5 * time.Second

// run exchanges with the database, one transaction after the other, until
// nobody needs the member any more: outcomes go out and messages come in
// together, and what is settled meanwhile is the next one's.
func (m *member) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	wait := firstPause
	for ctx.Err() == nil {
		w, done := m.take()
		if done {
			return
		}
		pause := m.idle()
		if !w.empty() {
			pause = m.exchange(ctx, w, &wait)
		}
		if pause == 0 {
			continue
		}
		timer.Reset(pause)
		if wait > firstPause { // no faster than the pause
			select {
			case <-ctx.Done():
			case <-timer.C:
			}
			continue
		}
		select {
		case <-ctx.Done():
		case <-m.bell:
		case <-timer.C:
			m.polled()
		}
	}
}

// idle is how long to wait when nothing happens.
func (m *member) idle() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	pause := m.d.opts.PollInterval
	if !m.dueAt.IsZero() {
		pause = min(pause, time.Until(m.dueAt))
	}
	return max(pause, time.Millisecond)
}

// polled looks without having been told.
func (m *member) polled() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.more = true
}

// exchange does the work and returns how long to wait for more.
func (m *member) exchange(ctx context.Context, w work, wait *time.Duration) time.Duration {
	r, err := m.d.exchange(ctx, m, w)
	switch {
	case err != nil:
		m.putBack(w)
	case !r.there:
		err = m.requeue(ctx, w)
	}
	if err == nil {
		*wait = firstPause
		m.done(w, r)
		return m.idle()
	}
	m.mu.Lock()
	late := m.closing && time.Since(m.closedAt) > closeTime
	m.mu.Unlock()
	if late { // the others find out
		m.forget(0)
		return 0
	}
	*wait = min(2**wait, lastPause)
	return *wait
}

// requeue makes a queue that somebody has removed again.
func (m *member) requeue(ctx context.Context, w work) error {
	m.mu.Lock()
	needed := m.reading
	m.mu.Unlock()
	if !needed {
		m.forget(w.epoch)
		return nil
	}
	queue, err := m.d.queue(ctx, m.sub.Topic, m.sub.Group)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err == nil && m.queue == w.queue {
		m.drop(m.epoch, queue)
		m.d.log.Warn("group was removed from the database and is made again", "topic", m.sub.Topic, "group", m.sub.Group)
	}
	return err
}

// result is what an exchange found.
type result struct {
	there   bool // the queue is
	claimed []*entry
	more    bool // there may be more to claim
	due     time.Duration
}

// exchange sends the statements of one transaction together.
func (d *driver) exchange(ctx context.Context, m *member, w work) (r result, err error) {
	b := &pgx.Batch{}
	d.prepareWork(b, m, w)
	b.Queue(d.sql.there, w.queue).QueryRow(func(row pgx.Row) error { return row.Scan(&r.there) })
	if w.claim {
		b.Queue(d.sql.promote, w.queue)
		full := w.full
		if full == nil {
			full = [][]byte{}
		}
		b.Queue(d.sql.claim, w.queue, w.epoch, m.number, d.opts.FetchSize, full, int64(claimBytes)).
			Query(func(rows pgx.Rows) error { return r.read(rows, d.opts.FetchSize) })
		b.Queue(d.sql.due, w.queue).QueryRow(func(row pgx.Row) error {
			var due *int64
			err := row.Scan(&due)
			if due != nil {
				r.due = max(time.Duration(*due)*time.Microsecond, time.Millisecond)
			}
			return err
		})
	}
	err = d.do(ctx, func(ctx context.Context) error { return d.db.Pool().SendBatch(ctx, b).Close() })
	return r, err
}

// prepareWork queues what writes outcomes.
func (d *driver) prepareWork(b *pgx.Batch, m *member, w work) {
	lock := d.sql.lock
	if len(w.acks) == 0 && len(w.retries) == 0 {
		lock = d.sql.lockFast
	}
	b.Queue(lock, d.lockClass(), w.queue)
	b.Queue(d.sql.alive, w.epoch)
	if w.resync {
		b.Queue(d.sql.resync, w.queue, w.epoch, m.number, append([]int64{}, w.known...))
	}
	if n := len(w.retries); n > 0 {
		ids, delays := make([]int64, n), make([]int64, n)
		for i, t := range w.retries {
			ids[i], delays[i] = t.e.id, max(time.Until(t.due).Microseconds(), 0)
		}
		b.Queue(d.sql.retry, w.queue, w.epoch, ids, delays)
	}
	if len(w.gives) > 0 {
		b.Queue(d.sql.release, w.queue, w.epoch, ids(w.gives))
	}
	if len(w.acks) > 0 {
		done := ids(w.acks)
		b.Queue(d.sql.share, done)
		b.Queue(d.sql.ack, w.queue, w.epoch, done)
		b.Queue(d.sql.sweep, done)
		if keys := keys(w.acks); len(keys) > 0 {
			b.Queue(d.sql.unblock, w.queue, keys, d.opts.FetchSize)
		}
	}
	if w.notify {
		b.Queue(d.sql.notify, strconv.FormatInt(w.queue, 10))
	}
}

func ids(list []*entry) []int64 {
	out := make([]int64, len(list))
	for i, e := range list {
		out[i] = e.id
	}
	return out
}

// keys are those of the entries, each once.
func keys(list []*entry) [][]byte {
	var out [][]byte
	seen := map[string]bool{}
	for _, e := range list {
		if e.Key != "" && !seen[e.Key] {
			seen[e.Key] = true
			out = append(out, []byte(e.Key))
		}
	}
	return out
}

// read takes the rows of a claim.
func (r *result) read(rows pgx.Rows, limit int) error {
	n, size := 0, 0
	for rows.Next() {
		e := &entry{}
		var behind, gone bool
		var attempt int
		var key []byte
		var metadata *string
		if err := rows.Scan(&e.id, &behind, &key, &attempt, &gone, &metadata, &e.Body); err != nil {
			return err
		}
		n++
		if behind {
			continue
		}
		e.attempt, e.size = attempt+1, int64(len(e.Body))
		e.Key, e.Attempt, e.Metadata = string(key), e.attempt, decode(metadata)
		size += len(e.Body)
		e.settled.Store(gone)
		r.claimed = append(r.claimed, e)
	}
	r.more = n == limit || size >= claimBytes
	return rows.Err()
}

package sqlite

import (
	"context"
	"database/sql"
	"slices"
	"time"

	client "github.com/penstock-io/penstock/client/sqlite"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
)

const (
	scanRows    = 256 // read at once
	scanBytes   = 4 << 20
	loadRows    = 64 // read one by one in a step
	refillRows  = 4096
	dueRows     = 512
	failedPause = 500 * time.Millisecond
	standby     = time.Second // between tries to take over a group
)

const (
	selectWaiting = `SELECT p.id, p.due, p.attempt, m.expires, m.key, m.metadata, m.body, m.topic FROM pubsub_pending p`
	ofQueue       = ` JOIN pubsub_messages m ON m.id = p.id WHERE p.queue = ?1 AND `
)

// reads are the prepared queries of a broker.
type reads struct{ scan, one, retries, behind, nextDue *sql.Stmt }

type readQuery struct {
	st    **sql.Stmt
	query string
}

func queries(r *reads) []readQuery {
	return []readQuery{
		{&r.scan, selectWaiting + ofQueue + `p.id > ?2 AND p.due = 0 ORDER BY p.id LIMIT ?3`},
		{&r.one, selectWaiting + ofQueue + `p.id = ?2 AND p.due = 0`},
		{&r.retries, selectWaiting + ` INDEXED BY pubsub_due` + ofQueue +
			`p.due > 0 AND p.attempt > 0 AND (p.due, p.id) > (?2, ?3) ORDER BY p.due, p.id LIMIT ?4`},
		{&r.behind, selectWaiting + ofQueue + `p.id >= ?2 AND p.id <= ?3 AND p.due = 0 ORDER BY p.id LIMIT ?4`},
		{&r.nextDue, `SELECT coalesce(min(due), 0) FROM pubsub_pending WHERE queue = ? AND due > 0`},
	}
}

func prepareReads(ctx context.Context, db *sql.DB) (r reads, err error) {
	for _, q := range queries(&r) {
		if *q.st, err = db.PrepareContext(ctx, q.query); err != nil {
			r.close()
			return reads{}, client.Classify(err)
		}
	}
	return r, nil
}

func (r reads) close() {
	for _, st := range []*sql.Stmt{r.scan, r.one, r.retries, r.behind, r.nextDue} {
		if st != nil {
			_ = st.Close() // frees memory only
		}
	}
}

// run reads the file for the queue's members until nobody needs the queue or
// ctx ends.
func (q *queue) run(ctx context.Context) {
	r := &reader{queue: q, reads: q.b.reads, scratch: &cloudevents.Delivery{}}
	defer q.stop()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		wait, err := r.step(ctx)
		if err != nil && ctx.Err() == nil {
			wait = failedPause
		}
		q.report(err)
		if q.idle() {
			if r.retire(ctx) {
				return
			}
			continue
		}
		if wait <= 0 {
			continue
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-q.bell:
			if err != nil { // no faster than the pause
				pause(ctx, wait)
			}
		}
	}
}

// report sets or clears the reason why nothing can be read.
func (q *queue) report(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case err != nil && q.err == nil:
		q.err, q.rescan = fault.Wrap(err, "read group %q of topic %q", q.name.group, q.name.topic), true
		close(q.failed)
	case err != nil:
		q.rescan = true
	case q.err != nil:
		q.err, q.failed = nil, make(chan struct{})
	}
}

// reader is the one goroutine that reads for a queue.
type reader struct {
	*queue
	reads   reads
	renewAt time.Time
	scratch *cloudevents.Delivery // what key functions look at
}

// step does what there is to do and returns how long to wait for more; zero is
// not at all.
func (r *reader) step(ctx context.Context) (time.Duration, error) {
	ctx = context.WithoutCancel(ctx) // short and local; a watched context costs a goroutine for each query
	r.mu.Lock()
	r.prune()
	r.mu.Unlock()
	ours, err := r.lease(ctx)
	if err != nil || !ours {
		return standby, err
	}
	again := false
	for _, do := range []func(context.Context) (bool, error){r.restart, r.due, r.loadOnes, r.refillLanes, r.scan} {
		more, err := do(ctx)
		if err != nil {
			return 0, err
		}
		again = again || more
	}
	if again {
		return 0, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	wait := time.Until(r.renewAt)
	if r.nextDue > 0 && len(r.load) < dueRows {
		wait = min(wait, time.Until(time.UnixMilli(r.nextDue)))
	}
	return max(wait, time.Millisecond), nil
}

// prune forgets messages whose outcome is written. One that was given back is
// known until the scan is past it.
func (r *reader) prune() {
	r.wrote = slices.DeleteFunc(r.wrote, func(e *entry) bool {
		switch {
		case r.under[e.id] != e || !e.gone: // it was taken again
		case !e.done && e.id > r.cursor && r.members > 0:
			return false
		default:
			delete(r.under, e.id)
		}
		return true
	})
}

// restart forgets all that is not under way and starts from the beginning. The
// keys that wait for a retry are taken first, so that nobody overtakes them.
func (r *reader) restart(ctx context.Context) (bool, error) {
	r.mu.Lock()
	again := r.rescan
	if again {
		r.reset()
	}
	r.mu.Unlock()
	due, id := int64(0), int64(0)
	for again {
		rows, full, err := r.query(ctx, r.reads.retries, r.id, due, id, scanRows)
		if err != nil {
			return false, err
		}
		if n := len(rows); n > 0 {
			due, id = rows[n-1].due, rows[n-1].entry.id
		}
		again = r.park(rows, full)
	}
	return false, nil
}

// park holds the lanes of messages that wait for a retry, and tells whether to
// go on.
func (r *reader) park(rows []found, full bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range rows {
		id := f.entry.id
		if f.key == "" || r.parked[id] != nil || r.under[id] != nil {
			continue
		}
		l := r.lanes[f.key]
		if l == nil {
			l = &lane{key: f.key}
			r.lanes[f.key] = l
		}
		r.parked[id] = &entry{id: id, lane: l}
	}
	r.cut = full && len(r.parked) >= parkedLimit
	return full && !r.cut
}

func (r *reader) reset() {
	r.prune() // what was written since the step began is in the file
	r.rescan, r.more, r.recheck, r.cursor, r.nextDue = false, true, true, 0, 0
	r.ready, r.bytes, r.load, r.refill, r.held, r.heldFor = nil, 0, nil, nil, 0, 0
	clear(r.lanes)
	keep := func(e *entry) {
		if l := e.lane; l != nil {
			l.wait, l.more = nil, 0
			r.lanes[l.key] = l
		}
	}
	for id, e := range r.parked {
		if r.under[id] == nil { // it is in the file
			delete(r.parked, id)
			continue
		}
		keep(e)
	}
	var left []*entry
	for id, e := range r.under {
		switch {
		case e.out != nil || e.done:
			keep(e)
		case e.gone:
			delete(r.under, id)
		default: // given back, and the file does not know yet
			e.lane = nil
			left = append(left, e)
		}
	}
	for _, e := range left {
		r.admit(found{entry: e, key: r.keyOf(e, r.key)})
	}
}

// due brings back what has become due.
func (r *reader) due(ctx context.Context) (bool, error) {
	r.mu.Lock()
	now := time.Now().UnixMilli()
	look := (r.recheck || r.nextDue > 0 && r.nextDue <= now) && len(r.load) < dueRows
	if look {
		r.recheck = false
	}
	r.mu.Unlock()
	if !look {
		return false, nil
	}
	var next int64
	if err := r.reads.nextDue.QueryRowContext(ctx, r.id).Scan(&next); err != nil {
		return false, client.Classify(err)
	}
	if next == 0 || next > now {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.nextDue = next
		return r.recheck, nil
	}
	return true, r.activate(ctx, now)
}

// activate makes the messages that are due ready.
func (r *reader) activate(ctx context.Context, now int64) error {
	var ids []int64
	err := r.b.db.Write(ctx, func(tx *sql.Tx) (err error) {
		ids, err = r.b.ids(tx, `UPDATE pubsub_pending SET due = 0 WHERE queue = ?1 AND id IN (
			SELECT id FROM pubsub_pending WHERE queue = ?1 AND due > 0 AND due <= ?2 ORDER BY due LIMIT ?3) RETURNING id`,
			r.id, now, dueRows)
		return err
	})
	if err != nil {
		return err
	}
	slices.Sort(ids)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.recheck = true // there may be more
	for _, id := range ids {
		if u := r.under[id]; u != nil && u.done { // that retry is written, or it would not be due
			delete(r.under, id)
		}
		e := r.parked[id]
		delete(r.parked, id)
		if e == nil {
			e = &entry{id: id}
		}
		if id <= r.cursor {
			r.load = append(r.load, e)
			continue
		}
		r.free(e) // the scan comes to it
		r.more = true
	}
	return nil
}

// loadOnes reads messages that are known by id only.
func (r *reader) loadOnes(ctx context.Context) (bool, error) {
	r.mu.Lock()
	n := min(len(r.load), loadRows)
	if len(r.ready) >= readyLow || r.bytes >= readyBytes {
		n = 0
	}
	wanted := slices.Clone(r.load[:n])
	r.load = slices.Delete(r.load, 0, n)
	r.mu.Unlock()
	for _, e := range wanted {
		found, _, err := r.query(ctx, r.reads.one, r.id, e.id)
		if err != nil {
			return false, err
		}
		r.loaded(e, found)
	}
	return n > 0, nil
}

func (r *reader) loaded(e *entry, found []found) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case len(found) == 0: // expired and removed meanwhile
		r.free(e)
	case e.lane == nil:
		r.admit(found[0])
	default:
		got := found[0].entry
		got.lane = e.lane
		r.makeReady(got)
	}
}

// refillLanes goes on with keys whose remembered messages are all done.
func (r *reader) refillLanes(ctx context.Context) (bool, error) {
	r.mu.Lock()
	if len(r.refill) == 0 {
		r.mu.Unlock()
		return false, nil
	}
	l, cursor := r.refill[0], r.cursor
	r.refill = slices.Delete(r.refill, 0, 1)
	r.mu.Unlock()
	rows, full, err := r.query(ctx, r.reads.behind, r.id, l.more, cursor, refillRows)
	if err != nil {
		return false, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	l.more = 0
	for i := range rows {
		if len(l.wait) == laneLimit {
			l.more = rows[i].entry.id
			break
		}
		if rows[i].key == l.key && r.under[rows[i].entry.id] == nil {
			r.hold(l, rows[i].entry)
		}
	}
	if full && l.more == 0 {
		l.more = rows[len(rows)-1].entry.id + 1
	}
	r.free(&entry{lane: l})
	return len(r.refill) > 0, nil
}

// scan reads on from the cursor while there is room.
func (r *reader) scan(ctx context.Context) (bool, error) {
	r.mu.Lock()
	if r.cut && len(r.parked) < parkedLimit/2 {
		r.cut, r.rescan = false, true
		r.mu.Unlock()
		return true, nil
	}
	want := r.more && !r.cut && r.members > 0 && len(r.ready) < readyLow && r.bytes < readyBytes && len(r.parked) < parkedLimit
	if want {
		r.more = false // before reading: what arrives meanwhile sets it again
	}
	cursor := r.cursor
	r.mu.Unlock()
	if !want {
		return false, nil
	}
	rows, full, err := r.query(ctx, r.reads.scan, r.id, cursor, scanRows)
	if err != nil {
		return false, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range rows {
		r.cursor = rows[i].entry.id
		if r.under[r.cursor] == nil {
			r.admit(rows[i])
		}
	}
	r.more = r.more || full
	return r.more && len(r.ready) < readyLow && r.bytes < readyBytes, nil
}

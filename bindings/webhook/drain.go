package webhook

import (
	"container/heap"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"time"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
)

// How the spool delivers.
const (
	page        = 64 // rows looked up at once; each is loaded when it is its turn
	trimEvery   = time.Minute
	brokenAfter = time.Hour // for a row that cannot be read
	leftAfter   = time.Second
	maxBackOff  = 5 * time.Minute
)

// stored is one row.
type stored struct {
	seq      int64
	id       string
	event    *cloudevents.Event
	body     []byte
	metadata map[string]string
	attempts int
}

// run delivers rows in the order of their arrival until ctx ends; one that was
// given back comes again after its pause, without holding up the others. Of
// two that run, the second waits for the first.
func (s *spool) run(ctx context.Context, emit cloudevents.EmitFunc) error {
	select {
	case s.reading <- struct{}{}:
		defer func() { <-s.reading }()
	case <-ctx.Done():
		return nil
	}
	for ctx.Err() == nil {
		seqs, wait, err := s.next(ctx)
		if err == nil {
			err = s.emitAll(ctx, emit, seqs)
		}
		if err != nil && ctx.Err() == nil {
			return fault.Wrap(err, "read spool")
		}
		if len(seqs) > 0 {
			continue
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-s.fresh:
		case <-timer.C:
		}
		timer.Stop()
	}
	return nil
}

// emitAll emits the rows in turn. Those it does not get to are put back.
func (s *spool) emitAll(ctx context.Context, emit cloudevents.EmitFunc, seqs []int64) error {
	for i, seq := range seqs {
		err := s.emitOne(ctx, emit, seq)
		if err == nil {
			continue
		}
		for _, left := range seqs[i:] {
			s.postpone(left, time.UnixMilli(0)) // before everything else
		}
		return err
	}
	return nil
}

func (s *spool) emitOne(ctx context.Context, emit cloudevents.EmitFunc, seq int64) error {
	row, err := s.load(ctx, seq)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil
	case fault.KindOf(err) == fault.Invalid && err != nil:
		s.log.Error("stored webhook event is damaged, trying again in an hour", "row", seq, "error", err)
		s.postpone(seq, s.now().Add(brokenAfter))
		return nil
	case err != nil:
		return err
	}
	return emit(ctx, &cloudevents.Delivery{
		Body: row.body, Event: row.event, Metadata: row.metadata, Attempt: row.attempts + 1, Origin: s.name,
		Settle: func(o cloudevents.Outcome) { s.settle(row, o) },
	})
}

// next takes up to page rows that are due: given back ones first, then new
// ones. Without any, wait says when to look again.
func (s *spool) next(ctx context.Context) (seqs []int64, wait time.Duration, err error) {
	now := s.now()
	s.mu.Lock()
	for len(seqs) < page && len(s.later) > 0 && !s.later[0].due.After(now) {
		seqs = append(seqs, heap.Pop(&s.later).(late).seq)
	}
	cursor := s.cursor
	s.mu.Unlock()
	fresh, err := s.behind(ctx, cursor, page-len(seqs))
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		for _, seq := range seqs {
			heap.Push(&s.later, late{time.UnixMilli(0), seq})
		}
		return nil, 0, err
	}
	for _, row := range fresh {
		s.cursor = row.seq
		if row.due.After(now) {
			heap.Push(&s.later, row)
		} else {
			seqs = append(seqs, row.seq)
		}
	}
	wait = trimEvery
	if len(s.later) > 0 {
		wait = min(wait, max(s.later[0].due.Sub(now), 0))
	}
	if len(fresh) > 0 {
		wait = 0
	}
	return seqs, wait, nil
}

// behind looks up rows behind the cursor.
func (s *spool) behind(ctx context.Context, cursor int64, limit int) (found []late, err error) {
	if limit == 0 {
		return nil, nil
	}
	rows, err := s.db.Read().QueryContext(ctx, `SELECT seq, due FROM webhook_spool WHERE hook = ? AND seq > ? ORDER BY seq LIMIT ?`,
		s.name, cursor, limit)
	if err != nil {
		return nil, err
	}
	defer func() { err = errJoin(err, rows.Close()) }()
	for rows.Next() {
		var seq, due int64
		if err := rows.Scan(&seq, &due); err != nil {
			return nil, err
		}
		found = append(found, late{time.UnixMilli(due), seq})
	}
	return found, rows.Err()
}

// load reads one row. An error of kind Invalid means that it is damaged.
func (s *spool) load(ctx context.Context, seq int64) (*stored, error) {
	r := &stored{seq: seq}
	var attrs, kind, metadata string
	err := s.db.Read().QueryRowContext(ctx, `SELECT id, attrs, kind, body, metadata, attempts FROM webhook_spool WHERE seq = ?`, seq).
		Scan(&r.id, &attrs, &kind, &r.body, &metadata, &r.attempts)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal([]byte(metadata), &r.metadata); err != nil {
		return nil, fault.New(fault.Invalid, "read metadata: %w", err)
	}
	if r.event, err = decodeEvent(attrs, kind, r.body); err != nil {
		return nil, fault.New(fault.Invalid, "read event: %w", err)
	}
	return r, nil
}

// settle queues the outcome of a delivery for the writer.
func (s *spool) settle(r *stored, o cloudevents.Outcome) {
	w := written{seq: r.seq, id: r.id, size: int64(len(r.body)), verdict: o.Verdict}
	switch o.Verdict {
	case cloudevents.Retry:
		after := o.After
		if after <= 0 {
			after = min(time.Second<<min(r.attempts, 20), maxBackOff)
		}
		w.due = s.now().Add(after)
	case cloudevents.Leave:
		w.due = s.now().Add(leftAfter)
	}
	s.mu.Lock()
	s.outcomes = append(s.outcomes, w)
	s.mu.Unlock()
	ring(s.wake)
}

// writeLoop writes outcomes as they come, many in one commit, and forgets old
// ids once a minute.
func (s *spool) writeLoop(ctx context.Context) {
	trim := time.NewTicker(trimEvery)
	defer trim.Stop()
	for {
		var err error
		select {
		case <-s.quit:
			return
		case <-s.wake:
			err = s.writeOutcomes(ctx)
		case <-trim.C:
			err = s.trim(ctx)
		}
		if err == nil {
			continue
		}
		s.log.Error("webhook outcomes not written, trying again in a second", "error", err)
		pause := time.NewTimer(time.Second)
		select {
		case <-s.quit:
		case <-pause.C:
		}
		pause.Stop()
		ring(s.wake)
	}
}

// writeOutcomes writes what is queued; on an error it stays queued.
func (s *spool) writeOutcomes(ctx context.Context) error {
	s.mu.Lock()
	batch, window := s.outcomes, s.limits.window
	s.outcomes = nil
	s.mu.Unlock()
	if len(batch) == 0 {
		return nil
	}
	err := s.db.Write(ctx, func(tx *sql.Tx) error {
		for _, w := range batch {
			if err := s.writeOne(tx, w, window); err != nil {
				return err
			}
		}
		return nil
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.outcomes = append(batch, s.outcomes...)
		return fault.Wrap(err, "write outcomes")
	}
	for _, w := range batch {
		if taken(cloudevents.Outcome{Verdict: w.verdict}) {
			s.rows, s.bytes = s.rows-1, s.bytes-w.size
		} else {
			heap.Push(&s.later, late{w.due, w.seq})
		}
	}
	ring(s.fresh)
	return nil
}

func (s *spool) writeOne(tx *sql.Tx, w written, window time.Duration) error {
	switch w.verdict {
	case cloudevents.Leave:
		return nil
	case cloudevents.Retry:
		return s.exec(tx, `UPDATE webhook_spool SET attempts = attempts + 1, due = ? WHERE seq = ?`, w.due.UnixMilli(), w.seq)
	}
	if window == 0 {
		if err := s.exec(tx, `DELETE FROM webhook_seen WHERE hook = ? AND id = ?`, s.name, w.id); err != nil {
			return err
		}
	}
	return s.exec(tx, `DELETE FROM webhook_spool WHERE seq = ?`, w.seq)
}

// trim forgets ids that are too old or too many, but none that is stored.
func (s *spool) trim(ctx context.Context) error {
	s.mu.Lock()
	oldest := s.now().Add(-s.limits.window).UnixMilli()
	s.mu.Unlock()
	return s.db.Write(ctx, func(tx *sql.Tx) error {
		return s.exec(tx, `DELETE FROM webhook_seen WHERE hook = ?1 AND at < max(?2, coalesce(
				(SELECT at FROM webhook_seen WHERE hook = ?1 ORDER BY at DESC LIMIT 1 OFFSET ?3), 0))
			AND id NOT IN (SELECT id FROM webhook_spool WHERE hook = ?1)`, s.name, oldest, maxStored)
	})
}

func (s *spool) exec(tx *sql.Tx, query string, args ...any) error {
	stmt, err := s.db.Stmt(tx, query)
	if err != nil {
		return err
	}
	_, err = stmt.Exec(args...)
	return err
}

// errJoin is errors.Join that keeps the kind of the first error.
func errJoin(first, second error) error {
	if first == nil {
		return second
	}
	if second == nil {
		return first
	}
	return fault.As(fault.KindOf(first), errors.Join(first, second))
}

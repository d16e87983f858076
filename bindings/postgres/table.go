package postgres

import (
	"context"
	"errors"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/penstock-io/penstock/bindings"
	client "github.com/penstock-io/penstock/client/postgres"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
)

// awayMost is how many rows wait for a retry or the next Read at most; then
// reading pauses.
const awayMost = 10_000

// table reads rows. The transaction that locks a row is the one that deletes or
// updates it: when the process or the connection dies, the server gives the row
// back.
type table struct {
	db      *client.DB
	pool    *pgxpool.Pool
	opts    options
	origin  string
	log     *slog.Logger
	bell    chan struct{}
	slots   chan struct{}
	stop    context.CancelFunc // of the listener and statements under way
	life    context.Context
	halt    context.CancelFunc // of reading
	reading context.Context
	running sync.WaitGroup // the listener
	reads   sync.WaitGroup
	ends    sync.WaitGroup // of transactions

	mu     sync.Mutex
	closed bool
	under  map[*row]struct{}
	away   map[string]away
}

// away is a row that is not to be taken now, and its attempts so far.
type away struct {
	attempt int
	due     time.Time
	left    bool // until the next Read
}

// row is one under way.
type row struct {
	t       *table
	conn    *pgxpool.Conn
	tx      pgx.Tx
	key     string
	finish  string
	attempt int
	settled atomic.Bool
}

func openTable(ctx context.Context, db *client.DB, env component.Env, o options) (input, error) {
	t := &table{
		db: db, opts: o, origin: env.Name, log: logger(env), bell: make(chan struct{}, 1), slots: make(chan struct{}, o.MaxInFlight),
		under: map[*row]struct{}{}, away: map[string]away{},
	}
	var err error
	if t.pool, err = db.Apart(ctx, o.MaxInFlight+1); err != nil { // one looks while all are under way
		return nil, err
	}
	t.life, t.stop = context.WithCancel(context.WithoutCancel(ctx))
	t.reading, t.halt = context.WithCancel(t.life)
	if o.Channel != "" {
		t.running.Go(func() {
			db.Listen(t.life, client.Listener{
				Channels: []string{o.Channel}, Notified: func(string, string) { ring(t.bell) }, Up: func() { ring(t.bell) },
			})
		})
	}
	return t, nil
}

// statements are those of a table, with the types that it has now.
type statements struct{ take, finish string }

// look finds out about the table.
func (t *table) look(ctx context.Context) (s statements, err error) {
	o := t.opts
	name := pgx.Identifier(strings.Split(o.Table, ".")).Sanitize()
	types := map[string]string{}
	found, err := t.pool.Query(ctx, `SELECT attname::text, format_type(atttypid, NULL) FROM pg_attribute
		WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped`, name)
	if err == nil {
		var column, kind string
		_, err = pgx.ForEachRow(found, []any{&column, &kind}, func() error { types[column] = kind; return nil })
	}
	if err != nil {
		return s, fault.Wrap(client.Classify(err), "read table %s", o.Table)
	}
	for _, column := range []string{o.KeyColumn, o.DataColumn, o.StatusColumn} {
		if column != "" && types[column] == "" {
			return s, fault.New(fault.NotFound, "read table %s: it has no column %q", o.Table, column)
		}
	}
	return build(o.inputOptions, name, types), nil
}

// build makes the statements of a table whose columns have these types. Keys are
// texts outside the database.
func build(o inputOptions, name string, types map[string]string) statements {
	column := func(name string) string { return pgx.Identifier{name}.Sanitize() }
	key, keyType := column(o.KeyColumn), types[o.KeyColumn]
	data := "to_json(t)::text"
	switch {
	case o.DataColumn != "" && types[o.DataColumn] == "bytea":
		data = "t." + column(o.DataColumn)
	case o.DataColumn != "":
		data = "t." + column(o.DataColumn) + "::text"
	}
	take := "SELECT t." + key + "::text, " + data + " FROM " + name + " t WHERE t." + key + " <> ALL ($1::text[]::" + keyType + "[])"
	finish := "DELETE FROM " + name + " WHERE " + key + " = $1::text::" + keyType
	if o.StatusColumn != "" {
		status, kind := column(o.StatusColumn), types[o.StatusColumn]
		take += " AND t." + status + " = " + quoted(o.StatusWaiting) + "::" + kind
		finish = "UPDATE " + name + " SET " + status + " = " + quoted(o.StatusDone) + "::" + kind + " WHERE " + key + " = $1::text::" + keyType
	}
	if o.Where != "" {
		take += " AND (" + o.Where + ")"
	}
	return statements{take: take + " ORDER BY t." + key + " LIMIT 1 FOR UPDATE OF t SKIP LOCKED", finish: finish}
}

// quoted is a text in SQL.
func quoted(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }

// Read implements bindings.Reader.
func (t *table) Read(ctx context.Context, emit cloudevents.EmitFunc) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(t.reading, cancel)()
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return errClosed
	}
	t.reads.Add(1)
	for key, a := range t.away {
		a.left = false
		t.away[key] = a
	}
	t.mu.Unlock()
	defer t.reads.Done()
	err := t.read(ctx, emit)
	switch {
	case t.isClosed():
		return errClosed
	case ctx.Err() != nil:
		return nil
	}
	return err
}

func (t *table) isClosed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.closed
}

func (t *table) read(ctx context.Context, emit cloudevents.EmitFunc) error {
	s, err := t.look(ctx)
	if err != nil {
		return err
	}
	for ctx.Err() == nil {
		select {
		case t.slots <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		r, body, pause, err := t.take(ctx, s)
		if r == nil {
			<-t.slots
			if err != nil {
				return err
			}
			wait(ctx, t.bell, pause)
			continue
		}
		d := delivery(t.origin, bindings.Received{
			ID: t.opts.Table + "/" + r.key, Source: "postgres:" + url.PathEscape(t.opts.Table), Type: "io.penstock.postgres.row", Data: body,
		}, r.attempt, map[string]string{"key": r.key})
		d.Settle = r.settle
		if err := emit(ctx, d); err != nil {
			r.settle(cloudevents.Left("not taken"))
			if ctx.Err() == nil {
				return fault.Wrap(err, "hand over row")
			}
		}
	}
	return nil
}

// take locks the next row; without one it tells how long to wait.
func (t *table) take(ctx context.Context, s statements) (r *row, body []byte, pause time.Duration, err error) {
	skip, pause := t.skip()
	if len(skip) >= awayMost {
		return nil, nil, pause, nil
	}
	ctx, cancel := context.WithTimeout(ctx, t.opts.Timeout)
	defer cancel()
	conn, err := t.pool.Acquire(ctx)
	if err != nil {
		return nil, nil, 0, fault.Wrap(client.Classify(err), "read table %s", t.opts.Table)
	}
	tx, err := conn.Begin(ctx)
	if err != nil {
		conn.Release()
		return nil, nil, 0, fault.Wrap(client.Classify(err), "read table %s", t.opts.Table)
	}
	r = &row{t: t, conn: conn, tx: tx, finish: s.finish}
	err = tx.QueryRow(ctx, s.take, skip).Scan(&r.key, &body)
	if err != nil {
		r.back()
		if errors.Is(err, pgx.ErrNoRows) {
			return nil, nil, pause, nil
		}
		return nil, nil, 0, fault.Wrap(client.Classify(err), "read table %s", t.opts.Table)
	}
	if body == nil {
		body = []byte{}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		r.back()
		return nil, nil, 0, errClosed
	}
	a := t.away[r.key]
	if a.left || time.Until(a.due) > 0 { // it was settled while we looked
		r.back()
		return nil, nil, 0, nil
	}
	r.attempt = a.attempt + 1
	t.under[r] = struct{}{}
	t.ends.Add(1)
	return r, body, 0, nil
}

// skip are the keys that are not to be taken now, and how long that is so.
func (t *table) skip() ([]string, time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	pause := t.opts.PollInterval
	keys := make([]string, 0, len(t.away))
	for key, a := range t.away {
		d := time.Until(a.due)
		switch {
		case a.left:
			keys = append(keys, key)
		case d > 0:
			keys = append(keys, key)
			pause = min(pause, d)
		case len(t.away) > 2*awayMost: // somebody else may have done it
			delete(t.away, key)
		}
	}
	return keys, pause
}

// settle is the delivery's Settle.
func (r *row) settle(o cloudevents.Outcome) {
	if r.settled.Swap(true) {
		return
	}
	t := r.t
	t.mu.Lock()
	switch o.Verdict {
	case cloudevents.Ack, cloudevents.Drop:
		delete(t.away, r.key)
	case cloudevents.Retry:
		t.away[r.key] = away{attempt: r.attempt, due: time.Now().Add(backoff(o, r.attempt))}
	default:
		t.away[r.key] = away{attempt: r.attempt - 1, left: true}
	}
	t.mu.Unlock()
	go r.end(o.Verdict == cloudevents.Ack || o.Verdict == cloudevents.Drop)
}

// end ends the transaction.
func (r *row) end(done bool) {
	t := r.t
	defer t.ends.Done()
	var err error
	if done {
		err = r.commit()
	}
	r.back()
	t.mu.Lock()
	delete(t.under, r)
	t.mu.Unlock()
	<-t.slots
	ring(t.bell)
	if err != nil && !t.isClosed() {
		t.log.Warn("row is done and cannot be marked so: it is delivered again", "table", t.opts.Table, "key", r.key, "error", client.Classify(err))
	}
}

func (r *row) commit() error {
	ctx, cancel := context.WithTimeout(r.t.life, r.t.opts.Timeout)
	defer cancel()
	if _, err := r.tx.Exec(ctx, r.finish, r.key); err != nil {
		return err
	}
	return r.tx.Commit(ctx)
}

// back rolls back what was not committed.
func (r *row) back() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.t.life), time.Second)
	defer cancel()
	_ = r.tx.Rollback(ctx) // after a commit, or without a connection, there is nothing to do
	r.conn.Release()
}

// close gives back what is not settled and waits for what is.
func (t *table) close(ctx context.Context) error {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return nil
	}
	t.closed = true
	t.mu.Unlock()
	t.halt()
	err := waitFor(ctx, &t.reads)
	t.mu.Lock()
	var open []*row
	for r := range t.under {
		if !r.settled.Swap(true) {
			open = append(open, r)
		}
	}
	t.mu.Unlock()
	for _, r := range open {
		go r.end(false)
	}
	err = errors.Join(err, waitFor(ctx, &t.ends))
	t.stop()
	t.ends.Wait()
	t.running.Wait()
	t.pool.Close()
	return err
}

// Package sqlite is the lock store "lock.sqlite": locks in one SQLite file, for
// the processes of one machine and without any server.
//
// It is opened through [Component]. Dapr has none.
//
// Promises: a grant is on the disk when the call returns, so a lock and the
// count of its token survive a killed process and a lost machine. All processes
// that open the file see the same locks; they go by the machine's clock, and a
// clock that is set back makes locks last that much longer.
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"time"

	client "github.com/penstock-io/penstock/client/sqlite"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/lock"
)

// Component is "lock.sqlite".
var Component = lock.Define("sqlite", component.About{
	Summary: "Locks in one SQLite file, for the processes of one machine",
	Ack:     "A lock is held when it is on the disk, in a transaction shared with others",
	Limits:  "Locks that ran out are removed ten at a time, with the next try of any lock",
	Scale:   "Every process that opens the file sees the same locks",
	Dapr:    "Dapr has no such lock store.",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: lockstore
spec:
  type: lock.sqlite
  version: v1
  metadata:
    - name: connectionString
      value: ./data/locks.db
`,
}, open)

type options struct {
	ConnectionString string        `meta:"connectionString" alias:"path" doc:"The file: a path or file:path?params; penstock.db in the data folder when empty." example:"./data/locks.db"`
	Timeout          time.Duration `meta:"timeout"     default:"20s" doc:"Longest wait for a turn to be written; at least 1s."`
	BusyTimeout      time.Duration `meta:"busyTimeout" default:"5s"  doc:"Longest wait for another process that writes to the file."`
}

// Check implements component.Checker.
func (o options) Check() error {
	if o.Timeout < time.Second {
		return component.OptionErrorf("timeout", "must be at least 1s")
	}
	return nil
}

const (
	createLocks = `CREATE TABLE penstock_locks (
	key TEXT PRIMARY KEY, owner TEXT NOT NULL, expires INTEGER NOT NULL) WITHOUT ROWID`
	createExpires = `CREATE INDEX penstock_locks_expires ON penstock_locks (expires)`
	createFence   = `CREATE TABLE penstock_lock_fence (one INTEGER PRIMARY KEY CHECK (one = 1), token INTEGER NOT NULL)`
	createNotes   = `CREATE TABLE penstock_lock_notes (key TEXT PRIMARY KEY, note TEXT NOT NULL) WITHOUT ROWID`
	firstFence    = `INSERT INTO penstock_lock_fence VALUES (1, 0)`

	sweep = `DELETE FROM penstock_locks WHERE key IN (SELECT key FROM penstock_locks WHERE expires <= ? LIMIT 10)`
	grant = `INSERT INTO penstock_locks (key, owner, expires) VALUES (?1, ?2, ?3)
		ON CONFLICT (key) DO UPDATE SET owner = excluded.owner, expires = excluded.expires WHERE expires <= ?4`
	count  = `UPDATE penstock_lock_fence SET token = token + 1 RETURNING token`
	holder = `SELECT owner FROM penstock_locks WHERE key = ? AND expires > ?`
	extend = `UPDATE penstock_locks SET expires = ? WHERE key = ?`
	remove = `DELETE FROM penstock_locks WHERE key = ?`
	note   = `INSERT INTO penstock_lock_notes (key, note) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET note = excluded.note`
	noted  = `SELECT note FROM penstock_lock_notes WHERE key = ?`
)

type store struct {
	db      *client.DB
	timeout time.Duration
}

func open(ctx context.Context, env component.Env, o options) (lock.Driver, error) {
	db, err := client.Open(ctx, env, client.WithBusyTimeout(env, o.ConnectionString, o.BusyTimeout))
	if err != nil {
		return nil, err
	}
	if err := db.Migrate(ctx, "locks", createLocks, createExpires, createFence, firstFence, createNotes); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &store{db: db, timeout: o.Timeout}, nil
}

// write runs fn in a transaction, within the timeout. The clock is read inside:
// fn may have waited for its turn.
func (s *store) write(ctx context.Context, fn func(q queries, now int64) error) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	return s.db.Write(ctx, func(tx *sql.Tx) error { return fn(queries{s.db, tx}, time.Now().UnixMilli()) })
}

// TryLock implements lock.Driver.
func (s *store) TryLock(ctx context.Context, key, owner string, expiry time.Duration) (lock.Grant, error) {
	var g lock.Grant
	err := s.write(ctx, func(q queries, now int64) error {
		g = lock.Grant{}
		if _, err := q.exec(sweep, now); err != nil {
			return err
		}
		n, err := q.exec(grant, key, owner, now+millis(expiry), now)
		if err != nil || n == 0 {
			return err
		}
		g.Held = true
		return q.row(count).Scan(&g.Token)
	})
	if err != nil {
		return lock.Grant{}, err
	}
	return g, nil
}

// Renew implements lock.Driver.
func (s *store) Renew(ctx context.Context, key, owner string, expiry time.Duration) (lock.Status, error) {
	return s.held(ctx, key, owner, func(q queries, now int64) error {
		_, err := q.exec(extend, now+millis(expiry), key)
		return err
	})
}

// Unlock implements lock.Driver.
func (s *store) Unlock(ctx context.Context, key, owner string) (lock.Status, error) {
	return s.held(ctx, key, owner, func(q queries, _ int64) error {
		_, err := q.exec(remove, key)
		return err
	})
}

// Note implements lock.Noter.
func (s *store) Note(ctx context.Context, key string) (string, error) {
	var text string
	err := s.db.Read().QueryRowContext(ctx, noted, key).Scan(&text)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	return text, client.Classify(err)
}

// SetNote implements lock.Noter.
func (s *store) SetNote(ctx context.Context, key, owner, text string) (lock.Status, error) {
	return s.held(ctx, key, owner, func(q queries, _ int64) error {
		_, err := q.exec(note, key, text)
		return err
	})
}

// held runs fn when owner holds the lock, and tells who does.
func (s *store) held(ctx context.Context, key, owner string, fn func(q queries, now int64) error) (lock.Status, error) {
	st := lock.Failed
	err := s.write(ctx, func(q queries, now int64) error {
		var who string
		switch err := q.row(holder, key, now).Scan(&who); {
		case errors.Is(err, sql.ErrNoRows):
			st = lock.Missing
			return nil
		case err != nil:
			return err
		case who != owner:
			st = lock.Foreign
			return nil
		}
		st = lock.Done
		return fn(q, now)
	})
	if err != nil {
		return lock.Failed, err
	}
	return st, nil
}

// Close implements lock.Driver.
func (s *store) Close(context.Context) error { return s.db.Close() }

// millis rounds up, so that no lock ends early.
func millis(d time.Duration) int64 { return (d + time.Millisecond - 1).Milliseconds() }

// queries runs prepared statements of a transaction.
type queries struct {
	db *client.DB
	tx *sql.Tx
}

func (q queries) exec(text string, args ...any) (int64, error) {
	st, err := q.db.Stmt(q.tx, text)
	if err != nil {
		return 0, err
	}
	res, err := st.Exec(args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// row returns the one row of a query.
func (q queries) row(text string, args ...any) scanner {
	st, err := q.db.Stmt(q.tx, text)
	if err != nil {
		return scanner{err: err}
	}
	return scanner{row: st.QueryRow(args...)}
}

type scanner struct {
	row *sql.Row
	err error
}

// Scan reads the columns of the row.
func (s scanner) Scan(into ...any) error {
	if s.err != nil {
		return s.err
	}
	return s.row.Scan(into...)
}

// Package postgres is the lock store "lock.postgresql": a row of a PostgreSQL
// table for each lock.
//
// It is opened through [Component], and makes its table and its sequence when
// they are not there. Dapr has none.
//
// Promises: a grant is committed when the call returns, and outlives the
// connection and the process that asked for it. Times are those of the server's
// clock. Grants of one lock are made one at a time, under an advisory lock, so
// that a later grant always has the larger token.
package postgres

import (
	"context"
	"errors"
	"regexp"
	"time"

	"github.com/jackc/pgx/v5"

	client "github.com/penstock-io/penstock/client/postgres"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/lock"
)

// Component is "lock.postgresql".
var Component = lock.Define("postgresql", component.About{
	Summary: "Locks in a PostgreSQL table",
	Ack:     "A lock is held when it is committed",
	Limits:  "maxConns connections; locks that ran out are removed ten at a time, with the next try of any lock",
	Scale:   "Every process that uses the table sees the same locks",
	Dapr:    "Dapr has no such lock store.",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: lockstore
spec:
  type: lock.postgresql
  version: v1
  metadata:
    - name: connectionString
      value: postgres://app@localhost:5432/app
`,
}, open)

type options struct {
	client.Options
	TableName string `meta:"tableName" default:"penstock_locks" doc:"Table of the locks, made when it is not there; a schema may stand before it. Its sequence is called the same with _fence behind, the table of notes with _notes." example:"app.locks"`
}

// Check implements component.Checker.
func (o options) Check() error {
	errs := []error{o.Options.Check()}
	if !goodTable(o.TableName) {
		errs = append(errs, component.OptionErrorf("tableName", "must be a name of at most 50 small letters, digits and underscores, perhaps with a schema before it"))
	}
	return errors.Join(errs...)
}

// goodTable compiles its form when it is asked: its bounds make it large.
func goodTable(name string) bool {
	return regexp.MustCompile(`^([a-z_][a-z0-9_]{0,49}\.)?[a-z_][a-z0-9_]{0,49}$`).MatchString(name)
}

type store struct {
	db      *client.DB
	table   string
	timeout time.Duration
}

func open(ctx context.Context, env component.Env, o options) (lock.Driver, error) {
	db, err := client.Open(ctx, env, o.Options)
	if err != nil {
		return nil, err
	}
	err = db.Migrate(ctx, "locks:"+o.TableName, o.TableName,
		`CREATE TABLE IF NOT EXISTS `+o.TableName+` (key text PRIMARY KEY, owner text NOT NULL, token bigint NOT NULL, expires timestamptz NOT NULL)`,
		`CREATE INDEX IF NOT EXISTS `+unqualified(o.TableName)+`_expires ON `+o.TableName+` (expires)`,
		`CREATE SEQUENCE IF NOT EXISTS `+o.TableName+`_fence`,
		`CREATE TABLE IF NOT EXISTS `+o.TableName+`_notes (key text PRIMARY KEY, note text NOT NULL)`)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &store{db: db, table: o.TableName, timeout: o.Timeout}, nil
}

func unqualified(table string) string {
	return regexp.MustCompile(`^.*\.`).ReplaceAllString(table, "")
}

// TryLock implements lock.Driver. The statements go out together and are one
// transaction. The token is taken after the advisory lock is held: before, a try
// that is overtaken could be granted later with a smaller one.
func (s *store) TryLock(ctx context.Context, key, owner string, expiry time.Duration) (lock.Grant, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	var g lock.Grant
	b := &pgx.Batch{}
	b.Queue(`DELETE FROM ` + s.table + ` WHERE key IN (SELECT key FROM ` + s.table + ` WHERE expires <= clock_timestamp()
		LIMIT 10 FOR UPDATE SKIP LOCKED)`)
	b.Queue(`SELECT pg_advisory_xact_lock($1)`, client.Lock(s.table+" "+key))
	b.Queue(`INSERT INTO `+s.table+` AS l (key, owner, token, expires)
		VALUES ($1, $2, nextval('`+s.table+`_fence'), clock_timestamp() + $3 * interval '1 microsecond')
		ON CONFLICT (key) DO UPDATE SET owner = excluded.owner, token = excluded.token, expires = excluded.expires
		WHERE l.expires <= clock_timestamp() RETURNING token`, key, owner, expiry.Microseconds()).QueryRow(func(row pgx.Row) error {
		err := row.Scan(&g.Token)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		g.Held = err == nil
		return err
	})
	if err := s.db.Pool().SendBatch(ctx, b).Close(); err != nil {
		return lock.Grant{}, client.Classify(err)
	}
	return g, nil
}

// Renew implements lock.Driver.
func (s *store) Renew(ctx context.Context, key, owner string, expiry time.Duration) (lock.Status, error) {
	return s.change(ctx, `UPDATE `+s.table+` l SET expires = clock_timestamp() + $3 * interval '1 microsecond' FROM was
		WHERE l.key = was.key AND was.owner = $2 RETURNING 1`, key, owner, expiry.Microseconds())
}

// Unlock implements lock.Driver.
func (s *store) Unlock(ctx context.Context, key, owner string) (lock.Status, error) {
	return s.change(ctx, `DELETE FROM `+s.table+` l USING was WHERE l.key = was.key AND was.owner = $2 RETURNING 1`, key, owner)
}

// Note implements lock.Noter.
func (s *store) Note(ctx context.Context, key string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	var text string
	err := s.db.Pool().QueryRow(ctx, `SELECT note FROM `+s.table+`_notes WHERE key = $1`, key).Scan(&text)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", nil
	}
	return text, client.Classify(err)
}

// SetNote implements lock.Noter.
func (s *store) SetNote(ctx context.Context, key, owner, text string) (lock.Status, error) {
	return s.change(ctx, `INSERT INTO `+s.table+`_notes AS n (key, note) SELECT was.key, $3 FROM was WHERE was.owner = $2
		ON CONFLICT (key) DO UPDATE SET note = excluded.note RETURNING 1`, key, owner, text)
}

// change runs a statement on the lock that owner holds, and tells who does. was
// is the row as it is, locked; changed has one when the statement did something.
func (s *store) change(ctx context.Context, statement string, args ...any) (lock.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	var held, changed bool
	err := s.db.Pool().QueryRow(ctx, `WITH was AS (SELECT key, owner FROM `+s.table+` WHERE key = $1 AND expires > clock_timestamp() FOR UPDATE),
		changed AS (`+statement+`) SELECT EXISTS (SELECT FROM was), EXISTS (SELECT FROM changed)`, args...).Scan(&held, &changed)
	switch {
	case err != nil:
		return lock.Failed, client.Classify(err)
	case !held:
		return lock.Missing, nil
	case !changed:
		return lock.Foreign, nil
	}
	return lock.Done, nil
}

// Close implements lock.Driver.
func (s *store) Close(context.Context) error { return s.db.Close() }

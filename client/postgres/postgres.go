// Package postgres is one PostgreSQL database, shared by every component of the
// process that uses it as the same user: pub/sub, bindings, state.
//
// A component embeds [Options], calls [Open] with its Env, queries through
// [DB.Pool], changes several rows in [DB.Tx], makes its tables with
// [DB.Migrate], waits for notifications with [DB.Listen] and calls [DB.Close].
//
// Promises: Open does not wait for the server unless asked to; the pool makes
// connections when they are needed and again after they broke, for ever. Errors
// have a kind by their SQLSTATE, and no password in them.
//
// Bounds: maxConns connections (4 or the number of processors), and one more for
// each Listen.
package postgres

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash/fnv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
)

// DB is one component's hold on a shared pool.
type DB struct {
	pool    *pgxpool.Pool
	key     string
	release func() error
}

// Open makes or joins the pool of these options and asks the server for a sign
// of life. Kinds: Invalid for a bad connection string, Denied for a wrong
// password, NotFound for a database that does not exist, Unavailable or Timeout
// when the server cannot be reached.
func Open(ctx context.Context, env component.Env, o Options) (*DB, error) {
	c, err := o.config()
	if err != nil {
		return nil, fault.Wrap(err, "open database")
	}
	text, _ := o.text() // it was good a moment ago
	sum := sha256.Sum256([]byte(text + "\x00" + o.HostAddr + "\x00" + o.QueryExecMode))
	key := "postgres:" + hex.EncodeToString(sum[:8])
	shared := env.Shared
	if shared == nil {
		shared = &component.Shared{}
	}
	pool, release, err := component.Share(shared, key, func() (*pgxpool.Pool, func() error, error) {
		p, err := pgxpool.NewWithConfig(context.WithoutCancel(ctx), c)
		if err != nil {
			return nil, nil, fault.As(fault.Invalid, err)
		}
		return p, func() error { p.Close(); return nil }, nil
	})
	if err != nil {
		return nil, fault.Wrap(err, "open database")
	}
	db := &DB{pool: pool, key: key, release: release}
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	if err := pool.Ping(ctx); err != nil {
		_ = release() // the first error says more
		return nil, fault.Wrap(Classify(err), "open database %s", db.Name())
	}
	return db, nil
}

// Pool returns the connections. Do not close it.
func (db *DB) Pool() *pgxpool.Pool { return db.pool }

// Key names the database and the user for things that are made once for both; it
// tells nothing about either.
func (db *DB) Key() string { return db.key }

// Name returns host and database, for logs.
func (db *DB) Name() string {
	c := db.pool.Config().ConnConfig
	return c.Host + "/" + c.Database
}

// Close lets go of the pool; the last holder's Close waits for connections in
// use and closes them. Calling it twice is allowed.
func (db *DB) Close() error { return db.release() }

// txTries bounds how often a transaction is begun that others get in the way of.
const txTries = 6

// Tx runs fn in a transaction (read committed) and commits it when fn returns
// nil. After a deadlock or a serialization failure fn runs again, at most five
// times, so it must set its results rather than add to them.
func (db *DB) Tx(ctx context.Context, fn func(tx pgx.Tx) error) (err error) {
	for try := range txTries {
		err = pgx.BeginFunc(ctx, db.pool, fn)
		if !Again(err) || try == txTries-1 {
			break
		}
		wait := time.NewTimer(time.Duration(1<<try) * 5 * time.Millisecond)
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return Classify(err)
		}
	}
	return Classify(err)
}

// Lock is the number of an advisory lock for a name.
func Lock(name string) int64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte("penstock:" + name)) // it cannot fail
	return int64(h.Sum64())
}

// Migrate brings the tables called name to the newest version, under an advisory
// lock so that processes that start together do it once. Statement i leads from
// version i to i+1; those once released are never changed, only added to. Tables
// of a newer build are a Conflict. Tables that somebody has dropped are made
// again when probe, one of them, does not exist.
func (db *DB) Migrate(ctx context.Context, name, probe string, statements ...string) error {
	err := db.Tx(ctx, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", Lock("schema")); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `CREATE TABLE IF NOT EXISTS penstock_schema (name text PRIMARY KEY, version integer NOT NULL)`); err != nil {
			return err
		}
		var version int
		err := tx.QueryRow(ctx, "SELECT version FROM penstock_schema WHERE name = $1", name).Scan(&version)
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		var there bool
		if err := tx.QueryRow(ctx, "SELECT to_regclass($1) IS NOT NULL", probe).Scan(&there); err != nil {
			return err
		}
		if !there {
			version = 0
		}
		if version > len(statements) {
			return fault.New(fault.Conflict, "the database has version %d of them and this build knows %d; use a newer build or another database", version, len(statements))
		}
		for i := version; i < len(statements); i++ {
			if _, err := tx.Exec(ctx, statements[i]); err != nil {
				return fault.Wrap(Classify(err), "statement %d", i+1)
			}
		}
		_, err = tx.Exec(ctx, `INSERT INTO penstock_schema (name, version) VALUES ($1, $2)
			ON CONFLICT (name) DO UPDATE SET version = excluded.version`, name, len(statements))
		return err
	})
	return fault.Wrap(err, "migrate tables of %s", name)
}

// Apart makes a pool of conns connections beside the shared one, for what must
// not wait behind others. The caller closes it.
func (db *DB) Apart(ctx context.Context, conns int) (*pgxpool.Pool, error) {
	c := db.pool.Config().Copy()
	c.MaxConns, c.MinConns, c.MinIdleConns = int32(conns), 0, 0
	p, err := pgxpool.NewWithConfig(context.WithoutCancel(ctx), c)
	return p, Classify(err)
}

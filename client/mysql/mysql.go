// Package mysql is one MySQL or MariaDB database, shared by every component of
// the process that uses it with the same settings.
//
// A component embeds [Options], calls [Open] with its Env, runs statements
// through [DB.Pool], gives errors their kind with [Classify] and calls
// [DB.Close].
//
// Promises: the pool makes connections when they are needed and again after they
// broke, for ever. Errors have a kind by the number that the server sent, and no
// password in them. Nothing is registered for the whole process.
//
// Bounds: maxOpenConns connections, 16 unless said.
package mysql

import (
	"cmp"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"fmt"
	"time"

	driver "github.com/go-sql-driver/mysql"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
)

// DB is one component's hold on a shared pool.
type DB struct {
	pool    *sql.DB
	name    string
	release func() error
}

// openTime is how long the server may take to show that it lives.
const openTime = 20 * time.Second

// Open makes or joins the pool of these options and asks the server for a sign
// of life. Kinds: Invalid for bad options, Denied for a wrong password, NotFound
// for a database that does not exist, Unavailable or Timeout when the server
// cannot be reached.
func Open(ctx context.Context, env component.Env, o Options) (*DB, error) {
	c, err := o.config(env.Logger)
	if err != nil {
		return nil, fault.Wrap(err, "open database")
	}
	shared := env.Shared
	if shared == nil {
		shared = &component.Shared{}
	}
	pool, release, err := component.Share(shared, o.key(), func() (*sql.DB, func() error, error) {
		connector, err := driver.NewConnector(c)
		if err != nil {
			return nil, nil, fault.As(fault.Invalid, err)
		}
		p := sql.OpenDB(connector)
		p.SetMaxOpenConns(cmp.Or(o.MaxOpenConns, defaultOpen))
		p.SetMaxIdleConns(cmp.Or(o.MaxIdleConns, defaultIdle))
		p.SetConnMaxLifetime(o.ConnMaxLifetime)
		p.SetConnMaxIdleTime(cmp.Or(o.ConnMaxIdleTime, idleTime))
		return p, p.Close, nil
	})
	if err != nil {
		return nil, fault.Wrap(err, "open database")
	}
	db := &DB{pool: pool, name: c.Addr + "/" + c.DBName, release: release}
	ctx, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	if err := pool.PingContext(ctx); err != nil {
		_ = release() // the first error says more
		return nil, fault.Wrap(Classify(err), "open database %s", db.name)
	}
	return db, nil
}

// key names the settings; it tells nothing about them.
func (o Options) key() string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%s\x00%d %d %d %d", o.URL.Reveal(), o.PemPath, o.MaxIdleConns, o.MaxOpenConns,
		o.ConnMaxLifetime, o.ConnMaxIdleTime))
	return "mysql:" + hex.EncodeToString(sum[:8])
}

// Pool returns the connections. Do not close it.
func (db *DB) Pool() *sql.DB { return db.pool }

// Name returns address and database, for logs.
func (db *DB) Name() string { return db.name }

// Close lets go of the pool; the last holder's Close closes it. Calling it twice
// is allowed.
func (db *DB) Close() error { return db.release() }

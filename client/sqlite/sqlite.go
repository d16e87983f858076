// Package sqlite is one SQLite file, shared by every component of the process
// that keeps something in it: pub/sub, webhook spool, file positions, state.
//
// A component calls [Open] with its Env, makes its tables with [DB.Migrate],
// changes rows in functions given to [DB.Write], reads through [DB.Read], and
// calls [DB.Close] when it closes. One file is one writer and one pool of
// readers in the process, whatever number of components opened it.
//
// Promises: when Write returns nil the change is on the disk (write-ahead log,
// synchronous=FULL) and survives a killed process and a lost machine. Callers
// that arrive while a commit is under way share the next one, so many writers
// cost few disk flushes; nobody waits on a timer. A failing function does not
// hurt those it shared a commit with. Other processes may use the same file:
// they wait for each other up to the busy timeout, 5 s unless the connection
// string says otherwise.
//
// Bounds: one write connection, 4 read connections (closed after 10 s idle), 256
// functions in one commit, 256 prepared statements, 4 MiB page cache each.
package sqlite

import (
	"context"
	"database/sql"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"

	driver "modernc.org/sqlite"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
)

// DefaultFile is the name of the file under Env.DataDir that is used when no
// path is given.
const DefaultFile = "penstock.db"

const (
	readConns     = 4
	readerIdle    = 10 * time.Second // each keeps a cache of pages
	openTimeout   = 10 * time.Second
	walKeepBytes  = 64 << 20 // the log is cut back to this after a checkpoint
	cacheKibibyte = 4096
)

// DB is one component's hold on a shared file.
type DB struct {
	f       *file
	release func() error
}

// file is what the holders share.
type file struct {
	path  string
	read  *sql.DB
	write *sql.DB
	w     *writer
}

// Open opens the file at path, creating it (mode 0600) and its folders (mode
// 0700) when they do not exist. An empty path is DefaultFile in env.DataDir.
// Path may be a connection string as Dapr takes it, "file:x.db?_pragma=...";
// of its parameters the busy timeout is honoured, and only by the first to
// open the file. Kinds: Invalid for a bad connection string, a folder or a
// file that is not a database, Denied without the rights, Unavailable when
// another process holds the lock too long, Exhausted when the disk is full.
func Open(ctx context.Context, env component.Env, path string) (*DB, error) {
	src, err := parse(path, env.DataDir)
	if err != nil {
		return nil, err
	}
	shared := env.Shared
	if shared == nil {
		shared = &component.Shared{}
	}
	f, release, err := component.Share(shared, "sqlite:"+src.path, func() (*file, func() error, error) {
		f, err := openFile(ctx, src)
		if err != nil {
			return nil, nil, err
		}
		return f, f.close, nil
	})
	if err != nil {
		return nil, fault.Wrap(err, "open %s", src.path)
	}
	return &DB{f: f, release: release}, nil
}

// Path returns the absolute path of the file.
func (db *DB) Path() string { return db.f.path }

// Write runs fn in a transaction together with those of other callers that
// wait, and returns when all of it is on the disk, or fn's error when it
// failed and nothing of it was kept.
//
// Fn may run more than once, each time on a fresh transaction, so it must set
// its results rather than add to them. It must use tx only, without a context
// of its own (an interrupted statement ends the transaction of everybody),
// return every error it gets from tx, be quick, and not call Write. Errors of
// SQLite get a kind: Exhausted when the disk is full, Unavailable when it is
// read-only or locked, Conflict for a broken constraint, Invalid when the file
// is damaged.
//
// When ctx ends before fn was taken, fn is not run. Once taken, Write waits
// for the outcome.
func (db *DB) Write(ctx context.Context, fn func(tx *sql.Tx) error) error {
	return db.f.w.write(ctx, fn)
}

// Stmt returns query prepared for tx, which must be the one handed to the
// function that calls it. Statements stay prepared for the life of the file,
// so queries must be constants. The statement must not be closed.
func (db *DB) Stmt(tx *sql.Tx, query string) (*sql.Stmt, error) {
	return db.f.w.stmt(tx, query)
}

// Read returns the pool for reading. It cannot write. A long read keeps the
// log from shrinking, so read in pages. Do not close it.
func (db *DB) Read() *sql.DB { return db.f.read }

// Close lets go of the file; the last holder's Close writes what is queued and
// closes it. Calling it twice is allowed.
func (db *DB) Close() error { return db.release() }

func openFile(ctx context.Context, src source) (*file, error) {
	if err := prepare(src.path); err != nil {
		return nil, err
	}
	f := &file{path: src.path}
	var err error
	if f.write, err = pool(src, 1, "auto_vacuum(incremental)", "journal_mode(wal)",
		"synchronous(full)", "journal_size_limit("+strconv.Itoa(walKeepBytes)+")"); err != nil {
		return nil, err
	}
	if f.read, err = pool(src, readConns, "query_only(1)"); err != nil {
		_ = f.write.Close() // it has no connection yet
		return nil, err
	}
	// The caller's time is not ours to use up: others wait for the same open.
	octx, cancel := context.WithTimeout(context.WithoutCancel(ctx), openTimeout)
	defer cancel()
	if err := f.probe(octx); err != nil {
		_, _ = f.read.Close(), f.write.Close() // nothing was written
		return nil, err
	}
	f.w = startWriter(context.WithoutCancel(ctx), f.write)
	return f, nil
}

// prepare makes folders and file with narrow modes and finds the errors that
// SQLite would describe badly.
func prepare(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fault.Wrap(classifyOS(err), "make folder")
	}
	if st, err := os.Stat(path); err == nil && st.IsDir() {
		return fault.New(fault.Invalid, "it is a folder; name a file in it")
	}
	create(path)
	fh, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fault.Wrap(classifyOS(err), "create file")
	}
	return fh.Close()
}

func pool(src source, conns int, pragmas ...string) (*sql.DB, error) {
	// The busy timeout must come first: switching to the log takes the lock.
	q := url.Values{"_txlock": {"immediate"}, "_pragma": append([]string{
		"busy_timeout(" + strconv.FormatInt(src.busy.Milliseconds(), 10) + ")",
	}, pragmas...)}
	q["_pragma"] = append(q["_pragma"], "foreign_keys(1)", "temp_store(memory)", "cache_size(-"+strconv.Itoa(cacheKibibyte)+")")
	u := url.URL{Scheme: "file", Path: filepath.ToSlash(src.path), RawQuery: q.Encode()}
	c, err := driver.NewConnector(u.String())
	if err != nil {
		return nil, fault.New(fault.Invalid, "parse connection string: %w", err)
	}
	db := sql.OpenDB(c)
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns) // a new one costs more than most reads
	db.SetConnMaxIdleTime(readerIdle)
	return db, nil
}

// probe reads the header and checks that the log is on and the file writable.
func (f *file) probe(ctx context.Context) error {
	var mode string
	if err := f.write.QueryRowContext(ctx, "PRAGMA journal_mode").Scan(&mode); err != nil {
		return classify(err)
	}
	if mode != "wal" {
		return fault.New(fault.Unavailable, "journal mode is %q, not wal; the file system may not support shared memory", mode)
	}
	tx, err := f.write.BeginTx(ctx, nil)
	if err != nil {
		return classify(err)
	}
	return classify(tx.Rollback())
}

func (f *file) close() error {
	f.w.stop()
	err := f.read.Close()
	if werr := f.write.Close(); err == nil {
		err = werr
	}
	return fault.Wrap(classify(err), "close %s", f.path)
}

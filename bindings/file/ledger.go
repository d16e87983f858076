package file

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"

	"github.com/penstock-io/penstock/client/sqlite"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
)

const createTable = `CREATE TABLE file_progress (
	folder TEXT NOT NULL, name TEXT NOT NULL,
	identity TEXT NOT NULL, generation TEXT NOT NULL, state TEXT NOT NULL,
	position INTEGER NOT NULL, line INTEGER NOT NULL, prefix BLOB,
	PRIMARY KEY (folder, name)) WITHOUT ROWID`

const (
	saveRow = `INSERT INTO file_progress (folder, name, identity, generation, state, position, line, prefix)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (folder, name) DO UPDATE SET identity = excluded.identity,
		generation = excluded.generation, state = excluded.state, position = excluded.position,
		line = excluded.line, prefix = excluded.prefix`
	dropRow  = "DELETE FROM file_progress WHERE folder = ? AND name = ?"
	findRow  = "SELECT identity, generation, state, position, line, prefix FROM file_progress WHERE folder = ? AND name = ?"
	listRows = "SELECT name FROM file_progress WHERE folder = ? AND name > ? ORDER BY name LIMIT 1000"
)

// The states of a file that there is something to remember about.
const (
	stateReading = "reading" // settled up to position
	stateDone    = "done"    // settled, perhaps not moved or deleted yet
	stateFailed  = "failed"  // given up, perhaps not set aside yet
)

// record is what is remembered about a file.
type record struct {
	name       string
	identity   identity
	generation string // identity when the file was first seen; makes event ids
	state      string
	position   int64
	line       int64  // lines before position
	prefix     []byte // SHA-256 of the contents before position
}

// ledger keeps the records of one folder.
type ledger struct {
	db     *sqlite.DB
	folder string
}

func openLedger(ctx context.Context, env component.Env, path string) (*ledger, error) {
	folder, err := filepath.Abs(path)
	if err != nil {
		return nil, fault.Wrap(err, "find folder")
	}
	if real, err := filepath.EvalSymlinks(folder); err == nil {
		folder = real
	}
	db, err := sqlite.Open(ctx, env, "")
	if err != nil {
		return nil, err
	}
	if err := db.Migrate(ctx, "bindings.file", createTable); err != nil {
		_ = db.Close() // the first error says more
		return nil, err
	}
	return &ledger{db, folder}, nil
}

// find returns what is remembered about a name, nil when nothing is.
func (l *ledger) find(ctx context.Context, name string) (*record, error) {
	r := &record{name: name}
	var ident string
	err := l.db.Read().QueryRowContext(ctx, findRow, l.folder, name).
		Scan(&ident, &r.generation, &r.state, &r.position, &r.line, &r.prefix)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fault.Wrap(sqlite.Classify(err), "read what is known of file %q", name)
	}
	var ok bool
	if r.identity, ok = parseIdentity(ident); !ok {
		return nil, fault.New(fault.Internal, "read what is known of file %q: bad identity %q", name, ident)
	}
	return r, nil
}

// write saves and drops records in one transaction that is on the disk when it
// returns.
func (l *ledger) write(ctx context.Context, save []record, drop []string) error {
	if len(save)+len(drop) == 0 {
		return nil
	}
	err := l.db.Write(ctx, func(tx *sql.Tx) error {
		for _, r := range save {
			if _, err := tx.Exec(saveRow, l.folder, r.name, r.identity.String(), r.generation, r.state, r.position, r.line, r.prefix); err != nil {
				return err
			}
		}
		for _, name := range drop {
			if _, err := tx.Exec(dropRow, l.folder, name); err != nil {
				return err
			}
		}
		return nil
	})
	return fault.Wrap(err, "note what was read")
}

// forget drops the records of files that are no more.
func (l *ledger) forget(ctx context.Context, exists func(name string) bool) error {
	for last := ""; ; {
		names, err := l.names(ctx, last)
		if err != nil || len(names) == 0 {
			return err
		}
		last = names[len(names)-1]
		var gone []string
		for _, name := range names {
			if !exists(name) {
				gone = append(gone, name)
			}
		}
		if err := l.write(ctx, nil, gone); err != nil {
			return err
		}
	}
}

func (l *ledger) names(ctx context.Context, after string) (names []string, err error) {
	rows, err := l.db.Read().QueryContext(ctx, listRows, l.folder, after)
	if err != nil {
		return nil, fault.Wrap(sqlite.Classify(err), "list files known")
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, fault.Wrap(sqlite.Classify(err), "list files known")
		}
		names = append(names, name)
	}
	return names, fault.Wrap(sqlite.Classify(rows.Err()), "list files known")
}

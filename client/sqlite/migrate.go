package sqlite

import (
	"context"
	"database/sql"
	"errors"

	"github.com/penstock-io/penstock/fault"
)

const createVersions = `CREATE TABLE IF NOT EXISTS penstock_schema (
	name TEXT PRIMARY KEY, version INTEGER NOT NULL) WITHOUT ROWID`

// Migrate brings the tables called name to the newest version. Statement i
// leads from version i to i+1; each runs once in the life of the file, all
// missing ones in one transaction. Statements once released are never changed,
// only added to. A file from a newer build is a Conflict.
func (db *DB) Migrate(ctx context.Context, name string, statements ...string) error {
	err := db.Write(ctx, func(tx *sql.Tx) error {
		if _, err := tx.Exec(createVersions); err != nil {
			return err
		}
		var version int
		err := tx.QueryRow("SELECT version FROM penstock_schema WHERE name = ?", name).Scan(&version)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		if version > len(statements) {
			return fault.New(fault.Conflict, "the file has version %d of them and this build knows %d; use a newer build or another file",
				version, len(statements))
		}
		for i := version; i < len(statements); i++ {
			if _, err := tx.Exec(statements[i]); err != nil {
				return fault.Wrap(classify(err), "statement %d", i+1)
			}
		}
		if version == len(statements) {
			return nil
		}
		_, err = tx.Exec(`INSERT INTO penstock_schema (name, version) VALUES (?, ?)
			ON CONFLICT (name) DO UPDATE SET version = excluded.version`, name, len(statements))
		return err
	})
	return fault.Wrap(err, "migrate tables of %s in %s", name, db.f.path)
}

package sqlite

import (
	"context"
	"database/sql"
	"errors"

	"github.com/penstock-io/penstock/fault"
)

// layout is the version of the tables, as Dapr counts it.
const layout = 1

// batch is how many expired rows one commit deletes.
const batch = 1000

// queries are the statements on one table. Its name was checked.
type queries struct {
	read, live                                    string // what stands before and after the keys
	save, saveFirst, saveETag, delete, deleteETag string
	keys, clean                                   string
}

func queriesOf(table string) queries {
	t := `"` + table + `"`
	const (
		live = "(expiration_time IS NULL OR expiration_time > CURRENT_TIMESTAMP)"
		set  = "SET value = ?2, is_binary = ?3, etag = ?4, expiration_time = ?5, update_time = CURRENT_TIMESTAMP"
	)
	insert := "INSERT INTO " + t + " (key, value, is_binary, etag, expiration_time, update_time) VALUES (?1, ?2, ?3, ?4, ?5, CURRENT_TIMESTAMP) ON CONFLICT (key) DO UPDATE " + set
	return queries{
		read:       "SELECT key, value, is_binary, etag, unixepoch(expiration_time) FROM " + t + " WHERE key IN (",
		live:       ") AND " + live,
		save:       insert,
		saveFirst:  insert + " WHERE NOT " + live,
		saveETag:   "UPDATE " + t + " " + set + " WHERE key = ?1 AND etag = ?6 AND " + live,
		delete:     "DELETE FROM " + t + " WHERE key = ?1",
		deleteETag: "DELETE FROM " + t + " WHERE key = ?1 AND etag = ?2 AND " + live,
		keys:       "SELECT key FROM " + t + " WHERE key >= ?1 AND key > ?2 AND " + live + " ORDER BY key LIMIT ?3",
		clean: "DELETE FROM " + t + " WHERE key IN (SELECT key FROM " + t +
			" WHERE expiration_time IS NOT NULL AND expiration_time <= CURRENT_TIMESTAMP LIMIT ?1)",
	}
}

// migrate makes the tables as Dapr does and notes their version as it does, so
// that either may come first. The index of what expires is ours.
func (s *store) migrate(ctx context.Context, o options) error {
	table, notes := `"`+o.TableName+`"`, `"`+o.MetadataTableName+`"`
	err := s.db.Write(ctx, func(tx *sql.Tx) error {
		if _, err := tx.Exec("CREATE TABLE IF NOT EXISTS " + notes + " (key text NOT NULL PRIMARY KEY, value text NOT NULL)"); err != nil {
			return err
		}
		var version int
		err := tx.QueryRow("SELECT CAST(value AS INTEGER) FROM " + notes + " WHERE key = 'migrations'").Scan(&version)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		if version > layout {
			return fault.New(fault.Conflict, "the layout has version %d and this build knows %d; use a newer build or another file", version, layout)
		}
		for _, q := range []string{
			"CREATE TABLE IF NOT EXISTS " + table + ` (
				key TEXT NOT NULL PRIMARY KEY,
				value TEXT NOT NULL,
				is_binary BOOLEAN NOT NULL,
				etag TEXT NOT NULL,
				expiration_time TIMESTAMP DEFAULT NULL,
				update_time TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP)`,
			`CREATE INDEX IF NOT EXISTS "` + o.TableName + `_expires" ON ` + table + " (expiration_time) WHERE expiration_time IS NOT NULL",
		} {
			if _, err := tx.Exec(q); err != nil {
				return err
			}
		}
		_, err = tx.Exec("INSERT INTO "+notes+" (key, value) VALUES ('migrations', ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", layout)
		return err
	})
	return fault.Wrap(err, "make tables %s and %s in %s", o.TableName, o.MetadataTableName, s.db.Path())
}

// clean deletes expired rows, some in each commit, so that others get their turn.
func (s *store) clean(ctx context.Context) error {
	for n := int64(batch); n == batch; {
		err := s.db.Write(ctx, func(tx *sql.Tx) error {
			st, err := s.db.Stmt(tx, s.q.clean)
			if err != nil {
				return err
			}
			n, err = affected(st.Exec(batch))
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func affected(r sql.Result, err error) (int64, error) {
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

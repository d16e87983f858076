package mysql

import (
	"context"
	"database/sql"
	"strings"
	"time"

	client "github.com/penstock-io/penstock/client/mysql"
	"github.com/penstock-io/penstock/fault"
)

// table is the table and the statements on it. Its names were checked.
type table struct {
	schema, name, notes string // as they are
	full, fullNotes     string // quoted, with the schema
	ready               map[string]*sql.Stmt
	// Their parameters, in this order where they have them: the value, whether it
	// is binary, the new ETag, the seconds to live (NULL: for ever), the key, and
	// the ETag that must be.
	insert, save, revive, saveETag, delete, deleteETag string
	keys, clean                                        string
}

func tableOf(o options) table {
	t := table{schema: o.SchemaName, name: o.TableName, notes: o.MetadataTableName}
	t.full, t.fullNotes = "`"+t.schema+"`.`"+t.name+"`", "`"+t.schema+"`.`"+t.notes+"`"
	const (
		expiry = "DATE_ADD(CURRENT_TIMESTAMP, INTERVAL ? SECOND)"
		set    = " SET value = ?, isbinary = ?, eTag = ?, expiredate = " + expiry + " WHERE id = ?"
	)
	t.insert = "INSERT INTO " + t.full + " (value, isbinary, eTag, expiredate, id) VALUES (?, ?, ?, " + expiry + ", ?)"
	t.save = t.insert + " ON DUPLICATE KEY UPDATE value = VALUES(value), isbinary = VALUES(isbinary), eTag = VALUES(eTag), expiredate = VALUES(expiredate)"
	t.revive = "UPDATE " + t.full + set + " AND NOT " + live
	t.saveETag = "UPDATE " + t.full + set + " AND eTag = ? AND " + live
	t.delete = "DELETE FROM " + t.full + " WHERE id = ?"
	t.deleteETag = t.delete + " AND eTag = ? AND " + live
	t.keys = "SELECT id, row_id FROM " + t.full + " WHERE row_id > ? AND id LIKE ? ESCAPE '!' AND " + live + " ORDER BY row_id LIMIT ?"
	t.clean = "DELETE FROM " + t.full + " WHERE expiredate <= CURRENT_TIMESTAMP LIMIT ?"
	return t
}

const live = "(expiredate IS NULL OR expiredate > CURRENT_TIMESTAMP)"

// read selects n keys.
func (t *table) read(n int) string {
	return "SELECT id, value, isbinary, eTag, UNIX_TIMESTAMP(expiredate) FROM " + t.full + " WHERE id IN (?" + strings.Repeat(", ?", n-1) + ") AND " + live
}

// queries are all that are prepared.
func (t *table) queries() []string {
	out := []string{t.insert, t.save, t.revive, t.saveETag, t.delete, t.deleteETag, t.keys}
	for n := 1; n <= most; n *= step {
		out = append(out, t.read(n))
	}
	return out
}

func prepare(ctx context.Context, db *sql.DB, queries []string) (map[string]*sql.Stmt, error) {
	out := map[string]*sql.Stmt{}
	for _, q := range queries {
		st, err := db.PrepareContext(ctx, q)
		if err != nil {
			for _, st := range out {
				_ = st.Close() // the error is the one to tell
			}
			return nil, err
		}
		out[q] = st
	}
	return out, nil
}

// migrate makes the database and the tables as Dapr does, or brings those of an
// older Dapr up. Tables that are right already need no right to make any.
func (s *store) migrate(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	todo, err := s.missing(ctx, s.db.Pool())
	if err != nil || len(todo) == 0 {
		return fault.Wrap(client.Classify(err), "look at tables %s and %s", s.t.full, s.t.fullNotes)
	}
	conn, err := s.db.Pool().Conn(ctx)
	if err != nil {
		return client.Classify(err)
	}
	defer conn.Close()
	// Processes that start together do it once.
	lock := "penstock:" + s.t.schema
	var got sql.NullBool
	if err := conn.QueryRowContext(ctx, "SELECT GET_LOCK(?, ?)", lock, int(s.timeout/time.Second)).Scan(&got); err != nil || !got.Bool {
		return fault.New(fault.Unavailable, "make tables: another process keeps the lock %s (%v)", lock, err)
	}
	defer func() { _, _ = conn.ExecContext(ctx, "DO RELEASE_LOCK(?)", lock) }() // it ends with the connection
	if todo, err = s.missing(ctx, conn); err != nil {
		return client.Classify(err)
	}
	for _, q := range todo {
		if _, err := conn.ExecContext(ctx, q); err != nil {
			return fault.Wrap(client.Classify(err), "make tables %s and %s", s.t.full, s.t.fullNotes)
		}
	}
	return nil
}

// missing are the statements that are still to be run.
func (s *store) missing(ctx context.Context, on interface {
	QueryRowContext(context.Context, string, ...any) *sql.Row
},
) (todo []string, err error) {
	count := func(query string, args ...any) (n int) {
		if err == nil {
			err = on.QueryRowContext(ctx, query, args...).Scan(&n)
		}
		return n
	}
	const column = "SELECT COUNT(*) FROM information_schema.columns WHERE table_schema = ? AND table_name = ? AND column_name = ?"
	has := func(table, name string) bool { return count(column, s.t.schema, table, name) > 0 }
	if count("SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name = ?", s.t.schema) == 0 {
		todo = append(todo, "CREATE DATABASE IF NOT EXISTS `"+s.t.schema+"`")
	}
	if !has(s.t.notes, "id") {
		todo = append(todo, "CREATE TABLE IF NOT EXISTS "+s.t.fullNotes+" (id VARCHAR(255) NOT NULL PRIMARY KEY, value TEXT NOT NULL)")
	}
	switch {
	case !has(s.t.name, "id"):
		todo = append(todo, "CREATE TABLE IF NOT EXISTS "+s.t.full+` (
			id VARBINARY(255) NOT NULL PRIMARY KEY,
			value JSON NOT NULL,
			isbinary BOOLEAN NOT NULL,
			insertDate TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
			updateDate TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
			eTag VARCHAR(36) NOT NULL,
			expiredate TIMESTAMP NULL DEFAULT NULL,
			row_id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
			UNIQUE KEY row_id_uidx (row_id),
			KEY expiredate_idx (expiredate))`)
	case err == nil:
		if !has(s.t.name, "expiredate") {
			todo = append(todo, "ALTER TABLE "+s.t.full+" ADD COLUMN expiredate TIMESTAMP NULL DEFAULT NULL, ADD INDEX expiredate_idx (expiredate)")
		}
		if !has(s.t.name, "row_id") {
			todo = append(todo, "ALTER TABLE "+s.t.full+" ADD COLUMN row_id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT, ADD UNIQUE INDEX row_id_uidx (row_id)")
		}
	}
	return todo, err
}

// batch is how many expired rows one statement deletes.
const batch = 1000

// clean deletes expired rows unless somebody has, within the interval: Dapr's
// sidecars note it in the same row.
func (s *store) clean(ctx context.Context, interval time.Duration) error {
	// Clocks tick a little early at times; that must not double the interval.
	r, err := s.db.Pool().ExecContext(ctx, "INSERT INTO "+s.t.fullNotes+` (id, value) VALUES ('last-cleanup', CURRENT_TIMESTAMP)
		ON DUPLICATE KEY UPDATE value = IF(TIMESTAMPDIFF(SECOND, CAST(value AS DATETIME), CURRENT_TIMESTAMP) >= ?, CURRENT_TIMESTAMP, value)`,
		int64(0.9*interval.Seconds()))
	if err != nil {
		return client.Classify(err)
	}
	if n, err := r.RowsAffected(); err != nil || n == 0 {
		return client.Classify(err)
	}
	for n := int64(batch); n == batch; {
		r, err := s.db.Pool().ExecContext(ctx, s.t.clean, batch)
		if err != nil {
			return client.Classify(err)
		}
		if n, err = r.RowsAffected(); err != nil {
			return client.Classify(err)
		}
	}
	return nil
}

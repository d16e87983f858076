//go:build services

package mysql

import (
	"context"
	"database/sql"
	_ "embed"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/state"
	"github.com/penstock-io/penstock/test/conform"
	"github.com/penstock-io/penstock/test/services"
)

// captured is what Dapr's component made of an empty database; see its head.
//
//go:embed testdata/dapr-1.18.golden
var captured string

// capturedItems are what was saved, as it is given back.
func capturedItems() map[string]string {
	return map[string]string{
		"shop||object": `{"a":1,"b":"\u003cx\u003e"}`, "shop||text": `"plain \"quoted\" ✓"`, "shop||bytes": "\x00\x01\xff",
		"shop||json bytes": `{"a": 1}`, "shop||number": "5", "shop||null": "null", "shop||ttl": "true", "shop||o'clock": "12.5",
	}
}

// inDatabase is a database of its own, where script has been run, and the options
// that lead there.
func inDatabase(t *testing.T, server, script string) (*sql.DB, map[string]string) {
	t.Helper()
	name := conform.Unique(t)
	at := server[:strings.LastIndexByte(server, '/')+1]
	admin, err := sql.Open("mysql", at)
	if err != nil {
		t.Fatal(err)
	}
	run := func(db *sql.DB, query string) {
		t.Helper()
		if _, err := db.ExecContext(context.WithoutCancel(t.Context()), query); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
	}
	run(admin, "CREATE DATABASE "+name)
	db, err := sql.Open("mysql", at+name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = db.Close()
		run(admin, "DROP DATABASE "+name)
		_ = admin.Close()
	})
	for query := range strings.SplitSeq(script, ";\n") {
		if query != "" {
			run(db, query)
		}
	}
	return db, map[string]string{"url": server, "schemaName": name, "tableName": "state", "metadataTableName": "dapr_metadata"}
}

// lines are the rows of a query, of one column.
func lines(t *testing.T, db *sql.DB, query string) (out []string) {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			t.Fatal(err)
		}
		out = append(out, text)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestSameAsDaprs makes tables of its own and saves what Dapr's component had
// saved: both have the same columns, indexes and rows. Only keys have another
// type here, which tells letters apart by their case.
func TestSameAsDaprs(t *testing.T) {
	server := services.Need(t, "mysql")
	theirs, _ := inDatabase(t, server, captured)
	ours, options := inDatabase(t, server, "")
	s := opened(t, options)
	var changes []state.Change
	for key, value := range capturedItems() {
		c := state.Change{Key: key, Value: []byte(value), Binary: strings.HasSuffix(key, "bytes")}
		if key == "shop||ttl" {
			c.TTL = time.Hour
		}
		changes = append(changes, c)
	}
	if err := s.Apply(t.Context(), changes); err != nil {
		t.Fatal(err)
	}
	for what, query := range map[string]string{
		"columns": `SELECT CONCAT_WS(' ', table_name, column_name, IF(table_name = 'state', REPLACE(column_type, 'varbinary', 'varchar'), column_type),
			is_nullable, column_default, extra) FROM information_schema.columns WHERE table_schema = DATABASE() ORDER BY table_name, ordinal_position`,
		"indexes": `SELECT CONCAT_WS(' ', table_name, index_name, column_name, non_unique)
			FROM information_schema.statistics WHERE table_schema = DATABASE() ORDER BY 1`,
		"rows": `SELECT CONCAT_WS(' ', id, value, isbinary, insertDate IS NULL, updateDate IS NULL, LENGTH(eTag), expiredate IS NULL) FROM state ORDER BY BINARY id`,
	} {
		if diff := cmp.Diff(lines(t, theirs, query), lines(t, ours, query)); diff != "" {
			t.Errorf("%s (-Dapr's +ours)\n%s", what, diff)
		}
	}
}

// TestReadsDaprsRows reads what Dapr's component wrote, and changes it with the
// ETags found there. The time of the item that expires is what the table can
// count, so this works until 2036.
func TestReadsDaprsRows(t *testing.T) {
	theirs, options := inDatabase(t, services.Need(t, "mysql"), captured)
	s := opened(t, options)
	want := capturedItems()
	for key, value := range want {
		items, err := s.Get(t.Context(), []string{key}, state.Read{})
		if err != nil || !items[0].Found || string(items[0].Value) != value || !strings.Contains(captured, items[0].ETag) || items[0].ETag == "" {
			t.Errorf("%s: %+v, %v, want %q", key, items, err, value)
			continue
		}
		if expires := items[0].Expires; (key == "shop||ttl") != (expires.Year() == 2036) {
			t.Errorf("%s expires at %v", key, expires)
		}
		if err := s.Apply(t.Context(), []state.Change{{Key: key, Value: []byte("1"), ETag: &items[0].ETag}}); err != nil {
			t.Errorf("%s: save with Dapr's ETag: %v", key, err)
		}
	}
	keys, _, err := s.Keys(t.Context(), "shop||", "", 100)
	if err != nil || len(keys) != len(want) || len(lines(t, theirs, "SELECT id FROM state")) != len(want) {
		t.Errorf("keys %q, %v", keys, err)
	}
}

package sqlite

import (
	"context"
	"database/sql"
	_ "embed"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	client "github.com/penstock-io/penstock/client/sqlite"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/state"
)

// captured is what Dapr's component made of a new file; see its head.
//
//go:embed testdata/dapr-1.18.golden
var captured string

// opened returns a store on the file.
func opened(t testing.TB, path string) *store {
	t.Helper()
	d, err := open(t.Context(), component.Env{Logger: slog.New(slog.DiscardHandler)}, standard(path))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close(context.Background()) })
	return d.(*store)
}

func standard(path string) options {
	return options{ConnectionString: path, Timeout: time.Minute, TableName: "state", MetadataTableName: "metadata"}
}

// run runs SQL on the file.
func run(t testing.TB, path, script string) {
	t.Helper()
	db, err := client.Open(t.Context(), component.Env{}, path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	err = db.Write(t.Context(), func(tx *sql.Tx) error {
		_, err := tx.Exec(script)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestReadsDaprsFile reads what Dapr's component wrote, changes it with the ETags
// found there, and leaves tables as Dapr's.
func TestReadsDaprsFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "x.db")
	run(t, path, captured)
	s := opened(t, path)
	want := map[string]string{
		"shop||object": `{"a":1,"b":"\u003cx\u003e"}`, "shop||text": `"plain \"quoted\" ✓"`, "shop||bytes": "\x00\x01\xff",
		"shop||json bytes": `{"a": 1}`, "shop||number": "5", "shop||null": "null", "shop||ttl": "true", "shop||o'clock": "12.5",
	}
	for key, value := range want {
		items, err := s.Get(t.Context(), []string{key}, state.Read{})
		if err != nil || string(items[0].Value) != value || !strings.Contains(captured, items[0].ETag) {
			t.Errorf("%s: %+v, %v, want %q", key, items, err, value)
			continue
		}
		if expires := items[0].Expires; (key == "shop||ttl") != (expires.Year() == 2090) {
			t.Errorf("%s expires at %v", key, expires)
		}
		if err := s.Apply(t.Context(), []state.Change{{Key: key, Value: []byte("1"), ETag: &items[0].ETag}}); err != nil {
			t.Errorf("%s: save with Dapr's ETag: %v", key, err)
		}
	}
	keys, _, err := s.Keys(t.Context(), "shop||", "", 100)
	if err != nil || len(keys) != len(want) {
		t.Errorf("keys %q, %v", keys, err)
	}
}

// TestSameTables compares the tables made here with those that Dapr made.
func TestSameTables(t *testing.T) {
	t.Parallel()
	ours, theirs := filepath.Join(t.TempDir(), "ours.db"), filepath.Join(t.TempDir(), "theirs.db")
	s := opened(t, ours)
	run(t, theirs, captured)
	other, err := client.Open(t.Context(), component.Env{}, theirs)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	for _, table := range []string{"state", "metadata"} {
		if diff := cmp.Diff(columns(t, other, table), columns(t, s.db, table)); diff != "" {
			t.Errorf("table %s (-Dapr's +ours)\n%s", table, diff)
		}
	}
	var version string
	if err := s.db.Read().QueryRow("SELECT value FROM metadata WHERE key = 'migrations'").Scan(&version); err != nil || version != "1" {
		t.Errorf("migrations %q, %v", version, err)
	}
	binary := state.Change{Key: "b", Value: []byte{0, 1, 255}, Binary: true, TTL: time.Hour}
	if err := s.Apply(t.Context(), []state.Change{{Key: "a", Value: []byte(`{"x":1}`)}, binary}); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{"a": `{"x":1}|0|36|null`, "b": "AAH/|1|36|text"} {
		var got string
		err := s.db.Read().QueryRow(`SELECT value||'|'||is_binary||'|'||length(etag)||'|'||typeof(expiration_time) FROM state WHERE key = ?`, key).Scan(&got)
		if err != nil || got != want {
			t.Errorf("row %s is %q, %v, want %q", key, got, err, want)
		}
	}
}

func columns(t *testing.T, db *client.DB, table string) (out []string) {
	t.Helper()
	rows, err := db.Read().Query(`SELECT name||' '||type||' '||"notnull"||' '||ifnull(dflt_value, '-')||' '||pk FROM pragma_table_info(?)`, table)
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
	if err := rows.Err(); err != nil || len(out) == 0 {
		t.Fatalf("columns of %s: %q, %v", table, out, err)
	}
	return out
}

// TestBadFiles: what cannot be used says so.
func TestBadFiles(t *testing.T) {
	t.Parallel()
	newer := filepath.Join(t.TempDir(), "newer.db")
	run(t, newer, "CREATE TABLE metadata (key text NOT NULL PRIMARY KEY, value text NOT NULL); INSERT INTO metadata VALUES ('migrations', '9')")
	foreign := filepath.Join(t.TempDir(), "foreign.db")
	run(t, foreign, "CREATE TABLE state (something TEXT)")
	nonsense := filepath.Join(t.TempDir(), "nonsense.db")
	if err := os.WriteFile(nonsense, []byte(strings.Repeat("not a database ", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]struct {
		kind fault.Kind
		text string
	}{
		newer: {fault.Conflict, "newer build"}, foreign: {fault.Internal, "expiration_time"},
		nonsense: {fault.Invalid, "not a SQLite database"}, ":memory:": {fault.Invalid, "name a file"},
	} {
		_, err := open(t.Context(), component.Env{}, standard(path))
		if fault.KindOf(err) != want.kind || !strings.Contains(err.Error(), want.text) {
			t.Errorf("%s: %v (%v), want %v with %q", path, err, fault.KindOf(err), want.kind, want.text)
		}
	}
}

// TestDamagedRow: a row that was changed by hand spoils itself only.
func TestDamagedRow(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "x.db")
	s := opened(t, path)
	if err := s.Apply(t.Context(), []state.Change{{Key: "good", Value: []byte("1")}}); err != nil {
		t.Fatal(err)
	}
	run(t, path, "INSERT INTO state (key, value, is_binary, etag) VALUES ('bad', '!', 1, 'x')")
	items, err := s.Get(t.Context(), []string{"bad", "good"}, state.Read{})
	if err != nil || fault.KindOf(items[0].Err) != fault.Invalid || items[1].Err != nil || string(items[1].Value) != "1" {
		t.Errorf("%+v, %v", items, err)
	}
}

// TestClean deletes what is expired, more than one batch of it, and nothing else.
func TestClean(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "x.db")
	s := opened(t, path)
	run(t, path, `WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2500)
		INSERT INTO state (key, value, is_binary, etag, expiration_time) SELECT 'k'||i, '1', 0, 'e', '2020-01-01 00:00:00' FROM n;
		INSERT INTO state (key, value, is_binary, etag, expiration_time) VALUES ('kept', '1', 0, 'e', NULL), ('later', '1', 0, 'e', '2199-01-01 00:00:00')`)
	if err := s.clean(t.Context()); err != nil {
		t.Fatal(err)
	}
	var n int
	if err := s.db.Read().QueryRow("SELECT count(*) FROM state").Scan(&n); err != nil || n != 2 {
		t.Errorf("%d rows are left, %v, want 2", n, err)
	}
	rows, err := s.db.Read().Query("EXPLAIN QUERY PLAN "+s.q.clean, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var plan strings.Builder
	for rows.Next() {
		var step string
		if err := rows.Scan(new(int), new(int), new(int), &step); err != nil {
			t.Fatal(err)
		}
		plan.WriteString(step + "\n")
	}
	if err := rows.Err(); err != nil || !strings.Contains(plan.String(), "state_expires") {
		t.Errorf("cleaning reads the whole table: %s, %v", &plan, err)
	}
}

package sqlite

import (
	"database/sql"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/component"
)

// TestFreshFile compares the file that Open begins with with the one that
// SQLite makes of nothing.
func TestFreshFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ours, theirs := filepath.Join(dir, "ours.db"), filepath.Join(dir, "theirs.db")
	create(ours)
	if st, err := os.Stat(ours); err != nil || st.Size() != pageSize || st.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", st, err)
	}
	if err := os.WriteFile(theirs, nil, 0o600); err != nil { // is left to SQLite
		t.Fatal(err)
	}
	got, want := settings(t, ours), settings(t, theirs)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("ours differs (-SQLite's +ours):\n%s", d)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "*.new-*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// settings opens the file, writes to it and returns what it is like.
func settings(t *testing.T, path string) map[string]string {
	t.Helper()
	db := open(t, component.Env{}, path)
	err := db.Write(t.Context(), func(tx *sql.Tx) error {
		_, err := tx.Exec("CREATE TABLE t (n INTEGER PRIMARY KEY, s TEXT); INSERT INTO t VALUES (1, 'ä')")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, name := range []string{
		"integrity_check", "journal_mode", "auto_vacuum", "page_size", "page_count", "encoding",
		"freelist_count", "schema_version", "user_version", "application_id", "default_cache_size",
	} {
		var v string
		if err := db.f.write.QueryRow("PRAGMA " + name).Scan(&v); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		found[name] = v
	}
	return found
}

// TestFreshFileOnce has several create the same file: one does, and what
// another wrote meanwhile stays.
func TestFreshFileOnce(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "x.db")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { create(path) })
	}
	wg.Wait()
	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	create(path)
	if got, err := os.ReadFile(path); err != nil || string(got) != "mine" {
		t.Errorf("%q, %v", got, err)
	}
}

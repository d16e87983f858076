package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t testing.TB, env component.Env, path string) *DB {
	t.Helper()
	db, err := Open(t.Context(), env, path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func numbers(t testing.TB) *DB {
	t.Helper()
	db := open(t, component.Env{DataDir: t.TempDir()}, "")
	if err := db.Migrate(t.Context(), "test", "CREATE TABLE n (v INTEGER PRIMARY KEY)"); err != nil {
		t.Fatal(err)
	}
	return db
}

func insert(db *DB, v int) func(*sql.Tx) error {
	return func(tx *sql.Tx) error {
		st, err := db.Stmt(tx, "INSERT INTO n (v) VALUES (?)")
		if err != nil {
			return err
		}
		_, err = st.Exec(v)
		return err
	}
}

func count(t testing.TB, db *DB) (n int) {
	t.Helper()
	if err := db.Read().QueryRow("SELECT count(*) FROM n").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestParse(t *testing.T) {
	t.Parallel()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	rows := []struct {
		name, text, path string
		busy             time.Duration
		err              string
	}{
		{name: "empty", path: at("penstock.db")},
		{name: "plain", text: at("a.db"), path: at("a.db")},
		{name: "unclean", text: at("x") + "/../a.db", path: at("a.db")},
		{name: "file", text: "file:" + at("a.db"), path: at("a.db")},
		{name: "file with slashes", text: "file://" + at("a.db"), path: at("a.db")},
		{name: "file on localhost", text: "file://localhost" + at("a.db"), path: at("a.db")},
		{name: "escaped", text: "file:" + at("a%20%3fb.db"), path: at("a ?b.db")},
		{name: "busy pragma", text: at("a.db") + "?_pragma=busy_timeout(250)", path: at("a.db"), busy: 250 * time.Millisecond},
		{name: "busy pragma with equals", text: at("a.db") + "?_pragma=busy_timeout%3D250", path: at("a.db"), busy: 250 * time.Millisecond},
		{name: "busy", text: "file:" + at("a.db") + "?_txlock=immediate&_timeout=1000&cache=shared", path: at("a.db"), busy: time.Second},
		{name: "busy bad", text: at("a.db") + "?_timeout=soon", err: `busy timeout "soon"`},
		{name: "memory", text: ":memory:", err: "in-memory database is lost"},
		{name: "memory mode", text: "file:x?mode=memory", err: "mode=memory is not possible"},
		{name: "read only", text: "file:x?mode=ro", err: "mode=ro is not possible"},
		{name: "other host", text: "file://there/x.db", err: `names the host "there"`},
		{name: "no name", text: "file:?mode=rwc", err: "names no file"},
		{name: "bad escape", text: "file:%zz", err: "invalid URL escape"},
		{name: "bad query", text: "x.db?a=%zz", err: "invalid URL escape"},
		{name: "immutable", text: "file:x.db?immutable=1", err: `"immutable" is not possible`},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			src, err := parse(r.text, dir)
			if r.err != "" {
				if err == nil || !strings.Contains(err.Error(), r.err) || fault.KindOf(err) != fault.Invalid {
					t.Fatalf("error %v, want invalid with %q", err, r.err)
				}
				return
			}
			if r.busy == 0 {
				r.busy = defaultBusy
			}
			if err != nil || src.path != r.path || src.busy != r.busy {
				t.Fatalf("got %+v, %v; want %s, %s", src, err, r.path, r.busy)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"", "a.db", "file:a.db?_pragma=busy_timeout(5)", "file:///a%20b?mode=rwc", ":memory:", "a?b?c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		src, err := parse(text, "/data")
		if err == nil && !filepath.IsAbs(src.path) {
			t.Fatalf("%q gives %q", text, src.path)
		}
		if err != nil && fault.KindOf(err) != fault.Invalid {
			t.Fatalf("%q: kind %s of %v", text, fault.KindOf(err), err)
		}
	})
}

func TestOpenSharesOneFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	env := component.Env{DataDir: dir, Shared: &component.Shared{}}
	a := open(t, env, "")
	b := open(t, env, "file:"+filepath.Join(dir, "x", "..", DefaultFile)+"?_timeout=1")
	if a.f != b.f {
		t.Error("one file was opened twice")
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if err := b.Migrate(t.Context(), "test", "CREATE TABLE n (v INTEGER)"); err != nil {
		t.Errorf("the file went away with its first holder: %v", err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if err := b.Write(t.Context(), func(*sql.Tx) error { return nil }); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("write after close: %v", err)
	}
}

func TestOpenIsPrivateAndDurable(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	db := open(t, component.Env{DataDir: filepath.Join(dir, "deep", "data")}, "")
	for path, mode := range map[string]os.FileMode{
		filepath.Join(dir, "deep"): 0o700, filepath.Dir(db.Path()): 0o700, db.Path(): 0o600, db.Path() + "-wal": 0o600,
	} {
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if st.Mode().Perm() != mode {
			t.Errorf("%s has mode %o", path, st.Mode().Perm())
		}
	}
	got := map[string]string{}
	for _, p := range []string{"journal_mode", "synchronous", "auto_vacuum", "foreign_keys", "busy_timeout"} {
		var v string
		if err := db.f.write.QueryRow("PRAGMA " + p).Scan(&v); err != nil {
			t.Fatal(err)
		}
		got[p] = v
	}
	want := map[string]string{"journal_mode": "wal", "synchronous": "2", "auto_vacuum": "2", "foreign_keys": "1", "busy_timeout": "5000"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if _, err := db.Read().Exec("CREATE TABLE x (y)"); err == nil {
		t.Error("the read pool can write")
	}
}

func TestOpenErrors(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	rows := []struct {
		name, path, err string
		kind            fault.Kind
	}{
		{"folder", dir, "it is a folder", fault.Invalid},
		{"not a database", file("text.db", strings.Repeat("this is no database\n", 100)), "not a SQLite database", fault.Invalid},
		{"damaged", file("half.db", "SQLite format 3\x00"+strings.Repeat("\xff", 2000)), "not a SQLite database", fault.Invalid},
		{"under a file", filepath.Join(file("plain", "x"), "y.db"), "make folder", fault.Invalid},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			_, err := Open(t.Context(), component.Env{Shared: &component.Shared{}}, r.path)
			if err == nil || !strings.Contains(err.Error(), r.err) || !strings.Contains(err.Error(), r.path) || fault.KindOf(err) != r.kind {
				t.Errorf("%v (%s), want %q (%s)", err, fault.KindOf(err), r.err, r.kind)
			}
		})
	}
}

func TestWriteGroups(t *testing.T) {
	t.Parallel()
	db := numbers(t)
	taken, hold := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := db.Write(t.Context(), func(*sql.Tx) error { close(taken); <-hold; return nil }); err != nil {
			t.Error(err)
		}
	})
	<-taken
	bad := errors.New("no seven")
	errs := make([]error, 20)
	var txs sync.Map
	for i := range errs {
		wg.Go(func() {
			errs[i] = db.Write(t.Context(), func(tx *sql.Tx) error {
				txs.Store(tx, true)
				if err := insert(db, i)(tx); err != nil || i != 7 {
					return err
				}
				return bad
			})
		})
	}
	waitQueued(t, db, len(errs))
	close(hold)
	wg.Wait()
	for i, err := range errs {
		if (i == 7) != (err != nil) {
			t.Errorf("write %d: %v", i, err)
		}
	}
	if !errors.Is(errs[7], bad) {
		t.Errorf("the cause is lost: %v", errs[7])
	}
	if n := count(t, db); n != len(errs)-1 {
		t.Errorf("%d rows, want %d", n, len(errs)-1)
	}
	n := 0
	txs.Range(func(any, any) bool { n++; return true })
	if n != 2 {
		t.Errorf("%d transactions, want the shared one and the one with savepoints", n)
	}
}

func waitQueued(t *testing.T, db *DB, n int) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		db.f.w.mu.Lock()
		got := len(db.f.w.queue)
		db.f.w.mu.Unlock()
		if got >= n {
			return
		}
		select {
		case <-tick.C:
		case <-t.Context().Done():
			t.Fatalf("%d queued, want %d", got, n)
		}
	}
}

func TestWriteSurvivesLostTransaction(t *testing.T) {
	t.Parallel()
	db := numbers(t)
	taken, hold := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = db.Write(t.Context(), func(*sql.Tx) error { close(taken); <-hold; return nil })
	})
	<-taken
	errs := make([]error, 6)
	for i := range errs {
		wg.Go(func() {
			errs[i] = db.Write(t.Context(), func(tx *sql.Tx) error {
				if err := insert(db, i)(tx); err != nil || i != 3 {
					return err
				}
				// What SQLite does by itself when the disk is full.
				_, err := tx.Exec("ROLLBACK")
				return errors.Join(err, errors.New("lost"))
			})
		})
	}
	waitQueued(t, db, len(errs))
	close(hold)
	wg.Wait()
	for i, err := range errs {
		if (i == 3) != (err != nil) {
			t.Errorf("write %d: %v", i, err)
		}
	}
	if n := count(t, db); n != len(errs)-1 {
		t.Errorf("%d rows, want %d", n, len(errs)-1)
	}
}

func TestWriteCancelled(t *testing.T) {
	t.Parallel()
	db := numbers(t)
	taken, hold := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(hold)
	wg.Go(func() {
		_ = db.Write(t.Context(), func(*sql.Tx) error { close(taken); <-hold; return nil })
	})
	<-taken
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	err := db.Write(ctx, func(*sql.Tx) error { t.Error("it ran"); return nil })
	if fault.KindOf(err) != fault.Timeout {
		t.Errorf("queued: %v", err)
	}
	if err := db.Write(ctx, func(*sql.Tx) error { t.Error("it ran"); return nil }); fault.KindOf(err) != fault.Timeout {
		t.Errorf("ended before: %v", err)
	}
}

func TestWritePanicReachesCaller(t *testing.T) {
	t.Parallel()
	db := numbers(t)
	func() {
		defer func() {
			if v := recover(); v == nil || !strings.Contains(fmt.Sprint(v), "boom") || !strings.Contains(fmt.Sprint(v), "sqlite_test.go") {
				t.Errorf("recovered %v", v)
			}
		}()
		_ = db.Write(t.Context(), func(*sql.Tx) error { panic("boom") })
	}()
	if err := db.Write(t.Context(), insert(db, 1)); err != nil {
		t.Errorf("the writer is gone: %v", err)
	}
}

// A connection costs several times what a read costs, so that those in use are
// kept for the next.
func TestReadersAreKept(t *testing.T) {
	t.Parallel()
	read := numbers(t).Read()
	for range 3 {
		conns := make([]*sql.Conn, readConns)
		for i := range conns {
			var err error
			if conns[i], err = read.Conn(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		for _, c := range conns {
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if s := read.Stats(); s.MaxIdleClosed != 0 || s.Idle != readConns {
		t.Errorf("%d connections were closed and %d kept, want 0 and %d", s.MaxIdleClosed, s.Idle, readConns)
	}
}

func TestWriteErrorKinds(t *testing.T) {
	t.Parallel()
	db := numbers(t)
	exec := func(query string) func(*sql.Tx) error {
		return func(tx *sql.Tx) error { _, err := tx.Exec(query); return err }
	}
	if err := db.Write(t.Context(), insert(db, 1)); err != nil {
		t.Fatal(err)
	}
	if err := db.Write(t.Context(), insert(db, 1)); fault.KindOf(err) != fault.Conflict {
		t.Errorf("same key twice: %v", err)
	}
	if err := db.Write(t.Context(), exec("SELEKT")); fault.KindOf(err) != fault.Internal {
		t.Errorf("bad statement: %v", err)
	}
	if err := db.Write(t.Context(), func(tx *sql.Tx) error { return tx.Commit() }); fault.KindOf(err) != fault.Internal {
		t.Errorf("own commit: %v", err)
	}
	if _, err := db.f.write.Exec("PRAGMA max_page_count = 8"); err != nil {
		t.Fatal(err)
	}
	err := db.Write(t.Context(), exec("CREATE TABLE big AS SELECT zeroblob(1000000)"))
	if fault.KindOf(err) != fault.Exhausted || !strings.Contains(err.Error(), "disk is full") {
		t.Errorf("full: %v (%s)", err, fault.KindOf(err))
	}
	if err := db.Write(t.Context(), insert(db, 2)); err != nil {
		t.Errorf("after full: %v", err)
	}
}

func TestMigrate(t *testing.T) {
	t.Parallel()
	db := open(t, component.Env{DataDir: t.TempDir()}, "")
	one, two := "CREATE TABLE n (v INTEGER)", "ALTER TABLE n ADD COLUMN w"
	for _, statements := range [][]string{{one}, {one}, {one, two}, {one, two}} {
		if err := db.Migrate(t.Context(), "x", statements...); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Migrate(t.Context(), "x", one); fault.KindOf(err) != fault.Conflict || !strings.Contains(err.Error(), "newer build") {
		t.Errorf("older build: %v", err)
	}
	if err := db.Migrate(t.Context(), "y", "CREATE TABLE y (a)", "nonsense"); err == nil || !strings.Contains(err.Error(), "statement 2") {
		t.Errorf("bad statement: %v", err)
	}
	if err := db.Migrate(t.Context(), "y", "CREATE TABLE y (a)"); err != nil {
		t.Errorf("half a migration was kept: %v", err)
	}
}

func TestTwoOwnersOfOneFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "two.db")
	// Two Shared are what two processes have: nothing in common but the file.
	a, b := open(t, component.Env{}, path), open(t, component.Env{}, path)
	for _, db := range []*DB{a, b} {
		if err := db.Migrate(t.Context(), "n", "CREATE TABLE n (v INTEGER PRIMARY KEY)"); err != nil {
			t.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			db := []*DB{a, b}[i%2]
			if err := db.Write(t.Context(), insert(db, i)); err != nil {
				t.Errorf("write %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	if n := count(t, a); n != 200 {
		t.Errorf("%d rows", n)
	}
}

func TestBusyTimeout(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "busy.db")
	a, b := open(t, component.Env{}, path), open(t, component.Env{}, path+"?_timeout=1")
	err := a.Write(t.Context(), func(*sql.Tx) error {
		return b.Write(t.Context(), func(*sql.Tx) error { return nil })
	})
	if fault.KindOf(err) != fault.Unavailable || !strings.Contains(err.Error(), "another process holds the lock") {
		t.Errorf("locked out: %v", err)
	}
}

func BenchmarkWrite(b *testing.B) {
	for _, callers := range []int{1, 64} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			db := numbers(b)
			work := make(chan int)
			var wg sync.WaitGroup
			for range callers {
				wg.Go(func() {
					for v := range work {
						if err := db.Write(b.Context(), insert(db, v)); err != nil {
							b.Error(err)
						}
					}
				})
			}
			v := 0
			for b.Loop() {
				work <- v
				v++
			}
			close(work)
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "writes/s")
		})
	}
}

func TestWithBusyTimeout(t *testing.T) {
	t.Parallel()
	env := component.Env{DataDir: "data"}
	for path, want := range map[string]string{
		"":                             filepath.Join("data", DefaultFile) + "?_busy_timeout=2000",
		"x.db":                         "x.db?_busy_timeout=2000",
		"file:x.db?mode=rwc":           "file:x.db?mode=rwc&_busy_timeout=2000",
		"x.db?_timeout=1":              "x.db?_timeout=1",
		"x.db?_pragma=busy_timeout(1)": "x.db?_pragma=busy_timeout(1)",
	} {
		if got := WithBusyTimeout(env, path, 2*time.Second); got != want {
			t.Errorf("%q became %q, want %q", path, got, want)
		}
	}
}

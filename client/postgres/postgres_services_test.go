//go:build services

package postgres

import (
	"context"
	"errors"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/test/conform"
	"github.com/penstock-io/penstock/test/services"
)

const patience = 30 * time.Second

func opened(t *testing.T, shared *component.Shared, url string) *DB {
	t.Helper()
	o := Options{ConnectionString: component.NewSecret(url), Timeout: 20 * time.Second}
	db, err := Open(t.Context(), component.Env{Shared: shared}, o)
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

func exec(t *testing.T, db *DB, sql string, args ...any) {
	t.Helper()
	if _, err := db.Pool().Exec(context.WithoutCancel(t.Context()), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func TestSharedPool(t *testing.T) {
	url := services.Need(t, "postgres")
	shared := &component.Shared{}
	a, b := opened(t, shared, url), opened(t, shared, url)
	if a.Pool() != b.Pool() || a.Key() != b.Key() {
		t.Error("components of one database have pools of their own")
	}
	other := opened(t, shared, url+"?application_name=other")
	if other.Pool() == a.Pool() {
		t.Error("other settings share the pool")
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	if err := a.Close(); err != nil {
		t.Errorf("close twice: %v", err)
	}
	if err := b.Pool().Ping(t.Context()); err != nil {
		t.Errorf("the pool is closed while somebody has it: %v", err)
	}
}

func TestErrorsOfTheServer(t *testing.T) {
	url := services.Need(t, "postgres")
	db := opened(t, nil, url)
	table := conform.Unique(t)
	exec(t, db, "CREATE TABLE "+table+" (n int PRIMARY KEY)")
	t.Cleanup(func() { exec(t, db, "DROP TABLE "+table) })
	exec(t, db, "INSERT INTO "+table+" VALUES (1)")
	for sql, want := range map[string]fault.Kind{
		"SELEKT 1": fault.Invalid, "SELECT * FROM there_is_none": fault.NotFound, "INSERT INTO " + table + " VALUES (1)": fault.Conflict,
		"SELECT 1/0": fault.Invalid, "SET LOCAL statement_timeout = 1; SELECT pg_sleep(10)": fault.Timeout,
	} {
		_, err := db.Pool().Exec(t.Context(), sql)
		if got := fault.KindOf(Classify(err)); err == nil || got != want {
			t.Errorf("%s: %v is %v, want %v", sql, err, got, want)
		}
	}
	_, err := Open(t.Context(), component.Env{}, Options{ConnectionString: component.NewSecret(url), Database: "there_is_none", Timeout: patience})
	if fault.KindOf(err) != fault.NotFound {
		t.Errorf("no database: %v is %v", err, fault.KindOf(err))
	}
	_, err = Open(t.Context(), component.Env{}, Options{ConnectionString: component.NewSecret(url), User: "nobody_of_that_name", Timeout: patience})
	if fault.KindOf(err) != fault.Denied {
		t.Errorf("no user: %v is %v", err, fault.KindOf(err))
	}
	if _, err := db.Pool().Exec(t.Context(), "SELECT * FROM there_is_none"); !Missing(err) || Missing(nil) {
		t.Error("a table that is not there is not missing")
	}
}

// TestTxAgain has two transactions that lock each other's row: one is chosen to
// fail, and runs again.
func TestTxAgain(t *testing.T) {
	db := opened(t, nil, services.Need(t, "postgres"))
	table := conform.Unique(t)
	exec(t, db, "CREATE TABLE "+table+" AS SELECT 1 AS id, 0 AS n UNION SELECT 2, 0")
	t.Cleanup(func() { exec(t, db, "DROP TABLE "+table) })
	first := make(chan struct{}, 2) // each has its first row
	both := make(chan struct{})
	go func() { <-first; <-first; close(both) }()
	var wg sync.WaitGroup
	for _, order := range [][]int{{1, 2}, {2, 1}} {
		wg.Go(func() {
			met := false
			err := db.Tx(t.Context(), func(tx pgx.Tx) error {
				for _, id := range order {
					if _, err := tx.Exec(t.Context(), "UPDATE "+table+" SET n = n + 1 WHERE id = $1", id); err != nil {
						return err
					}
					if !met {
						met = true
						first <- struct{}{}
						<-both
					}
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	var n int
	if err := db.Pool().QueryRow(t.Context(), "SELECT sum(n) FROM "+table).Scan(&n); err != nil || n != 4 {
		t.Errorf("the sum is %d (%v), want 4", n, err)
	}
	mine := errors.New("mine")
	err := db.Tx(t.Context(), func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), "UPDATE "+table+" SET n = 100"); err != nil {
			return err
		}
		return mine
	})
	if !errors.Is(err, mine) {
		t.Errorf("tx: %v", err)
	}
	if err := db.Pool().QueryRow(t.Context(), "SELECT sum(n) FROM "+table).Scan(&n); err != nil || n != 4 {
		t.Errorf("what failed was written: the sum is %d (%v)", n, err)
	}
}

func TestMigrate(t *testing.T) {
	url := services.Need(t, "postgres")
	db := opened(t, nil, url)
	name := conform.Unique(t)
	t.Cleanup(func() {
		exec(t, db, "DROP TABLE IF EXISTS "+name)
		exec(t, db, "DELETE FROM penstock_schema WHERE name = $1", name)
	})
	steps := []string{"CREATE TABLE " + name + " (a int)", "ALTER TABLE " + name + " ADD COLUMN b int; INSERT INTO " + name + " VALUES (1, 2)"}
	rows := func() (n int) {
		if err := db.Pool().QueryRow(t.Context(), "SELECT count(*) FROM "+name).Scan(&n); err != nil {
			t.Error(err)
		}
		return n
	}
	if err := db.Migrate(t.Context(), name, name, steps[:1]...); err != nil || rows() != 0 {
		t.Fatalf("first version: %v", err)
	}
	var wg sync.WaitGroup
	for range 4 { // processes that start together
		wg.Go(func() {
			if err := db.Migrate(t.Context(), name, name, steps...); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if rows() != 1 {
		t.Errorf("the second step ran %d times", rows())
	}
	if err := db.Migrate(t.Context(), name, name, steps[:1]...); fault.KindOf(err) != fault.Conflict {
		t.Errorf("an older build: %v", err)
	}
	exec(t, db, "DROP TABLE "+name)
	if err := db.Migrate(t.Context(), name, name, steps...); err != nil || rows() != 1 {
		t.Errorf("tables that were dropped: %v", err)
	}
	if err := db.Migrate(t.Context(), name, name, append(steps, "SELEKT 1")...); fault.KindOf(err) != fault.Invalid {
		t.Errorf("a wrong step: %v", err)
	}
}

func TestApart(t *testing.T) {
	db := opened(t, nil, services.Need(t, "postgres")+"?pool_max_conns=1")
	held, err := db.Pool().Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer held.Release()
	apart, err := db.Apart(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	defer apart.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := apart.Ping(ctx); err != nil || apart.Config().MaxConns != 2 {
		t.Errorf("a pool of its own waits for the shared one: %v", err)
	}
}

// TestListen listens through a restart of the server.
func TestListen(t *testing.T) {
	s := services.Start(t, "postgres")
	db := opened(t, nil, s.Addr)
	ctx, cancel := context.WithCancel(t.Context())
	got, up, down := make(chan string, 64), make(chan struct{}, 8), make(chan error, 64)
	var wg sync.WaitGroup
	wg.Go(func() {
		db.Listen(ctx, Listener{
			Channels: []string{"Plain", `odd "name"`},
			Notified: func(channel, payload string) { got <- channel + "=" + payload },
			Up:       func() { up <- struct{}{} },
			Down: func(err error) {
				select {
				case down <- err:
				default:
				}
			},
		})
	})
	defer func() { cancel(); wg.Wait() }()
	hear := func(channel, payload string) {
		t.Helper()
		exec(t, db, "SELECT pg_notify($1, $2)", channel, payload)
		select {
		case text := <-got:
			if text != channel+"="+payload {
				t.Errorf("heard %s, want %s=%s", text, channel, payload)
			}
		case <-time.After(patience):
			t.Fatal("nothing was heard")
		}
	}
	await(t, up)
	hear("Plain", "")
	hear(`odd "name"`, "x y")
	if err := s.Stop(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := await(t, down); err == nil || !fault.Retriable(err) {
		t.Errorf("down: %v (%v)", err, fault.KindOf(err))
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	await(t, up)
	last := time.Now().Add(patience)
	for db.Pool().Ping(t.Context()) != nil && time.Now().Before(last) {
		continue // the pool finds out about each of its connections
	}
	hear("Plain", "again")
}

func await[T any](t *testing.T, ch <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-ch:
	case <-time.After(patience):
		t.Fatal("it does not happen")
	}
	return v
}

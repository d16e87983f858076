//go:build services

package mysql

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/test/conform"
	"github.com/penstock-io/penstock/test/services"
)

func opened(t *testing.T, shared *component.Shared, o Options) *DB {
	t.Helper()
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

func TestSharedPool(t *testing.T) {
	o := secret(services.Need(t, "mysql"))
	shared := &component.Shared{}
	a, b := opened(t, shared, o), opened(t, shared, o)
	if a.Pool() != b.Pool() {
		t.Error("components of one database have pools of their own")
	}
	o.MaxOpenConns = 3
	if opened(t, shared, o).Pool() == a.Pool() {
		t.Error("other settings share the pool")
	}
	for range 2 {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := b.Pool().PingContext(t.Context()); err != nil {
		t.Errorf("the pool is closed while somebody has it: %v", err)
	}
}

func TestErrorsOfTheServer(t *testing.T) {
	url := services.Need(t, "mysql")
	db := opened(t, nil, secret(url))
	for statement, want := range map[string]fault.Kind{
		"SELEKT 1": fault.Invalid, "SELECT * FROM there_is_none": fault.NotFound, "SELECT nothing": fault.Invalid,
		"SET STATEMENT max_statement_time = 0.01 FOR SELECT SLEEP(5)": fault.Timeout,
	} {
		_, err := db.Pool().ExecContext(t.Context(), statement)
		if got := fault.KindOf(Classify(err)); err == nil || got != want {
			t.Errorf("%s: %v is %v, want %v", statement, err, got, want)
		}
	}
	base := url[:strings.LastIndexByte(url, '/')]
	if _, err := Open(t.Context(), component.Env{}, secret(base+"/there_is_none")); fault.KindOf(err) != fault.NotFound {
		t.Errorf("no database: %v is %v", err, fault.KindOf(err))
	}
	nobody := "nobody:" + base[strings.LastIndexByte(base, '@'):] + "/test"
	if _, err := Open(t.Context(), component.Env{}, secret(nobody)); fault.KindOf(err) != fault.Denied {
		t.Errorf("no user: %v is %v", err, fault.KindOf(err))
	}
}

// TestServerRestart has the pool find out by itself.
func TestServerRestart(t *testing.T) {
	s := services.Start(t, "mysql")
	db := opened(t, nil, secret(s.Addr))
	if err := s.Stop(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := Classify(db.Pool().PingContext(t.Context())); err == nil || !fault.Retriable(err) {
		t.Errorf("no server: %v (%v)", err, fault.KindOf(err))
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for last := time.Now().Add(30 * time.Second); db.Pool().PingContext(t.Context()) != nil; <-tick.C {
		if time.Now().After(last) {
			t.Fatal("it does not work again")
		}
	}
	if _, err := db.Pool().ExecContext(t.Context(), "CREATE TABLE "+conform.Unique(t)+" (n int)"); err != nil {
		t.Error(err)
	}
}

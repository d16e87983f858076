//go:build services

package mysql

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/state"
	"github.com/penstock-io/penstock/test/conform"
	"github.com/penstock-io/penstock/test/services"
)

func TestConform(t *testing.T) { // not parallel: the suite counts goroutines
	server := services.Need(t, "mysql")
	conform.State(t, Component, conform.StateSetup{
		Options: func(t *testing.T) map[string]string { return fresh(t, server) },
		Wrong: map[string]map[string]string{
			"tableName": {"tableName": "state`; DROP TABLE x"}, "schemaName": {"schemaName": "a.b"}, "metadataTableName": {"metadataTableName": "1x"},
			"timeout": {"timeout": "1ms"}, "url": {"url": "nothing"},
		},
		MaxKey: maxKey,
	})
}

// fresh are options of a table that nobody has.
func fresh(t *testing.T, server string) map[string]string {
	name := conform.Unique(t)
	return map[string]string{"url": server, "schemaName": "penstock_state", "tableName": name, "metadataTableName": name + "_notes"}
}

// opening opens a store, which may fail.
func opening(t *testing.T, options map[string]string) (*store, error) {
	t.Helper()
	var items []config.Item
	for name, value := range options {
		items = append(items, config.Item{Name: name, Value: value})
	}
	d, err := Component.Open(t.Context(), component.Env{Logger: slog.New(slog.DiscardHandler)}, items)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = d.Close(context.Background()) })
	return d.(*store), nil
}

func opened(t *testing.T, options map[string]string) *store {
	t.Helper()
	s, err := opening(t, options)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// must runs a statement, which must not fail.
func (s *store) must(t *testing.T, query string, args ...any) {
	t.Helper()
	if _, err := s.db.Pool().ExecContext(t.Context(), query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

// rows counts those of the table.
func (s *store) rows(t *testing.T) (n int) {
	t.Helper()
	if err := s.db.Pool().QueryRowContext(t.Context(), "SELECT COUNT(*) FROM "+s.t.full).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestRights: who may use the tables need not be allowed to make them; who may
// do neither is told so.
func TestRights(t *testing.T) {
	server := services.Need(t, "mysql")
	options := fresh(t, server)
	admin := opened(t, options)
	user := conform.Unique(t)
	admin.must(t, "CREATE USER '"+user+"'@'%' IDENTIFIED BY 'geheim'")
	t.Cleanup(func() { _, _ = admin.db.Pool().ExecContext(context.Background(), "DROP USER '"+user+"'@'%'") })
	at := server[strings.LastIndexByte(server, '@'):strings.LastIndexByte(server, '/')] + "/"
	other := fresh(t, user+":geheim"+at)
	if _, err := opening(t, other); fault.KindOf(err) != fault.Denied {
		t.Errorf("no right to make tables: %v (%v)", err, fault.KindOf(err))
	}
	options["url"] = user + ":verkehrt" + at
	if _, err := opening(t, options); fault.KindOf(err) != fault.Denied || strings.Contains(err.Error(), "verkehrt") {
		t.Errorf("wrong password: %v (%v)", err, fault.KindOf(err))
	}
	admin.must(t, "GRANT SELECT, INSERT, UPDATE, DELETE ON "+admin.t.full+" TO '"+user+"'@'%'")
	admin.must(t, "GRANT SELECT, INSERT, UPDATE ON "+admin.t.fullNotes+" TO '"+user+"'@'%'")
	options["url"] = user + ":geheim" + at
	s := opened(t, options)
	if err := s.Apply(t.Context(), []state.Change{{Key: "a", Value: []byte("1")}}); err != nil {
		t.Error(err)
	}
	admin.must(t, "REVOKE INSERT, UPDATE, DELETE ON "+admin.t.full+" FROM '"+user+"'@'%'")
	err := s.Apply(t.Context(), []state.Change{{Key: "a", Value: []byte("1")}})
	if fault.KindOf(err) != fault.Denied {
		t.Errorf("no right to save: %v (%v)", err, fault.KindOf(err))
	}
}

// TestBadValues: what cannot be saved does not take others with it.
func TestBadValues(t *testing.T) {
	s := opened(t, fresh(t, services.Need(t, "mysql")))
	good := func(key string) state.Change { return state.Change{Key: key, Value: []byte("1")} }
	for name, bad := range map[string]state.Change{
		"long key":   good(strings.Repeat("k", 256)),
		"not JSON":   {Key: "bad", Value: []byte("{")},
		"after 2038": {Key: "bad", Value: []byte("1"), TTL: 50 * 365 * 24 * time.Hour},
	} {
		err := s.Apply(t.Context(), []state.Change{good("a" + name), bad, good("z" + name)})
		be, ok := err.(*state.BatchError)
		if !ok || be.Errs[0] != nil || be.Errs[2] != nil || fault.KindOf(be.Errs[1]) != fault.Invalid {
			t.Errorf("%s between good ones: %v (%T)", name, err, err)
		}
		if err := s.Transact(t.Context(), []state.Change{good("t"), bad}); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%s in a transaction: %v (%v)", name, err, fault.KindOf(err))
		}
	}
	if n := s.rows(t); n != 6 {
		t.Errorf("%d rows, want 6", n)
	}
	s.must(t, "INSERT INTO "+s.t.full+` (id, value, isbinary, eTag) VALUES ('damaged', '5', true, 'x'), ('worse', '"!"', true, 'x')`)
	items, err := s.Get(t.Context(), []string{"damaged", "worse", "anot JSON"}, state.Read{})
	if err != nil || fault.KindOf(items[0].Err) != fault.Invalid || fault.KindOf(items[1].Err) != fault.Invalid || !items[2].Found {
		t.Errorf("damaged rows: %+v, %v", items, err)
	}
}

// TestOldTable brings up a table of a Dapr that knew no expiry, and uses the
// keys of one that compares them without regard to case.
func TestOldTable(t *testing.T) {
	options := fresh(t, services.Need(t, "mysql"))
	s := opened(t, options)
	s.must(t, "DROP TABLE "+s.t.full)
	s.must(t, "CREATE TABLE "+s.t.full+` (id varchar(255) NOT NULL PRIMARY KEY, value json NOT NULL, isbinary boolean NOT NULL,
		insertDate TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, updateDate TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
		eTag varchar(36) NOT NULL)`)
	s.must(t, "INSERT INTO "+s.t.full+" (id, value, isbinary, eTag) VALUES ('Shop||a', '1', false, 'x')")
	old := opened(t, options)
	if keys, _, err := old.Keys(t.Context(), "Shop||", "", 10); err != nil || len(keys) != 1 {
		t.Errorf("keys %q, %v", keys, err)
	}
	if keys, _, err := old.Keys(t.Context(), "shop||", "", 10); err != nil || len(keys) != 0 {
		t.Errorf("another app's keys %q, %v", keys, err)
	}
	items, err := old.Get(t.Context(), []string{"Shop||a", "shop||a"}, state.Read{})
	if err != nil || !items[0].Found || items[1].Found {
		t.Errorf("%+v, %v: another app's item was read", items, err)
	}
	if err := old.Apply(t.Context(), []state.Change{{Key: "Shop||b", Value: []byte("1"), TTL: time.Hour}}); err != nil {
		t.Error(err)
	}
}

// TestOpenedTogether: stores that start at the same moment make the tables once.
func TestOpenedTogether(t *testing.T) {
	options := fresh(t, services.Need(t, "mysql"))
	options["schemaName"] = conform.Unique(t)
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			if _, err := opening(t, options); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// TestClean: what is expired goes, once in an interval whoever asks.
func TestClean(t *testing.T) {
	s := opened(t, fresh(t, services.Need(t, "mysql")))
	add := func() {
		s.must(t, "INSERT INTO "+s.t.full+" (id, value, isbinary, eTag, expiredate) SELECT CONCAT('k', seq), '1', false, 'x', '2020-01-01' FROM seq_1_to_2500")
	}
	err := s.Apply(t.Context(), []state.Change{{Key: "later", Value: []byte("1"), TTL: time.Hour}, {Key: "ever", Value: []byte("1")}})
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		before string
		want   int
	}{
		{"", 2},
		{"", 2502},
		{"UPDATE " + s.t.fullNotes + " SET value = DATE_SUB(CURRENT_TIMESTAMP, INTERVAL 2 HOUR)", 2},
	} {
		if step.before != "" {
			s.must(t, step.before)
		} else {
			add()
		}
		if err := s.clean(t.Context(), time.Hour); err != nil || s.rows(t) != step.want {
			t.Errorf("%d rows are left, %v, want %d", s.rows(t), err, step.want)
		}
	}
}

// TestManyKeys reads more keys than one statement has places for, and fewer.
func TestManyKeys(t *testing.T) {
	s := opened(t, fresh(t, services.Need(t, "mysql")))
	if err := s.Apply(t.Context(), []state.Change{{Key: "k0", Value: []byte("0")}, {Key: "k4999", Value: []byte("4999")}}); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{2, 9, 5000} {
		keys := make([]string, n)
		for i := range keys {
			keys[i] = fmt.Sprint("k", i)
		}
		items, err := s.Get(t.Context(), keys, state.Read{Parallel: 1})
		if err != nil || !items[0].Found || items[1].Found || items[n-1].Found != (n == 5000) {
			t.Errorf("%d keys: %v", n, err)
		}
	}
}

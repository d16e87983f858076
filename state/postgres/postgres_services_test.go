//go:build services

package postgres

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

// versions runs a test for both layouts.
func versions(t *testing.T, test func(t *testing.T, version string)) {
	t.Helper()
	for _, version := range []string{"v1", "v2"} {
		t.Run(version, func(t *testing.T) { test(t, version) })
	}
}

func TestConform(t *testing.T) { // not parallel: the suite counts goroutines
	server := services.Need(t, "postgres")
	versions(t, func(t *testing.T, version string) {
		conform.State(t, Component, conform.StateSetup{
			Version: version,
			Options: func(t *testing.T) map[string]string { return fresh(t, server) },
			Wrong: map[string]map[string]string{
				"tableName":         {"tableName": `state; DROP TABLE x`},
				"tablePrefix":       {"tablePrefix": `a.b.`},
				"metadataTableName": {"metadataTableName": `"x"`},
				"useAzureAD":        {"useAzureAD": "true"},
				"useAWSIAM":         {"useAWSIAM": "true"},
				"timeout":           {"timeout": "1ms"},
			},
		})
	})
}

// fresh are options of tables that nobody has.
func fresh(t *testing.T, server string) map[string]string {
	name := conform.Unique(t)
	return map[string]string{
		"connectionString": server, "tableName": name, "tablePrefix": name + "_", "metadataTableName": name + "_notes",
	}
}

// opening opens a store, which may fail.
func opening(t *testing.T, version string, options map[string]string) (*store, error) {
	t.Helper()
	var items []config.Item
	for name, value := range options {
		items = append(items, config.Item{Name: name, Value: value})
	}
	d, err := Component.Open(t.Context(), component.Env{Version: version, Logger: slog.New(slog.DiscardHandler)}, items)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = d.Close(context.Background()) })
	if s, ok := d.(searchable); ok {
		return s.store, nil
	}
	return d.(*store), nil
}

func opened(t *testing.T, version string, options map[string]string) *store {
	t.Helper()
	s, err := opening(t, version, options)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// exec runs a statement, which must not fail.
func (s *store) must(t *testing.T, query string, args ...any) {
	t.Helper()
	if _, err := s.db.Pool().Exec(t.Context(), query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

// number reads one.
func (s *store) number(t *testing.T, query string, args ...any) (n int) {
	t.Helper()
	if err := s.db.Pool().QueryRow(t.Context(), query, args...).Scan(&n); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return n
}

// TestRights: who may use the tables need not be allowed to make them; who may
// do neither is told so.
func TestRights(t *testing.T) {
	server := services.Need(t, "postgres")
	versions(t, func(t *testing.T, version string) {
		options := fresh(t, server)
		if _, err := opening(t, version, map[string]string{"connectionString": strings.Replace(server, "postgres@", "nobody_"+version+":geheim@", 1)}); fault.KindOf(err) != fault.Denied || strings.Contains(err.Error(), "geheim") {
			t.Errorf("no such user: %v (%v)", err, fault.KindOf(err))
		}
		admin := opened(t, version, options)
		user := conform.Unique(t)
		admin.must(t, "CREATE ROLE "+user+" LOGIN")
		t.Cleanup(func() {
			_, _ = admin.db.Pool().Exec(context.Background(), "DROP OWNED BY "+user+"; DROP ROLE "+user)
		})
		as := strings.Replace(server, "postgres@", user+"@", 1)
		other := fresh(t, as)
		if _, err := opening(t, version, other); fault.KindOf(err) != fault.Denied || !strings.Contains(err.Error(), "make tables") {
			t.Errorf("no right to make tables: %v (%v)", err, fault.KindOf(err))
		}
		options["connectionString"] = as
		if _, err := opening(t, version, options); fault.KindOf(err) != fault.Denied {
			t.Errorf("no right to read: %v (%v)", err, fault.KindOf(err))
		}
		admin.must(t, "GRANT SELECT ON "+admin.l.notes+", "+admin.l.table+" TO "+user)
		s := opened(t, version, options)
		if err := s.Apply(t.Context(), []state.Change{{Key: "a", Value: []byte("1")}}); fault.KindOf(err) != fault.Denied {
			t.Errorf("no right to save: %v (%v)", err, fault.KindOf(err))
		}
		if items, err := s.Get(t.Context(), []string{"a"}, state.Read{}); err != nil || items[0].Found {
			t.Errorf("read: %+v, %v", items, err)
		}
	})
}

// TestBadValues: what the server refuses does not take others with it, and is no
// reason to try again.
func TestBadValues(t *testing.T) {
	server := services.Need(t, "postgres")
	versions(t, func(t *testing.T, version string) {
		s := opened(t, version, fresh(t, server))
		bad := state.Change{Key: "bad\x00key", Value: []byte("1")}
		err := s.Apply(t.Context(), []state.Change{{Key: "a", Value: []byte("1")}, bad, {Key: "z", Value: []byte("1")}})
		be, ok := err.(*state.BatchError)
		if !ok || be.Errs[0] != nil || be.Errs[2] != nil || fault.KindOf(be.Errs[1]) != fault.Invalid {
			t.Fatalf("a bad key between good ones: %v (%T)", err, err)
		}
		if n := s.number(t, "SELECT count(*) FROM "+s.l.table); n != 2 {
			t.Errorf("%d rows, want 2", n)
		}
		if version == "v2" {
			return
		}
		if err := s.Apply(t.Context(), []state.Change{{Key: "a", Value: []byte("not JSON")}}); fault.KindOf(err) != fault.Invalid {
			t.Errorf("text that is not JSON: %v (%v)", err, fault.KindOf(err))
		}
		s.must(t, "INSERT INTO "+s.l.table+" (key, value, isbinary) VALUES ('damaged', '5', true), ('worse', '\"!\"', true)")
		items, err := s.Get(t.Context(), []string{"damaged", "worse", "a"}, state.Read{})
		if err != nil || fault.KindOf(items[0].Err) != fault.Invalid || fault.KindOf(items[1].Err) != fault.Invalid || !items[2].Found {
			t.Errorf("damaged rows: %+v, %v", items, err)
		}
	})
}

// TestTables: a table beside another in the same notes is made, a newer one is
// refused, and an older one is brought up.
func TestTables(t *testing.T) {
	server := services.Need(t, "postgres")
	versions(t, func(t *testing.T, version string) {
		options := fresh(t, server)
		one := opened(t, version, options)
		if err := one.Apply(t.Context(), []state.Change{{Key: "a", Value: []byte("1")}}); err != nil {
			t.Fatal(err)
		}
		second := fresh(t, server)
		second["metadataTableName"] = options["metadataTableName"]
		two := opened(t, version, second)
		if items, err := two.Get(t.Context(), []string{"a"}, state.Read{}); err != nil || items[0].Found {
			t.Errorf("the second table: %+v, %v", items, err)
		}
		if version == "v1" { // as an old Dapr left it
			one.must(t, "ALTER TABLE "+one.l.table+" DROP COLUMN row_id, DROP COLUMN expiredate; UPDATE "+one.l.notes+" SET value = '1' WHERE key = 'migrations'")
			again := opened(t, version, options)
			if keys, _, err := again.Keys(t.Context(), "", "", 10); err != nil || len(keys) != 1 {
				t.Errorf("an older table: %q, %v", keys, err)
			}
		}
		one.must(t, "UPDATE "+one.l.notes+" SET value = '99' WHERE key LIKE 'migrations%'")
		if _, err := opening(t, version, options); fault.KindOf(err) != fault.Conflict || !strings.Contains(err.Error(), "newer build") {
			t.Errorf("a newer table: %v (%v)", err, fault.KindOf(err))
		}
		schema := conform.Unique(t)
		one.must(t, "CREATE SCHEMA "+schema)
		in := map[string]string{"connectionString": server, "tableName": schema + ".Order", "tablePrefix": schema + ".", "metadataTableName": schema + ".notes"}
		s := opened(t, version, in)
		if err := s.Apply(t.Context(), []state.Change{{Key: "a", Value: []byte("1")}}); err != nil {
			t.Error(err)
		}
		if n := s.number(t, "SELECT count(*) FROM pg_tables WHERE schemaname = $1", schema); n != 2 {
			t.Errorf("%d tables in the schema", n)
		}
	})
}

// TestOpenedTogether: stores that start at the same moment make the tables once.
func TestOpenedTogether(t *testing.T) {
	server := services.Need(t, "postgres")
	versions(t, func(t *testing.T, version string) {
		options := fresh(t, server)
		var wg sync.WaitGroup
		for range 6 {
			wg.Go(func() {
				if _, err := opening(t, version, options); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	})
}

// TestClean: what is expired goes, once in an interval whoever asks.
func TestClean(t *testing.T) {
	server := services.Need(t, "postgres")
	versions(t, func(t *testing.T, version string) {
		s := opened(t, version, fresh(t, server))
		add := func() {
			var changes []state.Change
			for i := range 2500 {
				changes = append(changes, state.Change{Key: fmt.Sprint("k", i), Value: []byte("1"), TTL: time.Hour})
			}
			changes = append(changes, state.Change{Key: "later", Value: []byte("1"), TTL: time.Hour}, state.Change{Key: "ever", Value: []byte("1")})
			if err := s.Apply(t.Context(), changes); err != nil {
				t.Fatal(err)
			}
			s.must(t, "UPDATE "+s.l.table+" SET "+map[string]string{"v1": "expiredate", "v2": "expires_at"}[version]+" = now() - interval '1 second' WHERE key LIKE 'k%'")
		}
		rows := func() int { return s.number(t, "SELECT count(*) FROM "+s.l.table) }
		add()
		if err := s.clean(t.Context(), time.Hour); err != nil || rows() != 2 {
			t.Errorf("%d rows are left, %v, want 2", rows(), err)
		}
		add()
		if err := s.clean(t.Context(), time.Hour); err != nil || rows() != 2502 {
			t.Errorf("%d rows are left within the interval, %v, want 2502", rows(), err)
		}
		s.must(t, "UPDATE "+s.l.notes+" SET value = (now() - interval '2 hours')::text WHERE key = $1", s.l.cleanKey)
		if err := s.clean(t.Context(), time.Hour); err != nil || rows() != 2 {
			t.Errorf("%d rows are left after the interval, %v, want 2", rows(), err)
		}
	})
}

// TestOneRoundTrip: a thousand keys are one query.
func TestOneRoundTrip(t *testing.T) {
	server := services.Need(t, "postgres")
	versions(t, func(t *testing.T, version string) {
		s := opened(t, version, fresh(t, server))
		keys := make([]string, 1000)
		changes := make([]state.Change, len(keys))
		for i := range keys {
			keys[i] = fmt.Sprint("k", i)
			changes[i] = state.Change{Key: keys[i], Value: []byte("1")}
		}
		if err := s.Apply(t.Context(), changes); err != nil {
			t.Fatal(err)
		}
		before := s.db.Pool().Stat().AcquireCount()
		items, err := s.Get(t.Context(), keys, state.Read{Parallel: 10})
		if err != nil || !items[999].Found {
			t.Fatal(err)
		}
		if n := s.db.Pool().Stat().AcquireCount() - before; n != 1 {
			t.Errorf("%d uses of a connection", n)
		}
	})
}

// TestReadOnly: a server that takes no writes says so.
func TestReadOnly(t *testing.T) {
	server := services.Need(t, "postgres")
	versions(t, func(t *testing.T, version string) {
		options := fresh(t, server)
		opened(t, version, options)
		options["connectionString"] = server + "?default_transaction_read_only=on"
		s := opened(t, version, options)
		for _, err := range []error{
			s.Apply(t.Context(), []state.Change{{Key: "a", Value: []byte("1")}}),
			s.Transact(t.Context(), []state.Change{{Key: "a", Value: []byte("1")}}),
		} {
			if fault.KindOf(err) != fault.Unavailable {
				t.Errorf("save: %v (%v)", err, fault.KindOf(err))
			}
		}
	})
}

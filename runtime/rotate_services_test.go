//go:build services

package runtime_test

import (
	"context"
	"fmt"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/penstock-io/penstock/state/postgres"
	"github.com/penstock-io/penstock/test/services"
)

// roleServer is a PostgreSQL server that asks the role app for its password; it
// returns a connection of somebody who may do everything, and app's address.
func roleServer(t *testing.T) (admin *pgx.Conn, addr string) {
	t.Helper()
	server := services.Start(t, "postgres")
	admin, err := pgx.Connect(t.Context(), server.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := admin.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	var rules string
	if err := admin.QueryRow(t.Context(), `SHOW hba_file`).Scan(&rules); err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{
		`CREATE ROLE app LOGIN PASSWORD 'one'`, `GRANT ALL ON SCHEMA public TO app`,
		`COPY (VALUES ('host all app all scram-sha-256'), ('host all all all trust')) TO '` + rules + `'`,
		`SELECT pg_reload_conf()`,
	} {
		if _, err := admin.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	u, err := url.Parse(server.Addr)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword("app", "wrong")
	eventually(t, "a wrong password is refused", func() bool {
		c, err := pgx.Connect(t.Context(), u.String())
		if err == nil {
			_ = c.Close(t.Context()) // the server has not read its rules yet
		}
		return err != nil
	})
	u.User = url.User("app")
	return admin, u.String()
}

// loadState saves and reads in the store kept from several clients until stop;
// every failure is an error of the test.
func (in *instance) loadState(t *testing.T) (calls *atomic.Int64, stop func()) {
	t.Helper()
	calls = &atomic.Int64{}
	var clients sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	for i := range 8 {
		clients.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				if status, text := in.post(t, "/state/kept", fmt.Sprintf(`[{"key":"k%d","value":%d}]`, i, n)); status/100 != 2 {
					t.Errorf("a save failed: %d %s", status, text)
					return
				}
				if text := in.text(t, fmt.Sprintf("/state/kept/k%d", i)); text != fmt.Sprint(n) {
					t.Errorf("read %q, want %d", text, n)
					return
				}
				calls.Add(2)
			}
		})
	}
	return calls, func() { cancel(); clients.Wait() }
}

// TestRotationOfADatabasePasswordUnderLoad changes the password of a role while
// its state store is used: no call fails, before, meanwhile or after, and the
// connections that were made with the old one go.
func TestRotationOfADatabasePasswordUnderLoad(t *testing.T) {
	t.Parallel()
	admin, addr := roleServer(t)
	in, o := prepare(t, nil, vault+`
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: kept}
spec:
  type: state.postgresql
  version: v2
  metadata:
  - {name: connectionString, value: "`+addr+`"}
  - {name: password, secretKeyRef: {name: password}}
  - {name: maxConns, value: "4"}
auth: {secretStore: vault}
`)
	o.Components = append(components(), postgres.Component)
	in.keep(t, map[string]string{"password": "one"})
	in.run(t, o)

	calls, stop := in.loadState(t)
	more := func(what string) {
		t.Helper()
		from := calls.Load()
		eventually(t, what, func() bool { return calls.Load() > from+400 || t.Failed() })
	}
	connections := func(where string) (n int) {
		t.Helper()
		if err := admin.QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND `+where).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	more("calls with the old password")
	eventually(t, "all connections are made", func() bool { return connections("true") == 4 || t.Failed() })
	var changed string
	if err := admin.QueryRow(t.Context(), `SELECT clock_timestamp()::text`).Scan(&changed); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.Exec(t.Context(), `ALTER ROLE app PASSWORD 'two'`); err != nil {
		t.Fatal(err)
	}
	more("calls between the change and the new secret")
	in.keep(t, map[string]string{"password": "two"})
	in.logged(t, 1, turned)
	more("calls with the new password")
	eventually(t, "the old connections are gone", func() bool {
		return connections("backend_start < '"+changed+"'") == 0 && connections("true") > 0 || t.Failed()
	})
	more("more calls")
	stop()
	t.Logf("%d calls, none failed", calls.Load())
}

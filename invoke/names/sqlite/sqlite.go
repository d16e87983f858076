// Package sqlite is the name resolution "nameresolution.sqlite": the instances
// on one machine, or on a shared disk, in one SQLite file.
//
// It is set as spec.nameResolution of a Configuration. The tables are those of
// Dapr's component of that name, so its sidecars and ours find each other through
// one file.
//
// It promises that an instance is in the file while it is announced and for
// updateInterval after its process was killed, and is gone at once after a clean
// stop. A file that is locked or away for less than updateInterval loses nobody.
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"net"
	"regexp"
	"strconv"
	"time"

	client "github.com/penstock-io/penstock/client/sqlite"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/invoke/names"
)

// Component is listed in package all.
var Component = names.Define("sqlite", component.About{
	Summary: "Instances on one machine, in one SQLite file",
	Limits:  "An instance that was killed is found for updateInterval more.",
	Scale:   "Every process that opens the file sees the same instances.",
	Dapr:    "All instances are used, not one by chance; a file in memory is refused.",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata:
  name: penstock
spec:
  nameResolution:
    component: sqlite
    configuration:
      connectionString: ./data/names.db
`,
}, open)

type options struct {
	ConnectionString  string            `meta:"connectionString" alias:"url" doc:"The file: a path or file:path?params; penstock.db in the data folder when empty." example:"./data/names.db"`
	TableName         string            `meta:"tableName" default:"hosts" doc:"Table of the instances."`
	MetadataTableName string            `meta:"metadataTableName" default:"metadata" doc:"Table that notes the version of the layout."`
	UpdateInterval    time.Duration     `meta:"updateInterval" default:"5s" doc:"How long an instance counts without having said that it is there; whole seconds, and at least 1s more than timeout."`
	Timeout           time.Duration     `meta:"timeout" alias:"timeoutInSeconds" default:"1s" doc:"Longest wait for one answer of the file."`
	CleanupInterval   time.Duration     `meta:"cleanupInterval" alias:"cleanupIntervalInSeconds" default:"1h" doc:"How often instances that are gone are removed from the file."`
	BusyTimeout       time.Duration     `meta:"busyTimeout" default:"800ms" doc:"Longest wait for another process that writes to the file."`
	DisableWAL        component.Ignored `meta:"disableWAL" doc:"The file always has a write-ahead log."`
}

var identifier = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// Check implements component.Checker.
func (o options) Check() error {
	var errs []error
	for option, name := range map[string]string{"tableName": o.TableName, "metadataTableName": o.MetadataTableName} {
		if len(name) > 64 || !identifier.MatchString(name) {
			errs = append(errs, component.OptionErrorf(option, "%q cannot be a table's name: letters, digits and _, at most 64", name))
		}
	}
	switch {
	case o.Timeout <= 0:
		errs = append(errs, component.OptionErrorf("timeout", "must be above zero"))
	case o.UpdateInterval%time.Second != 0:
		errs = append(errs, component.OptionErrorf("updateInterval", "%v has a part of a second, and the file knows only whole ones", o.UpdateInterval))
	case o.UpdateInterval-o.Timeout < time.Second:
		errs = append(errs, component.OptionErrorf("updateInterval", "must be at least 1s more than timeout, which is %v", o.Timeout))
	}
	if o.CleanupInterval < time.Second {
		errs = append(errs, component.OptionErrorf("cleanupInterval", "must be at least 1s"))
	}
	return errors.Join(errs...)
}

// layout is the version of Dapr's tables.
const layout = 1

type resolver struct {
	db *client.DB
	o  options

	table, notes, find, put, renew, remove, sweep, swept string
}

func open(ctx context.Context, env component.Env, o options) (names.Driver, error) {
	db, err := client.Open(ctx, env, client.WithBusyTimeout(env, o.ConnectionString, o.BusyTimeout))
	if err != nil {
		return nil, err
	}
	r := &resolver{db: db, o: o, table: `"` + o.TableName + `"`, notes: `"` + o.MetadataTableName + `"`}
	r.find = "SELECT address FROM " + r.table + " WHERE app_id = ? AND unixepoch(CURRENT_TIMESTAMP) - last_update < ? LIMIT " + strconv.Itoa(names.MaxInstances)
	r.put = "REPLACE INTO " + r.table + " (registration_id, address, app_id, namespace, last_update) VALUES (?, ?, ?, '', unixepoch(CURRENT_TIMESTAMP))"
	r.renew = "UPDATE " + r.table + " SET last_update = unixepoch(CURRENT_TIMESTAMP) WHERE registration_id = ? AND address = ?"
	r.remove = "DELETE FROM " + r.table + " WHERE registration_id = ? AND address = ?"
	r.sweep = "DELETE FROM " + r.table + " WHERE unixepoch(CURRENT_TIMESTAMP) - last_update > ?"
	r.swept = "INSERT INTO " + r.notes + ` (key, value) VALUES ('nr-last-cleanup', CURRENT_TIMESTAMP)
		ON CONFLICT (key) DO UPDATE SET value = CURRENT_TIMESTAMP WHERE unixepoch(CURRENT_TIMESTAMP) - unixepoch(value) > ?`
	if err := r.migrate(ctx); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return r, nil
}

// migrate makes the tables as Dapr does and notes their version as it does, so
// that either may come first.
func (r *resolver) migrate(ctx context.Context) error {
	err := r.db.Write(ctx, func(tx *sql.Tx) error {
		if _, err := tx.Exec("CREATE TABLE IF NOT EXISTS " + r.notes + " (key text NOT NULL PRIMARY KEY, value text NOT NULL)"); err != nil {
			return err
		}
		var version int
		err := tx.QueryRow("SELECT CAST(value AS INTEGER) FROM " + r.notes + " WHERE key = 'nr-migrations'").Scan(&version)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		if version > layout {
			return fault.New(fault.Conflict, "the layout has version %d and this build knows %d; use a newer build or another file", version, layout)
		}
		for _, q := range []string{
			"CREATE TABLE IF NOT EXISTS " + r.table + ` (
				registration_id TEXT NOT NULL PRIMARY KEY,
				address TEXT NOT NULL,
				app_id TEXT NOT NULL,
				namespace TEXT NOT NULL,
				last_update INTEGER NOT NULL)`,
			`CREATE UNIQUE INDEX IF NOT EXISTS "` + r.o.TableName + `_address_idx" ON ` + r.table + " (address)",
			`CREATE INDEX IF NOT EXISTS "` + r.o.TableName + `_last_update_idx" ON ` + r.table + " (last_update)",
		} {
			if _, err := tx.Exec(q); err != nil {
				return err
			}
		}
		_, err = tx.Exec("INSERT INTO "+r.notes+" (key, value) VALUES ('nr-migrations', ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", layout)
		return err
	})
	return fault.Wrap(err, "make tables %s and %s in %s", r.o.TableName, r.o.MetadataTableName, r.db.Path())
}

// Resolve implements names.Driver. Dapr writes no namespace and looks for none.
func (r *resolver) Resolve(ctx context.Context, app names.App) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, r.o.Timeout)
	defer cancel()
	rows, err := r.db.Read().QueryContext(ctx, r.find, app.ID, int64(r.o.UpdateInterval/time.Second))
	if err != nil {
		return nil, fault.Wrap(fault.As(fault.Unavailable, err), "read instances")
	}
	defer rows.Close()
	var list []string
	for rows.Next() {
		var address string
		if err := rows.Scan(&address); err != nil {
			return nil, fault.Wrap(fault.As(fault.Unavailable, err), "read instances")
		}
		list = append(list, address)
	}
	if err := rows.Err(); err != nil {
		return nil, fault.Wrap(fault.As(fault.Unavailable, err), "read instances")
	}
	if len(list) == 0 {
		return nil, fault.New(fault.NotFound, "no instance is in %s", r.db.Path())
	}
	return list, nil
}

// Announce implements names.Announcer.
func (r *resolver) Announce(ctx context.Context, self names.Self) error {
	id, address := cloudevents.NewID(), net.JoinHostPort(self.Host, strconv.Itoa(self.InternalPort))
	if _, err := r.exec(ctx, r.put, id, address, self.ID); err != nil {
		return fault.Wrap(err, "register %s", address)
	}
	renew := time.NewTicker((r.o.UpdateInterval - r.o.Timeout) / 2)
	defer renew.Stop()
	clean := time.NewTicker(r.o.CleanupInterval)
	defer clean.Stop()
	for {
		select {
		case <-ctx.Done():
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.o.Timeout)
			defer cancel()
			_, err := r.exec(ctx, r.remove, id, address)
			return fault.Wrap(err, "take back %s", address)
		case <-renew.C:
			n, err := r.exec(ctx, r.renew, id, address)
			switch {
			case ctx.Err() != nil:
			case err != nil:
				return fault.Wrap(err, "renew %s", address)
			case n == 0: // swept while this process slept, or somebody has the address
				return fault.New(fault.Conflict, "renew %s: the registration is gone", address)
			}
		case <-clean.C:
			r.clean(ctx)
		}
	}
}

// clean removes instances that are gone, unless somebody else did. What fails is
// done next time.
func (r *resolver) clean(ctx context.Context) {
	n, err := r.exec(ctx, r.swept, int64(r.o.CleanupInterval/time.Second))
	if err == nil && n > 0 {
		_, _ = r.exec(ctx, r.sweep, int64(r.o.UpdateInterval/time.Second)) // see above
	}
}

// exec runs one statement, within the timeout.
func (r *resolver) exec(ctx context.Context, query string, args ...any) (n int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, r.o.Timeout)
	defer cancel()
	err = r.db.Write(ctx, func(tx *sql.Tx) error {
		st, err := r.db.Stmt(tx, query)
		if err != nil {
			return err
		}
		res, err := st.Exec(args...)
		if err != nil {
			return err
		}
		n, err = res.RowsAffected()
		return err
	})
	return n, err
}

// Close implements names.Driver.
func (r *resolver) Close(context.Context) error { return r.db.Close() }

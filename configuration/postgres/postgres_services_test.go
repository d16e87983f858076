//go:build services

package postgres

import (
	"context"
	"log/slog"
	"net/url"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	client "github.com/penstock-io/penstock/client/postgres"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/configuration"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/test/conform"
	"github.com/penstock-io/penstock/test/fake"
	"github.com/penstock-io/penstock/test/services"
)

// owner is who keeps the tables, as Dapr's documentation has it.
type owner struct{ server string }

func (o owner) do(t *testing.T, sql string, args ...any) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	conn, err := pgx.Connect(ctx, o.server)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	if len(args) == 0 {
		args = []any{pgx.QueryExecModeSimpleProtocol} // several statements at once
	}
	if _, err := conn.Exec(ctx, sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// table makes a table whose trigger tells of whole rows on a channel that is
// called as the table is.
func (o owner) table(t *testing.T) string {
	t.Helper()
	name := conform.Unique(t)
	o.do(t, `CREATE TABLE `+name+` (KEY varchar NOT NULL, VALUE varchar NOT NULL, VERSION varchar NOT NULL, METADATA json);
		CREATE FUNCTION `+name+`_tell() RETURNS trigger AS $$
		DECLARE data json;
		BEGIN
			IF TG_OP = 'DELETE' THEN data := row_to_json(OLD); ELSE data := row_to_json(NEW); END IF;
			PERFORM pg_notify('`+name+`', json_build_object('table', TG_TABLE_NAME, 'action', TG_OP, 'data', data)::text);
			RETURN NULL;
		END; $$ LANGUAGE plpgsql;
		CREATE TRIGGER tell AFTER INSERT OR UPDATE OR DELETE ON `+name+` FOR EACH ROW EXECUTE PROCEDURE `+name+`_tell();`)
	t.Cleanup(func() { o.do(t, `DROP TABLE `+name+`; DROP FUNCTION `+name+`_tell`) })
	return name
}

// through is the server's address through a proxy.
func through(t *testing.T, server string) (*fake.Proxy, string) {
	t.Helper()
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	proxy, err := fake.NewProxy(u.Host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(proxy.Close)
	u.Host = proxy.Addr()
	return proxy, u.String()
}

// TestConformOnServer reaches the server through a proxy that can be cut.
func TestConformOnServer(t *testing.T) { // not parallel: the suite counts goroutines
	o := owner{services.Need(t, "postgres")}
	proxy, server := through(t, o.server)
	var table string // of the case that runs
	conform.Configuration(t, Component, conform.ConfigurationSetup{
		Options: func(t *testing.T) map[string]string {
			table = o.table(t)
			return map[string]string{"connectionString": server, "table": table, "notifyChannel": table}
		},
		Wrong: map[string]map[string]string{
			"connectionString": {"connectionString": ""},
			"table":            {"table": "a b"},
		},
		Set: func(t *testing.T, key, value, version string) {
			o.do(t, `WITH there AS (UPDATE `+table+` SET value = $2, version = $3 WHERE key = $1 RETURNING 1)
				INSERT INTO `+table+` SELECT $1, $2, $3, NULL WHERE NOT EXISTS (SELECT FROM there)`, key, value, version)
		},
		Delete: func(t *testing.T, key string) { o.do(t, `DELETE FROM `+table+` WHERE key = $1`, key) },
		Break: func(t *testing.T, meanwhile func()) {
			proxy.Set(fake.Network{Reset: true})
			meanwhile()
			proxy.Set(fake.Network{})
		},
	})
}

func opened(t *testing.T, pairs ...config.Item) (configuration.Driver, error) {
	t.Helper()
	d, err := Component.Open(t.Context(), component.Env{Name: "settings", Logger: slog.New(slog.DiscardHandler)}, pairs)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() {
		if err := d.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return d.(configuration.Driver), nil
}

// TestColumns reads rows of other types, without values, and with metadata of
// every kind.
func TestColumns(t *testing.T) {
	t.Parallel()
	o := owner{services.Need(t, "postgres")}
	name := conform.Unique(t)
	o.do(t, `CREATE SCHEMA `+name+`; CREATE TABLE `+name+`.Settings (id serial, key text, value text, version integer, metadata jsonb);
		INSERT INTO `+name+`.settings (key, value, version, metadata) VALUES ('a', 'x', 3, '{"k":"v","n":1,"o":{"x":null}}'), ('b', NULL, NULL, '[1]'), (NULL, 'y', 1, NULL)`)
	t.Cleanup(func() { o.do(t, `DROP SCHEMA `+name+` CASCADE`) })
	d, err := opened(t, config.Item{Name: "connectionString", Value: o.server}, config.Item{Name: "table", Value: name + ".Settings"})
	if err != nil {
		t.Fatal(err)
	}
	got, err := d.Get(t.Context(), nil, nil)
	want := map[string]configuration.Item{
		"a": {Value: "x", Version: "3", Metadata: map[string]string{"k": "v", "n": "1", "o": `{"x": null}`}}, "b": {},
	}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got)\n%s", err, diff)
	}
	if err := d.Watch(t.Context(), configuration.Watch{}); fault.KindOf(err) != fault.Invalid {
		t.Errorf("watch without a channel: %v, want kind invalid", err)
	}
}

func TestMissingTable(t *testing.T) {
	t.Parallel()
	o := owner{services.Need(t, "postgres")}
	name := conform.Unique(t)
	at := []config.Item{{Name: "connectionString", Value: o.server}, {Name: "table", Value: name}}
	if _, err := opened(t, at...); fault.KindOf(err) != fault.NotFound {
		t.Errorf("open without a table: %v, want kind not found", err)
	}
	o.do(t, `CREATE TABLE `+name+` (key text, value text)`)
	t.Cleanup(func() { o.do(t, `DROP TABLE `+name) })
	if _, err := opened(t, at...); fault.KindOf(err) != fault.Invalid {
		t.Errorf("open without a column: %v, want kind invalid", err)
	}
}

// TestNotifications: what names a key changes that one, all else everything, on
// the channel that the request names.
func TestNotifications(t *testing.T) {
	t.Parallel()
	o := owner{services.Need(t, "postgres")}
	table := o.table(t)
	d, err := open(t.Context(), component.Env{Logger: slog.New(slog.DiscardHandler)}, options{
		Options: client.Options{ConnectionString: component.NewSecret(o.server), Timeout: 20 * time.Second}, Table: table,
	})
	if err != nil {
		t.Fatal(err)
	}
	up, changed, ended := make(chan struct{}, 10), make(chan string, 10), make(chan error, 1)
	go func() {
		ended <- d.Watch(t.Context(), configuration.Watch{
			Metadata: map[string]string{"pgNotifyChannel": "Ch_" + table},
			Up:       func() { up <- struct{}{} }, Changed: func(key string) { changed <- key },
		})
	}()
	<-up
	for _, channel := range []string{"Ch_" + table, "ch_" + table} {
		o.do(t, `SELECT pg_notify($1, '{"data":{"key":"a"}}')`, channel)
		if key := <-changed; key != "a" {
			t.Errorf("told of %q", key)
		}
		o.do(t, `SELECT pg_notify($1, 'read again')`, channel)
		<-up
	}
	if err := d.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("the watch of a closed store: %v", err)
	}
}

//go:build services

package postgres

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/pubsub"
	"github.com/penstock-io/penstock/test/conform"
	"github.com/penstock-io/penstock/test/services"
)

// openAt opens the component with tables of its own unless more says otherwise.
func openAt(t testing.TB, addr string, more ...string) *driver {
	t.Helper()
	items := []config.Item{{Name: "connectionString", Value: addr}}
	for i := 0; i+1 < len(more); i += 2 {
		items = append(items, config.Item{Name: more[i], Value: more[i+1]})
	}
	env := component.Env{AppID: "app", Name: "bus", Logger: slog.New(slog.DiscardHandler), Shared: &component.Shared{}}
	d, err := Component.Open(context.WithoutCancel(t.Context()), env, items) // cleanups open too
	if err != nil {
		t.Fatal(err)
	}
	return d.(*driver)
}

// prefixed makes a table prefix; the tables are dropped at the end.
func prefixed(t testing.TB, addr string) string {
	t.Helper()
	prefix := conform.Unique(t) + "_"
	t.Cleanup(func() {
		d := openAt(t, addr, "tablePrefix", prefix)
		ctx := context.WithoutCancel(t.Context())
		for _, text := range []string{
			"DROP TABLE IF EXISTS {p}pending, {p}messages, {p}queues, {p}processes", "DROP SEQUENCE IF EXISTS {p}ids", "DROP FUNCTION IF EXISTS {p}gone",
			"DELETE FROM penstock_schema WHERE name = 'pubsub {p}'",
		} {
			if _, err := d.db.Pool().Exec(ctx, strings.ReplaceAll(text, "{p}", prefix)); err != nil {
				t.Error(err)
			}
		}
		closed(t, d)
	})
	return prefix
}

func closed(t testing.TB, d pubsub.Driver) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 30*time.Second)
	defer cancel()
	if err := d.Close(ctx); err != nil {
		t.Errorf("close: %v", err)
	}
}

func TestConform(t *testing.T) {
	addr := services.Need(t, "postgres")
	prefix, own := prefixed(t, addr), ""
	conform.PubSub(t, func(t *testing.T) pubsub.Driver {
		own = conform.Unique(t) + "."
		return conform.Apart(openAt(t, addr, "tablePrefix", prefix), own)
	}, conform.PubSubSetup{
		GroupsByBroker: true,
		Reopen: func(t *testing.T, _ pubsub.Driver) pubsub.Driver {
			return conform.Apart(openAt(t, addr, "tablePrefix", prefix), own)
		},
	})
}

func TestWatermillSuite(t *testing.T) {
	addr := services.Need(t, "postgres")
	prefix := prefixed(t, addr)
	conform.Watermill(t, func(t *testing.T) pubsub.Driver { return openAt(t, addr, "tablePrefix", prefix) })
}

func TestPrepare(t *testing.T) {
	addr := services.Need(t, "postgres")
	d := openAt(t, addr, "tablePrefix", prefixed(t, addr))
	defer closed(t, d)
	conform.Prepared(t, d)
}

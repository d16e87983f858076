//go:build services

package crash

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/penstock-io/penstock/test/conform"
	"github.com/penstock-io/penstock/test/services"
)

// outboxInPostgres is an outbox in a schema of its own.
func outboxInPostgres(t *testing.T) func(*sidecar) string {
	t.Helper()
	server, schema := schemaInPostgres(t)
	return func(*sidecar) string {
		return outboxStore("state.postgresql", "v2", "connectionString", server, "tablePrefix", schema+".", "metadataTableName", schema+".metadata")
	}
}

// schemaInPostgres is a schema that is there until the test ends.
func schemaInPostgres(t *testing.T) (server, schema string) {
	t.Helper()
	server, schema = services.Need(t, "postgres"), conform.Unique(t)
	do := func(sql string) {
		t.Helper()
		ctx := context.WithoutCancel(t.Context())
		conn, err := pgx.Connect(ctx, server)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(ctx)
		if _, err := conn.Exec(ctx, sql); err != nil {
			t.Fatal(err)
		}
	}
	do("CREATE SCHEMA " + schema)
	t.Cleanup(func() { do("DROP SCHEMA " + schema + " CASCADE") })
	return server, schema
}

func TestOutboxKillOnPostgres(t *testing.T) { outboxKill(t, outboxInPostgres(t)) }

func TestOutboxLatencyOnPostgres(t *testing.T) { outboxLatency(t, outboxInPostgres(t)) }

func TestOutboxTerminateOnPostgres(t *testing.T) { outboxTerminate(t, outboxInPostgres(t)) }

func TestOutboxOrderOnPostgres(t *testing.T) { outboxOrder(t, outboxInPostgres(t)) }

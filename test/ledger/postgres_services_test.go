//go:build services

package ledger

import (
	"context"
	"net/url"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// postgresBroker shares its tables between all rows, each with a topic of its
// own.
func postgresBroker() *broker {
	b := &broker{
		name: "postgres",
		resource: func(x *run) string {
			return componentYAML("pubsub.postgres", "connectionString", postgresURL(x.addr))
		},
		watch: watchPostgres,
	}
	b.remove = func(ctx context.Context, x *run) error {
		return postgres(ctx, b.addr(), func(conn *pgx.Conn) error {
			_, err := conn.Exec(ctx, "DELETE FROM penstock_pubsub_queues WHERE topic = $1", x.name)
			return err
		})
	}
	b.there = func(ctx context.Context, x *run) (there bool, err error) {
		err = postgres(ctx, b.addr(), func(conn *pgx.Conn) error {
			return conn.QueryRow(ctx, "SELECT EXISTS (SELECT 1 FROM penstock_pubsub_queues WHERE topic = $1)", x.name).Scan(&there)
		})
		return there, err
	}
	b.opens("postgres", hostOf)
	open := b.open
	b.open = func(t *testing.T) {
		open(t)
		b.server = fast{b.server.(*started)}
	}
	return b
}

// fast is a server that does not wait for its clients to go when it stops.
type fast struct{ *started }

// Stop stops the server in order.
func (f fast) Stop() { f.must(f.Server.Stop(syscall.SIGINT)) }

func postgresURL(addr string) string {
	return (&url.URL{Scheme: "postgres", User: url.User("postgres"), Host: addr, Path: "/postgres"}).String()
}

func postgres(ctx context.Context, addr string, do func(*pgx.Conn) error) error {
	conn, err := pgx.Connect(ctx, postgresURL(addr))
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return do(conn)
}

// watchPostgres reads which events wait for the group.
func watchPostgres(x *run) (lookFunc, func()) {
	pool, err := pgxpool.New(x.Context(), postgresURL(x.broker.addr()))
	if err != nil {
		x.Fatal(err)
	}
	return func(ctx context.Context) (s seen, err error) {
		rows, err := pool.Query(ctx, `SELECT m.body FROM penstock_pubsub_pending p JOIN penstock_pubsub_messages m USING (id)
			JOIN penstock_pubsub_queues q ON q.id = p.queue WHERE q.topic = $1`, x.name)
		if err != nil {
			return s, err
		}
		s.held = map[string]bool{}
		var body []byte
		_, err = pgx.ForEachRow(rows, []any{&body}, func() error {
			if id, ok := idIn(body); ok {
				s.held[id] = true
			}
			return nil
		})
		return s, err
	}, pool.Close
}

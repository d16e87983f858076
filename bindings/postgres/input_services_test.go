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

	"github.com/jackc/pgx/v5"

	"github.com/penstock-io/penstock/bindings"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/test/conform"
	"github.com/penstock-io/penstock/test/services"
)

// run runs a statement on the server.
func run(t testing.TB, server, sql string, args ...any) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	conn, err := pgx.Connect(ctx, server)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func number(t testing.TB, server, sql string) (n int) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), server)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if err := conn.QueryRow(t.Context(), sql).Scan(&n); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return n
}

// made makes a table of its own.
func made(t testing.TB, server, columns string) string {
	t.Helper()
	table := conform.Unique(t)
	run(t, server, "CREATE TABLE "+table+" ("+columns+")")
	t.Cleanup(func() { run(t, server, "DROP TABLE "+table) })
	return table
}

func TestConformTable(t *testing.T) { // not parallel: the suite counts goroutines
	server := services.Need(t, "postgres")
	for _, status := range []string{"", "state"} {
		t.Run("status column "+status, func(t *testing.T) { conformTable(t, server, status) })
	}
}

func conformTable(t *testing.T, server, status string) {
	t.Helper()
	setup := base(server)
	setup.Options = func(t *testing.T) map[string]string {
		return map[string]string{
			"connectionString": server, "table": made(t, server, "id bigserial PRIMARY KEY, body bytea, state text DEFAULT 'new'"),
			"dataColumn": "body", "statusColumn": status, "pollInterval": "20ms",
		}
	}
	setup.Feed = func(t *testing.T, options map[string]string, bodies ...string) {
		for _, body := range bodies {
			run(t, server, "INSERT INTO "+options["table"]+" (body) VALUES ($1)", []byte(body))
		}
	}
	conform.Binding(t, Component, setup)
}

// opened opens the component to read.
func opened(t testing.TB, server string, more ...string) *source {
	t.Helper()
	items := []config.Item{{Name: "connectionString", Value: server}}
	for i := 0; i+1 < len(more); i += 2 {
		items = append(items, config.Item{Name: more[i], Value: more[i+1]})
	}
	env := component.Env{AppID: "app", Name: "in", Logger: slog.New(slog.DiscardHandler), Shared: &component.Shared{}}
	d, err := Component.Open(t.Context(), env, items)
	if err != nil {
		t.Fatal(err)
	}
	s := d.(*source)
	t.Cleanup(func() { shut(t, s) })
	return s
}

func shut(t testing.TB, s *source) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 30*time.Second)
	defer cancel()
	if err := s.Close(ctx); err != nil {
		t.Error(err)
	}
}

// read reads as the runtime does, until stop is called or the test ends.
func read(t testing.TB, s bindings.Reader) (got chan *cloudevents.Delivery, stop func()) {
	t.Helper()
	got = make(chan *cloudevents.Delivery)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			_ = s.Read(ctx, func(ctx context.Context, d *cloudevents.Delivery) error {
				select {
				case got <- d:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			})
			<-tick.C
		}
	})
	stop = func() { cancel(); wg.Wait() }
	t.Cleanup(stop)
	return got, stop
}

func next(t testing.TB, got <-chan *cloudevents.Delivery) *cloudevents.Delivery {
	t.Helper()
	select {
	case d := <-got:
		return d
	case <-time.After(30 * time.Second):
		t.Fatal("nothing came")
		return nil
	}
}

func TestRowsAsJSONInOrder(t *testing.T) {
	server := services.Need(t, "postgres")
	table := made(t, server, `"the key" uuid PRIMARY KEY, n int, note text`)
	for i := range 3 {
		run(t, server, "INSERT INTO "+table+` VALUES ($1, $2, 'it''s')`, fmt.Sprintf("00000000-0000-0000-0000-00000000000%d", i), i)
	}
	s := opened(t, server, "table", "public."+table, "keyColumn", "the key", "maxInFlight", "1", "where", "t.n <> 1")
	got, _ := read(t, s)
	for _, i := range []int{0, 2} {
		d := next(t, got)
		want := fmt.Sprintf(`{"the key":"00000000-0000-0000-0000-00000000000%d","n":%d,"note":"it's"}`, i, i)
		if string(d.Event.Data()) != want || d.Event.DataContentType() != "application/json" {
			t.Errorf("received %s, want %s", d.Event.JSON(), want)
		}
		d.Settle(cloudevents.Acked())
	}
	wants(t, server, "SELECT count(*) FROM "+table, 1)
}

// wants waits until a query gives a number.
func wants(t testing.TB, server, sql string, n int) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for last := time.Now().Add(30 * time.Second); ; <-tick.C {
		got := number(t, server, sql)
		if got == n {
			return
		}
		if time.Now().After(last) {
			t.Fatalf("%s is %d, want %d", sql, got, n)
		}
	}
}

// TestCrashGivesRowsBack ends the server's side of a connection that holds a row.
func TestCrashGivesRowsBack(t *testing.T) {
	server := services.Need(t, "postgres")
	table := made(t, server, "id int PRIMARY KEY")
	run(t, server, "INSERT INTO "+table+" VALUES (1)")
	name := conform.Unique(t)
	dying := opened(t, server+"?application_name="+name, "table", table)
	was, stop := read(t, dying)
	held := next(t, was)
	live := opened(t, server, "table", table, "pollInterval", "20ms")
	got, _ := read(t, live)
	select {
	case d := <-got:
		t.Fatalf("a row that is under way came to another: %s", d.Body)
	case <-time.After(200 * time.Millisecond):
	}
	go stop()
	run(t, server, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1", name)
	next(t, got).Settle(cloudevents.Acked())
	held.Settle(cloudevents.Acked())
	wants(t, server, "SELECT count(*) FROM "+table, 0)
}

// TestReadersShareATable has each row delivered once, and wakes by a channel.
func TestReadersShareATable(t *testing.T) {
	server := services.Need(t, "postgres")
	table := made(t, server, "id serial PRIMARY KEY")
	a := opened(t, server, "table", table, "pollInterval", "1h", "channel", table)
	b := opened(t, server, "table", table, "pollInterval", "1h", "channel", table)
	fromA, _ := read(t, a)
	fromB, _ := read(t, b)
	const n = 200
	run(t, server, "INSERT INTO "+table+" SELECT FROM generate_series(1, 200)")
	run(t, server, "NOTIFY "+table)
	seen := map[string]bool{}
	for range n {
		var d *cloudevents.Delivery
		select {
		case d = <-fromA:
		case d = <-fromB:
		case <-time.After(30 * time.Second):
			t.Fatalf("%d of %d rows came", len(seen), n)
		}
		if seen[d.Event.ID()] {
			t.Errorf("%s came twice", d.Event.ID())
		}
		seen[d.Event.ID()] = true
		d.Settle(cloudevents.Acked())
	}
	wants(t, server, "SELECT count(*) FROM "+table, 0)
}

func TestTableThatIsNotThere(t *testing.T) {
	server := services.Need(t, "postgres")
	table := made(t, server, "id int PRIMARY KEY")
	for _, options := range [][]string{{"table", "there_is_none"}, {"table", table, "dataColumn", "none"}, {"table", table, "where", "t.nothing"}} {
		s := opened(t, server, options...)
		err := s.Read(t.Context(), func(context.Context, *cloudevents.Delivery) error { return nil })
		if k := fault.KindOf(err); k != fault.NotFound && k != fault.Invalid || !strings.Contains(err.Error(), options[1]) {
			t.Errorf("%v: %v", options, err)
		}
	}
}

func TestNotifications(t *testing.T) {
	server := services.Need(t, "postgres")
	channel := "Odd " + conform.Unique(t)
	s := opened(t, server, "channel", channel)
	run(t, server, "SELECT pg_notify($1, $2)", channel, `{"n":1}`) // it is kept for the first Read
	got, stop := read(t, s)
	first := next(t, got)
	if string(first.Body) != `{"n":1}` || first.Attempt != 1 || first.Event.DataContentType() != "application/json" {
		t.Errorf("received %s, attempt %d", first.Event.JSON(), first.Attempt)
	}
	first.Settle(cloudevents.Retried(nil, 20*time.Millisecond))
	second := next(t, got)
	if second.Event.ID() != first.Event.ID() || second.Attempt != 2 {
		t.Errorf("received %s, attempt %d", second.Event.JSON(), second.Attempt)
	}
	second.Settle(cloudevents.Left("stopping"))
	stop()
	got, _ = read(t, s)
	next(t, got).Settle(cloudevents.Acked())
	run(t, server, "SELECT pg_notify($1, '')", channel)
	if d := next(t, got); len(d.Body) != 0 {
		t.Errorf("received %q, want nothing", d.Body)
	}
}

// TestListensAgain loses the connection that listens.
func TestListensAgain(t *testing.T) {
	server := services.Need(t, "postgres")
	channel := conform.Unique(t)
	s := opened(t, server+"?application_name="+channel, "channel", channel)
	got, _ := read(t, s)
	run(t, server, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1", channel)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for last := time.After(30 * time.Second); ; {
		run(t, server, "SELECT pg_notify($1, 'x')", channel)
		select {
		case d := <-got:
			d.Settle(cloudevents.Acked())
			return
		case <-tick.C:
		case <-last:
			t.Fatal("it does not listen again")
		}
	}
}

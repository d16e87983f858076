//go:build services

package interop

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/dapr/components-contrib/state"
	_ "github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib"
)

// capture is a store whose rows are kept for the tests of ours.
type capture struct {
	keeper string // of keepers
	server string
	golden string // in the folder of the states
	driver string
	ttl    string // long, in what the database can count
	// dump writes down a database as SQL.
	dump func(t *testing.T, db *sql.DB) []string
}

// TestStateRows compares the tables that Dapr's components make with those in the
// testdata of ours; -update saves eight items through each and writes both down.
func TestStateRows(t *testing.T) {
	for _, c := range []capture{
		{"postgresql v1", "postgres", "postgres/testdata/dapr-1.18-v1.golden", "pgx", "2000000000", dumpPostgres},
		{"postgresql v2", "postgres", "postgres/testdata/dapr-1.18-v2.golden", "pgx", "2000000000", dumpPostgres},
		{"mysql", "mysql", "mysql/testdata/dapr-1.18.golden", "mysql", "300000000", dumpMySQL},
	} {
		t.Run(c.keeper, func(t *testing.T) {
			address := os.Getenv("PENSTOCK_TEST_" + strings.ToUpper(c.server))
			if address == "" {
				t.Fatalf("this test needs %s: run it through make test-services (docs/testing.md)", c.server)
			}
			all := keepers()
			p := &pair{t: t, keeper: all[slices.IndexFunc(all, func(k keeper) bool { return k.name == c.keeper })]}
			options, db := apartIn(t, c.driver, address)
			p.startStock(options)
			p.setItems(c.ttl)
			lines := c.dump(t, db)
			for i := range lines {
				lines[i] += ";\n"
			}
			path := filepath.Join("..", "..", "state", c.golden)
			if *update {
				head := fmt.Sprintf("-- What state.%s of Dapr 1.18 (components-contrib v1.18.0) makes of an empty database: its\n"+
					"-- tables, and eight items saved through it. TestStateRows of test/interop writes this.\n", c.keeper)
				if err := os.WriteFile(path, []byte(head+strings.Join(lines, "")), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			golden, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for _, line := range lines { // rows have times and ETags of their own
				if !strings.HasPrefix(line, "INSERT") && !strings.Contains(string(golden), line) {
					t.Errorf("not in %s, -update writes it anew:\n%s", path, line)
				}
			}
		})
	}
}

// setItems saves what tells the forms of values apart.
func (p *pair) setItems(ttl string) {
	p.t.Helper()
	for key, value := range map[string]any{
		"object": map[string]any{"a": 1, "b": "<x>"}, "text": "plain \"quoted\" ✓", "bytes": []byte{0, 1, 0xff}, "json bytes": []byte(`{"a": 1}`),
		"number": 5, "null": nil, "o'clock": 12.5, "ttl": true,
	} {
		if raw, _ := value.([]byte); p.standIn && !utf8.Valid(raw) {
			continue
		}
		r := state.SetRequest{Key: "shop||" + key, Value: value}
		if key == "ttl" {
			r.Metadata = map[string]string{"ttlInSeconds": ttl}
		}
		if err := p.stock.Set(p.t.Context(), &r); err != nil {
			p.t.Fatal(err)
		}
	}
}

// apartIn is a database, or a schema of one, that nobody else has, and the
// options of a component that uses it under the usual names.
func apartIn(t *testing.T, driver, address string) (map[string]string, *sql.DB) {
	t.Helper()
	name := fmt.Sprintf("rows_%x", rand.Uint64())
	options := map[string]string{"connectionString": address + "?search_path=" + name}
	admin, own, drop := address, options["connectionString"], "DROP SCHEMA "+name+" CASCADE"
	if driver == "mysql" {
		admin = address[:strings.LastIndexByte(address, '/')+1]
		own, drop = admin+name, "DROP SCHEMA "+name
		options = map[string]string{"connectionString": admin + "?allowNativePasswords=true", "schemaName": name}
	}
	server, err := sql.Open(driver, admin)
	if err != nil {
		t.Fatal(err)
	}
	run := func(ctx context.Context, query string) {
		if _, err := server.ExecContext(ctx, query); err != nil {
			t.Fatal(err)
		}
	}
	run(t.Context(), "CREATE SCHEMA "+name)
	db, err := sql.Open(driver, own)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = db.Close()
		run(context.WithoutCancel(t.Context()), drop)
		_ = server.Close()
	})
	return options, db
}

// texts are the rows of a query, of one column.
func texts(t *testing.T, db *sql.DB, query string, args ...any) (out []string) {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), query, args...)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	defer rows.Close()
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
		out = append(out, text)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

func dumpPostgres(t *testing.T, db *sql.DB) (out []string) {
	t.Helper()
	for _, table := range texts(t, db, "SELECT tablename FROM pg_tables WHERE schemaname = current_schema() ORDER BY 1") {
		columns := texts(t, db, `SELECT attname||' '||format_type(atttypid, atttypmod)||CASE WHEN attnotnull THEN ' NOT NULL' ELSE '' END
			||CASE attidentity WHEN 'd' THEN ' GENERATED BY DEFAULT AS IDENTITY' WHEN 'a' THEN ' GENERATED ALWAYS AS IDENTITY' ELSE '' END
			||coalesce(' DEFAULT '||pg_get_expr(adbin, adrelid), '')
			FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
			WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum`, table)
		out = append(out, "CREATE TABLE "+table+" (\n\t"+strings.Join(columns, ",\n\t")+"\n)")
		out = append(out, texts(t, db, "SELECT replace(indexdef, current_schema()||'.', '') FROM pg_indexes WHERE schemaname = current_schema() AND tablename = $1 ORDER BY 1", table)...)
		names := texts(t, db, `SELECT attname FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped AND attidentity = '' ORDER BY attnum`, table)
		out = append(out, rowsOf(t, db, table, names, "quote_nullable(%s::text)")...)
	}
	return out
}

func dumpMySQL(t *testing.T, db *sql.DB) (out []string) {
	t.Helper()
	for _, table := range texts(t, db, "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE() ORDER BY 1") {
		var create string
		if err := db.QueryRowContext(t.Context(), "SHOW CREATE TABLE "+table).Scan(&table, &create); err != nil {
			t.Fatal(err)
		}
		create, _, _ = strings.Cut(create, " ENGINE=") // what follows is the server's
		out = append(out, create)
		names := texts(t, db, `SELECT column_name FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = ?
			AND extra NOT LIKE '%auto_increment%' ORDER BY ordinal_position`, table)
		out = append(out, rowsOf(t, db, table, names, "QUOTE(%s)")...)
	}
	return out
}

// rowsOf are statements that insert the rows of a table; the first column is its
// key.
func rowsOf(t *testing.T, db *sql.DB, table string, columns []string, quote string) (out []string) {
	t.Helper()
	quoted := make([]string, len(columns))
	for i, c := range columns {
		quoted[i] = fmt.Sprintf(quote, c)
	}
	for _, values := range texts(t, db, "SELECT concat_ws(', ', "+strings.Join(quoted, ", ")+") FROM "+table+" ORDER BY "+columns[0]) {
		out = append(out, "INSERT INTO "+table+" ("+strings.Join(columns, ", ")+") VALUES ("+values+")")
	}
	return out
}

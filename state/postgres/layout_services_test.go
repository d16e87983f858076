//go:build services

package postgres

import (
	"context"
	_ "embed"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/penstock-io/penstock/state"
	"github.com/penstock-io/penstock/test/conform"
	"github.com/penstock-io/penstock/test/services"
)

// What Dapr's component made of an empty database; see their heads.
var (
	//go:embed testdata/dapr-1.18-v1.golden
	captured1 string
	//go:embed testdata/dapr-1.18-v2.golden
	captured2 string
)

// capturedItems are what was saved, as the two layouts give it back.
func capturedItems(version string) map[string]string {
	items := map[string]string{
		"shop||object": `{"a":1,"b":"\u003cx\u003e"}`, "shop||text": `"plain \"quoted\" ✓"`, "shop||bytes": "\x00\x01\xff",
		"shop||json bytes": `{"a": 1}`, "shop||number": "5", "shop||null": "null", "shop||ttl": "true", "shop||o'clock": "12.5",
	}
	if version == "v1" {
		items["shop||object"] = `{"a": 1, "b": "<x>"}` // in jsonb's own form
	}
	return items
}

// inSchema is a connection to a schema of its own, where script has been run,
// and the address that leads there.
func inSchema(t *testing.T, server, script string) (*pgx.Conn, string) {
	t.Helper()
	name := conform.Unique(t)
	address := server + "?search_path=" + name
	conn, err := pgx.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		_, _ = conn.Exec(ctx, "DROP SCHEMA "+name+" CASCADE")
		_ = conn.Close(ctx)
	})
	if _, err := conn.PgConn().Exec(t.Context(), "CREATE SCHEMA "+name+";"+script).ReadAll(); err != nil {
		t.Fatal(err)
	}
	return conn, address
}

// lines are the rows of a query, of one column.
func lines(t *testing.T, conn *pgx.Conn, query string) []string {
	t.Helper()
	rows, err := conn.Query(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	out, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return out
}

const (
	definitions = `SELECT concat_ws(' ', table_name, column_name, data_type, is_nullable, column_default, identity_generation)
		FROM information_schema.columns WHERE table_schema = current_schema() ORDER BY table_name, ordinal_position`
	indexes    = `SELECT replace(indexdef, current_schema()||'.', '') FROM pg_indexes WHERE schemaname = current_schema() ORDER BY 1`
	notes      = `SELECT key||' '||value FROM dapr_metadata WHERE key NOT LIKE 'last-cleanup%' ORDER BY 1`
	contentsV1 = `SELECT concat_ws(' ', key, value, isbinary, insertdate IS NULL, updatedate IS NULL, expiredate IS NULL) FROM state ORDER BY key`
	contentsV2 = `SELECT concat_ws(' ', key, value, etag IS NULL, created_at IS NULL, updated_at IS NULL, expires_at IS NULL) FROM state ORDER BY key`
)

// TestSameAsDaprs makes tables of its own and saves what Dapr's component had
// saved: both have the same columns, indexes, notes and rows.
func TestSameAsDaprs(t *testing.T) {
	server := services.Need(t, "postgres")
	for version, captured := range map[string]string{"v1": captured1, "v2": captured2} {
		t.Run(version, func(t *testing.T) {
			theirs, _ := inSchema(t, server, captured)
			ours, address := inSchema(t, server, "")
			s := opened(t, version, map[string]string{"connectionString": address})
			var changes []state.Change
			for key, value := range capturedItems(version) {
				c := state.Change{Key: key, Value: []byte(value), Binary: strings.HasSuffix(key, "bytes")}
				if key == "shop||ttl" {
					c.TTL = time.Hour
				}
				changes = append(changes, c)
			}
			if err := s.Apply(t.Context(), changes); err != nil {
				t.Fatal(err)
			}
			for what, query := range map[string]string{
				"columns": definitions, "indexes": indexes, "notes": notes, "rows": map[string]string{"v1": contentsV1, "v2": contentsV2}[version],
			} {
				if diff := cmp.Diff(lines(t, theirs, query), lines(t, ours, query)); diff != "" {
					t.Errorf("%s (-Dapr's +ours)\n%s", what, diff)
				}
			}
		})
	}
}

// TestReadsDaprsRows reads what Dapr's component wrote, and changes it with the
// ETags found there.
func TestReadsDaprsRows(t *testing.T) {
	server := services.Need(t, "postgres")
	for version, captured := range map[string]string{"v1": captured1, "v2": captured2} {
		t.Run(version, func(t *testing.T) {
			theirs, address := inSchema(t, server, captured)
			s := opened(t, version, map[string]string{"connectionString": address})
			want := capturedItems(version)
			for key, value := range want {
				items, err := s.Get(t.Context(), []string{key}, state.Read{})
				if err != nil || !items[0].Found || items[0].ETag == "" || string(items[0].Value) != value {
					t.Errorf("%s: %+v, %v, want %q", key, items, err, value)
					continue
				}
				if expires := items[0].Expires; (key == "shop||ttl") != (expires.Year() == 2090) {
					t.Errorf("%s expires at %v", key, expires)
				}
				if version == "v2" && !strings.Contains(captured, items[0].ETag) {
					t.Errorf("%s: ETag %q is not Dapr's", key, items[0].ETag)
				}
				if err := s.Apply(t.Context(), []state.Change{{Key: key, Value: []byte("1"), ETag: &items[0].ETag}}); err != nil {
					t.Errorf("%s: save with Dapr's ETag: %v", key, err)
				}
			}
			keys, _, err := s.Keys(t.Context(), "shop||", "", 100)
			if err != nil || len(keys) != len(want) || len(lines(t, theirs, "SELECT key FROM state")) != len(want) {
				t.Errorf("keys %q, %v", keys, err)
			}
		})
	}
}

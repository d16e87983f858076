//go:build services

package interop

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/dapr/components-contrib/metadata"
	"github.com/dapr/components-contrib/state"
	"github.com/dapr/components-contrib/state/mongodb"
	"github.com/dapr/components-contrib/state/mysql"
	postgresv1 "github.com/dapr/components-contrib/state/postgresql/v1"
	postgresv2 "github.com/dapr/components-contrib/state/postgresql/v2"
	"github.com/dapr/components-contrib/state/redis"
	"github.com/dapr/components-contrib/state/sqlite"
	"github.com/dapr/kit/logger"
)

// keeper is one state store, and how both programs are told of it.
type keeper struct {
	name, typ, version string
	server             string // empty: none is needed
	stock              func(logger.Logger) state.Store
	// options are those of the component in both programs, for tables that nobody
	// has.
	options func(t *testing.T, addr, unique string) map[string]string
	// noExpiry: Dapr's component does not say when an item expires.
	noExpiry bool
	// standIn: the server is not the real one. FerretDB has no transactions, and no
	// text that is not UTF-8.
	standIn bool
}

func keepers() []keeper {
	table := func(t *testing.T, addr, unique string) map[string]string {
		return map[string]string{
			"connectionString": addr, "tableName": unique, "tablePrefix": unique + "_", "metadataTableName": unique + "_notes",
		}
	}
	return []keeper{
		{"sqlite", "state.sqlite", "v1", "", sqlite.NewSQLiteStateStore, func(t *testing.T, _, _ string) map[string]string {
			return map[string]string{"connectionString": filepath.Join(t.TempDir(), "state.db")}
		}, false, false},
		{"redis", "state.redis", "v1", "redis", redis.NewRedisStateStore, func(_ *testing.T, addr, _ string) map[string]string {
			return map[string]string{"redisHost": addr}
		}, true, false},
		{"postgresql v1", "state.postgresql", "v1", "postgres", postgresv1.NewPostgreSQLStateStore, table, false, false},
		{"postgresql v2", "state.postgresql", "v2", "postgres", postgresv2.NewPostgreSQLStateStore, table, false, false},
		{"mysql", "state.mysql", "v1", "mysql", mysql.NewMySQLStateStore, func(_ *testing.T, addr, unique string) map[string]string {
			return map[string]string{
				"connectionString": addr[:strings.LastIndexByte(addr, '/')+1] + "?allowNativePasswords=true", "schemaName": "interop_" + unique,
				"tableName": "state", "metadataTableName": "notes",
			}
		}, false, false},
		{"mongodb", "state.mongodb", "v1", "mongodb", mongodb.NewMongoDB, func(t *testing.T, addr, unique string) map[string]string {
			return map[string]string{"host": pipelined(t, addr), "collectionName": unique, "operationTimeout": "30s"}
		}, false, true},
	}
}

// TestState has each of the two read and change what the other saved, with
// tables that the one or the other made.
func TestState(t *testing.T) {
	for _, k := range keepers() {
		for _, first := range []string{"Dapr", "Penstock"} {
			t.Run(k.name+"/"+first+" first", func(t *testing.T) {
				addr := ""
				if k.server != "" {
					if addr = os.Getenv("PENSTOCK_TEST_" + strings.ToUpper(k.server)); addr == "" {
						t.Fatalf("this test needs %s: run it through make test-services (docs/testing.md)", k.server)
					}
				}
				options := k.options(t, addr, fmt.Sprintf("t%x", rand.Uint64()))
				both := &pair{t: t, keeper: k, prefix: fmt.Sprintf("%x-", rand.Uint64())}
				if first == "Dapr" {
					both.startStock(options)
				}
				both.startOurs(options)
				if first != "Dapr" {
					both.startStock(options)
				}
				both.values()
				both.etags()
				both.expiry()
				if !k.standIn {
					both.transactions()
				}
			})
		}
	}
}

// pair is both programs on one store.
type pair struct {
	keeper
	t      *testing.T
	prefix string // of keys
	stock  state.Store
	api    string
}

func (p *pair) startStock(options map[string]string) {
	p.stock = p.keeper.stock(logger.NewLogger("interop"))
	// Dapr's components write into the map that they are given.
	if err := p.stock.Init(p.t.Context(), state.Metadata{Base: metadata.Base{Name: "store", Properties: maps.Clone(options)}}); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() {
		if c, ok := p.stock.(io.Closer); ok {
			_ = c.Close()
		}
	})
}

func (p *pair) startOurs(options map[string]string) {
	var yaml strings.Builder
	fmt.Fprintf(&yaml, "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: store}\nspec:\n  type: %s\n  version: %s\n  metadata:\n", p.typ, p.version)
	for _, name := range slices.Sorted(maps.Keys(options)) {
		fmt.Fprintf(&yaml, "  - {name: %s, value: %q}\n", name, options[name])
	}
	dir := p.t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "store.yaml"), []byte(yaml.String()), 0o600); err != nil {
		p.t.Fatal(err)
	}
	ours := &penstock{}
	ours.start(p.t, []string{"serve", "--app-id", "interop", "--resources-path", dir, "--data-dir", filepath.Join(dir, "data"), "--dapr-grpc-port", "0"}, "/healthz/outbound")
	p.api = ours.api + "/state/store"
}

// full is the key as it is in the store.
func (p *pair) full(key string) string { return "interop||" + p.prefix + key }

// ask sends a request to ours and returns status, ETag, expiry and body.
func (p *pair) ask(method, path, body string, header ...string) (status int, etag, expires, answer string) {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), method, p.api+path, strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	if len(header) == 2 {
		req.Header.Set(header[0], header[1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return resp.StatusCode, resp.Header.Get("Etag"), resp.Header.Get("Metadata.ttlExpireTime"), string(text)
}

// save has ours save one item.
func (p *pair) save(item string, want int) {
	p.t.Helper()
	if status, _, _, answer := p.ask("POST", "", "["+item+"]"); status != want {
		p.t.Errorf("ours saves %s: %d %s, want %d", item, status, answer, want)
	}
}

// read has Dapr's read one item.
func (p *pair) read(key string) *state.GetResponse {
	p.t.Helper()
	r, err := p.stock.Get(p.t.Context(), &state.GetRequest{Key: p.full(key)})
	if err != nil {
		p.t.Fatalf("Dapr reads %s: %v", key, err)
	}
	return r
}

func (p *pair) set(r state.SetRequest) error {
	r.Key = p.full(r.Key)
	return p.stock.Set(p.t.Context(), &r)
}

// sameValue tells whether two texts are the same JSON.
func sameValue(a, b string) bool {
	var x, y any
	return a == b || json.Unmarshal([]byte(a), &x) == nil && json.Unmarshal([]byte(b), &y) == nil && reflect.DeepEqual(x, y)
}

func (p *pair) values() {
	for key, value := range map[string]any{
		"object": map[string]any{"a": 1, "b": "<x> & ü"}, "text": "plain \"quoted\" ✓", "number": 12.5, "null": nil, "true": true,
		"list": []any{1, "a"}, "it's %_": 1, "bytes": []byte{0, 1, 0xff}, "json bytes": []byte(`{"a":  1}`),
	} {
		raw, isBytes := value.([]byte)
		if p.standIn && !utf8.Valid(raw) {
			continue
		}
		want, _ := json.Marshal(value)
		if isBytes {
			want = raw
		}
		if err := p.set(state.SetRequest{Key: key, Value: value}); err != nil {
			p.t.Fatal(err)
		}
		path := "/" + p.prefix + strings.NewReplacer("%", "%25", " ", "%20", "'", "%27").Replace(key)
		if status, etag, _, answer := p.ask("GET", path, ""); status != 200 || etag == "" || !sameValue(answer, string(want)) {
			p.t.Errorf("ours reads %s of Dapr's as %d %q (ETag %q), want %q", key, status, answer, etag, want)
		}
		if isBytes {
			continue // the HTTP API saves JSON
		}
		item, _ := json.Marshal(map[string]any{"key": p.prefix + "ours " + key, "value": value})
		p.save(string(item), 204)
		if r := p.read("ours " + key); !sameValue(string(r.Data), string(want)) || r.ETag == nil || *r.ETag == "" {
			p.t.Errorf("Dapr reads %s of ours as %q, want %q", key, r.Data, want)
		}
	}
}

// etags passes an item to and fro, and has both refuse what is old.
func (p *pair) etags() {
	key := p.prefix + "tagged"
	p.save(fmt.Sprintf(`{"key":%q,"value":1}`, key), 204)
	first := p.read("tagged").ETag
	if err := p.set(state.SetRequest{Key: "tagged", Value: 2, ETag: first}); err != nil {
		p.t.Errorf("Dapr saves with the ETag of ours: %v", err)
	}
	p.save(fmt.Sprintf(`{"key":%q,"value":3,"etag":%q}`, key, *first), 409)
	_, second, _, answer := p.ask("GET", "/"+key, "")
	if answer != "2" {
		p.t.Errorf("ours reads %q, want 2", answer)
	}
	p.save(fmt.Sprintf(`{"key":%q,"value":4,"etag":%q}`, key, second), 204)
	if err := p.set(state.SetRequest{Key: "tagged", Value: 5, ETag: &second}); err == nil {
		p.t.Error("Dapr saves with an ETag that ours has replaced")
	}
	third := p.read("tagged")
	if string(third.Data) != "4" {
		p.t.Errorf("Dapr reads %q, want 4", third.Data)
	}
	if status, _, _, answer := p.ask("DELETE", "/"+key, "", "If-Match", *third.ETag); status != 204 {
		p.t.Errorf("ours deletes with the ETag that Dapr read: %d %s", status, answer)
	}
	if r := p.read("tagged"); len(r.Data) > 0 {
		p.t.Errorf("Dapr still reads %q", r.Data)
	}
	only := state.SetRequest{Key: "tagged", Value: 1, Options: state.SetStateOption{Concurrency: state.FirstWrite}}
	if err := p.set(only); err != nil {
		p.t.Errorf("Dapr's first write after the delete: %v", err)
	}
	p.save(fmt.Sprintf(`{"key":%q,"value":3,"options":{"concurrency":"first-write"}}`, key), 409)
}

func (p *pair) expiry() {
	if err := p.set(state.SetRequest{Key: "theirs", Value: 1, Metadata: map[string]string{"ttlInSeconds": "5000"}}); err != nil {
		p.t.Fatal(err)
	}
	if status, _, expires, answer := p.ask("GET", "/"+p.prefix+"theirs", ""); status != 200 || expires == "" {
		p.t.Errorf("ours reads an item that expires: %d %s, expires %q", status, answer, expires)
	}
	p.save(fmt.Sprintf(`{"key":%q,"value":1,"metadata":{"ttlInSeconds":"5000"}}`, p.prefix+"ours"), 204)
	if r := p.read("ours"); string(r.Data) != "1" || !p.noExpiry && r.Metadata[state.GetRespMetaKeyTTLExpireTime] == "" {
		p.t.Errorf("Dapr reads an item that expires: %q, %v", r.Data, r.Metadata)
	}
	p.save(fmt.Sprintf(`{"key":%q,"value":2}`, p.prefix+"theirs"), 204)
	if _, _, expires, _ := p.ask("GET", "/"+p.prefix+"theirs", ""); expires != "" {
		p.t.Errorf("an item saved again expires %s", expires)
	}
}

func (p *pair) transactions() {
	status, _, _, answer := p.ask("POST", "/transaction", fmt.Sprintf(
		`{"operations":[{"operation":"upsert","request":{"key":"%[1]sx","value":{"n":1}}},{"operation":"upsert","request":{"key":"%[1]sy","value":2}}]}`, p.prefix))
	if status != 204 {
		p.t.Errorf("transaction of ours: %d %s", status, answer)
	}
	if r := p.read("x"); !sameValue(string(r.Data), `{"n":1}`) {
		p.t.Errorf("Dapr reads %q", r.Data)
	}
	err := p.stock.(state.TransactionalStore).Multi(p.t.Context(), &state.TransactionalStateRequest{Operations: []state.TransactionalStateOperation{
		state.SetRequest{Key: p.full("x"), Value: 3}, state.DeleteRequest{Key: p.full("y")},
	}})
	if err != nil {
		p.t.Fatal(err)
	}
	if _, _, _, answer := p.ask("GET", "/"+p.prefix+"x", ""); answer != "3" {
		p.t.Errorf("ours reads %q after Dapr's transaction", answer)
	}
	if status, _, _, _ := p.ask("GET", "/"+p.prefix+"y", ""); status != 204 {
		p.t.Errorf("ours still has what Dapr's transaction deleted: %d", status)
	}
}

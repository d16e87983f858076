package sqlite

import (
	"encoding/hex"
	"encoding/json"
	"path/filepath"
	"testing"

	"github.com/penstock-io/penstock/bindings"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/test/conform"
)

func ask(operation, sql, params string) bindings.Request {
	return bindings.Request{Operation: operation, Metadata: map[string]string{"sql": sql, "params": params}}
}

func TestConform(t *testing.T) { // not parallel: the suite counts goroutines
	const create = "CREATE TABLE IF NOT EXISTS n (v)"
	conform.Binding(t, Component, conform.BindingSetup{
		Options: func(t *testing.T) map[string]string {
			return map[string]string{"connectionString": filepath.Join(t.TempDir(), "x.db")}
		},
		Requests: func(map[string]string) []bindings.Request {
			return []bindings.Request{ask("exec", create, ""), ask("exec", "INSERT INTO n VALUES (?1)", "[1]"), ask("query", "SELECT * FROM n", "")}
		},
		RoundTrip: func(t *testing.T, out bindings.Invoker, _ map[string]string, data []byte) ([]byte, error) {
			t.Helper()
			r := ask("query", "SELECT ?1", `["`+hex.EncodeToString(data)+`"]`)
			resp, err := out.Invoke(t.Context(), &r)
			if err != nil {
				return nil, err
			}
			var rows [][]string
			if err := json.Unmarshal(resp.Data, &rows); err != nil {
				return nil, err
			}
			return hex.DecodeString(rows[0][0])
		},
		Fails: []conform.BindingFailure{
			{Name: "no sql", Kind: fault.Invalid, Request: bindings.Request{Operation: "exec"}},
			{Name: "bad params", Kind: fault.Invalid, Request: ask("exec", "SELECT 1", "{")},
			{Name: "bad statement", Kind: fault.Invalid, Request: ask("exec", "SELEKT 1", "")},
			{Name: "bad query", Kind: fault.Invalid, Request: ask("query", "SELECT nothing FROM nowhere", "")},
		},
	})
}

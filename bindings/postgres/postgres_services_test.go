//go:build services

package postgres

import (
	"encoding/base64"
	"encoding/json"
	"testing"

	"github.com/penstock-io/penstock/bindings"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/test/conform"
)

func ask(sql, params string) bindings.Request {
	return bindings.Request{Operation: "query", Metadata: map[string]string{"sql": sql, "params": params}}
}

// base is what the suite needs to know of the output.
func base(server string) conform.BindingSetup {
	return conform.BindingSetup{
		Wrong: map[string]map[string]string{
			"timeout": {"timeout": "1ms"}, "port": {"port": "0"}, "connectionString": {"connectionString": "postgres://h:x/"},
		},
		Requests: func(map[string]string) []bindings.Request {
			return []bindings.Request{
				ask("SELECT 1", ""), {Operation: "exec", Metadata: map[string]string{"sql": "SELECT 1"}}, {Operation: "close"},
			}
		},
		RoundTrip: func(t *testing.T, out bindings.Invoker, _ map[string]string, data []byte) ([]byte, error) {
			t.Helper()
			r := ask("SELECT decode($1, 'base64')", `["`+base64.StdEncoding.EncodeToString(data)+`"]`)
			resp, err := out.Invoke(t.Context(), &r)
			if err != nil {
				return nil, err
			}
			var rows [][][]byte
			if err := json.Unmarshal(resp.Data, &rows); err != nil {
				return nil, err
			}
			return rows[0][0], nil
		},
		Fails: []conform.BindingFailure{
			{Name: "no sql", Kind: fault.Invalid, Request: bindings.Request{Operation: "exec"}},
			{Name: "not SQL", Kind: fault.Invalid, Request: ask("SELEKT", "")},
			{Name: "no table", Kind: fault.NotFound, Request: ask("SELECT * FROM there_is_none", "")},
			{Name: "too few", Kind: fault.Invalid, Request: ask("SELECT $1::int", "[]")},
		},
	}
}

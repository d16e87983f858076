//go:build services

package mysql

import (
	"encoding/base64"
	"encoding/json"
	"testing"

	"github.com/penstock-io/penstock/bindings"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/test/conform"
	"github.com/penstock-io/penstock/test/services"
)

func ask(operation, sql, params string) bindings.Request {
	return bindings.Request{Operation: operation, Metadata: map[string]string{"sql": sql, "params": params}}
}

func TestConform(t *testing.T) { // not parallel: the suite counts goroutines
	server := services.Need(t, "mysql")
	conform.Binding(t, Component, conform.BindingSetup{
		Options: func(*testing.T) map[string]string { return map[string]string{"url": server} },
		Wrong: map[string]map[string]string{
			"timeout": {"timeout": "1ms"}, "url": {"url": "nothing"}, "pemPath": {"url": server + "?tls=custom"}, "maxOpenConns": {"maxOpenConns": "-1"},
		},
		Requests: func(map[string]string) []bindings.Request {
			return []bindings.Request{ask("query", "SELECT 1", ""), ask("exec", "SET @x = 1", ""), {Operation: "close"}}
		},
		RoundTrip: func(t *testing.T, out bindings.Invoker, _ map[string]string, data []byte) ([]byte, error) {
			t.Helper()
			r := ask("query", "SELECT FROM_BASE64(?) AS body", `["`+base64.StdEncoding.EncodeToString(data)+`"]`)
			resp, err := out.Invoke(t.Context(), &r)
			if err != nil {
				return nil, err
			}
			var rows []struct{ Body []byte }
			if err := json.Unmarshal(resp.Data, &rows); err != nil {
				return nil, err
			}
			return rows[0].Body, nil
		},
		Fails: []conform.BindingFailure{
			{Name: "no sql", Kind: fault.Invalid, Request: bindings.Request{Operation: "exec"}},
			{Name: "not SQL", Kind: fault.Invalid, Request: ask("query", "SELEKT", "")},
			{Name: "no table", Kind: fault.NotFound, Request: ask("query", "SELECT * FROM there_is_none", "")},
			{Name: "too few", Kind: fault.Invalid, Request: ask("query", "SELECT ?", "[1, 2]")},
		},
	})
}

// TestRows writes and reads a row of every kind of column, as Dapr's pages say
// it: an object for each row, with text or numbers.
func TestRows(t *testing.T) {
	server := services.Need(t, "mysql")
	for _, row := range []struct{ parameters, at string }{{"", "2020-09-24 11:45:05"}, {"?parseTime=true", "2020-09-24T11:45:05Z"}} {
		d, err := Component.Open(t.Context(), component.Env{Name: "db"}, []config.Item{{Name: "url", Value: server + row.parameters}})
		if err != nil {
			t.Fatal(err)
		}
		out := d.(*binding)
		do := func(operation, sql, params string) *bindings.Response {
			t.Helper()
			r := ask(operation, sql, params)
			resp, err := out.Invoke(t.Context(), &r)
			if err != nil {
				t.Fatalf("%s: %v", sql, err)
			}
			return resp
		}
		table := conform.Unique(t)
		do("exec", "CREATE TABLE "+table+" (id int PRIMARY KEY, big bigint unsigned, f double, d decimal(10,2), c1 varchar(20), ts datetime, b varbinary(4), j json, n int, ok bool)", "")
		const values = " VALUES (?, ?, ?, ?, ?, ?, x'ff00', ?, ?, ?)"
		resp := do("exec", "INSERT INTO "+table+values, `[1, 18446744073709551615, 1.5, "12.30", "dé\"mo", "2020-09-24 11:45:05", "{\"a\": 1}", null, true]`)
		if m := resp.Metadata; m["rows-affected"] != "1" || m["operation"] != "exec" || m["sql"] != "INSERT INTO "+table+values || m["duration"] == "" || m["start-time"] == "" || m["end-time"] == "" {
			t.Errorf("metadata %v", m)
		}
		want := `[{"id":1,"big":18446744073709551615,"f":1.5,"d":"12.30","c1":"dé\"mo","ts":"` + row.at + `","b":"/wA=","j":"{\"a\": 1}","n":null,"ok":1}]`
		for _, params := range []string{"", "[0]"} { // both protocols of the server
			sql := "SELECT * FROM " + table
			if params != "" {
				sql += " WHERE id > ?"
			}
			if got := do("query", sql, params); string(got.Data) != want {
				t.Errorf("rows %s\nwant %s", got.Data, want)
			}
		}
		if got := do("query", "SELECT * FROM "+table+" WHERE id = 7", ""); string(got.Data) != "[]" {
			t.Errorf("no rows are %s", got.Data)
		}
		do("exec", "DROP TABLE "+table, "")
		if err := out.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

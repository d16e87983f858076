package localstorage

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/penstock-io/penstock/bindings"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/test/conform"
)

func TestConform(t *testing.T) { // not parallel: the suite counts goroutines
	named := map[string]string{"fileName": "a/b"}
	conform.Binding(t, Component, conform.BindingSetup{
		Options: func(t *testing.T) map[string]string { return map[string]string{"rootPath": t.TempDir()} },
		Wrong:   map[string]map[string]string{"maxFileSize": {"maxFileSize": "0"}},
		Requests: func(map[string]string) []bindings.Request {
			return []bindings.Request{
				{Operation: "create", Data: []byte("x"), Metadata: named},
				{Operation: "get", Metadata: named},
				{Operation: "list"},
				{Operation: "delete", Metadata: named},
			}
		},
		RoundTrip: func(t *testing.T, out bindings.Invoker, _ map[string]string, data []byte) ([]byte, error) {
			resp, err := out.Invoke(t.Context(), &bindings.Request{Operation: "create", Data: data})
			if err != nil {
				return nil, err
			}
			var made struct{ FileName string }
			if err := json.Unmarshal(resp.Data, &made); err != nil {
				return nil, err
			}
			resp, err = out.Invoke(t.Context(), &bindings.Request{Operation: "get", Metadata: map[string]string{"fileName": made.FileName}})
			if err != nil {
				return nil, err
			}
			return resp.Data, nil
		},
		Fails: []conform.BindingFailure{
			{Name: "missing file", Request: bindings.Request{Operation: "get", Metadata: named}, Kind: fault.NotFound},
			{Name: "climbing", Request: bindings.Request{Operation: "create", Metadata: map[string]string{"fileName": "../x"}}, Kind: fault.Invalid},
			{Name: "long name", Request: bindings.Request{Operation: "create", Metadata: map[string]string{"fileName": strings.Repeat("x", 10_240)}}, Kind: fault.Invalid},
		},
	})
}

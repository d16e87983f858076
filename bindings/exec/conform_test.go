package exec

import (
	"os"
	"testing"

	"github.com/penstock-io/penstock/bindings"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/test/conform"
)

func TestConform(t *testing.T) { // not parallel: the suite counts goroutines
	cat := map[string]string{"args": `["` + helperFlag + `","cat"]`}
	conform.Binding(t, Component, conform.BindingSetup{
		Options: func(t *testing.T) map[string]string {
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			return map[string]string{"commands": self, "maxOutput": "2Mi"}
		},
		Wrong: map[string]map[string]string{
			"commands": {"commands": "./x"}, "env": {"env": "APP_API_TOKEN"}, "timeout": {"timeout": "-1s"}, "concurrency": {"concurrency": "0"},
			"maxOutput": {"maxOutput": "0"},
		},
		Requests: func(map[string]string) []bindings.Request {
			return []bindings.Request{{Operation: "exec", Data: []byte("x"), Metadata: cat}}
		},
		RoundTrip: func(t *testing.T, out bindings.Invoker, _ map[string]string, data []byte) ([]byte, error) {
			resp, err := out.Invoke(t.Context(), &bindings.Request{Operation: "exec", Data: data, Metadata: cat})
			if err != nil {
				return nil, err
			}
			return resp.Data, nil
		},
		Fails: []conform.BindingFailure{
			{Name: "not listed", Request: bindings.Request{Operation: "exec", Metadata: map[string]string{"command": "sh"}}, Kind: fault.Denied},
			{Name: "arguments", Request: bindings.Request{Operation: "exec", Metadata: map[string]string{"args": "{}"}}, Kind: fault.Invalid},
			{Name: "exit code", Request: bindings.Request{Operation: "exec", Metadata: map[string]string{"args": `["` + helperFlag + `","exit","65"]`}}, Kind: fault.Invalid},
		},
	})
}

package exec

import (
	osexec "os/exec"
	"testing"

	"github.com/penstock-io/penstock/bindings"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/test/conform"
)

func TestConform(t *testing.T) { // not parallel: the suite counts goroutines
	if _, err := osexec.LookPath("cat"); err != nil {
		t.Skip("needs the program cat")
	}
	conform.Binding(t, Component, conform.BindingSetup{
		Options: func(*testing.T) map[string]string {
			return map[string]string{"commands": "cat", "maxOutput": "2Mi"}
		},
		Wrong: map[string]map[string]string{
			"commands": {"commands": "./x"}, "env": {"env": "APP_API_TOKEN"}, "timeout": {"timeout": "-1s"}, "concurrency": {"concurrency": "0"},
			"maxOutput": {"maxOutput": "0"},
		},
		Requests: func(map[string]string) []bindings.Request {
			return []bindings.Request{{Operation: "exec", Data: []byte("x")}}
		},
		RoundTrip: func(t *testing.T, out bindings.Invoker, _ map[string]string, data []byte) ([]byte, error) {
			resp, err := out.Invoke(t.Context(), &bindings.Request{Operation: "exec", Data: data})
			if err != nil {
				return nil, err
			}
			return resp.Data, nil
		},
		Fails: []conform.BindingFailure{
			{Name: "not listed", Request: bindings.Request{Operation: "exec", Metadata: map[string]string{"command": "sh"}}, Kind: fault.Denied},
			{Name: "arguments", Request: bindings.Request{Operation: "exec", Metadata: map[string]string{"args": "{}"}}, Kind: fault.Invalid},
			{Name: "exit code", Request: bindings.Request{Operation: "exec", Metadata: map[string]string{"args": `["/no/such/file"]`}}, Kind: fault.Internal},
		},
	})
}

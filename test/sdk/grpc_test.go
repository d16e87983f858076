package sdk

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/dapr/go-sdk/client"
)

const bindingYAML = `
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: files}
spec:
  type: bindings.localstorage
  version: v1
  metadata: [{name: rootPath, value: DIR}]
---
`

// The Go SDK's client over gRPC: publish, bulk publish, a stream with answers of
// each kind, an output binding, metadata.
func TestGoClient(t *testing.T) {
	buses(t, func(t *testing.T, bus string) {
		port := freePort(t)
		api := sidecar(t, 0, strings.Replace(bindingYAML, "DIR", t.TempDir(), 1)+bus, "--dapr-grpc-port", fmt.Sprint(port))
		c, err := client.NewClientWithAddress(fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		sub, err := c.Subscribe(t.Context(), client.SubscriptionOptions{PubsubName: "bus", Topic: "orders"})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.PublishEvent(t.Context(), "bus", "orders", map[string]int{"n": 1}); err != nil {
			t.Fatal(err)
		}
		if r := c.PublishEvents(t.Context(), "bus", "orders", []any{"a", "b"}); r.Error != nil {
			t.Fatal(r.Error)
		}
		publish(t, api, "orders", `"over HTTP"`)
		retried := false
		for n := 0; n < 4; {
			m, err := sub.Receive()
			if err != nil {
				t.Fatal(err)
			}
			if !retried {
				retried = true
				if err := m.Retry(); err != nil {
					t.Fatal(err)
				}
				continue
			}
			if err := m.Success(); err != nil {
				t.Fatal(err)
			}
			n++
		}
		if err := sub.Close(); err != nil {
			t.Error(err)
		}
		callBinding(t, c)
		if err := c.SetMetadata(t.Context(), "colour", "green"); err != nil {
			t.Fatal(err)
		}
		m, err := c.GetMetadata(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if m.ID != "shop" || m.ExtendedMetadata["colour"] != "green" || len(m.RegisteredComponents) != 2 {
			t.Errorf("metadata: %+v", m)
		}
		if resp, err := http.Get(api + "/healthz"); err != nil || resp.StatusCode != http.StatusNoContent {
			t.Errorf("health: %v %v", resp, err)
		}
	})
}

func callBinding(t *testing.T, c client.Client) {
	t.Helper()
	in := &client.InvokeBindingRequest{Name: "files", Operation: "create", Data: []byte("text"), Metadata: map[string]string{"fileName": "f"}}
	if _, err := c.InvokeBinding(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	in.Operation = "get"
	if out, err := c.InvokeBinding(t.Context(), in); err != nil || string(out.Data) != "text" {
		t.Errorf("binding: %v %v", out, err)
	}
}

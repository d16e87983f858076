package sdk

import (
	"context"
	"errors"
	"testing"

	"github.com/dapr/go-sdk/client"
	"github.com/dapr/go-sdk/service/common"
)

// The SDK calls over gRPC only; the app speaks either protocol.
func TestInvocation(t *testing.T) {
	t.Parallel()
	for _, w := range []wire{overHTTP, overGRPC} {
		t.Run(string(w), func(t *testing.T) {
			t.Parallel()
			port := app(t, w, func(s common.Service) error {
				return s.AddServiceInvocationHandler("/echo", func(_ context.Context, in *common.InvocationEvent) (*common.Content, error) {
					if string(in.Data) == "fail" {
						return nil, errors.New("broken")
					}
					return &common.Content{Data: []byte(in.Verb + " " + string(in.Data) + "?" + in.QueryString), ContentType: in.ContentType}, nil
				})
			})
			p := sidecar(t, w, port, "")
			call := func(text string) (string, error) {
				out, err := p.client().InvokeMethodWithContent(t.Context(), "shop", "echo?a=b", "post", &client.DataContent{ContentType: "text/plain", Data: []byte(text)})
				return string(out), err
			}
			if out, err := call("hello"); err != nil || out != "POST hello?a=b" {
				t.Errorf("%q %v", out, err)
			}
			if out, err := call("fail"); err == nil {
				t.Errorf("a failure of the app came back as %q", out)
			}
		})
	}
}

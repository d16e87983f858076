package runtime_test

import (
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/penstock-io/penstock/invoke/message"
	"github.com/penstock-io/penstock/invoke/names"
	"github.com/penstock-io/penstock/invoke/peer"
)

const accessControl = `
apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: {name: c}
spec:
  accessControl:
    defaultAction: ACTION
    policies:
    - {appId: shop, namespace: default, operations: [{name: /closed, action: deny}]}
`

// Another sidecar that does not prove who it is gets what the default action says;
// the app itself, called through its own sidecar, what the policy that names it
// says. Both follow a change of the configuration.
func TestReloadAppliesAccessControl(t *testing.T) {
	t.Parallel()
	a := newApp(t, "[]")
	in, o := prepare(t, a, "")
	file := filepath.Join(t.TempDir(), "config.yaml")
	write := func(action string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(strings.Replace(accessControl, "ACTION", action, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("deny")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o.Configs, o.Internal = []string{file}, []net.Listener{l}
	in.run(t, o)
	other := peer.NewClient(peer.ClientOptions{})
	t.Cleanup(other.Close)
	remote := func(path string) error {
		t.Helper()
		r := &message.Request{Verb: http.MethodPost, Path: path, Header: http.Header{"Dapr-Caller-App-Id": {"shop"}}}
		answer, err := other.Call(t.Context(), l.Addr().String(), names.App{ID: "shop"}, r)
		if err != nil {
			return err
		}
		return answer.Body.Close()
	}
	own := func(path string) (int, string) {
		t.Helper()
		resp, err := http.Post(in.url+"/invoke/shop/method/"+path, "text/plain", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	checkAccess(t, in, a, remote, own)
	write("allow")
	eventually(t, "another sidecar may call", func() bool { return remote("x") == nil })
	if status, body := own("x"); status != http.StatusOK {
		t.Errorf("a call of the app itself: %d %s", status, body)
	}
	for _, path := range []string{"closed", "CLOSED/x", "clos%65d;a=b"} {
		if status, body := own(path); status != http.StatusForbidden {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
}

// checkAccess checks what the list says while its default is to deny.
func checkAccess(t *testing.T, in *instance, a *app, remote func(path string) error, own func(path string) (int, string)) {
	t.Helper()
	const denied = "access control policy has denied access to id: (unknown) operation: x verb: POST"
	if err := remote("x"); err == nil || !strings.Contains(err.Error(), denied) {
		t.Errorf("a call of another sidecar: %v", err)
	}
	if len(a.calls) > 0 {
		t.Error("the app got the call")
	}
	if status, body := own("x"); status != http.StatusForbidden || !strings.Contains(body, "ERR_DIRECT_INVOKE") || !strings.Contains(body, "spiffe://public/ns/default/shop") {
		t.Errorf("a call of the app itself, which its policy leaves to the default: %d %s", status, body)
	}
	in.logged(t, 1, `msg="Call denied by access control" caller=(unknown) operation=x verb=POST`)
	in.logged(t, 1, "prove who they are")
}

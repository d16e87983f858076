package runtime_test

import (
	"encoding/pem"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/invoke/identity/authority"
	"github.com/penstock-io/penstock/invoke/identity/files"
	"github.com/penstock-io/penstock/invoke/message"
	"github.com/penstock-io/penstock/invoke/names"
	"github.com/penstock-io/penstock/invoke/peer"
	"github.com/penstock-io/penstock/runtime"
)

func newAuthority(t *testing.T) *authority.Authority {
	t.Helper()
	a, err := authority.New("public", authority.Times{Lifetime: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// issue puts the identity of an app into a folder.
func issue(t *testing.T, a *authority.Authority, app string) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), app)
	i, err := a.Issue("default", app, authority.Times{Lifetime: time.Hour})
	if err == nil {
		err = i.Save(dir)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// env is the environment with one variable more.
func env(name, value string) func(string) (string, bool) {
	return func(asked string) (string, bool) {
		if asked == name {
			return value, true
		}
		return os.LookupEnv(asked)
	}
}

func TestAWrongIdentityEndsTheStart(t *testing.T) {
	t.Parallel()
	on, off := new(bool), new(bool)
	*on = true
	anchors := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: newAuthority(t).Certificate().Raw}))
	for want, row := range map[string]struct {
		o           runtime.IdentityOptions
		name, value string
		documents   string
	}{
		"nothing says where the identity comes from": {o: runtime.IdentityOptions{MTLS: on}},
		"are two identities":                         {o: runtime.IdentityOptions{Dir: "a", Socket: "b"}},
		"contradict each other":                      {o: runtime.IdentityOptions{MTLS: off, Dir: "a"}},
		"Sentry at a:1 needs trust anchors":          {o: runtime.IdentityOptions{MTLS: on, SentryAddress: "a:1"}},
		"no address of Sentry":                       {o: runtime.IdentityOptions{MTLS: on}, name: "DAPR_TRUST_ANCHORS", value: anchors},
		"in DAPR_TRUST_ANCHORS and in file f":        {o: runtime.IdentityOptions{MTLS: on, SentryAddress: "a:1", AnchorsFile: "f"}, name: "DAPR_TRUST_ANCHORS", value: anchors},
		"no PEM block CERTIFICATE":                   {o: runtime.IdentityOptions{MTLS: on, SentryAddress: "a:1"}, name: "DAPR_TRUST_ANCHORS", value: "nonsense"},
		"want HOST:PORT":                             {o: runtime.IdentityOptions{MTLS: on, SentryAddress: "a"}, name: "DAPR_TRUST_ANCHORS", value: anchors},
		"of a SPIFFE Workload API":                   {o: runtime.IdentityOptions{MTLS: on}, name: "SPIFFE_ENDPOINT_SOCKET", value: "nonsense"},
		"but this is app shop in namespace default":  {o: runtime.IdentityOptions{Dir: issue(t, newAuthority(t), "other")}},
		"config.yaml:7:5: spec.mtls is enabled: turn on mutual TLS: nothing says": {
			documents: "\napiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: c}\nspec:\n  mtls:\n    enabled: true\n",
		},
	} {
		_, o := prepare(t, nil, "")
		o.Identity = row.o
		if row.name != "" {
			o.Env = env(row.name, row.value)
		}
		if row.documents != "" {
			o.Configs = []string{filepath.Join(t.TempDir(), "config.yaml")}
			if err := os.WriteFile(o.Configs[0], []byte(row.documents), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		r, err := runtime.New(o)
		if err == nil {
			err = r.Run(t.Context())
		}
		if err == nil || fault.Retriable(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q: %v", want, err)
		}
	}
}

func TestReadinessNamesAnIdentityThatIsNotThere(t *testing.T) {
	t.Parallel()
	in, o := prepare(t, nil, "")
	o.Identity = runtime.IdentityOptions{Socket: "unix://" + filepath.Join(in.dir, "api.sock")}
	in.begin(t, o)
	eventually(t, "readiness names the identity", func() bool {
		return strings.Contains(in.text(t, "/healthz"), "the identity for mutual TLS: get identity: there is none yet")
	})
	eventually(t, "calls of other kinds work", func() bool { return in.get(t, "/healthz/outbound") == http.StatusNoContent })
}

// Who calls is what a certificate says, and access control decides on that.
func TestAccessControlDecidesOnTheIdentity(t *testing.T) {
	t.Parallel()
	a, ca := newApp(t, "[]"), newAuthority(t)
	in, o := prepare(t, a, strings.Replace(strings.Replace(accessControl, "ACTION", "deny", 1),
		"{appId: shop, namespace: default, operations: [{name: /closed, action: deny}]}", "{appId: till, namespace: default, defaultAction: allow}", 1))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(in.dir, "resources.yaml")
	o.Configs, o.Resources, o.Internal = []string{file}, nil, []net.Listener{l}
	o.Identity = runtime.IdentityOptions{Dir: issue(t, ca, "shop")}
	in.run(t, o)
	call := func(app string) error {
		t.Helper()
		who, err := files.Open(files.Options{Dir: issue(t, ca, app), Namespace: "default", AppID: app})
		if err != nil {
			t.Fatal(err)
		}
		c := peer.NewClient(peer.ClientOptions{Identity: who})
		defer c.Close()
		answer, err := c.Call(t.Context(), l.Addr().String(), names.App{ID: "shop"}, &message.Request{
			Verb: http.MethodPost, Path: "x", Header: http.Header{"Dapr-Caller-App-Id": {"till"}},
		})
		if err == nil {
			answer.Body.Close()
		}
		return err
	}
	if err := call("till"); err != nil {
		t.Errorf("the app that the policy names: %v", err)
	}
	if err := call("thief"); fault.KindOf(err) != fault.Denied || !strings.Contains(err.Error(), "spiffe://public/ns/default/thief") {
		t.Errorf("another one: %v", err)
	}
	if strings.Contains(in.log.String(), "cannot prove who they are") {
		t.Error("it warns of callers that prove nothing")
	}
}

package sdk

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dapr/go-sdk/client"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const vaultYAML = `
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: vault}
spec: {type: secretstores.local.file, version: v1, metadata: [{name: secretsFile, value: "FILE"}]}
`

// fileStore writes a secrets file and returns its path and the store's document.
func fileStore(t *testing.T, secrets string) (file, document string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "secrets.json")
	if err := os.WriteFile(file, []byte(secrets), 0o600); err != nil {
		t.Fatal(err)
	}
	return file, strings.Replace(vaultYAML, "FILE", file, 1)
}

// secret reads one secret the way of the protocol; the code is Dapr's over HTTP
// and that of gRPC otherwise.
func (p *penstock) secret(store, key string, metadata map[string]string) (pairs map[string]string, code string) {
	p.t.Helper()
	if p.w == overGRPC {
		pairs, err := p.client().GetSecret(p.t.Context(), store, key, metadata)
		return pairs, status.Code(err).String()
	}
	query := url.Values{}
	for k, v := range metadata {
		query.Set("metadata."+k, v)
	}
	code = p.read("/secrets/"+store+"/"+url.PathEscape(key)+"?"+query.Encode(), &pairs)
	return pairs, code
}

// read gets JSON; the code is that of the error, or OK.
func (p *penstock) read(path string, into any) (code string) {
	p.t.Helper()
	resp, err := http.Get(p.api + path)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	if resp.StatusCode == http.StatusOK {
		if err := json.Unmarshal(body, into); err != nil {
			p.t.Fatal(err)
		}
		return codes.OK.String()
	}
	var problem struct {
		Code string `json:"errorCode"`
	}
	if err := json.Unmarshal(body, &problem); err != nil {
		p.t.Fatalf("%d %s", resp.StatusCode, body)
	}
	return fmt.Sprintf("%d %s", resp.StatusCode, problem.Code)
}

// overBoth runs a test over each protocol.
func overBoth(t *testing.T, test func(t *testing.T, w wire)) {
	for _, w := range []wire{overHTTP, overGRPC} {
		t.Run(string(w), func(t *testing.T) {
			t.Parallel()
			test(t, w)
		})
	}
}

// on is what a case expects over one protocol.
func on(w wire, http string, grpc codes.Code) string {
	if w == overHTTP {
		return http
	}
	return grpc.String()
}

func TestSecretScopes(t *testing.T) {
	t.Parallel()
	overBoth(t, func(t *testing.T, w wire) {
		_, document := fileStore(t, `{"password":"open","hidden":"canary","a/b":"c"}`)
		config := filepath.Join(t.TempDir(), "config.yaml")
		scope := `
apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: {name: c}
spec: {secrets: {scopes: [{storeName: vault, defaultAccess: allow, deniedSecrets: [hidden]}]}}
`
		if err := os.WriteFile(config, []byte(scope), 0o600); err != nil {
			t.Fatal(err)
		}
		p := sidecar(t, w, 0, document, "--config", config)
		for _, row := range []struct{ store, key, code string }{
			{"vault", "password", codes.OK.String()},
			{"vault", "a/b", codes.OK.String()},
			{"vault", "hidden", on(w, "403 ERR_PERMISSION_DENIED", codes.PermissionDenied)},
			{"vault", "HIDDEN", on(w, "403 ERR_PERMISSION_DENIED", codes.PermissionDenied)},
			{"vault", "nothing", on(w, "500 ERR_SECRET_GET", codes.Internal)},
			{"nobody", "password", on(w, "401 ERR_SECRET_STORE_NOT_FOUND", codes.InvalidArgument)},
		} {
			if pairs, code := p.secret(row.store, row.key, nil); code != row.code || len(pairs) > 0 != (code == "OK") {
				t.Errorf("%s of %s: %v, %s; want %s", row.key, row.store, pairs, code, row.code)
			}
		}
		all := map[string]map[string]string{}
		if w == overHTTP {
			p.read("/secrets/vault/bulk", &all)
		} else {
			var err error
			if all, err = p.client().GetBulkSecret(t.Context(), "vault", nil); err != nil {
				t.Fatal(err)
			}
		}
		want := map[string]map[string]string{"password": {"password": "open"}, "a/b": {"a/b": "c"}}
		if diff := cmp.Diff(want, all); diff != "" {
			t.Errorf("bulk (-want +got)\n%s", diff)
		}
	})
}

func TestNoSecretStore(t *testing.T) {
	t.Parallel()
	overBoth(t, func(t *testing.T, w wire) {
		p := sidecar(t, w, 0, strings.Replace(busYAML, "BUS", "pubsub.in-memory", 1))
		want := on(w, "500 ERR_SECRET_STORES_NOT_CONFIGURED", codes.FailedPrecondition)
		if _, code := p.secret("vault", "password", nil); code != want {
			t.Errorf("got %s, want %s", code, want)
		}
	})
}

// The metadata of a request reaches the store: here the version of a secret in
// the key/value engine of Vault.
func TestVersionOfASecret(t *testing.T) {
	t.Parallel()
	engine := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v1/auth/token/lookup-self":
			io.WriteString(w, `{"data":{"ttl":0}}`)
		case "/v1/secret/data/dapr/orders/db":
			fmt.Fprintf(w, `{"data":{"data":{"password":"of version %s"},"metadata":{}}}`, r.URL.Query().Get("version"))
		default:
			http.Error(w, `{"errors":[]}`, http.StatusNotFound)
		}
	}))
	t.Cleanup(engine.Close)
	overBoth(t, func(t *testing.T, w wire) {
		p := sidecar(t, w, 0, `
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: vault}
spec: {type: secretstores.hashicorp.vault, version: v1, metadata: [{name: vaultAddr, value: "`+engine.URL+`"}, {name: vaultToken, value: t}]}
`)
		for version, want := range map[string]string{"7": "of version 7", "": "of version "} {
			if pairs, code := p.secret("vault", "orders/db", map[string]string{"version_id": version}); pairs["password"] != want {
				t.Errorf("version %q: %v, %s", version, pairs, code)
			}
		}
		if _, code := p.secret("vault", "orders/../db", nil); code != on(w, "500 ERR_SECRET_GET", codes.Internal) {
			t.Errorf("a key that leads elsewhere: %s", code)
		}
	})
}

// A changed secret is the next answer, and opens the component that uses it anew.
func TestASecretThatChanges(t *testing.T) {
	t.Parallel()
	overBoth(t, func(t *testing.T, w wire) {
		one, two := t.TempDir(), t.TempDir()
		file, document := fileStore(t, `{"folder":"`+one+`"}`)
		p := sidecar(t, w, 0, document+`---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: store}
spec: {type: bindings.localstorage, version: v1, metadata: [{name: rootPath, secretKeyRef: {name: folder}}]}
auth: {secretStore: vault}
`)
		write := func(name string) {
			t.Helper()
			if w == overHTTP {
				if code, body := post(t, p.api+"/bindings/store", "application/json", `{"operation":"create","data":"x","metadata":{"fileName":"`+name+`"}}`); code/100 != 2 {
					t.Fatalf("%d %s", code, body)
				}
				return
			}
			in := &client.InvokeBindingRequest{Name: "store", Operation: "create", Data: []byte("x"), Metadata: map[string]string{"fileName": name}}
			if _, err := p.client().InvokeBinding(t.Context(), in); err != nil {
				t.Fatal(err)
			}
		}
		write("before")
		if err := os.WriteFile(file+".new", []byte(`{"folder":"`+two+`"}`), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
		if pairs, code := p.secret("vault", "folder", nil); pairs["folder"] != two {
			t.Errorf("the next answer is %v, %s", pairs, code)
		}
		eventually(t, "the binding uses the second folder", func() bool {
			write("after")
			_, err := os.Stat(filepath.Join(two, "after"))
			return err == nil
		})
		if _, err := os.Stat(filepath.Join(one, "before")); err != nil {
			t.Error(err)
		}
	})
}

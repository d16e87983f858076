//go:build services

package vault

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/test/conform"
	"github.com/penstock-io/penstock/test/services"
)

// real is HashiCorp's Vault.
type real struct {
	*testing.T
	addr string
}

func started(t *testing.T) *real { return &real{t, services.Need(t, "vault")} }

// do asks Vault as root and returns the answer's data or login.
func (r *real) do(method, path string, body any) map[string]any {
	r.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		r.Fatal(err)
	}
	req, err := http.NewRequestWithContext(r.Context(), method, r.addr+"/v1/"+path, bytes.NewReader(text))
	if err != nil {
		r.Fatal(err)
	}
	req.Header.Set("X-Vault-Token", services.VaultToken)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.Fatal(err)
	}
	defer resp.Body.Close()
	said, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode/100 != 2 {
		r.Fatalf("%s %s: %s %s, %v", method, path, resp.Status, said, err)
	}
	var answer struct{ Data, Auth map[string]any }
	if len(said) > 0 {
		if err := json.Unmarshal(said, &answer); err != nil {
			r.Fatal(err)
		}
	}
	if answer.Auth != nil {
		return answer.Auth
	}
	return answer.Data
}

// put saves a secret below a prefix of secret/.
func (r *real) put(path, pairs string) {
	r.Helper()
	r.do("POST", "secret/data/"+path, map[string]any{"data": json.RawMessage(pairs)})
}

// mount enables a login at a path of its own and returns the path.
func (r *real) mount(kind string) string {
	r.Helper()
	path := conform.Unique(r.T)
	r.do("POST", "sys/auth/"+path, map[string]any{"type": kind})
	return path
}

// policy allows to read all below a prefix, and returns its name.
func (r *real) policy(prefix string) string {
	r.Helper()
	rules := fmt.Sprintf(`path "secret/data/%[1]s/*" { capabilities = ["read"] } path "secret/metadata/%[1]s/*" { capabilities = ["list"] }
		path "secret/metadata/%[1]s" { capabilities = ["list"] }`, prefix)
	r.do("POST", "sys/policies/acl/"+prefix, map[string]any{"policy": rules})
	return prefix
}

// TestConformVault runs the suite against the real server.
func TestConformVault(t *testing.T) { // not parallel: the suite counts goroutines
	r, prefix := started(t), conform.Unique(t)
	r.put(prefix+"/plain", `{"plain":"x"}`)
	r.put(prefix+"/db/main", `{"user":"u","password":"ä \" /"}`)
	conform.Secrets(t, Component, conform.SecretsSetup{
		Options: func(*testing.T) map[string]string {
			return map[string]string{"vaultAddr": r.addr, "vaultToken": services.VaultToken, "vaultKVPrefix": prefix}
		},
		Want:    map[string]map[string]string{"plain": {"plain": "x"}, "db/main": {"user": "u", "password": "ä \" /"}},
		Missing: "nothing",
	})
}

// TestVaultsVersions reads secrets of all forms and versions, also deleted ones.
func TestVaultsVersions(t *testing.T) {
	r, prefix := started(t), conform.Unique(t)
	r.put(prefix+"/db", `{"password":"one"}`)
	r.put(prefix+"/db", `{"password":"two","n":1.5,"on":true,"none":null,"list":["a",1]}`)
	d := opened(t, "vaultAddr="+r.addr, "vaultToken="+services.VaultToken, "vaultKVPrefix="+prefix)
	got, err := d.Get(t.Context(), "db", nil)
	if diff := cmp.Diff(map[string]string{"password": "two", "n": "1.5", "on": "true", "list": `["a",1]`}, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got)\n%s", err, diff)
	}
	version := func(n string) map[string]string { return map[string]string{"version_id": n} }
	if got, err := d.Get(t.Context(), "db", version("1")); err != nil || got["password"] != "one" {
		t.Errorf("version 1: %v, %v", got, err)
	}
	r.do("DELETE", "secret/data/"+prefix+"/db", nil)
	for _, metadata := range []map[string]string{nil, version("2"), version("9")} {
		if got, err := d.Get(t.Context(), "db", metadata); fault.KindOf(err) != fault.NotFound {
			t.Errorf("deleted, %v: %v, %v", metadata, got, err)
		}
	}
	if all, err := d.Bulk(t.Context(), nil); err != nil || len(all) != 0 {
		t.Errorf("bulk with a deleted one: %v, %v", all, err)
	}
}

// TestVaultsAppRole logs in, has the token renewed and another one when it has
// had all its time, and reads nothing that the policy does not allow.
func TestVaultsAppRole(t *testing.T) {
	r, prefix := started(t), conform.Unique(t)
	r.put(prefix+"/db", `{"v":"1"}`)
	path := r.mount("approle")
	role := "auth/" + path + "/role/orders"
	r.do("POST", role, map[string]any{"token_policies": r.policy(prefix), "token_ttl": "3s", "token_max_ttl": "5s"})
	id := r.do("GET", role+"/role-id", nil)["role_id"].(string)
	secret := r.do("POST", role+"/secret-id", map[string]any{})["secret_id"].(string)
	options := []string{"vaultAddr=" + r.addr, "vaultAuth=approle", "vaultAuthPath=" + path, "roleID=" + id, "vaultKVPrefix=" + prefix}
	d := opened(t, append(options, "secretID="+secret)...)
	first := d.(*store).session.current().token
	eventually(t, "another token than the first", func() bool {
		if got, err := d.Get(t.Context(), "db", nil); err != nil || got["v"] != "1" {
			t.Fatalf("%v, %v", got, err)
		}
		return d.(*store).session.current().token != first
	})
	r.do("POST", "auth/token/revoke", map[string]any{"token": d.(*store).session.current().token})
	if got, err := d.Get(t.Context(), "db", nil); err != nil || got["v"] != "1" {
		t.Errorf("after the token was taken back: %v, %v", got, err)
	}
	other := opened(t, append(options[:4:4], "secretID="+secret, "vaultKVPrefix=elsewhere")...)
	if got, err := other.Get(t.Context(), "db", nil); fault.KindOf(err) != fault.Denied {
		t.Errorf("outside the policy: %v, %v", got, err)
	}
	if _, err := try(t, &logs{}, append(options, "secretID=canary")...); err == nil || fault.Retriable(err) || strings.Contains(err.Error(), "canary") {
		t.Errorf("a wrong secret: %v", err)
	}
}

// TestVaultsKubernetes logs in by a service account's token, of which Vault asks
// Kubernetes.
func TestVaultsKubernetes(t *testing.T) {
	r, prefix := started(t), conform.Unique(t)
	r.put(prefix+"/db", `{"v":"1"}`)
	part := func(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }
	jwt := part(`{"alg":"RS256","typ":"JWT"}`) + "." + part(`{"iss":"kubernetes/serviceaccount","sub":"system:serviceaccount:shop:orders",
		"kubernetes.io/serviceaccount/namespace":"shop","kubernetes.io/serviceaccount/service-account.name":"orders",
		"kubernetes.io/serviceaccount/service-account.uid":"u-1","kubernetes.io/serviceaccount/secret.name":"s"}`) + "." + part("signature")
	cluster := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		var review struct{ Spec struct{ Token string } }
		if err := json.NewDecoder(req.Body).Decode(&review); err != nil || req.URL.Path != "/apis/authentication.k8s.io/v1/tokenreviews" {
			t.Errorf("%s %s: %v", req.Method, req.URL, err)
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, `{"apiVersion":"authentication.k8s.io/v1","kind":"TokenReview","status":{"authenticated":%t,
			"user":{"username":"system:serviceaccount:shop:orders","uid":"u-1","groups":["system:serviceaccounts"]}}}`, review.Spec.Token == jwt)
	}))
	t.Cleanup(cluster.Close)
	path := r.mount("kubernetes")
	r.do("POST", "auth/"+path+"/config", map[string]any{
		"kubernetes_host": cluster.URL, "disable_local_ca_jwt": true, "token_reviewer_jwt": jwt,
		"kubernetes_ca_cert": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cluster.Certificate().Raw})),
	})
	r.do("POST", "auth/"+path+"/role/orders", map[string]any{
		"bound_service_account_names": "orders", "bound_service_account_namespaces": "shop", "token_policies": r.policy(prefix), "token_ttl": "1h",
	})
	file := filepath.Join(t.TempDir(), "jwt")
	if err := os.WriteFile(file, []byte(jwt+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := opened(t, "vaultAddr="+r.addr, "vaultAuth=kubernetes", "vaultAuthPath="+path, "kubernetesRole=orders", "kubernetesTokenPath="+file, "vaultKVPrefix="+prefix)
	if got, err := d.Get(t.Context(), "db", nil); err != nil || got["v"] != "1" {
		t.Errorf("%v, %v", got, err)
	}
	if all, err := d.Bulk(t.Context(), nil); err != nil || len(all) != 1 {
		t.Errorf("bulk: %v, %v", all, err)
	}
	if left := d.(*store).session.current().ttl; left != time.Hour {
		t.Errorf("the token has %v, want an hour", left)
	}
}

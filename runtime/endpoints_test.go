package runtime_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	rtv1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// site is a web server; it says who it is and what it was asked for.
func site(t *testing.T, name string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, name+" "+r.RequestURI)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func endpointAt(name, url string) string {
	return "apiVersion: dapr.io/v1alpha1\nkind: HTTPEndpoint\nmetadata: {name: " + name + "}\nspec: {baseUrl: \"" + url + "\"}\n---\n"
}

// ask calls a method of a target and returns the answer.
func (in *instance) ask(t *testing.T, target, method string, header http.Header) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "GET", in.url+"/invoke/"+target+"/method/"+method, nil)
	if err != nil {
		t.Fatal(err)
	}
	maps.Copy(r.Header, header)
	resp, err := http.DefaultClient.Do(r)
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

func TestEndpoint(t *testing.T) {
	t.Parallel()
	var calls atomic.Int32
	seen := make(chan *http.Request, 20)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		seen <- r
		if r.URL.Path == "/base/fails" {
			w.WriteHeader(http.StatusBadGateway)
		}
	}))
	t.Cleanup(s.Close)
	in, o := prepare(t, nil, vault+`
apiVersion: dapr.io/v1alpha1
kind: HTTPEndpoint
metadata: {name: web}
spec:
  baseUrl: "`+s.URL+`/base"
  headers:
  - {name: X-Plain, value: "7"}
  - {name: authorization, secretKeyRef: {name: token}}
  - {name: X-Env, envRef: REGION}
  - {name: dapr-api-token, value: theirs}
auth: {secretStore: vault}
scopes: [shop]
---
`+strings.Replace(endpointAt("others", s.URL), "---", "scopes: [other]\n---", 1)+
		strings.NewReplacer("shop", "web", "thrice", "often").Replace(callPolicies))
	o.Env = func(name string) (string, bool) { return "north", name == "REGION" }
	in.keep(t, map[string]string{"token": "Bearer hunter2"})
	in.run(t, o)
	status, body := in.ask(t, "web", "a%2Fb?q=1", http.Header{"Authorization": {"mine"}, "X-Env": {"mine"}, "X-Mine": {"1"}, "Dapr-Api-Token": {"mine"}})
	if status != http.StatusOK {
		t.Fatalf("%d %s", status, body)
	}
	checkGot(t, <-seen)
	calls.Store(0)
	if status, _ := in.ask(t, "web", "fails", nil); status != http.StatusBadGateway || calls.Load() != 3 {
		t.Errorf("with a policy: %d after %d calls", status, calls.Load())
	}
	if status, body := in.ask(t, "others", "x", nil); status != http.StatusInternalServerError {
		t.Errorf("an endpoint of another app: %d %s", status, body)
	}
	in.listsEndpoints(t, "web")
	s.Close()
	if status, body := in.ask(t, "web", "gone", nil); status != http.StatusInternalServerError || strings.Contains(body, "hunter2") {
		t.Errorf("no server: %d %s", status, body)
	}
	if log := in.log.String(); strings.Contains(log, "hunter2") || strings.Contains(log, "theirs") || strings.Contains(in.text(t, "/metadata"), "hunter2") {
		t.Error("a secret is in the log, or in the metadata")
	}
}

// checkGot looks at what the web server got.
func checkGot(t *testing.T, got *http.Request) {
	t.Helper()
	for name, want := range map[string]string{
		"X-Plain": "7", "Authorization": "Bearer hunter2", "X-Env": "north", "X-Mine": "1", "Dapr-Api-Token": "theirs", "Dapr-Caller-App-Id": "",
	} {
		if values := strings.Join(got.Header.Values(name), ","); values != want {
			t.Errorf("%s: %q, want %q", name, values, want)
		}
	}
	if got.RequestURI != "/base/a%2Fb?q=1" {
		t.Error(got.RequestURI)
	}
}

// listsEndpoints compares the endpoints of the metadata, over HTTP and gRPC.
func (in *instance) listsEndpoints(t *testing.T, want ...string) {
	t.Helper()
	var m struct{ HTTPEndpoints []struct{ Name string } }
	if err := json.Unmarshal([]byte(in.text(t, "/metadata")), &m); err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient("passthrough:///"+in.rpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	out, err := rtv1.NewDaprClient(conn).GetMetadata(t.Context(), &rtv1.GetMetadataRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var overHTTP, overGRPC []string
	for _, e := range m.HTTPEndpoints {
		overHTTP = append(overHTTP, e.Name)
	}
	for _, e := range out.GetHttpEndpoints() {
		overGRPC = append(overGRPC, e.GetName())
	}
	if fmt.Sprint(overHTTP) != fmt.Sprint(want) || fmt.Sprint(overGRPC) != fmt.Sprint(want) {
		t.Errorf("metadata lists %v over HTTP and %v over gRPC, want %v", overHTTP, overGRPC, want)
	}
}

const turnedEndpoint = "HTTPEndpoint uses its changed secret"

func TestEndpointWithAClientCertificate(t *testing.T) {
	t.Parallel()
	cert1, key1, one := identity(t, "one")
	cert2, key2, two := identity(t, "two")
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.TLS.PeerCertificates[0].Subject.CommonName)
	}))
	pool := x509.NewCertPool()
	pool.AddCert(one)
	pool.AddCert(two)
	s.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}
	s.StartTLS()
	t.Cleanup(s.Close)
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
	in, o := prepare(t, nil, vault+`
apiVersion: dapr.io/v1alpha1
kind: HTTPEndpoint
metadata: {name: web}
spec:
  baseUrl: "`+s.URL+`"
  clientTLS:
    rootCA:
      value: |
        `+strings.ReplaceAll(strings.TrimSpace(ca), "\n", "\n        ")+`
    certificate: {secretKeyRef: {name: cert}}
    privateKey: {secretKeyRef: {name: key, key: key}}
    renegotiation: RenegotiateOnceAsClient
auth: {secretStore: vault}
---
`+endpointAt("bare", s.URL))
	in.keep(t, map[string]string{"cert": cert1, "key": key1})
	in.run(t, o)
	if status, body := in.ask(t, "web", "x", nil); status != http.StatusOK || body != "one" {
		t.Fatalf("%d %s", status, body)
	}
	if status, body := in.ask(t, "bare", "x", nil); status != http.StatusInternalServerError || !strings.Contains(body, "certificate") {
		t.Errorf("who does not know the CA: %d %s", status, body)
	}
	in.keep(t, map[string]string{"cert": cert2, "key": "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n"})
	in.logged(t, 1, "HTTPEndpoint cannot use its changed secret")
	if status, body := in.ask(t, "web", "x", nil); status != http.StatusOK || body != "one" {
		t.Errorf("after a key that is none: %d %s", status, body)
	}
	in.keep(t, map[string]string{"cert": cert2, "key": key2})
	in.logged(t, 1, turnedEndpoint)
	if status, body := in.ask(t, "web", "x", nil); status != http.StatusOK || body != "two" {
		t.Errorf("after its secret changed: %d %s", status, body)
	}
	log := in.log.String()
	for _, secret := range []string{"hunter2", strings.Split(key1, "\n")[1], strings.Split(key2, "\n")[1]} {
		if strings.Contains(log, secret) {
			t.Error("a key is in the log")
		}
	}
}

func TestReloadOfEndpoints(t *testing.T) {
	t.Parallel()
	arrived, goOn := make(chan struct{}), make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "slow ")
		_ = http.NewResponseController(w).Flush()
		if r.URL.Path == "/wait" {
			close(arrived)
			<-goOn
		}
		_, _ = io.WriteString(w, "done")
	}))
	t.Cleanup(slow.Close)
	in := start(t, nil, bus)
	t.Log("create")
	in.write(t, "web.yaml", endpointAt("web", slow.URL))
	in.logged(t, 1, taken)
	in.listsEndpoints(t, "web")
	finished := make(chan string, 1)
	go func() {
		resp, err := http.Get(in.url + "/invoke/web/method/wait")
		if err != nil {
			finished <- err.Error()
			return
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		finished <- fmt.Sprint(string(body), err)
	}()
	<-arrived
	t.Log("update")
	in.write(t, "web.yaml", endpointAt("web", site(t, "fast")))
	in.logged(t, 2, taken)
	if _, body := in.ask(t, "web", "x", nil); body != "fast /x" {
		t.Errorf("updated: %q", body)
	}
	close(goOn)
	if got := <-finished; got != "slow done<nil>" {
		t.Errorf("the call under way: %s", got)
	}
	t.Log("a broken file changes nothing")
	in.write(t, "web.yaml", endpointAt("web", "nowhere"))
	in.logged(t, 1, "nothing was changed")
	if _, body := in.ask(t, "web", "y", nil); body != "fast /y" {
		t.Errorf("broken: %q", body)
	}
	t.Log("delete")
	if err := os.Remove(filepath.Join(in.dir, "web.yaml")); err != nil {
		t.Fatal(err)
	}
	in.logged(t, 3, taken)
	if status, body := in.ask(t, "web", "z", nil); status != http.StatusInternalServerError {
		t.Errorf("deleted: %d %q", status, body)
	}
	in.listsEndpoints(t)
	if n := strings.Count(in.log.String(), "Component loaded: bus "); n != 1 {
		t.Errorf("bus was opened %d times", n)
	}
}

func TestEndpointWaitsForItsSecretStore(t *testing.T) {
	t.Parallel()
	var got atomic.Value
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got.Store(r.Header.Get("X-Key")) }))
	t.Cleanup(s.Close)
	at := address(t)
	in, o := prepare(t, nil, strings.NewReplacer("pubsub.far", "secretstores.far", "name: bus", "name: away").Replace(farAt(at))+
		strings.Replace(endpointAt("web", s.URL), `"}`, `", headers: [{name: X-Key, secretKeyRef: {name: key}}]}`+"\nauth: {secretStore: away}", 1)+
		endpointAt("other", site(t, "other")))
	in.begin(t, o)
	if _, body := in.ask(t, "other", "early", nil); body != "other /early" {
		t.Errorf("a call that comes before the endpoints: %q", body)
	}
	in.logged(t, 1, "HTTPEndpoint not ready yet")
	if status, body := in.ask(t, "web", "x", nil); status != http.StatusInternalServerError || !strings.Contains(body, "secrets could not be read yet") {
		t.Errorf("%d %s", status, body)
	}
	if _, body := in.ask(t, "other", "x", nil); body != "other /x" {
		t.Errorf("the one without secrets: %q", body)
	}
	if text := in.text(t, "/healthz"); !strings.Contains(text, "HTTPEndpoint web") {
		t.Errorf("health: %s", text)
	}
	listen(t, at)
	eventually(t, "the endpoint can be called", func() bool {
		status, _ := in.ask(t, "web", "x", nil)
		return status == http.StatusOK
	})
	if got.Load() != "key" {
		t.Errorf("header %q", got.Load())
	}
	eventually(t, "ready", func() bool { return in.get(t, "/healthz") == http.StatusNoContent })
}

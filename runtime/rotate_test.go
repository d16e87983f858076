package runtime_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/secrets"
)

const turned = "Component opened with its changed secret"

// keep writes the secrets as a program would that rotates them: a new file takes
// the place of the old one.
func (in *instance) keep(t *testing.T, secrets map[string]string) {
	t.Helper()
	body, err := json.Marshal(secrets)
	if err != nil {
		t.Fatal(err)
	}
	// Not by write: a certificate may have the letters DIR in it by chance.
	fresh := filepath.Join(in.dir, "secrets.json.new")
	if err := errors.Join(os.WriteFile(fresh, body, 0o600), os.Rename(fresh, filepath.Join(in.dir, "secrets.json"))); err != nil {
		t.Fatal(err)
	}
}

// guard is a server that lets in who shows one of the credentials it takes now.
type guard struct {
	shown func(*http.Request) string

	mu     sync.Mutex
	takes  map[string]bool
	inARow map[string]int // requests with a credential since the last with another
	last   string
}

func newGuard(shown func(*http.Request) string, takes ...string) *guard {
	g := &guard{shown: shown, inARow: map[string]int{}}
	g.take(takes...)
	return g
}

func (g *guard) take(credentials ...string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.takes = map[string]bool{}
	for _, c := range credentials {
		g.takes[c] = true
	}
}

func (g *guard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := g.shown(r)
	g.mu.Lock()
	defer g.mu.Unlock()
	if c != g.last {
		g.inARow[g.last], g.last = 0, c
	}
	g.inARow[c]++
	if !g.takes[c] {
		http.Error(w, "who are you", http.StatusUnauthorized)
	}
}

func (g *guard) run(credential string) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.inARow[credential]
}

// load calls the binding from several clients until the test says stop; every
// failure is an error of the test.
func (in *instance) load(t *testing.T, name string) (stop func() int) {
	t.Helper()
	var calls atomic.Int64
	var clients sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	for range 8 {
		clients.Go(func() {
			for ctx.Err() == nil {
				if status, text := in.post(t, "/bindings/"+name, `{"operation":"post","data":"x"}`); status/100 != 2 {
					t.Errorf("a call failed: %d %s", status, text)
					return
				}
				calls.Add(1)
			}
		})
	}
	return func() int { cancel(); clients.Wait(); return int(calls.Load()) }
}

// rotateUnderLoad changes the secrets while the binding is called: the server
// takes both credentials until only the new one is shown, and then that alone.
func rotateUnderLoad(t *testing.T, in *instance, g *guard, fresh map[string]string, before, after string) {
	t.Helper()
	stop := in.load(t, "out")
	eventually(t, "calls with the old credential", func() bool { return g.run(before) > 50 })
	g.take(before, after)
	in.keep(t, fresh)
	in.logged(t, 1, turned)
	eventually(t, "calls with the new credential alone", func() bool { return g.run(after) > 100 })
	g.take(after)
	eventually(t, "more calls", func() bool { return g.run(after) > 400 })
	if n := stop(); n < 450 {
		t.Errorf("%d calls", n)
	}
}

func TestRotationOfATokenUnderLoad(t *testing.T) {
	t.Parallel()
	g := newGuard(func(r *http.Request) string { return r.Header.Get("X-Token") }, "one")
	s := httptest.NewServer(g)
	t.Cleanup(s.Close)
	in, o := prepare(t, nil, vault+`
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: out}
spec:
  type: bindings.http
  version: v1
  metadata:
  - {name: url, value: "`+s.URL+`"}
  - {name: securityTokenHeader, value: X-Token}
  - {name: securityToken, secretKeyRef: {name: token}}
auth: {secretStore: vault}
---
`+strings.ReplaceAll(secretFolder, "name: store}", "name: other}"))
	in.keep(t, map[string]string{"token": "one", "folder": in.dir})
	in.run(t, o)
	rotateUnderLoad(t, in, g, map[string]string{"token": "two", "folder": in.dir}, "one", "two")
	log := in.log.String()
	if n := strings.Count(log, turned); n != 1 || strings.Count(log, "Component loaded: other") != 1 {
		t.Errorf("%d components were opened anew, or one whose secret is as before", n)
	}
	if strings.Contains(log, "token=") || strings.Contains(log, `"two"`) {
		t.Error("a secret is in the log")
	}
}

// identity makes a client certificate, signed by itself, and its key.
func identity(t *testing.T, name string) (cert, key string, parsed *x509.Certificate) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	bytes, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	if parsed, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: bytes})), parsed
}

func TestRotationOfACertificateUnderLoad(t *testing.T) {
	t.Parallel()
	cert1, key1, one := identity(t, "one")
	cert2, key2, two := identity(t, "two")
	g := newGuard(func(r *http.Request) string { return r.TLS.PeerCertificates[0].Subject.CommonName }, "one")
	s := httptest.NewUnstartedServer(g)
	pool := x509.NewCertPool()
	pool.AddCert(one)
	pool.AddCert(two)
	s.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}
	s.StartTLS()
	t.Cleanup(s.Close)
	in, o := prepare(t, nil, vault+`
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: out}
spec:
  type: bindings.http
  version: v1
  metadata:
  - {name: url, value: "`+s.URL+`"}
  - {name: MTLSRootCA, secretKeyRef: {name: ca}}
  - {name: MTLSClientCert, secretKeyRef: {name: cert}}
  - {name: MTLSClientKey, secretKeyRef: {name: key}}
auth: {secretStore: vault}
`)
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
	in.keep(t, map[string]string{"ca": ca, "cert": cert1, "key": key1})
	in.run(t, o)
	rotateUnderLoad(t, in, g, map[string]string{"ca": ca, "cert": cert2, "key": key2}, "one", "two")
}

// A route reads from the component that has the new secret.
func TestRotationOfABusMovesItsRoutes(t *testing.T) {
	t.Parallel()
	a := newApp(t, `[]`)
	in, o := prepare(t, a, vault+strings.Replace(strings.Replace(bus, "\n---", "\nauth: {secretStore: vault}\n---", 1), "metadata: []", "metadata: [{name: consumerID, secretKeyRef: {name: group}}]", 1)+declared)
	in.keep(t, map[string]string{"group": "one"})
	in.run(t, o)
	in.publish(t, "t", `1`)
	a.next(t, "/one")
	in.keep(t, map[string]string{"group": "two"})
	in.logged(t, 1, turned)
	in.logged(t, 2, "Route started")
	for i := range 20 {
		in.publish(t, "t", fmt.Sprint(i))
		a.next(t, "/one")
	}
}

func TestRotationOfAnInput(t *testing.T) {
	t.Parallel()
	a, at := newApp(t, `[]`), address(t)
	doc := strings.Replace(hook("in", "PATH", at), "value: PATH}", "secretKeyRef: {name: path}}", 1)
	in, o := prepare(t, a, vault+strings.Replace(doc, "\n---", "\nauth: {secretStore: vault}\n---", 1))
	in.keep(t, map[string]string{"path": "/1"})
	in.run(t, o)
	eventually(t, "the first path", func() bool { return send(at, "/1")/100 == 2 })
	in.keep(t, map[string]string{"path": "/2"})
	in.logged(t, 1, turned)
	eventually(t, "the second path", func() bool { return send(at, "/2")/100 == 2 && send(at, "/1") == http.StatusNotFound })
	a.next(t, "/hook")
}

// What does not open with its new secret goes on with the old one until it does.
func TestARotationThatComesTooEarlyIsTriedAgain(t *testing.T) {
	t.Parallel()
	a := newApp(t, `[]`)
	here, there := address(t), address(t)
	listen(t, here)
	doc := strings.Replace(farAt("X"), `value: "X"`, `secretKeyRef: {name: address}`, 1)
	in, o := prepare(t, a, vault+strings.Replace(doc, "\n---", "\nauth: {secretStore: vault}\n---", 1)+declared)
	in.keep(t, map[string]string{"address": here})
	in.run(t, o)
	in.keep(t, map[string]string{"address": there})
	in.logged(t, 1, "does not open with its changed secret")
	in.publish(t, "t", `1`)
	a.next(t, "/one")
	listen(t, there)
	in.logged(t, 1, turned)
	in.publish(t, "t", `2`)
	a.next(t, "/one")
}

// A store that gets its own secrets from another one is opened anew too, and
// those that depend on it after it.
func TestRotationGoesThroughStores(t *testing.T) {
	t.Parallel()
	inner := strings.NewReplacer("name: vault}", "name: inner}", "value: DIR/secrets.json", "secretKeyRef: {name: file}").Replace(vault)
	inner = strings.Replace(inner, "\n---", "\nauth: {secretStore: vault}\n---", 1)
	in, o := prepare(t, nil, vault+inner+strings.Replace(secretFolder, "secretStore: vault", "secretStore: inner", 1))
	in.keep(t, map[string]string{"file": filepath.Join(in.dir, "one.json")})
	in.write(t, "one.json", `{"folder":"DIR/one"}`)
	in.write(t, "two.json", `{"folder":"DIR/two"}`)
	in.run(t, o)
	in.keep(t, map[string]string{"file": filepath.Join(in.dir, "two.json")})
	eventually(t, "the folder of the second file", func() bool { return in.store(t, "f") && exists(in.dir, "two", "f") })
	in.logged(t, 2, turned)
}

// remote is a store that tells of no changes.
type remote struct {
	mu    sync.Mutex
	pairs map[string]string
	err   error
	reads int
}

func (r *remote) set(pairs map[string]string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pairs, r.err = pairs, err
}

func (r *remote) Get(_ context.Context, key string, _ map[string]string) (map[string]string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reads++
	if v, ok := r.pairs[key]; ok && r.err == nil {
		return map[string]string{key: v}, nil
	}
	if r.err == nil {
		return nil, fault.New(fault.NotFound, "no secret")
	}
	return nil, r.err
}

func (r *remote) Bulk(context.Context, map[string]string) (map[string]map[string]string, error) {
	return nil, nil
}

func (r *remote) Close(context.Context) error { return nil }

func (r *remote) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.reads
}

func TestRotationByReadingAgain(t *testing.T) {
	t.Parallel()
	r := &remote{}
	def := secrets.Define("remote", component.About{}, func(context.Context, component.Env, struct{}) (secrets.Driver, error) { return r, nil })
	store := strings.Replace(vault, "secretstores.local.file, version: v1, metadata: [{name: secretsFile, value: DIR/secrets.json}]",
		`secretstores.remote, version: v1, metadata: [{name: rotationInterval, value: "1s"}]`, 1)
	in, o := prepare(t, nil, store+secretFolder+strings.ReplaceAll(secretFolder, "name: store}", "name: second}"))
	o.Components = append(components(), def)
	r.set(map[string]string{"folder": filepath.Join(in.dir, "one")}, nil)
	in.run(t, o)
	reads := r.count()
	eventually(t, "two more rounds", func() bool { return r.count() >= reads+2 })
	t.Log("a store that is down, or has lost the secret, changes nothing")
	r.set(nil, fault.New(fault.Unavailable, "the store is down"))
	in.logged(t, 1, "Secrets cannot be read again")
	reads = r.count()
	eventually(t, "two more rounds", func() bool { return r.count() >= reads+2 })
	if n := strings.Count(in.log.String(), "Secrets cannot be read again"); n != 1 {
		t.Errorf("one outage was logged %d times", n)
	}
	r.set(map[string]string{}, nil)
	reads = r.count()
	eventually(t, "two more rounds", func() bool { return r.count() >= reads+2 })
	if !in.store(t, "f") || !exists(in.dir, "one", "f") {
		t.Error("the component lost its secret")
	}
	r.set(map[string]string{"folder": filepath.Join(in.dir, "two")}, nil)
	in.logged(t, 1, "Secrets can be read again")
	in.logged(t, 2, turned)
	if !in.store(t, "f") || !exists(in.dir, "two", "f") {
		t.Error("the component goes on with the old secret")
	}
}

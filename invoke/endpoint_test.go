package invoke_test

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/invoke"
)

// named are endpoints by name; nil is one that cannot be used now.
type named map[string]*invoke.Endpoint

// Endpoint implements invoke.Endpoints.
func (n named) Endpoint(_ context.Context, name string) (*invoke.Endpoint, error) {
	e, ok := n[name]
	if ok && e == nil {
		return nil, fault.New(fault.Unavailable, "not now")
	}
	return e, nil
}

func TestEndpointsComeBeforeApps(t *testing.T) {
	t.Parallel()
	got := make(chan http.Header, 1)
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got <- r.Header }))
	t.Cleanup(s.Close)
	e, err := invoke.NewEndpoint(invoke.EndpointOptions{BaseURL: s.URL, Header: http.Header{
		"x-key": {"1"}, "Dapr-Api-Token": {"2"}, "Connection": {"X-Mine"}, "Te": {"3"}, "Transfer-Encoding": {"4"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Open().Close)
	o := &others{}
	v := invoke.New(invoke.Options{AppID: "me", Finder: o, Peers: o, Endpoints: named{"web": e, "later": nil}})
	t.Cleanup(v.Close)
	r := post("")
	r.Header.Set("X-Key", "mine")
	r.Header.Set("X-Mine", "5")
	a, err := v.Do(t.Context(), "web", r)
	if err != nil {
		t.Fatal(err)
	}
	a.Body.Close()
	header := <-got
	for name, want := range map[string]string{"X-Key": "1", "Dapr-Api-Token": "2", "X-Mine": "5", "Te": "", "Connection": ""} {
		if value := strings.Join(header.Values(name), ","); value != want {
			t.Errorf("%s: %q, want %q", name, value, want)
		}
	}
	if _, err := v.Do(t.Context(), "later", post("")); fault.KindOf(err) != fault.Unavailable || o.n != 0 {
		t.Errorf("one that cannot be used: %v", err)
	}
	if _, err := v.Do(t.Context(), "nobody", post("")); fault.KindOf(err) != fault.NotFound {
		t.Errorf("no endpoint: %v", err)
	}
}

func TestHeadersOfEndpoints(t *testing.T) {
	t.Parallel()
	for _, h := range []http.Header{{"a b": {"hunter2"}}, {"": {"hunter2"}}, {"A": {"hunter2\r\nB: c"}}, {"A": {"hunter2\n"}}, {"A": {"hunter2\x00"}}} {
		_, err := invoke.NewEndpoint(invoke.EndpointOptions{BaseURL: "http://x", Header: h})
		if fault.KindOf(err) != fault.Invalid || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%v: %v", h, err)
		}
	}
	for name, want := range map[string]bool{
		"authorization": true, "Dapr-App-Id": true, "dapr-api-token": true, "host": false, "Content-Length": false, "connection": false, "Upgrade": false,
	} {
		if invoke.Sendable(name) != want {
			t.Errorf("%s: %v", name, !want)
		}
	}
}

func TestCertificates(t *testing.T) {
	t.Parallel()
	s := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(s.Close)
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
	const key = "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n"
	for _, c := range []invoke.Certificates{
		{RootCA: "/etc/hostname"},
		{RootCA: key},
		{Certificate: ca},
		{PrivateKey: key},
		{PrivateKey: "hunter2", Certificate: ca},
		{Certificate: ca, PrivateKey: key},
		{Renegotiation: "Always"},
	} {
		if _, err := c.TLS(); fault.KindOf(err) != fault.Invalid || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%+v: %v", c, err)
		}
	}
	if got, err := (invoke.Certificates{}).TLS(); got != nil || err != nil {
		t.Errorf("nothing: %v %v", got, err)
	}
	for word, want := range map[string]tls.RenegotiationSupport{
		"RenegotiateNever": tls.RenegotiateNever, "renegotiateonceasclient": tls.RenegotiateOnceAsClient, "RenegotiateFreelyAsClient": tls.RenegotiateFreelyAsClient,
	} {
		got, err := (invoke.Certificates{RootCA: ca, Renegotiation: word}).TLS()
		if err != nil || got.Renegotiation != want || got.MinVersion != tls.VersionTLS12 {
			t.Errorf("%s: %+v %v", word, got, err)
		}
		checkTrusted(t, s.URL, got)
	}
}

// checkTrusted calls a server that only the configuration makes trusted.
func checkTrusted(t *testing.T, url string, c *tls.Config) {
	t.Helper()
	e, err := invoke.NewEndpoint(invoke.EndpointOptions{BaseURL: url, TLS: c})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Open().Close()
	v := invoke.New(invoke.Options{AppID: "me", Endpoints: named{"web": e}})
	defer v.Close()
	a, err := v.Do(t.Context(), "web", post(""))
	if err != nil {
		t.Error(err)
		return
	}
	if _, err := io.Copy(io.Discard, a.Body); err != nil || a.Status != http.StatusNotFound {
		t.Error(a.Status, err)
	}
	a.Body.Close()
}

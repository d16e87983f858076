package identity_test

import (
	"crypto/x509"
	"net/url"
	"strings"
	"testing"

	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/invoke/identity"
)

func TestParse(t *testing.T) {
	want := identity.ID{TrustDomain: "cluster.local", Namespace: "default", App: "orders"}
	got, err := identity.Parse("spiffe://cluster.local/ns/default/orders")
	if err != nil || got != want {
		t.Fatalf("got %+v, %v", got, err)
	}
	if got.String() != "spiffe://cluster.local/ns/default/orders" {
		t.Errorf("written as %s", got)
	}
	for _, bad := range []string{
		"", "orders", "https://cluster.local/ns/default/orders", "SPIFFE://cluster.local/ns/default/orders",
		"spiffe://Cluster.local/ns/default/orders", "spiffe://cluster.local:443/ns/default/orders", "spiffe://u@cluster.local/ns/default/orders",
		"spiffe://cluster.local/ns/default", "spiffe://cluster.local/ns/default/orders/", "spiffe://cluster.local/ns/default/orders/x",
		"spiffe://cluster.local/sa/default/orders", "spiffe:///ns/default/orders", "spiffe://cluster.local/ns//orders",
		"spiffe://cluster.local/ns/../orders", "spiffe://cluster.local/ns/default/.", "spiffe://cluster.local/ns/default/or%64ers",
		"spiffe://cluster.local/ns/default/orders?x", "spiffe://cluster.local/ns/default/orders#x", "spiffe://cluster.local/ns/default/or ders",
		"spiffe://cluster.local/ns/default/" + strings.Repeat("a", 256),
	} {
		if id, err := identity.Parse(bad); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%q is read as %+v, %v", bad, id, err)
		}
	}
}

func TestOfCertificate(t *testing.T) {
	uri := func(s string) *url.URL {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	good := uri("spiffe://td/ns/n/a")
	if id, err := identity.OfCertificate(&x509.Certificate{URIs: []*url.URL{good}}); err != nil || id.App != "a" {
		t.Errorf("got %+v, %v", id, err)
	}
	for _, bad := range [][]*url.URL{nil, {good, good}, {uri("spiffe://td/ns/n/a%2Fb")}, {uri("spiffe://td/wild/*")}} {
		if id, err := identity.OfCertificate(&x509.Certificate{URIs: bad}); fault.KindOf(err) != fault.Denied {
			t.Errorf("%v is read as %+v, %v", bad, id, err)
		}
	}
}

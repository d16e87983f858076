package identity

import (
	"crypto/x509"
	"strings"

	"github.com/penstock-io/penstock/fault"
)

// ID names an instance: an app, in a namespace, in a trust domain. All three are
// case-sensitive but for the trust domain, which is in lower case.
type ID struct {
	// TrustDomain is the domain whose authority vouches for the name, without scheme.
	TrustDomain string
	// Namespace holds the app; App is its id.
	Namespace, App string
}

// DefaultNamespace holds the apps that say none.
const DefaultNamespace = "default"

// String returns the URI that stands in a certificate:
// spiffe://TRUST-DOMAIN/ns/NAMESPACE/APP.
func (id ID) String() string {
	return "spiffe://" + id.TrustDomain + "/ns/" + id.Namespace + "/" + id.App
}

// Parse reads what String wrote. Any other text is an error of kind invalid:
// another scheme or layout, an escape, a query, a port, an empty or dotted step.
func Parse(uri string) (ID, error) {
	rest, ok := strings.CutPrefix(uri, "spiffe://")
	steps := strings.Split(rest, "/")
	if !ok || len(steps) != 4 || steps[1] != "ns" || !goodDomain(steps[0]) || !goodStep(steps[2]) || !goodStep(steps[3]) {
		return ID{}, fault.New(fault.Invalid, "read identity %.200q: want spiffe://TRUST-DOMAIN/ns/NAMESPACE/APP", uri)
	}
	return ID{TrustDomain: steps[0], Namespace: steps[2], App: steps[3]}, nil
}

// OfCertificate returns whom a certificate is for. One that names several, or
// nobody in the layout of [ID], is an error of kind denied. Whether the
// certificate is to be believed is for the caller to have checked.
func OfCertificate(cert *x509.Certificate) (ID, error) {
	if len(cert.URIs) != 1 {
		return ID{}, fault.New(fault.Denied, "read identity of certificate: want one URI in it, it has %d", len(cert.URIs))
	}
	id, err := Parse(cert.URIs[0].String())
	if err != nil {
		return ID{}, fault.As(fault.Denied, err)
	}
	return id, nil
}

// goodDomain holds the letters that SPIFFE allows.
func goodDomain(s string) bool {
	return s != "" && len(s) <= 255 && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && !strings.ContainsRune(".-_", r)
	})
}

func goodStep(s string) bool {
	return s != "" && len(s) <= 255 && s != "." && s != ".." && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune(".-_", r)
	})
}

package identity

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/penstock-io/penstock/fault"
)

// Source gives the identity of this instance, another one whenever the old nears
// its end.
type Source interface {
	// Run keeps the identity fresh until ctx ends; it does not end before, whatever
	// goes wrong.
	Run(ctx context.Context) error
	// Current returns the identity to show now. While there is none, or none that
	// is valid, it is an error of kind unavailable that says why.
	Current() (*Identity, error)
}

// Identity is what an instance shows and whom it believes at one moment. It does
// not change.
type Identity struct {
	ID          ID
	Certificate *tls.Certificate
	Trust       Trust
}

// New makes an identity of a chain of certificates, the instance's own first, the
// key of that, and the authorities to trust. What others would not believe is an
// error of kind invalid: a key that does not fit, a certificate that is for
// nobody, out of its time, or not of the authorities of its own trust domain.
func New(chain []*x509.Certificate, key crypto.Signer, trust Trust) (*Identity, error) {
	if len(chain) == 0 {
		return nil, fault.New(fault.Invalid, "read certificate: there is none")
	}
	cert := &tls.Certificate{PrivateKey: key, Leaf: chain[0]}
	for _, c := range chain {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	if own, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !own.Equal(chain[0].PublicKey) {
		return nil, fault.New(fault.Invalid, "read key: it is not that of the certificate")
	}
	id, err := trust.Verify(chain, x509.ExtKeyUsageServerAuth)
	if err == nil {
		_, err = trust.Verify(chain, x509.ExtKeyUsageClientAuth)
	}
	if err != nil {
		return nil, fault.As(fault.Invalid, err)
	}
	return &Identity{ID: id, Certificate: cert, Trust: trust}, nil
}

// Trust are the authorities to believe.
type Trust struct {
	// Domains are those of each trust domain.
	Domains map[string]*x509.CertPool
	// Any are those of all other domains. When it is nil, nobody of another domain
	// is believed.
	Any *x509.CertPool
}

// Verify returns whom a chain of certificates, the other side's own first, proves
// to be there. What is not to be believed is an error of kind denied.
//
// There is no tolerance for clocks that differ: who issues a certificate makes it
// valid from a while before.
func (t Trust) Verify(chain []*x509.Certificate, usage x509.ExtKeyUsage) (ID, error) {
	if len(chain) == 0 {
		return ID{}, fault.New(fault.Denied, "verify certificate: the other side shows none")
	}
	leaf := chain[0]
	id, err := OfCertificate(leaf)
	if err != nil {
		return ID{}, err
	}
	roots, known := t.Domains[id.TrustDomain]
	if !known {
		roots = t.Any
	}
	switch {
	case roots == nil:
		return ID{}, fault.New(fault.Denied, "verify certificate of %s: its trust domain is foreign; known: %s", id, strings.Join(slices.Sorted(maps.Keys(t.Domains)), ", "))
	case leaf.IsCA:
		return ID{}, fault.New(fault.Denied, "verify certificate of %s: it is that of an authority", id)
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	o := x509.VerifyOptions{Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{usage}}
	if _, err := leaf.Verify(o); err != nil {
		return ID{}, fault.New(fault.Denied, "verify certificate of %s: %w", id, err)
	}
	return id, nil
}

// Box holds what a [Source] has. It is empty at first.
type Box struct{ now atomic.Pointer[content] }

type content struct {
	identity *Identity
	err      error // why there is no newer one
}

// Put replaces the identity.
func (b *Box) Put(i *Identity) { b.now.Store(&content{identity: i}) }

// Fail notes why there is no newer identity; the old one stays.
func (b *Box) Fail(err error) {
	now := content{err: err}
	if was := b.now.Load(); was != nil {
		now.identity = was.identity
	}
	b.now.Store(&now)
}

// Current implements [Source].
func (b *Box) Current() (*Identity, error) {
	now := b.now.Load()
	switch {
	case now == nil:
		return nil, fault.New(fault.Unavailable, "get identity: there is none yet")
	case now.identity == nil:
		return nil, fault.New(fault.Unavailable, "get identity: there is none yet: %w", now.err)
	}
	end := now.identity.Certificate.Leaf.NotAfter
	switch {
	case time.Now().Before(end):
		return now.identity, nil
	case now.err != nil:
		return nil, fault.New(fault.Unavailable, "get identity: that of %s has expired at %s: %w", now.identity.ID, end.Format(time.RFC3339), now.err)
	}
	return nil, fault.New(fault.Unavailable, "get identity: that of %s has expired at %s", now.identity.ID, end.Format(time.RFC3339))
}

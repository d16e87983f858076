// Package authority is a certificate authority for development and tests: it
// issues the identities of apps on one machine, or a few.
//
// [New] makes one, [Authority.Save] and [Open] keep it in a folder,
// [Authority.Issue] makes an identity in the shape that invoke/identity/files
// reads. `penstock ca` is the command for it.
//
// It promises that keys are written for their owner only, and that a file is
// replaced whole. It has no list of what it issued and cannot revoke: an identity
// ends with its lifetime.
package authority

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/invoke/identity"
)

// Authority issues identities of one trust domain.
type Authority struct {
	domain string
	cert   *x509.Certificate
	key    crypto.Signer
}

// Times are when a certificate is valid, seen from now.
type Times struct {
	// Backdate is how long ago it began, for clocks that are behind ours.
	Backdate time.Duration
	// Lifetime is how long it is valid from now on.
	Lifetime time.Duration
}

// New makes an authority with a key of its own.
func New(trustDomain string, t Times) (*Authority, error) {
	if _, err := identity.Parse(identity.ID{TrustDomain: trustDomain, Namespace: "any", App: "any"}.String()); err != nil {
		return nil, fault.New(fault.Invalid, "make authority: trust domain %.100q: want lower case letters, digits, dots, dashes, underscores", trustDomain)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fault.Wrap(err, "make key of authority")
	}
	template, err := t.template()
	if err != nil {
		return nil, err
	}
	template.Subject = pkix.Name{CommonName: "Penstock development CA of " + trustDomain}
	template.URIs = []*url.URL{{Scheme: "spiffe", Host: trustDomain}}
	template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign
	cert, err := sign(template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return &Authority{domain: trustDomain, cert: cert, key: key}, nil
}

// template holds what all certificates have.
func (t Times) template() (*x509.Certificate, error) {
	number, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fault.Wrap(err, "make serial number")
	}
	now := time.Now()
	return &x509.Certificate{SerialNumber: number, NotBefore: now.Add(-t.Backdate), NotAfter: now.Add(t.Lifetime)}, nil
}

func sign(template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) (*x509.Certificate, error) {
	raw, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		return nil, fault.Wrap(err, "sign certificate")
	}
	return x509.ParseCertificate(raw)
}

// TrustDomain is the domain of everything that is issued.
func (a *Authority) TrustDomain() string { return a.domain }

// Certificate is the authority's own.
func (a *Authority) Certificate() *x509.Certificate { return a.cert }

// Trust believes this authority, and nobody else.
func (a *Authority) Trust() identity.Trust {
	return identity.Trust{Domains: map[string]*x509.CertPool{a.domain: identity.Pool([]*x509.Certificate{a.cert})}}
}

// Sign makes the certificate of an app whose key is known to nobody here.
func (a *Authority) Sign(id identity.ID, public crypto.PublicKey, t Times) (*x509.Certificate, error) {
	if _, err := identity.Parse(id.String()); err != nil {
		return nil, err
	}
	if id.TrustDomain != a.domain {
		return nil, fault.New(fault.Invalid, "issue identity %s: this is the authority of trust domain %s", id, a.domain)
	}
	template, err := t.template()
	if err != nil {
		return nil, err
	}
	if end := a.cert.NotAfter; template.NotAfter.After(end) {
		template.NotAfter = end
	}
	template.URIs = []*url.URL{{Scheme: "spiffe", Host: id.TrustDomain, Path: "/ns/" + id.Namespace + "/" + id.App}}
	template.BasicConstraintsValid, template.KeyUsage = true, x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	return sign(template, a.cert, public, a.key)
}

// Issued is an identity with its key.
type Issued struct {
	Certificate *x509.Certificate
	Key         crypto.Signer
	authority   *x509.Certificate
}

// Issue makes the identity of an app of this trust domain.
func (a *Authority) Issue(namespace, app string, t Times) (*Issued, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fault.Wrap(err, "make key of identity")
	}
	cert, err := a.Sign(identity.ID{TrustDomain: a.domain, Namespace: namespace, App: app}, key.Public(), t)
	if err != nil {
		return nil, err
	}
	return &Issued{Certificate: cert, Key: key, authority: a.cert}, nil
}

// The files of an authority's folder and of an identity's.
const (
	CAFile    = "ca.crt"
	CAKeyFile = "ca.key"
	CertFile  = "tls.crt"
	KeyFile   = "tls.key"
)

// Save writes the authority into a folder, which it makes. It is an error of kind
// conflict when there is one already.
func (a *Authority) Save(dir string) error {
	switch _, err := os.Lstat(filepath.Join(dir, CAKeyFile)); {
	case err == nil:
		return fault.New(fault.Conflict, "write authority: %s has one already; remove it, or give another folder", dir)
	case !errors.Is(err, fs.ErrNotExist):
		return fault.Wrap(err, "write authority")
	}
	key, err := keyPEM(a.key)
	if err != nil {
		return err
	}
	return write(dir, file{CAKeyFile, key}, file{CAFile, certPEM(a.cert)})
}

// Save writes the identity and the authority to trust into a folder, which it
// makes, in place of what it held.
func (i *Issued) Save(dir string) error {
	key, err := keyPEM(i.Key)
	if err != nil {
		return err
	}
	return write(dir, file{CAFile, certPEM(i.authority)}, file{KeyFile, key}, file{CertFile, certPEM(i.Certificate)})
}

// Open reads what [Authority.Save] has written.
func Open(dir string) (*Authority, error) {
	text, err := os.ReadFile(filepath.Join(dir, CAFile))
	if err != nil {
		return nil, fault.New(fault.NotFound, "read authority: %w; `penstock ca init` makes one", err)
	}
	certs, err := identity.ParseCertificates(text)
	if err != nil {
		return nil, fault.Wrap(err, "read authority %s", filepath.Join(dir, CAFile))
	}
	if text, err = os.ReadFile(filepath.Join(dir, CAKeyFile)); err != nil {
		return nil, fault.Wrap(err, "read authority")
	}
	key, err := identity.ParseKey(text)
	if err != nil {
		return nil, fault.Wrap(err, "read authority %s", filepath.Join(dir, CAKeyFile))
	}
	if len(certs) != 1 || len(certs[0].URIs) != 1 || !certs[0].IsCA {
		return nil, fault.New(fault.Invalid, "read authority %s: want one certificate of `penstock ca init`", filepath.Join(dir, CAFile))
	}
	return &Authority{domain: certs[0].URIs[0].Host, cert: certs[0], key: key}, nil
}

func certPEM(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

func keyPEM(key crypto.Signer) ([]byte, error) {
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fault.Wrap(err, "write key")
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}), nil
}

type file struct {
	name string
	text []byte
}

// write puts files into a folder, each whole, and for their owner only.
func write(dir string, files ...file) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fault.Wrap(err, "make folder %s", dir)
	}
	for _, f := range files {
		temporary, err := os.CreateTemp(dir, "."+f.name+"-*") // 0600
		if err != nil {
			return fault.Wrap(err, "write %s", filepath.Join(dir, f.name))
		}
		_, err = temporary.Write(f.text)
		err = errors.Join(err, temporary.Close())
		if err == nil {
			err = os.Rename(temporary.Name(), filepath.Join(dir, f.name))
		}
		if err != nil {
			_ = os.Remove(temporary.Name()) // that it could not be written is what counts
			return fault.Wrap(err, "write %s", filepath.Join(dir, f.name))
		}
	}
	return nil
}

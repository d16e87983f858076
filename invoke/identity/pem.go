package identity

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"

	"github.com/penstock-io/penstock/fault"
)

// ParseCertificates reads the certificates of a PEM text, in their order. A text
// without one is an error of kind invalid.
func ParseCertificates(text []byte) (certs []*x509.Certificate, err error) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fault.New(fault.Invalid, "read certificate %d: %w", len(certs)+1, err)
		}
		certs = append(certs, c)
	}
	if len(certs) == 0 {
		return nil, fault.New(fault.Invalid, "read certificates: no PEM block CERTIFICATE in it")
	}
	return certs, nil
}

// ParseKey reads the private key of a PEM text. An error is of kind invalid and
// shows nothing of the text.
func ParseKey(text []byte) (crypto.Signer, error) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		var key any
		var err error
		switch block.Type {
		case "PRIVATE KEY":
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case "EC PRIVATE KEY":
			key, err = x509.ParseECPrivateKey(block.Bytes)
		case "RSA PRIVATE KEY":
			key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		default:
			continue
		}
		if signer, ok := key.(crypto.Signer); ok && err == nil {
			return signer, nil
		}
		return nil, fault.New(fault.Invalid, "read key: PEM block %s does not hold one", block.Type)
	}
	return nil, fault.New(fault.Invalid, "read key: no PEM block PRIVATE KEY in it")
}

// Pool makes a pool of authorities.
func Pool(certs []*x509.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, c := range certs {
		pool.AddCert(c)
	}
	return pool
}

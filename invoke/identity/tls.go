package identity

import (
	"crypto/tls"
	"crypto/x509"

	"github.com/penstock-io/penstock/fault"
)

// http2 is the one protocol that is spoken between instances.
const http2 = "h2"

// ServerConfig makes the TLS configuration of a server whose clients must prove
// who they are. Each handshake uses what the source has at that moment.
func ServerConfig(s Source) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{http2}, SessionTicketsDisabled: true, ClientAuth: tls.RequireAnyClientCert,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			now, err := s.Current()
			if err != nil {
				return nil, err
			}
			return now.Certificate, nil
		},
		VerifyConnection: func(c tls.ConnectionState) error {
			now, err := s.Current()
			if err == nil {
				_, err = now.Trust.Verify(c.PeerCertificates, x509.ExtKeyUsageClientAuth)
			}
			return err
		},
	}
}

// ClientConfig makes the TLS configuration of a client that calls one app. The
// server must prove to be that app, in the callee's trust domain; when none is
// given, it must be in our own, or in one that is believed as [Trust].Any.
func ClientConfig(s Source, callee ID) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{http2},
		InsecureSkipVerify: true, // names of hosts do not count; VerifyConnection does it all
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			now, err := s.Current()
			if err != nil {
				return nil, err
			}
			return now.Certificate, nil
		},
		VerifyConnection: func(c tls.ConnectionState) error {
			now, err := s.Current()
			if err != nil {
				return err
			}
			return now.verifyCallee(c.PeerCertificates, callee)
		},
	}
}

func (i *Identity) verifyCallee(chain []*x509.Certificate, want ID) error {
	got, err := i.Trust.Verify(chain, x509.ExtKeyUsageServerAuth)
	if err != nil {
		return err
	}
	if _, named := i.Trust.Domains[got.TrustDomain]; want.TrustDomain == "" {
		want.TrustDomain = i.ID.TrustDomain
		if !named { // it is believed as any
			want.TrustDomain = got.TrustDomain
		}
	}
	if got != want {
		return fault.New(fault.Denied, "verify certificate: it is that of %s, but %s is called", got, want)
	}
	return nil
}

package services

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	_ "embed" // for the scripts
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"time"
)

//go:embed smtp.py
var smtpScript string

//go:embed aws.py
var awsScript string

// smtp takes mails for everybody and keeps them in a Maildir.
func smtp() recipe {
	return recipe{name: "smtp", ports: 1, tools: []tool{python()}, version: pinned("aiosmtpd"), lay: func(s *Server) error {
		cert, key, err := certificate()
		err = errors.Join(err, s.write(cert, "cert.pem"), s.write(key, "key.pem"), s.write(smtpScript, "smtp.py"))
		query := url.Values{"maildir": {s.path("mail")}, "ca": {s.path("cert.pem")}}
		s.Addr = "smtp://penstock:secret@" + s.at(0) + "?" + query.Encode()
		s.node(0, hears("", "220 "), python().found(), s.path("smtp.py"), fmt.Sprint(s.ports[0]), s.path("mail"), s.path("cert.pem"), s.path("key.pem"))
		return err
	}}
}

// aws is the moto server, made to work on one request at a time. It keeps
// everything in memory: nothing is left after a stop.
func aws() recipe {
	return recipe{name: "aws", ports: 1, tools: []tool{python()}, version: pinned("moto"), lay: func(s *Server) error {
		s.Addr = "http://" + s.at(0)
		s.node(0, serves("/moto-api/"), python().found(), s.path("aws.py"), "127.0.0.1", fmt.Sprint(s.ports[0]))
		return s.write(awsScript, "aws.py")
	}}
}

// certificate makes a certificate of localhost that is its own authority.
func certificate() (cert, key string, err error) {
	pair, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", err
	}
	about := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	signed, err := x509.CreateCertificate(rand.Reader, about, about, pair.Public(), pair)
	if err != nil {
		return "", "", err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(pair)
	if err != nil {
		return "", "", err
	}
	return armour("CERTIFICATE", signed), armour("PRIVATE KEY", secret), nil
}

func armour(what string, der []byte) string {
	var b bytes.Buffer
	_ = pem.Encode(&b, &pem.Block{Type: what, Bytes: der}) // a buffer takes everything
	return b.String()
}

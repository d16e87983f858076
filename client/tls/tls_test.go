package tls_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clienttls "github.com/penstock-io/penstock/client/tls"
	"github.com/penstock-io/penstock/fault"
)

// issued is a certificate with its key, in PEM.
type issued struct {
	cert, key string
	x509      *x509.Certificate
	signer    *ecdsa.PrivateKey
}

// issue makes a certificate for a name, signed by another or by itself.
func issue(t *testing.T, name string, by *issued) *issued {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: by == nil, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	parent, signer := c, key
	if by != nil {
		parent, signer = by.x509, by.signer
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	bytes, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &issued{
		string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: bytes})), parsed, key,
	}
}

func file(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file.pem")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func options(ca, cert, key string) clienttls.Options {
	return clienttls.Options{
		CA: clienttls.Text{Option: "caCert", Value: ca}, Cert: clienttls.Text{Option: "clientCert", Value: cert},
		Key: clienttls.Text{Option: "clientKey", Value: key},
	}
}

// handshake connects to a server that wants a certificate of ca, and returns
// the name that the client showed.
func handshake(t *testing.T, server, ca *issued, o clienttls.Options, host string) (client string, err error) {
	t.Helper()
	c, err := o.Config()
	if err != nil {
		t.Fatal(err)
	}
	if c.ServerName == "" {
		c.ServerName = host
	}
	return connect(t, server, ca, c)
}

func connect(t *testing.T, server, ca *issued, c *tls.Config) (client string, err error) {
	t.Helper()
	pair, err := tls.X509KeyPair([]byte(server.cert), []byte(server.key))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca.x509)
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	_ = a.SetDeadline(time.Now().Add(20 * time.Second))
	_ = b.SetDeadline(time.Now().Add(20 * time.Second))
	done := make(chan error, 1)
	s := tls.Server(a, &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool})
	go func() {
		err := s.Handshake()
		if err == nil {
			_, err = s.Write([]byte("x"))
		}
		if err != nil {
			a.Close()
		}
		done <- err
	}()
	conn := tls.Client(b, c)
	err = conn.Handshake()
	if err == nil {
		_, err = conn.Read(make([]byte, 1)) // with TLS 1.3 a refusal comes after the handshake
	}
	if err != nil {
		b.Close()
		<-done
		return "", err
	}
	if err := <-done; err != nil {
		return "", err
	}
	return s.ConnectionState().PeerCertificates[0].Subject.CommonName, nil
}

func TestHandshake(t *testing.T) {
	t.Parallel()
	ca, other := issue(t, "ca", nil), issue(t, "other", nil)
	server, client := issue(t, "server.test", ca), issue(t, "client", ca)
	foreign := issue(t, "client", other)
	skip := options("", client.cert, client.key)
	skip.SkipVerify = true
	named := options(ca.cert, client.cert, client.key)
	named.ServerName = "server.test"
	rows := []struct {
		name string
		o    clienttls.Options
		host string
		want string // in the error; empty: it works
	}{
		{"PEM", options(ca.cert, client.cert, client.key), "server.test", ""},
		{"files", options(file(t, ca.cert), file(t, client.cert), file(t, client.key)), "server.test", ""},
		{"two authorities", options(other.cert+ca.cert, client.cert, client.key), "server.test", ""},
		{"server name", named, "10.0.0.1", ""},
		{"skip verify", skip, "else.test", ""},
		{"another host", options(ca.cert, client.cert, client.key), "else.test", "else.test"},
		{"another authority", options(other.cert, client.cert, client.key), "server.test", "unknown authority"},
		{"the system's authorities", options("", client.cert, client.key), "server.test", "unknown authority"},
		{"no certificate", options(ca.cert, "", ""), "server.test", "certificate required"},
		{"a foreign certificate", options(ca.cert, foreign.cert, foreign.key), "server.test", "certificate required"},
		{"a foreign certificate in files", options(ca.cert, file(t, foreign.cert), file(t, foreign.key)), "server.test", "certificate required"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			showed, err := handshake(t, server, ca, r.o, r.host)
			switch {
			case r.want == "" && (err != nil || showed != "client"):
				t.Errorf("showed %q, %v", showed, err)
			case r.want != "" && (err == nil || !strings.Contains(err.Error(), r.want)):
				t.Errorf("%v, want %q in it", err, r.want)
			}
		})
	}
}

// replace puts another file in the place of one, as programs do that renew
// certificates.
func replace(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		t.Fatal(err)
	}
}

func TestRenewedFiles(t *testing.T) {
	t.Parallel()
	ca := issue(t, "ca", nil)
	server, first, second := issue(t, "server.test", ca), issue(t, "first", ca), issue(t, "second", ca)
	cert, key := file(t, first.cert), file(t, first.key)
	c, err := options(ca.cert, cert, key).Config()
	if err != nil {
		t.Fatal(err)
	}
	c.ServerName = "server.test"
	expect := func(when, want string) {
		t.Helper()
		if showed, err := connect(t, server, ca, c.Clone()); err != nil || showed != want {
			t.Errorf("%s: showed %q, %v, want %q", when, showed, err, want)
		}
	}
	expect("at first", "first")
	replace(t, cert, second.cert)
	expect("with half of the new pair", "first")
	replace(t, key, "not a key")
	expect("with a broken key", "first")
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	expect("without a key", "first")
	replace(t, key, second.key)
	expect("with the new pair", "second")
	replace(t, cert, first.cert)
	replace(t, key, first.key)
	expect("with the old pair", "first")
}

func TestErrorsNameTheOption(t *testing.T) {
	t.Parallel()
	a, b := issue(t, "a", nil), issue(t, "b", nil)
	bare := strings.Join(strings.Split(a.key, "\n")[1:3], "") // the key without its lines of PEM
	rows := []struct {
		name string
		o    clienttls.Options
		kind fault.Kind
		want string
	}{
		{"no such file", options("no/such.pem", "", ""), fault.NotFound, "caCert"},
		{"no PEM in the file", options(file(t, "text"), "", ""), fault.Invalid, "caCert"},
		{"no certificate", options(a.key, "", ""), fault.Invalid, "caCert"},
		{"cut off", options("-----BEGIN CERTIFICATE-----\n", "", ""), fault.Invalid, "caCert"},
		{"lines that are no PEM", options("a\nb", "", ""), fault.Invalid, "caCert"},
		{"no key", options("", a.cert, ""), fault.Invalid, "clientKey"},
		{"no certificate for the key", options("", "", a.key), fault.Invalid, "clientCert"},
		{"not a pair", options("", a.cert, b.key), fault.Invalid, "clientCert and clientKey"},
		{"a key for a certificate", options("", a.key, a.key), fault.Invalid, "clientCert and clientKey"},
		{"a key without its lines", options("", a.cert, bare), fault.NotFound, "clientKey"},
	}
	for _, r := range rows {
		_, err := r.o.Config()
		if err == nil || fault.KindOf(err) != r.kind || !strings.Contains(err.Error(), r.want) {
			t.Errorf("%s: %v, want kind %v and %q in it", r.name, err, r.kind, r.want)
			continue
		}
		if strings.Contains(err.Error(), bare[:20]) {
			t.Errorf("%s: the error shows the key: %v", r.name, err)
		}
	}
}

func TestCheckReadsNoFile(t *testing.T) {
	t.Parallel()
	a, b := issue(t, "a", nil), issue(t, "b", nil)
	for name, o := range map[string]clienttls.Options{
		"files": options("no/such.pem", "no/such.pem", "no/such.pem"), "a file for the key": options(a.cert, a.cert, "no/such.pem"),
		"a pair": options(a.cert, a.cert, a.key), "nothing": options("", "", ""),
	} {
		if err := o.Check(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, o := range map[string]clienttls.Options{
		"no key": options("", "no/such.pem", ""), "no certificate": options("", "", "no/such.pem"),
		"not a pair": options("", a.cert, b.key), "no certificate in it": options(a.key, "", ""), "cut off": options("", "-----BEGIN CERTIFICATE-----", a.key),
	} {
		if err := o.Check(); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%s: %v, want invalid", name, err)
		}
	}
}

func TestZero(t *testing.T) {
	t.Parallel()
	if o := options("", "", ""); !o.IsZero() {
		t.Error("options without values are not zero")
	}
	if o := (clienttls.Options{SkipVerify: true}); o.IsZero() {
		t.Error("an option that is set counts as none")
	}
}

package rabbitmq

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/pubsub"
	"github.com/penstock-io/penstock/test/conform"
)

// certificate is one that is its own authority, for 127.0.0.1, with its key.
type certificate struct {
	cert, key string // as PEM
	pair      tls.Certificate
}

func newCertificate(t *testing.T) certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return certificate{
		cert: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		key:  string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})),
		pair: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key},
	}
}

// terminate takes TLS before a server, from clients that show a certificate of
// an authority, and returns the URL.
func terminate(t *testing.T, server string, own certificate, clients string) string {
	t.Helper()
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(clients))
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{own.pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool,
	})
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	to := u.Host
	work.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			work.Go(func() { pipe(conn, to) })
		}
	})
	t.Cleanup(func() { l.Close(); work.Wait() })
	u.Scheme, u.Host = "amqps", l.Addr().String()
	return u.String()
}

// pipe moves bytes both ways until either side ends.
func pipe(conn net.Conn, to string) {
	defer conn.Close()
	server, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer server.Close()
	done := make(chan struct{}, 2)
	for _, way := range [][2]net.Conn{{conn, server}, {server, conn}} {
		go func() { _, _ = io.Copy(way[0], way[1]); done <- struct{}{} }()
	}
	<-done
	conn.Close()
	server.Close()
	<-done
}

// secured speaks TLS with a server that wants to see a certificate.
func secured(t *testing.T, url string) {
	own, ours, foreign := newCertificate(t), newCertificate(t), newCertificate(t)
	through := terminate(t, url, own, ours.cert)
	file := func(text string) string {
		name := filepath.Join(t.TempDir(), "x.pem")
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	for name, row := range map[string]struct {
		options map[string]string
		want    string // in the error
	}{
		"certificates as text":    {map[string]string{"caCert": own.cert, "clientCert": ours.cert, "clientKey": ours.key}, ""},
		"certificates as files":   {map[string]string{"caCert": file(own.cert), "clientCert": file(ours.cert), "clientKey": file(ours.key)}, ""},
		"the system's":            {map[string]string{"clientCert": ours.cert, "clientKey": ours.key}, "certificate signed by unknown authority"},
		"another authority":       {map[string]string{"caCert": foreign.cert, "clientCert": ours.cert, "clientKey": ours.key}, "certificate signed by unknown authority"},
		"none shown":              {map[string]string{"caCert": own.cert}, "certificate required"},
		"one of nobody is shown":  {map[string]string{"caCert": own.cert, "clientCert": foreign.cert, "clientKey": foreign.key}, "certificate"},
		"a key of something else": {map[string]string{"caCert": own.cert, "clientCert": ours.cert, "clientKey": foreign.key}, "read clientCert and clientKey"},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := tryOpen(t.Context(), through, row.options)
			if row.want != "" {
				if err == nil {
					shut(t, d)
				}
				if err == nil || !strings.Contains(err.Error(), row.want) || fault.Retriable(err) {
					t.Errorf("opened with %v (%v), want a lasting error with %q", err, fault.KindOf(err), row.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer shut(t, d)
			topic := conform.Unique(t)
			m := subscribe(t, d, pubsub.Subscription{Topic: topic})
			bus(t, url, pubsub.Subscription{Topic: topic}, nil)
			send(t, d, topic, text("1"), text(strings.Repeat("2", 300_000)))
			m.want(t, "1").Settle(cloudevents.Acked())
			m.want(t, strings.Repeat("2", 300_000)).Settle(cloudevents.Acked())
		})
	}
	plain := strings.Replace(through, "amqps", "amqp", 1)
	if d, err := tryOpen(t.Context(), plain, nil); err == nil {
		shut(t, d)
		t.Error("opened without TLS")
	}
}

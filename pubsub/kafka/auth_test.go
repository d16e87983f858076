package kafka

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"maps"
	"math/big"
	"net"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/pubsub"
	"github.com/penstock-io/penstock/test/conform"
)

// TestAuth proves who it is in each way, and wrongly.
func TestAuth(t *testing.T) {
	t.Parallel()
	ca, cert := certificate(t)
	server := kfake.TLS(&tls.Config{Certificates: []tls.Certificate{cert}})
	sasl := func(method string) []kfake.Opt {
		return []kfake.Opt{kfake.EnableSASL(), kfake.Superuser(method, "me", "secret")}
	}
	user := func(mechanism string) map[string]string {
		return map[string]string{
			"authType": "password", "saslUsername": "me", "saslPassword": "secret", "saslMechanism": mechanism, "disableTls": "true",
		}
	}
	for name, row := range map[string]struct {
		broker  []kfake.Opt
		options map[string]string
		wrong   map[string]string
	}{
		"plain":         {sasl("PLAIN"), user("PLAINTEXT"), map[string]string{"saslPassword": "guess"}},
		"scram sha 256": {sasl("SCRAM-SHA-256"), user("SHA-256"), map[string]string{"saslPassword": "guess"}},
		"scram sha 512": {sasl("SCRAM-SHA-512"), user("SHA-512"), map[string]string{"saslPassword": "guess"}},
		"tls":           {[]kfake.Opt{server}, map[string]string{"authType": "certificate", "caCert": ca}, map[string]string{"caCert": other(t)}},
		"plain over tls": {
			append(sasl("PLAIN"), server),
			map[string]string{"authType": "password", "saslUsername": "me", "saslPassword": "secret", "caCert": ca},
			map[string]string{"saslPassword": "guess"},
		},
		"any certificate": {[]kfake.Opt{server}, map[string]string{"authType": "certificate", "caCert": other(t), "skipVerify": "true"}, map[string]string{"skipVerify": "false"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := cluster(t, row.broker...)
			brokers, topic := addresses(c), conform.Unique(t)
			d := opened(t, brokers, row.options)
			defer shut(t, d)
			prepare(t, d, topic)
			m := subscribe(t, d, pubsub.Subscription{Topic: topic})
			send(t, d, topic, text("1"))
			m.want(t, "1").Settle(cloudevents.Acked())
			m.end(t)

			refuse(c)
			options := maps.Clone(row.options)
			maps.Copy(options, row.wrong)
			if wrong, err := tryOpen(t.Context(), brokers, options); fault.KindOf(err) != fault.Denied {
				t.Errorf("opened with %v: %v, want it to be denied", row.wrong, err)
				if err == nil {
					shut(t, wrong)
				}
			}
		})
	}
}

// refuse has the cluster answer to SASL as brokers do when they do not like what
// they see; the cluster would only close the connection.
func refuse(c *kfake.Cluster) {
	c.ControlKey(int16(kmsg.SASLAuthenticate), func(req kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		answer := req.ResponseKind().(*kmsg.SASLAuthenticateResponse)
		answer.ErrorCode = int16(kafka.SASLAuthenticationFailed)
		return answer, nil, true
	})
}

// certificate is one that signs itself, for 127.0.0.1.
func certificate(t *testing.T) (ca string, cert tls.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	about := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, about, about, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	ca = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return ca, tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// other is the certificate of somebody else.
func other(t *testing.T) string {
	t.Helper()
	ca, _ := certificate(t)
	return ca
}

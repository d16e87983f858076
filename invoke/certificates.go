package invoke

import (
	"crypto/tls"
	"strings"

	clienttls "github.com/penstock-io/penstock/client/tls"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
)

// Certificates are what an endpoint needs for TLS. Each text is PEM, or empty.
type Certificates struct {
	// RootCA are the certificates to trust instead of the system's.
	RootCA string
	// Certificate and PrivateKey are what to show; they go together.
	Certificate, PrivateKey string
	// Renegotiation is a word of [config.Renegotiations], in any case; empty: never.
	Renegotiation string
}

// TLS returns the configuration for [EndpointOptions], nil when nothing is asked
// for. What cannot be used is an error of kind invalid that names the field of
// spec.clientTLS and shows nothing of what it holds.
func (c Certificates) TLS() (*tls.Config, error) {
	if c == (Certificates{}) {
		return nil, nil
	}
	o := clienttls.Options{
		CA:   clienttls.Text{Option: "clientTLS." + config.RootCA, Value: c.RootCA},
		Cert: clienttls.Text{Option: "clientTLS." + config.Certificate, Value: c.Certificate},
		Key:  clienttls.Text{Option: "clientTLS." + config.PrivateKey, Value: c.PrivateKey},
	}
	for _, t := range []clienttls.Text{o.CA, o.Cert, o.Key} {
		// There, a text that is not PEM is the path of a file.
		if t.Value != "" && !strings.Contains(t.Value, "-----BEGIN ") {
			return nil, fault.New(fault.Invalid, "read %s: it is not PEM", t.Option)
		}
	}
	out, err := o.Config()
	if err != nil {
		return nil, err
	}
	if out.Renegotiation, err = renegotiation(c.Renegotiation); err != nil {
		return nil, err
	}
	return out, nil
}

func renegotiation(word string) (tls.RenegotiationSupport, error) {
	ways := []tls.RenegotiationSupport{tls.RenegotiateNever, tls.RenegotiateOnceAsClient, tls.RenegotiateFreelyAsClient}
	for i, known := range config.Renegotiations() {
		if strings.EqualFold(word, known) {
			return ways[i], nil
		}
	}
	if word == "" {
		return tls.RenegotiateNever, nil
	}
	return 0, fault.New(fault.Invalid, "read clientTLS.renegotiation %.80q: want one of %s", word, strings.Join(config.Renegotiations(), ", "))
}

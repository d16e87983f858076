// Package tls makes the TLS configuration of a client out of a component's
// options: which certificates to trust, which one to show, whom to expect.
//
// A component fills in [Options], with the names that its own options have,
// calls Check where it checks its own, and Config when it opens. A text is PEM itself or the path of a PEM file.
//
// Promises: TLS 1.2 at least. An error names the option that is to blame and
// never shows what stands in the option of a key. The files of a certificate to
// show and of its key are read again for a new connection when they changed;
// what changed and cannot be used leaves the pair from before. The certificates
// to trust are read once, by Config.
package tls

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"strings"

	"github.com/penstock-io/penstock/fault"
)

// Text is the value of an option, PEM or the path of a PEM file, with the
// option's name for errors. An empty value is none.
type Text struct{ Option, Value string }

// Options say how a client does TLS. The zero value is as usual: the
// certificates that the system trusts, and none to show.
type Options struct {
	// CA are the certificates to trust instead of the system's.
	CA Text
	// Cert and Key are what to show; they go together.
	Cert, Key Text
	// ServerName is whom the server's certificate must be for; empty: the host
	// that is dialled.
	ServerName string
	// SkipVerify takes any certificate of the server.
	SkipVerify bool
}

// IsZero tells whether everything is as usual.
func (o Options) IsZero() bool {
	return o.CA.Value == "" && o.Cert.Value == "" && o.Key.Value == "" && o.ServerName == "" && !o.SkipVerify
}

// Check finds what is wrong without reading a file, for component.Checker.
func (o Options) Check() error {
	if o.CA.isFile() {
		o.CA.Value = ""
	}
	if o.Cert.isFile() && o.Key.Value != "" || o.Key.isFile() && o.Cert.Value != "" {
		o.Cert.Value, o.Key.Value = "", ""
	}
	_, err := o.Config()
	return err
}

// Config makes a configuration, which the caller may change. Kinds: NotFound or
// Denied for a file that cannot be read, Invalid for what is no certificate or
// key, or not a pair.
func (o Options) Config() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: o.ServerName, InsecureSkipVerify: o.SkipVerify}
	if o.CA.Value != "" {
		text, err := o.CA.read(false)
		if err != nil {
			return nil, err
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(text) {
			return nil, fault.New(fault.Invalid, "read %s: no certificate in it", o.CA.Option)
		}
	}
	switch {
	case o.Cert.Value == "" && o.Key.Value == "":
		return c, nil
	case o.Key.Value == "":
		return nil, fault.New(fault.Invalid, "read %s: it needs %s as well", o.Cert.Option, o.Key.Option)
	case o.Cert.Value == "":
		return nil, fault.New(fault.Invalid, "read %s: it needs %s as well", o.Key.Option, o.Cert.Option)
	}
	if o.Cert.isFile() || o.Key.isFile() {
		r, err := o.newRenewing()
		if err != nil {
			return nil, err
		}
		c.Certificates, c.GetClientCertificate = []tls.Certificate{*r.pair}, r.get
		return c, nil
	}
	pair, err := o.pair()
	if err != nil {
		return nil, err
	}
	c.Certificates = []tls.Certificate{pair}
	return c, nil
}

func (o Options) pair() (tls.Certificate, error) {
	cert, err := o.Cert.read(false)
	if err != nil {
		return tls.Certificate{}, err
	}
	key, err := o.Key.read(true)
	if err != nil {
		return tls.Certificate{}, err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil { // none of its texts has a part of the key
		return pair, fault.New(fault.Invalid, "read %s and %s: %w", o.Cert.Option, o.Key.Option, err)
	}
	return pair, nil
}

func (t Text) isFile() bool { return t.Value != "" && !strings.Contains(t.Value, "-----BEGIN ") }

// Read returns the PEM of an option that is no secret.
func (t Text) Read() ([]byte, error) { return t.read(false) }

// read returns the PEM of an option. Of a secret one, and of what is too long
// for a path, nothing is shown: it may be a key in a wrong form.
func (t Text) read(secret bool) ([]byte, error) {
	if !t.isFile() {
		return []byte(t.Value), nil
	}
	if strings.Contains(t.Value, "\n") || len(t.Value) > 1000 {
		return nil, fault.New(fault.Invalid, "read %s: it is neither PEM nor the path of a file", t.Option)
	}
	data, err := os.ReadFile(t.Value)
	if err != nil {
		if pe, ok := errors.AsType[*fs.PathError](err); ok && secret {
			err = pe.Err
		}
		return nil, fault.Wrap(err, "read %s, which is not PEM, as a file", t.Option)
	}
	if b, _ := pem.Decode(data); b == nil {
		return nil, fault.New(fault.Invalid, "read %s: no PEM in the file", t.Option)
	}
	return data, nil
}

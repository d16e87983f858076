// Package rabbitmq is the connection to RabbitMQ, and to whatever else speaks
// AMQP 0-9-1, that the components of one server and identity share.
//
// [Open] gives a [Client]. It has two connections, since the server stops
// reading from one that publishes too much: one that publishes, on a few channels
// in confirm mode, and one that consumes, with a channel for each [Reader.Read].
// A connection that is lost is made again for ever, with a growing pause of at
// most Config.ReconnectWait.
//
// Promises: [Client.Publish] returns nil for a message only when the server has
// confirmed it and, where it is mandatory, put it into a queue. An
// acknowledgement goes to the channel that the message came from or to none. A
// message that is to be tried again is confirmed in another queue, from which the
// server brings it back after the delay, before it is acknowledged in its own.
//
// Bounds: 4 publishing channels of 256 messages without a confirm each; a
// consumer holds its prefetch; at most 10 retry queues for each power of ten of
// the delay beside every queue, which the server deletes ten minutes after their
// last use.
package rabbitmq

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/url"
	"os"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
)

// Options are those that all components of RabbitMQ have.
type Options struct {
	CACert     string           `meta:"caCert"     doc:"Certificates to trust, as PEM or the path of a PEM file; those of the system when empty."`
	ClientCert string           `meta:"clientCert" doc:"Certificate to show, as PEM or the path of a PEM file."`
	ClientKey  component.Secret `meta:"clientKey"  doc:"Key of clientCert, as PEM or the path of a PEM file."`
	ClientName string           `meta:"clientName" doc:"Name of the connections in the server's tools; penstock and the app id when empty."`
	HeartBeat  time.Duration    `meta:"heartBeat"  default:"10s" doc:"How often each side tells that it is there; a connection that is silent for twice as long is given up."`
}

// Config says what to connect to and how.
type Config struct {
	Options
	// URL is amqp://user:password@host:port/vhost, or amqps://.
	URL string
	// External takes the identity from the client certificate.
	External bool
	// ReconnectWait is the longest pause between two tries to connect.
	ReconnectWait time.Duration
}

// Check returns what is wrong, naming the options: url is what the component
// calls the URL, external what it calls External.
func (c Config) Check(url, external string) error {
	var errs []error
	u, err := parse(c.URL)
	if err != nil {
		errs = append(errs, component.OptionErrorf(url, "%w", err))
	}
	if (c.ClientCert == "") != c.ClientKey.IsZero() {
		errs = append(errs, component.OptionErrorf("clientCert", "clientCert and clientKey go together"))
	}
	if c.External && (c.ClientCert == "" || err == nil && u.Scheme != "amqps") {
		errs = append(errs, component.OptionErrorf(external, "needs an amqps address, clientCert and clientKey"))
	}
	if c.HeartBeat < time.Second {
		errs = append(errs, component.OptionErrorf("heartBeat", "must be at least 1s"))
	}
	return errors.Join(errs...)
}

// parse reads a URL. Its errors do not show the password.
func parse(text string) (amqp.URI, error) {
	u, err := amqp.ParseURI(text)
	if err == nil {
		return u, nil
	}
	if _, ok := errors.AsType[*url.Error](err); ok {
		return u, errors.New("it cannot be read: escape reserved characters in user and password as in %40")
	}
	if strings.Contains(err.Error(), text) {
		return u, errors.New("it cannot be read")
	}
	return u, err
}

// tls returns how to secure a connection of a scheme; nil when not at all.
func (c Config) tls(u amqp.URI) (*tls.Config, error) {
	if u.Scheme != "amqps" {
		return nil, nil
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: u.Host}
	if u.ServerName != "" {
		conf.ServerName = u.ServerName
	}
	if c.CACert != "" {
		text, err := pemText("caCert", c.CACert)
		if err != nil {
			return nil, err
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(text) {
			return nil, fault.New(fault.Invalid, "read caCert: no certificate in it")
		}
	}
	if c.ClientCert == "" {
		return conf, nil
	}
	cert, err := pemText("clientCert", c.ClientCert)
	if err != nil {
		return nil, err
	}
	key, err := pemText("clientKey", c.ClientKey.Reveal())
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fault.New(fault.Invalid, "read clientCert and clientKey: %w", err)
	}
	conf.Certificates = []tls.Certificate{pair}
	return conf, nil
}

// pemText returns the text of an option that holds PEM or the path of a file.
func pemText(option, value string) ([]byte, error) {
	if strings.Contains(value, "-----BEGIN ") {
		return []byte(value), nil
	}
	data, err := os.ReadFile(value)
	if err != nil {
		if strings.ContainsAny(value, "\n") || len(value) > 1000 { // not a path, and maybe a key
			return nil, fault.New(fault.Invalid, "read %s: it is neither PEM nor the path of a file", option)
		}
		return nil, fault.Wrap(err, "read %s", option)
	}
	if b, _ := pem.Decode(data); b == nil {
		return nil, fault.New(fault.Invalid, "read %s: no PEM in the file", option)
	}
	return data, nil
}

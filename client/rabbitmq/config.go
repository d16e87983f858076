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
	"errors"
	"net/url"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	clienttls "github.com/penstock-io/penstock/client/tls"
	"github.com/penstock-io/penstock/component"
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
	o := clienttls.Options{
		CA:         clienttls.Text{Option: "caCert", Value: c.CACert},
		Cert:       clienttls.Text{Option: "clientCert", Value: c.ClientCert},
		Key:        clienttls.Text{Option: "clientKey", Value: c.ClientKey.Reveal()},
		ServerName: u.Host,
	}
	if u.ServerName != "" {
		o.ServerName = u.ServerName
	}
	return o.Config()
}

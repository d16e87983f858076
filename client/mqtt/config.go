// Package mqtt is what the components of MQTT share: connections of version
// 3.1.1 and 5, a publisher, sessions that the server keeps, and the agreement of
// several processes about who reads.
//
// A component embeds [Options] in its own, makes a [Config] of them and calls
// [Open]. [Client.Publish] publishes, [Client.Read] reads one topic filter for a
// group.
//
// Promises: what is published with QoS 1 or 2 is with the server when Publish
// returns. A message that was read is acknowledged when it is settled, in the
// order in which the server sent them, as the protocol asks; one that is to be
// tried again is kept here, and its acknowledgement held back. What the server
// sends again after a lost connection is not handed out again while it is held
// here. Of the processes of a group one reads; another takes over when it ends,
// at once, or when it has not been heard of for four seconds.
//
// Bounds: 256 messages (maxInFlight) of a subscription without an
// acknowledgement, 256 publishes without an answer for each connection.
package mqtt

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	v3 "github.com/eclipse/paho.mqtt.golang"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
)

// Options are those that all components of MQTT have.
type Options struct {
	URL          component.Secret `meta:"url,required" doc:"The server as scheme://user:password@host:port; the scheme is mqtt or tcp, mqtts, ssl or tls, ws or wss." example:"mqtt://localhost:1883"`
	CACert       string           `meta:"caCert"     doc:"Certificates to trust, as PEM or the path of a PEM file; those of the system when empty."`
	ClientCert   string           `meta:"clientCert" doc:"Certificate to show, as PEM or the path of a PEM file."`
	ClientKey    component.Secret `meta:"clientKey"  doc:"Key of clientCert, as PEM or the path of a PEM file."`
	QoS          int              `meta:"qos"        doc:"Quality of service of publishing and subscribing: 0, 1 or 2. With 0 the server keeps nothing and messages get lost." default:"1"`
	Retain       bool             `meta:"retain"     doc:"Has the server keep the last message of each topic for new subscribers. Metadata retain of a message says it for that one." default:"false"`
	CleanSession bool             `meta:"cleanSession" doc:"Has the server forget the subscription when the connection ends: what is published meanwhile is lost, and each process of a group gets all messages." default:"false"`
	MaxInFlight  int              `meta:"maxInFlight" doc:"Most messages of a subscription without an acknowledgement." default:"256"`
	LeaseTopic   string           `meta:"leaseTopic" doc:"Topic below which the processes of a group agree who of them reads. With none they do not: then each needs a consumerID of its own." default:"penstock/lease"`
}

// Check implements component.Checker.
func (o Options) Check() error {
	var errs []error
	if _, err := o.parse(); err != nil {
		errs = append(errs, component.OptionErrorf("url", "%w", err))
	}
	if (o.ClientCert == "") != o.ClientKey.IsZero() {
		errs = append(errs, component.OptionErrorf("clientCert", "clientCert and clientKey go together"))
	}
	if o.QoS < 0 || o.QoS > 2 {
		errs = append(errs, component.OptionErrorf("qos", "must be 0, 1 or 2"))
	}
	if o.MaxInFlight < 1 || o.MaxInFlight > 65535 {
		errs = append(errs, component.OptionErrorf("maxInFlight", "must be between 1 and 65535"))
	}
	if CheckTopic(o.LeaseTopic) != nil {
		errs = append(errs, component.OptionErrorf("leaseTopic", "must be a topic without wildcards, or none"))
	}
	return errors.Join(errs...)
}

// Config says what to connect to and how.
type Config struct {
	Options
	// Version of the protocol: 3 is 3.1.1, 5 is 5.
	Version int
	// Expiry is how long the server keeps a session without a connection; 0 is
	// for ever. Version 5 only: before it the server alone decides.
	Expiry time.Duration
}

// key tells publishers apart that can be shared.
func (c Config) key() string {
	v := "mqtt3"
	if c.Version == 5 {
		v = "mqtt5"
	}
	return strings.Join([]string{v, c.URL.Reveal(), c.CACert, c.ClientCert, c.ClientKey.Reveal()}, "\x00")
}

// parse reads the URL. Its errors do not show the password.
func (o Options) parse() (*url.URL, error) {
	text := o.URL.Reveal()
	if !strings.Contains(text, "://") {
		text = "mqtt://" + text
	}
	u, err := url.Parse(text)
	if err != nil {
		return nil, errors.New("it cannot be read: escape reserved characters in user and password as in %40")
	}
	if u.Hostname() == "" {
		return nil, errors.New("it has no host")
	}
	port, ok := ports()[u.Scheme]
	if !ok {
		return nil, errors.New("its scheme must be mqtt, tcp, mqtts, ssl, tls, ws or wss")
	}
	if u.Port() == "" {
		u.Host = net.JoinHostPort(u.Hostname(), port)
	}
	return u, nil
}

// ports are the usual ones of the schemes.
func ports() map[string]string {
	return map[string]string{
		"mqtt": "1883", "tcp": "1883", "mqtts": "8883", "ssl": "8883", "tls": "8883", "tcps": "8883", "mqtt+ssl": "8883",
		"ws": "80", "wss": "443",
	}
}

// secure tells whether a scheme has TLS.
func secure(scheme string) bool { return ports()[scheme] == "8883" || scheme == "wss" }

// tls returns how to secure connections; nil when not at all.
func (c Config) tls(u *url.URL) (*tls.Config, error) {
	if !secure(u.Scheme) {
		return nil, nil
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: u.Hostname()}
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
		if strings.Contains(value, "\n") || len(value) > 1000 { // not a path, and maybe a key
			return nil, fault.New(fault.Invalid, "read %s: it is neither PEM nor the path of a file", option)
		}
		return nil, fault.Wrap(fault.As(fault.Invalid, err), "read %s", option)
	}
	if b, _ := pem.Decode(data); b == nil {
		return nil, fault.New(fault.Invalid, "read %s: no PEM in the file", option)
	}
	return data, nil
}

const connectTimeout = 5 * time.Second

// network opens the network connection. TCP itself finds out within half a
// minute that the other side is gone.
func (c Config) network(ctx context.Context) (*parting, error) {
	conn, err := c.connect(ctx)
	if err != nil {
		return nil, err
	}
	return &parting{Conn: conn}, nil
}

func (c Config) connect(ctx context.Context) (net.Conn, error) {
	u, err := c.parse()
	if err != nil {
		return nil, fault.New(fault.Invalid, "read url: %w", err)
	}
	conf, err := c.tls(u)
	if err != nil {
		return nil, err
	}
	if u.Scheme == "ws" || u.Scheme == "wss" {
		u.User = nil
		return v3.NewWebsocket(u.String(), conf, connectTimeout, nil, nil)
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	d := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 4}}
	if conf == nil {
		return d.DialContext(ctx, "tcp", u.Host)
	}
	return (&tls.Dialer{NetDialer: &d, Config: conf}).DialContext(ctx, "tcp", u.Host)
}

// user returns the name and password of the URL.
func (c Config) user() (name, password string) {
	u, err := c.parse()
	if err != nil || u.User == nil {
		return "", ""
	}
	password, _ = u.User.Password()
	return u.User.Username(), password
}

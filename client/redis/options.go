package redis

import (
	"crypto/tls"
	"errors"
	"net"
	"strconv"
	"strings"
	"time"

	clienttls "github.com/penstock-io/penstock/client/tls"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
)

// Options are the settings of a connection, shared by all components of Redis:
// a component's options struct embeds them. They are those of Dapr. As there, a
// bare number in a duration is milliseconds.
type Options struct {
	RedisHost             string           `meta:"redisHost,required"    doc:"Where the server is; several, comma separated, of a cluster or of sentinels." example:"localhost:6379"`
	RedisPort             int              `meta:"redisPort"             doc:"Port of hosts that name none; 6379 when empty."`
	RedisUsername         string           `meta:"redisUsername"         doc:"User of the access control list; the default user when empty."`
	RedisPassword         component.Secret `meta:"redisPassword"         doc:"Password; none when empty."`
	RedisDB               int              `meta:"redisDB"               default:"0"     doc:"Number of the database; a cluster has only 0."`
	RedisType             string           `meta:"redisType"             default:"node"  doc:"What the server is." enum:"node|cluster"`
	Failover              bool             `meta:"failover"              default:"false" doc:"Ask the sentinels in redisHost which server is the master; sentinelMasterName names it."`
	SentinelMasterName    string           `meta:"sentinelMasterName"    doc:"The sentinels' name of the master."`
	SentinelUsername      string           `meta:"sentinelUsername"      doc:"User at the sentinels."`
	SentinelPassword      component.Secret `meta:"sentinelPassword"      doc:"Password at the sentinels."`
	EnableTLS             bool             `meta:"enableTLS"             default:"false" doc:"Connect with TLS."`
	InsecureSkipTLSVerify bool             `meta:"insecureSkipTLSVerify" default:"false" doc:"Take any certificate of the server. For tests only."`
	CACert                string           `meta:"caCert"                doc:"Certificates that the server's must be signed by, as PEM or the path of a PEM file; those of the system when empty. Dapr has none."`
	ClientCert            string           `meta:"clientCert"            doc:"Certificate to show to the server, as PEM or the path of a PEM file."`
	ClientKey             component.Secret `meta:"clientKey"             doc:"Key of clientCert, as PEM or the path of a PEM file."`
	DialTimeout           string           `meta:"dialTimeout"           default:"5s"    doc:"Longest time to connect; a bare number is milliseconds."`
	ReadTimeout           string           `meta:"readTimeout"           default:"3s"    doc:"Longest wait for an answer, then the connection is made anew; a bare number is milliseconds, -1 is 10s."`
	UseEntraID            bool             `meta:"useEntraID"            alias:"useAzureAD" default:"false" doc:"Not supported: true is refused, since the server would refuse the connection."`
	UseOIDC               bool             `meta:"useOIDC"               default:"false" doc:"Not supported: true is refused, since the server would refuse the connection."`

	WriteTimeout            component.Ignored `meta:"writeTimeout"            doc:"Writing has the time of readTimeout."`
	RedisMaxRetries         component.Ignored `meta:"redisMaxRetries"         doc:"What failed is tried again by the policy or by whoever called, which know whether that is safe."`
	RedisMinRetryInterval   component.Ignored `meta:"redisMinRetryInterval"   doc:"The connection does not try again by itself."`
	RedisMaxRetryInterval   component.Ignored `meta:"redisMaxRetryInterval"   doc:"The connection does not try again by itself."`
	MaxRetries              component.Ignored `meta:"maxRetries"              doc:"An old name of redisMaxRetries."`
	MaxRetryBackoff         component.Ignored `meta:"maxRetryBackoff"         doc:"An old name of redisMaxRetryInterval."`
	PoolSize                component.Ignored `meta:"poolSize"                doc:"Commands of all callers share a few connections; each reader has one of its own."`
	PoolTimeout             component.Ignored `meta:"poolTimeout"             doc:"Nobody waits for a connection."`
	MinIdleConns            component.Ignored `meta:"minIdleConns"            doc:"There is no pool to keep filled."`
	MaxConnAge              component.Ignored `meta:"maxConnAge"              doc:"Connections are watched and replaced when they break."`
	IdleCheckFrequency      component.Ignored `meta:"idleCheckFrequency"      doc:"Connections are watched and replaced when they break."`
	IdleTimeout             component.Ignored `meta:"idleTimeout"             doc:"Connections are watched and replaced when they break."`
	OidcTokenEndpoint       component.Ignored `meta:"oidcTokenEndpoint"       doc:"Belongs to useOIDC."`
	OidcClientID            component.Ignored `meta:"oidcClientID"            doc:"Belongs to useOIDC."`
	OidcClientAssertionCert component.Ignored `meta:"oidcClientAssertionCert" doc:"Belongs to useOIDC."`
	OidcClientAssertionKey  component.Ignored `meta:"oidcClientAssertionKey"  doc:"Belongs to useOIDC."`
	OidcResource            component.Ignored `meta:"oidcResource"            doc:"Belongs to useOIDC."`
	OidcAudience            component.Ignored `meta:"oidcAudience"            doc:"Belongs to useOIDC."`
	OidcKid                 component.Ignored `meta:"oidcKid"                 doc:"Belongs to useOIDC."`
	OidcScopes              component.Ignored `meta:"oidcScopes"              doc:"Belongs to useOIDC."`
	OidcCACert              component.Ignored `meta:"oidcCACert"              doc:"Belongs to useOIDC."`
}

const defaultPort = 6379

// Check finds wrong values and combinations; a component's own Check calls it.
func (o Options) Check() error {
	var errs []error
	wrong := func(option, format string, args ...any) {
		errs = append(errs, component.OptionErrorf(option, format, args...))
	}
	if o.RedisPort < 0 || o.RedisPort > 65535 {
		wrong("redisPort", "must be between 0 and 65535")
	} else if _, err := o.addresses(); err != nil {
		wrong("redisHost", "%w", err)
	}
	if o.RedisDB < 0 {
		wrong("redisDB", "must not be negative")
	}
	if o.RedisType == "cluster" && (o.RedisDB != 0 || o.Failover) {
		wrong("redisType", "a cluster has neither redisDB nor failover")
	}
	if o.Failover && o.SentinelMasterName == "" {
		wrong("failover", "needs sentinelMasterName")
	}
	if o.UseEntraID {
		wrong("useEntraID", "is not supported; use redisUsername and redisPassword")
	}
	if o.UseOIDC {
		wrong("useOIDC", "is not supported; use redisUsername and redisPassword")
	}
	for option, text := range map[string]string{"dialTimeout": o.DialTimeout, "readTimeout": o.ReadTimeout} {
		if _, err := Duration(text); err != nil {
			wrong(option, "%w", err)
		}
	}
	if err := o.secure().Check(); err != nil {
		wrong("clientCert", "%w", err)
	}
	return errors.Join(errs...)
}

// Duration reads a duration as Dapr's components of Redis do: a bare number is
// milliseconds.
func Duration(text string) (time.Duration, error) {
	if n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64); err == nil {
		return time.Duration(n) * time.Millisecond, nil
	}
	return config.ParseDuration(text)
}

// positive is the duration of a checked option, or a default when it is none.
func positive(text string, or time.Duration) time.Duration {
	if d, err := Duration(text); err == nil && d > 0 {
		return d
	}
	return or
}

func (o Options) addresses() ([]string, error) {
	port := o.RedisPort
	if port == 0 {
		port = defaultPort
	}
	var all []string
	for host := range strings.SplitSeq(o.RedisHost, ",") {
		host = strings.TrimSpace(host)
		if host == "" {
			continue
		}
		_, own, err := net.SplitHostPort(host)
		switch {
		case err != nil:
			host = net.JoinHostPort(strings.Trim(host, "[]"), strconv.Itoa(port))
		case o.RedisPort != 0 && own != strconv.Itoa(o.RedisPort):
			return nil, errors.New("has a port, and redisPort another; leave one of them out")
		}
		all = append(all, host)
	}
	if len(all) == 0 {
		return nil, errors.New("has no host")
	}
	return all, nil
}

// secure is what the options say about TLS.
func (o Options) secure() clienttls.Options {
	return clienttls.Options{
		CA:         clienttls.Text{Option: "caCert", Value: o.CACert},
		Cert:       clienttls.Text{Option: "clientCert", Value: o.ClientCert},
		Key:        clienttls.Text{Option: "clientKey", Value: o.ClientKey.Reveal()},
		SkipVerify: o.InsecureSkipTLSVerify,
	}
}

// tls returns nil when TLS is off.
func (o Options) tls() (*tls.Config, error) {
	if !o.EnableTLS {
		return nil, nil
	}
	return o.secure().Config()
}

package mysql

import (
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	driver "github.com/go-sql-driver/mysql"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
)

// Options are those of every component that uses MySQL or MariaDB; its own
// options struct embeds them.
type Options struct {
	URL             component.Secret `meta:"url,required" alias:"connectionString" doc:"Where the database is, as user:password@tcp(host:port)/database?param=value, with the parameters of Go's MySQL driver. tls=custom means TLS with the certificates of pemPath." example:"app:secret@tcp(localhost:3306)/orders"`
	PemPath         string           `meta:"pemPath"         doc:"File with the certificates that the server's is checked against when url has tls=custom."`
	MaxIdleConns    int              `meta:"maxIdleConns"    default:"0"  doc:"Most connections that are kept idle; 0 is 2."`
	MaxOpenConns    int              `meta:"maxOpenConns"    default:"0"  doc:"Most connections at once; 0 is 16."`
	ConnMaxLifetime time.Duration    `meta:"connMaxLifetime" default:"0s" doc:"When a connection is closed; 0 is never."`
	ConnMaxIdleTime time.Duration    `meta:"connMaxIdleTime" default:"0s" doc:"When an idle connection is closed; 0 is after 5 minutes."`
}

const (
	defaultOpen = 16
	defaultIdle = 2
	idleTime    = 5 * time.Minute // less than what servers and those between give them
	dialTime    = 10 * time.Second
)

// Check implements component.Checker.
func (o Options) Check() error {
	switch {
	case o.MaxIdleConns < 0:
		return component.OptionErrorf("maxIdleConns", "must not be negative")
	case o.MaxOpenConns < 0:
		return component.OptionErrorf("maxOpenConns", "must not be negative")
	case o.ConnMaxLifetime < 0:
		return component.OptionErrorf("connMaxLifetime", "must not be negative")
	case o.ConnMaxIdleTime < 0:
		return component.OptionErrorf("connMaxIdleTime", "must not be negative")
	}
	if o.URL.IsZero() {
		return nil // it is required: that is said already
	}
	_, custom, err := o.parse()
	switch {
	case err != nil:
		return component.OptionErrorf("url", "%w", err)
	case custom && o.PemPath == "":
		return component.OptionErrorf("pemPath", "is missing, and url has tls=custom")
	}
	return nil
}

// parse reads the URL. custom tells that it asks for the certificates of pemPath,
// which the driver would look for among those of the whole process.
func (o Options) parse() (c *driver.Config, custom bool, err error) {
	text := o.URL.Reveal()
	base, query, has := strings.Cut(text, "?")
	if has {
		var rest []string
		for param := range strings.SplitSeq(query, "&") {
			if param == "tls=custom" {
				custom = true
				continue
			}
			rest = append(rest, param)
		}
		text = base
		if len(rest) > 0 {
			text += "?" + strings.Join(rest, "&")
		}
	}
	c, err = driver.ParseDSN(text)
	switch {
	case err == nil:
		return c, custom, nil
	case strings.HasPrefix(err.Error(), "invalid DSN:"): // a text that is always the same
		return nil, false, fault.New(fault.Invalid, "it must be as user:password@tcp(host:port)/database: %w", err)
	}
	return nil, false, fault.New(fault.Invalid, "it must be as user:password@tcp(host:port)/database, with parameters that the driver knows")
}

// config makes the driver's configuration. It may read the file of pemPath.
func (o Options) config(log *slog.Logger) (*driver.Config, error) {
	c, custom, err := o.parse()
	if err != nil {
		return nil, err
	}
	if c.Timeout == 0 {
		c.Timeout = dialTime
	}
	c.Logger = quiet{}
	switch {
	case custom:
		if c.TLS, err = o.tls(c.Addr); err != nil {
			return nil, err
		}
	case o.PemPath != "" && log != nil:
		log.Warn("pemPath is not used: url lacks tls=custom")
	}
	return c, nil
}

func (o Options) tls(addr string) (*tls.Config, error) {
	pem, err := os.ReadFile(o.PemPath)
	if err != nil {
		return nil, fault.New(fault.Invalid, "read pemPath: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fault.New(fault.Invalid, "read pemPath: %s has no certificate", o.PemPath)
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		host = addr // of a socket
	}
	return &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12, ServerName: host}, nil
}

// quiet is a logger of the driver, whose errors come back to the caller anyway.
type quiet struct{}

// Print implements the driver's Logger.
func (quiet) Print(...any) {}

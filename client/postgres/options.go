package postgres

import (
	"context"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
)

// Options are those of every component that uses PostgreSQL; its own options
// struct embeds them.
type Options struct {
	ConnectionString      component.Secret `meta:"connectionString" alias:"url" doc:"Where the database is, as a URL or as words like host=db user=app. The options below stand above it." example:"postgres://app:secret@localhost:5432/app"`
	Host                  string           `meta:"host" doc:"Name or address of the server, or the folder of its socket."`
	HostAddr              string           `meta:"hostaddr" doc:"Address to connect to; host then only names the server in its certificate."`
	Port                  string           `meta:"port" doc:"Port of the server."`
	Database              string           `meta:"database" doc:"Name of the database."`
	User                  string           `meta:"user" doc:"Name to log in with."`
	Password              component.Secret `meta:"password" doc:"Password to log in with."`
	SSLRootCert           string           `meta:"sslRootCert" doc:"File with the certificates that the server's is checked against."`
	Timeout               time.Duration    `meta:"timeout" alias:"timeoutInSeconds" default:"20s" doc:"Longest time of one operation, connecting included; at least 1s."`
	MaxConns              int              `meta:"maxConns" default:"0" doc:"Most connections at once, shared by all components of this database; 0 is 4 or the number of processors."`
	ConnectionMaxIdleTime time.Duration    `meta:"connectionMaxIdleTime" alias:"connMaxIdleTime" default:"0s" doc:"When an idle connection is closed; 0 is after 30 minutes."`
	QueryExecMode         string           `meta:"queryExecMode" enum:"cache_statement|cache_describe|describe_exec|exec|simple_protocol" doc:"How statements are sent; exec or simple_protocol behind a pooler that hands out connections by transaction."`
}

// Check implements component.Checker.
func (o Options) Check() error {
	switch {
	case o.ConnectionString.IsZero() && o.Host == "" && o.HostAddr == "":
		return component.OptionErrorf("connectionString", "is missing, and so is host")
	case o.Timeout < time.Second:
		return component.OptionErrorf("timeout", "must be at least 1s")
	case o.MaxConns < 0 || o.MaxConns > 10_000:
		return component.OptionErrorf("maxConns", "must be from 0 to 10000")
	}
	if o.Port != "" {
		if n, err := strconv.ParseUint(o.Port, 10, 16); err != nil || n == 0 {
			return component.OptionErrorf("port", "%q is not a port", o.Port)
		}
	}
	if o.HostAddr != "" && net.ParseIP(o.HostAddr) == nil {
		return component.OptionErrorf("hostaddr", "%q is not an address", o.HostAddr)
	}
	if strings.Contains(o.ConnectionString.Reveal(), "sslrootcert") || o.SSLRootCert != "" {
		return nil // the file is looked at when the component opens
	}
	if _, err := o.config(); err != nil {
		return component.OptionErrorf("connectionString", "%w", err)
	}
	return nil
}

// pingTime is how long a connection that was idle may take to show that it lives.
const pingTime = 3 * time.Second

// config makes the pool's configuration. It may read the files that the
// connection string names.
func (o Options) config() (*pgxpool.Config, error) {
	text, err := o.text()
	if err != nil {
		return nil, err
	}
	c, err := pgxpool.ParseConfig(text)
	if err != nil {
		return nil, fault.New(fault.Invalid, "%w", err)
	}
	c.ConnConfig.ConnectTimeout = min(orElse(c.ConnConfig.ConnectTimeout, o.Timeout), o.Timeout)
	c.PingTimeout = min(o.Timeout, pingTime)
	if o.MaxConns > 0 {
		c.MaxConns = int32(o.MaxConns)
	}
	if o.ConnectionMaxIdleTime > 0 {
		c.MaxConnIdleTime = o.ConnectionMaxIdleTime
	}
	if mode, ok := modes()[o.QueryExecMode]; ok {
		c.ConnConfig.DefaultQueryExecMode = mode
	}
	if addr := o.HostAddr; addr != "" {
		c.ConnConfig.LookupFunc = func(context.Context, string) ([]string, error) { return []string{addr}, nil }
	}
	if c.ConnConfig.RuntimeParams["application_name"] == "" {
		c.ConnConfig.RuntimeParams["application_name"] = "penstock"
	}
	return c, nil
}

func modes() map[string]pgx.QueryExecMode {
	return map[string]pgx.QueryExecMode{
		"cache_statement": pgx.QueryExecModeCacheStatement, "cache_describe": pgx.QueryExecModeCacheDescribe,
		"describe_exec": pgx.QueryExecModeDescribeExec, "exec": pgx.QueryExecModeExec,
		"simple_protocol": pgx.QueryExecModeSimpleProtocol,
	}
}

// text is the connection string with the single options over it.
func (o Options) text() (string, error) {
	host := o.Host
	if host == "" {
		host = o.HostAddr
	}
	given := o.ConnectionString.Reveal()
	if strings.HasPrefix(given, "postgres://") || strings.HasPrefix(given, "postgresql://") {
		return o.url(given, host)
	}
	var b strings.Builder
	b.WriteString(given)
	for _, kv := range o.overrides(host) {
		if kv[1] != "" {
			b.WriteString(" " + kv[0] + "='" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(kv[1]) + "'")
		}
	}
	return b.String(), nil
}

// overrides are the options that stand above the connection string.
func (o Options) overrides(host string) [6][2]string {
	return [...][2]string{
		{"host", host},
		{"port", o.Port},
		{"dbname", o.Database},
		{"user", o.User},
		{"password", o.Password.Reveal()},
		{"sslrootcert", o.SSLRootCert},
	}
}

func (o Options) url(given, host string) (string, error) {
	u, err := url.Parse(given)
	if err != nil { // its text may hold the password
		return "", fault.New(fault.Invalid, "parse connection string: it is not a URL")
	}
	// The library reads a plus as a plus; of a word given twice the last counts.
	var query strings.Builder
	query.WriteString(u.RawQuery)
	for _, kv := range o.overrides(host) {
		if kv[1] != "" {
			query.WriteString("&" + kv[0] + "=" + strings.ReplaceAll(url.QueryEscape(kv[1]), "+", "%20"))
		}
	}
	u.RawQuery = strings.TrimPrefix(query.String(), "&")
	return u.String(), nil
}

func orElse(d, other time.Duration) time.Duration {
	if d > 0 {
		return d
	}
	return other
}

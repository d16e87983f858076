package trace

import (
	"cmp"
	"context"
	"crypto/tls"
	"net"
	"net/url"
	"strings"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"google.golang.org/grpc/credentials"
)

// export is one way out.
type export struct {
	name    string
	timeout time.Duration
	open    func(context.Context) (exporter, error)
}

const (
	grpcPort = "4317"
	httpPort = "4318"
	// httpPath is where a collector takes traces over HTTP.
	httpPath = "/v1/traces"
)

// collector is where OTLP goes.
type collector struct {
	address, path string
	insecure      bool
	http          bool
	headers       map[string]string
	timeout       time.Duration
}

// otlp puts together what the Configuration and the environment say; nil when that
// is nothing that can be used.
func (p *planner) otlp() *export {
	c := collector{headers: map[string]string{}, insecure: p.OTLP.Insecure}
	for _, h := range p.OTLP.Headers {
		c.headers[h.Name] = h.Value
	}
	for _, h := range p.pairs("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS") {
		c.headers[h.Name] = h.Value
	}
	c.timeout = p.timeout("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", p.timeout("OTEL_EXPORTER_OTLP_TIMEOUT", p.OTLP.Timeout))
	switch strings.ToLower(p.env("OTEL_EXPORTER_OTLP_TRACES_INSECURE", "OTEL_EXPORTER_OTLP_INSECURE")) {
	case "true":
		c.insecure = true
	case "false":
		c.insecure = false
	}
	exact := p.env("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
	base := p.env("OTEL_EXPORTER_OTLP_ENDPOINT")
	endpoint := cmp.Or(exact, base, p.OTLP.Endpoint)
	if endpoint == "" {
		endpoint, c.insecure = "localhost", true
	}
	if !c.aim(endpoint) {
		p.warnings = append(p.warnings, "traces: the endpoint "+shown(endpoint)+" is neither host:port nor a URL with http:// or https://; no traces go there")
		return nil
	}
	if !p.protocol(&c) {
		return nil
	}
	if exact == "" && base != "" {
		c.path = strings.TrimSuffix(c.path, "/") + httpPath
	}
	c.path = cmp.Or(strings.TrimSuffix(c.path, "/"), httpPath)
	return &export{name: "otlp", timeout: c.timeout, open: c.open}
}

// aim reads an endpoint.
func (c *collector) aim(endpoint string) bool {
	scheme, rest, ok := strings.Cut(endpoint, "://")
	if !ok {
		scheme, rest = "", endpoint
	}
	switch strings.ToLower(scheme) {
	case "":
	case "http", "grpc":
		c.insecure = true
	case "https", "grpcs":
		c.insecure = false
	default:
		return false
	}
	u, err := url.Parse("//" + rest)
	if err != nil || u.Hostname() == "" || u.User != nil || u.RawQuery != "" {
		return false
	}
	c.address, c.path = u.Host, u.Path
	return true
}

// protocol decides how to speak, and so the port when none is given.
func (p *planner) protocol(c *collector) bool {
	said := p.env("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
	_, port, _ := net.SplitHostPort(c.address)
	switch word := strings.ToLower(cmp.Or(said, p.OTLP.Protocol)); word {
	case "grpc":
	case "http", "http/protobuf":
		c.http = true
	case "http/json":
		c.http = true
		p.warnings = append(p.warnings, "traces: protocol http/json is not there; http/protobuf is used, which the same endpoint takes")
	case "":
		c.http = port == httpPort
	default:
		p.warnings = append(p.warnings, "traces: protocol "+cut(word)+" is not grpc, http or http/protobuf; no traces go to "+c.address)
		return false
	}
	if port == "" {
		port = grpcPort
		if c.http {
			port = httpPort
		}
		c.address = net.JoinHostPort(strings.Trim(c.address, "[]"), port)
	}
	return true
}

// The waits between tries of one batch, within its time.
const (
	firstWait = 500 * time.Millisecond
	mostWait  = 5 * time.Second
)

func (c collector) open(ctx context.Context) (exporter, error) {
	if c.http {
		o := []otlptracehttp.Option{
			otlptracehttp.WithEndpoint(c.address), otlptracehttp.WithURLPath(c.path), otlptracehttp.WithHeaders(c.headers), otlptracehttp.WithTimeout(c.timeout),
			otlptracehttp.WithRetry(otlptracehttp.RetryConfig{Enabled: true, InitialInterval: firstWait, MaxInterval: mostWait, MaxElapsedTime: c.timeout}),
		}
		if c.insecure {
			o = append(o, otlptracehttp.WithInsecure())
		} else {
			o = append(o, otlptracehttp.WithTLSClientConfig(&tls.Config{MinVersion: tls.VersionTLS12}))
		}
		return otlptracehttp.New(ctx, o...)
	}
	o := []otlptracegrpc.Option{
		otlptracegrpc.WithEndpoint(c.address), otlptracegrpc.WithHeaders(c.headers), otlptracegrpc.WithTimeout(c.timeout),
		otlptracegrpc.WithRetry(otlptracegrpc.RetryConfig{Enabled: true, InitialInterval: firstWait, MaxInterval: mostWait, MaxElapsedTime: c.timeout}),
	}
	if c.insecure {
		o = append(o, otlptracegrpc.WithInsecure())
	} else {
		o = append(o, otlptracegrpc.WithTLSCredentials(credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12})))
	}
	return otlptracegrpc.New(ctx, o...)
}

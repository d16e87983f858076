package config

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Tracing is spec.tracing. The zero value says nothing.
type Tracing struct {
	// Rate is the share of new traces that are recorded, from 0 to 1; nil: it is not
	// said.
	Rate *float64
	// Stdout writes spans to the standard output.
	Stdout bool
	// Zipkin is the URL of a Zipkin server.
	Zipkin string
	// OTLP is a collector that speaks OpenTelemetry's protocol.
	OTLP  OTLP
	Place Place
}

// OTLP is spec.tracing.otel.
type OTLP struct {
	// Endpoint is host and port, or a URL.
	Endpoint string
	// Protocol is http or grpc; empty: it is not said.
	Protocol string
	// Insecure is without TLS, isSecure: false.
	Insecure bool
	Headers  []TracingHeader
	Timeout  time.Duration // zero: it is not said
}

// TracingHeader goes with requests to a collector. Its value is a secret.
type TracingHeader struct{ Name, Value string }

// tracing reads spec.tracing.
func (r *reader) tracing(spec *fields) Tracing {
	f := spec.table("tracing")
	if f.n == nil {
		return Tracing{}
	}
	for _, to := range []string{"zipkin", "otel"} {
		r.conceals(f.get(to), false)
	}
	t := Tracing{Rate: f.rate("samplingRate"), Stdout: f.bool("stdout"), Place: f.at}
	for _, old := range f.skip("expandParams", "includeBody") {
		r.lenient(f.place(old), "remove it", "%s has no effect: spans never hold parameters or bodies", f.name(old))
	}
	zipkin := f.table("zipkin")
	t.Zipkin = zipkin.text("endpointAddress")
	if u, err := url.Parse(t.Zipkin); t.Zipkin != "" && (err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https") {
		zipkin.wrong(zipkin.get("endpointAddress"), "endpointAddress", "a URL such as http://localhost:9411/api/v2/spans")
	}
	zipkin.done()
	t.OTLP = r.otlp(f.table("otel"))
	f.done()
	return t
}

// conceals has no message quote what is in n and may be a secret: addresses with a
// password or a query, and all of the headers.
func (r *reader) conceals(n *node, all bool) {
	if n == nil {
		return
	}
	for _, p := range n.pairs {
		r.conceals(p.value, all || p.key == "headers")
	}
	before := len(r.secret)
	r.keep(n)
	for _, text := range r.secret[before:] {
		if len(text) >= shortestSecret && (all || strings.ContainsAny(text, "@?")) {
			r.covered, r.filled = append(r.covered, text), append(r.filled, text)
		}
	}
	r.secret = r.secret[:before]
}

func (r *reader) otlp(f *fields) OTLP {
	o := OTLP{Endpoint: f.text("endpointAddress"), Protocol: strings.ToLower(f.text("protocol")), Timeout: f.duration("timeout", 0)}
	switch o.Protocol {
	case "", "grpc", "http", "http/protobuf":
	default:
		f.wrong(f.get("protocol"), "protocol", "grpc or http")
	}
	if f.get("isSecure") != nil {
		o.Insecure = !f.bool("isSecure")
	}
	for i, n := range f.items("headers") {
		if n.kind == scalarNode { // as in the environment
			name, value, ok := strings.Cut(n.text, "=")
			if !ok || name == "" {
				r.hard(n.at, "", "%s[%d] is a text without a name, want name=value", f.name("headers"), i)
			}
			o.Headers = append(o.Headers, TracingHeader{name, value})
			continue
		}
		h := r.table(n, fmt.Sprintf("%s[%d]", f.name("headers"), i), n.at, false)
		o.Headers = append(o.Headers, TracingHeader{h.need("name"), h.text("value")})
		if ref := h.get("secretKeyRef"); ref != nil {
			r.hard(ref.at, "write value: ${NAME} and put the secret into the environment variable NAME",
				"%s is not there outside of Kubernetes", h.name("secretKeyRef"))
		}
		h.done()
	}
	f.done()
	return o
}

// rate reads a number from 0 to 1, which may be written as a text; nil when it is
// absent.
func (f *fields) rate(name string) *float64 {
	n := f.get(name)
	if n == nil {
		return nil
	}
	if n.kind == scalarNode {
		if n.text == "" {
			return nil
		}
		if v, err := strconv.ParseFloat(n.text, 64); err == nil && v >= 0 && v <= 1 {
			return &v
		}
	}
	f.wrong(n, name, "a number from 0 to 1")
	return nil
}

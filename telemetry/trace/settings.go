package trace

import (
	"cmp"
	"io"
	"log/slog"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Settings are what the Configuration says, and where the environment is asked.
// The standard variables of OpenTelemetry win over the Configuration.
type Settings struct {
	// AppID is the name of the service; Namespace may be empty.
	AppID, Namespace, Version string
	// Rate is the share of new traces that are recorded, from 0 to 1; nil: it is not
	// said.
	Rate *float64
	// Stdout writes each span as a line to Out.
	Stdout bool
	// Zipkin is the URL of a Zipkin server; empty: none.
	Zipkin string
	// OTLP is where spans go over OpenTelemetry's protocol; its Endpoint is empty when
	// they do not.
	OTLP OTLP
	// Env looks up environment variables; nil: there are none.
	Env func(string) (string, bool)
	Out io.Writer
	Log *slog.Logger
}

// OTLP is a collector that speaks OpenTelemetry's protocol.
type OTLP struct {
	// Endpoint is host and port, or a URL, which may have a path for HTTP.
	Endpoint string
	// Protocol is grpc, http or http/protobuf; empty: http for port 4318, else grpc.
	Protocol string
	// Insecure is without TLS. The scheme of a URL wins.
	Insecure bool
	Headers  []Header
	// Timeout of sending a batch; default 10 s.
	Timeout time.Duration
}

// Header goes with every request to a collector. Its value is a secret.
type Header struct{ Name, Value string }

const (
	// DefaultRate is Dapr's, for a Configuration that says where to and not how much.
	DefaultRate = 0.0001

	defaultTimeout = 10 * time.Second
	// maxTimeout bounds how long one batch may hold a queue up.
	maxTimeout = time.Minute
)

// plan is what settings come to.
type plan struct {
	sampler    sampler
	exporters  []export
	attributes []attr
}

type attr struct{ name, value string }

func (p plan) on() bool {
	return len(p.exporters) > 0 && (p.sampler.below > 0 || !p.sampler.alone)
}

// planner puts a plan together.
type planner struct {
	Settings
	warnings []string
}

func (s Settings) plan() (plan, []string) {
	p := &planner{Settings: s}
	if p.Env == nil {
		p.Env = func(string) (string, bool) { return "", false }
	}
	if strings.EqualFold(p.env("OTEL_SDK_DISABLED"), "true") {
		return plan{}, nil
	}
	out := plan{attributes: p.service()}
	rate, said := p.rate()
	if said && rate == 0 && p.env("OTEL_TRACES_SAMPLER") == "" {
		return plan{}, nil // Dapr's way to turn it off
	}
	out.exporters = p.exports()
	var alone bool
	rate, alone = p.sampling(rate)
	out.sampler = newSampler(rate, alone)
	return out, p.warnings
}

func (p *planner) warn(name, value, want string) {
	p.warnings = append(p.warnings, "environment variable "+name+" is left out: "+strconv.Quote(cut(value))+" is not "+want)
}

// cut keeps warnings short.
func cut(s string) string { return s[:min(len(s), 80)] }

// env returns a variable without white space around it.
func (p *planner) env(names ...string) string {
	for _, name := range names {
		if v, _ := p.Env(name); strings.TrimSpace(v) != "" {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// rate is what the Configuration says, or Dapr's default where it says where to,
// or everything when only the environment speaks, as OpenTelemetry has it.
func (p *planner) rate() (rate float64, said bool) {
	switch {
	case p.Rate != nil:
		return *p.Rate, true
	case p.Stdout || p.Zipkin != "" || p.OTLP.Endpoint != "":
		return DefaultRate, false
	}
	return 1, false
}

// sampling is the rate that counts, and whether it does so for traces that came in.
func (p *planner) sampling(rate float64) (float64, bool) {
	name := p.env("OTEL_TRACES_SAMPLER")
	kind, parent := strings.CutPrefix(name, "parentbased_")
	switch kind {
	case "":
		return rate, false
	case "always_on":
		return 1, !parent
	case "always_off":
		return 0, !parent
	case "traceidratio":
		text := p.env("OTEL_TRACES_SAMPLER_ARG")
		if text == "" {
			return 1, !parent
		}
		if r, err := strconv.ParseFloat(text, 64); err == nil && r >= 0 && r <= 1 {
			return r, !parent
		}
		p.warn("OTEL_TRACES_SAMPLER_ARG", text, "a number from 0 to 1")
		return 1, !parent
	}
	p.warn("OTEL_TRACES_SAMPLER", name, "a sampler that there is here")
	return rate, false
}

// service is who the spans are of.
func (p *planner) service() []attr {
	list := []attr{
		{"service.name", p.AppID},
		{"service.namespace", p.Namespace},
		{"telemetry.sdk.name", "opentelemetry"},
		{"telemetry.sdk.language", "go"},
		{"penstock.version", p.Version},
	}
	set := func(name, value string) {
		if i := slices.IndexFunc(list, func(a attr) bool { return a.name == name }); i >= 0 {
			list[i].value = value
		} else {
			list = append(list, attr{name, value})
		}
	}
	for _, h := range p.pairs("OTEL_RESOURCE_ATTRIBUTES") {
		set(h.Name, h.Value)
	}
	if name := p.env("OTEL_SERVICE_NAME"); name != "" {
		set("service.name", name)
	}
	return slices.DeleteFunc(list, func(a attr) bool { return a.value == "" })
}

// pairs reads name=value,name=value with the escapes of URLs.
func (p *planner) pairs(names ...string) (out []Header) {
	for part := range strings.SplitSeq(p.env(names...), ",") {
		if strings.TrimSpace(part) == "" {
			continue
		}
		name, value, ok := strings.Cut(part, "=")
		name = strings.TrimSpace(name)
		plain, err := url.PathUnescape(strings.TrimSpace(value))
		if !ok || name == "" || err != nil {
			p.warnings = append(p.warnings, "environment variable "+names[0]+": an entry is left out, because it is not name=value")
			continue
		}
		out = append(out, Header{name, plain})
	}
	return out
}

// exports are where spans go.
func (p *planner) exports() (out []export) {
	named := p.env("OTEL_TRACES_EXPORTER")
	if named == "" {
		return p.configured()
	}
	for kind := range strings.SplitSeq(named, ",") {
		switch kind = strings.TrimSpace(kind); kind {
		case "none":
			return nil
		case "otlp":
			out = p.add(out, p.otlp())
		case "zipkin":
			out = append(out, p.zipkin())
		case "console":
			out = append(out, p.stdout())
		default:
			p.warn("OTEL_TRACES_EXPORTER", kind, "otlp, zipkin, console or none")
		}
	}
	return out
}

// configured are those of the Configuration, and OTLP when the environment has an
// endpoint for it.
func (p *planner) configured() (out []export) {
	if p.Stdout {
		out = append(out, p.stdout())
	}
	if p.Zipkin != "" || p.env("OTEL_EXPORTER_ZIPKIN_ENDPOINT") != "" {
		out = append(out, p.zipkin())
	}
	if p.OTLP.Endpoint != "" || p.env("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT") != "" {
		out = p.add(out, p.otlp())
	}
	return out
}

func (p *planner) add(out []export, e *export) []export {
	if e == nil {
		return out
	}
	return append(out, *e)
}

func (p *planner) zipkin() export {
	to := cmp.Or(p.env("OTEL_EXPORTER_ZIPKIN_ENDPOINT"), p.Zipkin, "http://localhost:9411/api/v2/spans")
	return export{name: "zipkin", timeout: p.timeout("OTEL_EXPORTER_ZIPKIN_TIMEOUT", 0), open: openZipkin(to, p.service())}
}

func (p *planner) stdout() export {
	return export{name: "stdout", timeout: defaultTimeout, open: openStdout(p.Out, p.service())}
}

// timeout reads milliseconds.
func (p *planner) timeout(name string, otherwise time.Duration) time.Duration {
	d := cmp.Or(otherwise, defaultTimeout)
	if text := p.env(name); text != "" {
		if n, err := strconv.Atoi(text); err == nil && n > 0 {
			d = time.Duration(min(n, int(maxTimeout/time.Millisecond))) * time.Millisecond
		} else {
			p.warn(name, text, "a number of milliseconds")
		}
	}
	return min(d, maxTimeout)
}

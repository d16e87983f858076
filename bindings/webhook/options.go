package webhook

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/penstock-io/penstock/component"
)

// options are the settings of one webhook component.
type options struct {
	Path           string           `meta:"path" doc:"Path that requests come in on; the component's name after a slash when empty. A component with url and without path is an output only and listens to nothing." example:"/hooks/github"`
	Listen         string           `meta:"listen" default:"127.0.0.1:3502" doc:"Address to listen on. Webhooks with the same address share one listener."`
	Answer         string           `meta:"answer" default:"outcome" enum:"outcome|accepted" doc:"When to answer: outcome waits until the route has settled the event; accepted answers 202 once the event is durable in SQLite and delivers it from there."`
	Timeout        time.Duration    `meta:"timeout" default:"10s" doc:"With answer outcome: how long to wait before answering 504; the delivery goes on and a repetition by the sender is joined to it. For the output: how long one call may take."`
	Signature      string           `meta:"signature" enum:"none|standard-webhooks|github|gitlab|stripe|slack|shopify|hmac|bearer" doc:"How requests are signed, in and out. Empty means standard-webhooks when there is a secret and none otherwise."`
	Secret         component.Secret `meta:"secret" doc:"Key of the signature, as the provider shows it."`
	Secondary      component.Secret `meta:"secondarySecret" doc:"A second key that is also accepted, for the time of a rotation. The output signs with both where the scheme has room for it."`
	Tolerance      time.Duration    `meta:"tolerance" default:"5m" doc:"How far a signed time stamp may be away from now."`
	ReplayWindow   time.Duration    `meta:"replayWindow" default:"1h" doc:"How long delivery ids are remembered after success, so that a repetition is answered without delivering again. In memory (65,536 ids) with answer outcome, in SQLite (1,000,000 ids) with answer accepted. 0s remembers only what is under way."`
	SigHeader      string           `meta:"signatureHeader" default:"X-Signature" doc:"With signature hmac: the header that holds the signature."`
	SigPrefix      string           `meta:"signaturePrefix" doc:"With signature hmac: what stands before the signature in the header." example:"sha256="`
	SigEncoding    string           `meta:"signatureEncoding" default:"hex" enum:"hex|base64" doc:"With signature hmac: how the signature is written."`
	Algorithm      string           `meta:"algorithm" default:"sha256" enum:"sha256|sha1|sha512" doc:"With signature hmac: the hash."`
	TimeHeader     string           `meta:"timestampHeader" doc:"With signature hmac: a header with Unix seconds. When set, what is signed is the time stamp, a dot and the body, and tolerance applies." example:"X-Timestamp"`
	IDHeader       string           `meta:"idHeader" default:"Webhook-Id" doc:"With signature none, hmac or bearer: the header with the delivery's id, which becomes the event's id. A random id is used when it is missing."`
	MaxBody        component.Size   `meta:"maxBodySize" default:"4Mi" doc:"Largest body taken; more is answered 413."`
	MaxConcurrency int              `meta:"maxConcurrency" default:"64" doc:"Requests handled at once; more are answered 429 with Retry-After."`
	Methods        []string         `meta:"methods" default:"POST" doc:"HTTP methods taken."`
	Accept         string           `meta:"accept" default:"any" enum:"any|cloudevents" doc:"With cloudevents, a request that is not a CloudEvent is answered 415."`
	EventType      string           `meta:"eventType" doc:"Type of the events made from plain requests, instead of the one taken from the provider's; for the output, the type of the CloudEvent sent." example:"com.example.order"`
	Source         string           `meta:"source" doc:"Source of the events made; /webhooks/ and the component's name when empty."`
	Origins        []string         `meta:"allowedOrigins" doc:"Origins that may register by the CloudEvents OPTIONS handshake and, with signature none, that a browser may send from; * means all."`
	Rate           int              `meta:"allowedRate" default:"0" doc:"Requests per minute granted in the handshake; 0 means no limit."`
	PassHeaders    []string         `meta:"passHeaders" doc:"More request headers that the app gets to see, beside those of the provider. A name ending in * is a prefix. Credentials and signatures are never passed." example:"X-Tenant,X-Acme-*"`
	MaxSpool       int              `meta:"maxSpool" default:"100000" doc:"With answer accepted: events kept that are not delivered yet; more are answered 503."`
	MaxSpoolSize   component.Size   `meta:"maxSpoolSize" default:"1Gi" doc:"With answer accepted: bytes of bodies kept that are not delivered yet; more are answered 503."`
	Database       string           `meta:"connectionString" doc:"With answer accepted: the SQLite file; the one in the data folder when empty."`

	URL            component.Secret `meta:"url" doc:"Where the output sends to. Errors and logs show only its host." example:"https://example.com/hook"`
	Format         string           `meta:"format" default:"raw" enum:"raw|cloudevents-structured|cloudevents-binary" doc:"What the output sends: the data as it is, or a CloudEvent."`
	ContentType    string           `meta:"contentType" default:"application/json" doc:"Content type of the data sent."`
	Headers        []string         `meta:"headers" doc:"Headers that the output adds, each as name:value." example:"X-Tenant:acme"`
	AllowLinkLocal bool             `meta:"allowLinkLocal" default:"false" doc:"Lets the output connect to link-local and cloud-metadata addresses."`
	MaxResponse    component.Size   `meta:"maxResponseSize" default:"1Mi" doc:"How much of an answer's body is kept; the rest is cut off."`
}

// The words of the options.
const (
	none, standard, github, gitlab   = "none", "standard-webhooks", "github", "gitlab"
	stripe, slack, shopify           = "stripe", "slack", "shopify"
	generic, bearer                  = "hmac", "bearer"
	outcome, accepted                = "outcome", "accepted"
	raw, structured, binary          = "raw", "cloudevents-structured", "cloudevents-binary"
	defaultPath, retryLater          = "/", 10 * time.Second
	maxConcurrency, maxBody          = 65536, 1 << 30
	maxMethods, maxOrigins, maxNames = 16, 256, 64
)

// input tells whether the component listens.
func (o options) input() bool { return o.Path != "" || o.URL.IsZero() }

// preset is the signature in force.
func (o options) preset() string {
	switch {
	case o.Signature != "":
		return o.Signature
	case o.Secret.IsZero():
		return none
	default:
		return standard
	}
}

// Check reports options that do not fit each other.
func (o options) Check() error {
	return errors.Join(o.checkInput(), o.checkLimits(), o.checkSignature(), o.checkOutput())
}

func (o options) checkInput() error {
	var errs []error
	if err := checkPath(o.Path); err != nil {
		errs = append(errs, component.OptionErrorf("path", "%w", err))
	}
	if _, _, err := net.SplitHostPort(o.Listen); err != nil {
		errs = append(errs, component.OptionErrorf("listen", "%q is not host:port, such as 127.0.0.1:3502", o.Listen))
	}
	if len(o.Methods) == 0 || len(o.Methods) > maxMethods {
		errs = append(errs, component.OptionErrorf("methods", "%d methods; want 1 to %d", len(o.Methods), maxMethods))
	}
	for _, m := range o.Methods {
		if !isToken(m) || m != strings.ToUpper(m) || m == http.MethodOptions {
			errs = append(errs, component.OptionErrorf("methods", "%q is not a method that a webhook can use, such as POST", m))
		}
	}
	for _, name := range o.PassHeaders {
		if !isToken(strings.TrimSuffix(name, "*")) {
			errs = append(errs, component.OptionErrorf("passHeaders", "%q is not a header name, nor one followed by *", name))
		}
	}
	if len(o.Origins) > maxOrigins || len(o.PassHeaders) > maxNames {
		errs = append(errs, component.OptionErrorf("allowedOrigins", "at most %d origins and %d passHeaders", maxOrigins, maxNames))
	}
	for _, text := range []struct{ option, value string }{{"eventType", o.EventType}, {"source", o.Source}} {
		if text.value != "" && cleanText(text.value) != text.value {
			errs = append(errs, component.OptionErrorf(text.option, "%q holds control characters or is longer than %d bytes", text.value, maxText))
		}
	}
	return errors.Join(errs...)
}

func checkPath(path string) error {
	switch {
	case path == "":
		return nil
	case !strings.HasPrefix(path, "/"):
		return fmt.Errorf("%q does not start with a slash; write %q", path, "/"+path)
	case strings.ContainsAny(path, "?#\\*{}") || cleanText(path) != path:
		return fmt.Errorf("%q is not a plain path; leave out query, fragment and patterns", path)
	case slices.Contains(strings.Split(path, "/"), ".."):
		return fmt.Errorf("%q holds \"..\"", path)
	}
	return nil
}

func (o options) checkLimits() error {
	var errs []error
	for _, r := range []struct {
		option        string
		value, lo, hi int64
	}{
		{"maxBodySize", int64(o.MaxBody), 1, maxBody},
		{"maxConcurrency", int64(o.MaxConcurrency), 1, maxConcurrency},
		{"maxSpool", int64(o.MaxSpool), 1, 1 << 40},
		{"maxSpoolSize", int64(o.MaxSpoolSize), 1, 1 << 50},
		{"allowedRate", int64(o.Rate), 0, 1 << 31},
		{"maxResponseSize", int64(o.MaxResponse), 0, maxBody},
	} {
		if r.value < r.lo || r.value > r.hi {
			errs = append(errs, component.OptionErrorf(r.option, "%d is not between %d and %d", r.value, r.lo, r.hi))
		}
	}
	for _, d := range []struct {
		option    string
		value, lo time.Duration
	}{{"timeout", o.Timeout, time.Millisecond}, {"tolerance", o.Tolerance, time.Second}, {"replayWindow", o.ReplayWindow, 0}} {
		if d.value < d.lo {
			errs = append(errs, component.OptionErrorf(d.option, "%v is less than %v", d.value, d.lo))
		}
	}
	return errors.Join(errs...)
}

func (o options) checkSignature() error {
	var errs []error
	preset := o.preset()
	switch {
	case preset == none && !o.Secret.IsZero():
		errs = append(errs, component.OptionErrorf("secret", "given, but signature is none; leave out one of them"))
	case preset != none && o.Secret.IsZero():
		errs = append(errs, component.OptionErrorf("secret", "missing; signature %s needs one", preset))
	case o.Secret.IsZero() && !o.Secondary.IsZero():
		errs = append(errs, component.OptionErrorf("secondarySecret", "given without secret"))
	}
	for _, s := range []struct {
		option string
		value  component.Secret
	}{{"secret", o.Secret}, {"secondarySecret", o.Secondary}} {
		signed := preset == standard || preset == gitlab && strings.HasPrefix(s.value.Reveal(), "whsec_")
		if _, err := standardKey(s.value.Reveal()); signed && !s.value.IsZero() && err != nil {
			errs = append(errs, component.OptionErrorf(s.option, "not whsec_ followed by base64"))
		}
	}
	if preset != generic {
		return errors.Join(errs...)
	}
	if !isToken(o.SigHeader) {
		errs = append(errs, component.OptionErrorf("signatureHeader", "%q is not a header name", o.SigHeader))
	}
	if o.TimeHeader != "" && !isToken(o.TimeHeader) {
		errs = append(errs, component.OptionErrorf("timestampHeader", "%q is not a header name", o.TimeHeader))
	}
	return errors.Join(errs...)
}

// standardKey reads a Standard Webhooks secret.
func standardKey(secret string) ([]byte, error) {
	text := strings.TrimPrefix(secret, "whsec_")
	key, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		key, err = base64.RawStdEncoding.DecodeString(text)
	}
	if err == nil && len(key) == 0 {
		err = errors.New("empty key")
	}
	return key, err
}

func (o options) checkOutput() error {
	var errs []error
	if !o.URL.IsZero() {
		u, err := url.Parse(o.URL.Reveal())
		if err != nil || u.Host == "" || u.User != nil || (u.Scheme != "http" && u.Scheme != "https") {
			errs = append(errs, component.OptionErrorf("url", "must be an http or https address without a user name in it"))
		}
	}
	for _, line := range o.Headers {
		name, value, ok := strings.Cut(line, ":")
		if !ok || !isToken(strings.TrimSpace(name)) || !isFieldValue(value) {
			errs = append(errs, component.OptionErrorf("headers", "an entry is not a header as name:value"))
		}
	}
	if !isFieldValue(o.ContentType) {
		errs = append(errs, component.OptionErrorf("contentType", "holds control characters"))
	}
	return errors.Join(errs...)
}

// Package http is the output binding that sends requests to a web server.
//
// Configure it as bindings.http with a url. The operation is the method, create
// means POST. In the request's metadata path is put behind the url, keys that
// begin with a capital letter are headers, and errorIfNot2XX overrides the
// option. The answer's metadata has statusCode, status and the headers.
//
// It promises that a request never leaves the server of the url by what stands
// in path, follows redirects only when told so and then without the security
// token to another host, and connects to no link-local or metadata address
// unless that is allowed. An answer with a status outside 2xx is an error whose
// kind says whether trying again can help; Retry-After is passed on.
package http

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/penstock-io/penstock/bindings"
	clienthttp "github.com/penstock-io/penstock/client/http"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
)

// Component is listed in package all.
var Component = bindings.Define("http", component.About{
	Summary: "Sends requests to a web server",
	Ack:     "A call is done when the server has answered with a status of 2xx, or with any if errorIfNot2XX is off.",
	Order:   "None between calls; a pipeline with one lane makes one call after the other.",
	Limits:  "Answers of maxResponseBodySize with 64 KiB of headers; 256 connections; 10 redirects.",
	Dapr: "Redirects and link-local addresses are refused unless allowed; responseTimeout has a default; " +
		"a longer answer is an error instead of being cut; a query in path is kept and put together with that of url.",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: billing
spec:
  type: bindings.http
  version: v1
  metadata:
    - name: url
      value: https://billing.example.com/api
    - name: responseTimeout
      value: 10s
`,
	Capabilities: []string{bindings.OutputCapability},
	Operations:   operations(),
}, open)

const maxBody = 16 << 30

// operations are the methods, and create for POST.
func operations() []string {
	return []string{"create", "get", "head", "post", "put", "patch", "delete", "options", "trace"}
}

type options struct {
	URL                 string           `meta:"url,required" doc:"Where requests go; http or https." example:"https://billing.example.com/api"`
	ResponseTimeout     time.Duration    `meta:"responseTimeout" doc:"How long one request may take, the answer's body included." default:"60s"`
	MaxResponseBodySize component.Size   `meta:"maxResponseBodySize" doc:"Longest body of an answer." default:"100Mi"`
	ErrorIfNot2XX       bool             `meta:"errorIfNot2XX" doc:"Makes an answer with a status outside 2xx an error." default:"true"`
	FollowRedirects     bool             `meta:"followRedirects" doc:"Follows up to 10 redirects, never from https to http; otherwise a redirect is the answer." default:"false"`
	AllowLinkLocal      bool             `meta:"allowLinkLocal" doc:"Allows connections to link-local addresses and the metadata services of clouds." default:"false"`
	SecurityToken       component.Secret `meta:"securityToken" doc:"Sent in the header securityTokenHeader with each request."`
	SecurityTokenHeader string           `meta:"securityTokenHeader" doc:"Name of the header for securityToken." example:"X-Security-Token"`
	RootCA              string           `meta:"MTLSRootCA" doc:"Certificates to trust, as PEM or the path of a PEM file; those of the system when empty."`
	ClientCert          string           `meta:"MTLSClientCert" doc:"Certificate to show, as PEM or the path of a PEM file."`
	ClientKey           component.Secret `meta:"MTLSClientKey" doc:"Key of MTLSClientCert, as PEM or the path of a PEM file."`
	Renegotiation       string           `meta:"MTLSRenegotiation" doc:"Whether the server may renegotiate TLS 1.2." enum:"RenegotiateNever|RenegotiateOnceAsClient|RenegotiateFreelyAsClient" default:"RenegotiateNever"`
}

// Check refuses addresses, limits and pairs that cannot work.
func (o options) Check() error {
	errs := []error{o.checkURL()}
	if o.ResponseTimeout <= 0 {
		errs = append(errs, component.OptionErrorf("responseTimeout", "%s is not a time to wait", o.ResponseTimeout))
	}
	if o.MaxResponseBodySize < 1 || o.MaxResponseBodySize > maxBody {
		errs = append(errs, component.OptionErrorf("maxResponseBodySize", "must be between 1 and 16Gi"))
	}
	if (o.ClientCert == "") != o.ClientKey.IsZero() {
		errs = append(errs, component.OptionErrorf("MTLSClientCert", "MTLSClientCert and MTLSClientKey go together"))
	}
	if h := o.SecurityTokenHeader; h != "" && !validName(h) {
		errs = append(errs, component.OptionErrorf("securityTokenHeader", "%q is not the name of a header", h))
	}
	if !validValue(o.SecurityToken.Reveal()) {
		errs = append(errs, component.OptionErrorf("securityToken", "has characters that a header cannot carry, such as a line break at its end"))
	}
	return errors.Join(errs...)
}

func (o options) checkURL() error {
	u, err := url.Parse(o.URL)
	switch {
	case err != nil:
		if ue, ok := errors.AsType[*url.Error](err); ok {
			err = ue.Err // without the text, which may hold a password
		}
		return component.OptionErrorf("url", "%w", err)
	case u.Scheme != "http" && u.Scheme != "https":
		return component.OptionErrorf("url", "must begin with http:// or https://")
	case u.Hostname() == "":
		return component.OptionErrorf("url", "has no host")
	case u.Fragment != "":
		return component.OptionErrorf("url", "must not have a fragment")
	}
	return nil
}

type binding struct {
	options   options
	base      *url.URL
	transport *http.Transport
	client    *http.Client
}

func open(_ context.Context, env component.Env, o options) (bindings.Driver, error) {
	base, err := url.Parse(o.URL)
	if err != nil {
		return nil, fault.As(fault.Invalid, o.checkURL())
	}
	conf, err := tlsConfig(o)
	if err != nil {
		return nil, err
	}
	if o.SecurityToken.IsZero() != (o.SecurityTokenHeader == "") {
		env.Logger.Warn("no security token is sent: securityToken and securityTokenHeader go together")
	}
	b := &binding{options: o, base: base}
	b.transport = clienthttp.NewTransport(clienthttp.Options{AllowLinkLocal: o.AllowLinkLocal, TLS: conf, UseProxy: true})
	b.client = &http.Client{Transport: b.transport, CheckRedirect: b.redirect}
	return b, nil
}

// Operations returns create and the methods in lower case.
func (b *binding) Operations() []string { return operations() }

// Invoke sends one request and reads the whole answer.
func (b *binding) Invoke(ctx context.Context, r *bindings.Request) (*bindings.Response, error) {
	wantOK, err := b.wantOK(r.Metadata)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, b.options.ResponseTimeout)
	defer cancel()
	req, err := b.request(ctx, r)
	if err != nil {
		return nil, err
	}
	res, err := b.client.Do(req)
	if err != nil {
		return nil, explain(ctx, req, err)
	}
	defer res.Body.Close()
	body, err := clienthttp.ReadBody(res.Body, int64(b.options.MaxResponseBodySize))
	if fault.KindOf(err) == fault.Exhausted && err != nil {
		err = fault.As(fault.Invalid, err) // it will be as long the next time
	}
	if err != nil {
		return nil, fault.Wrap(err, "%s %s", req.Method, req.URL.Host)
	}
	if wantOK && res.StatusCode/100 != 2 {
		return nil, b.refusal(req, res, body)
	}
	return &bindings.Response{Data: body, Metadata: answerMetadata(res)}, nil
}

// Close drops the idle connections.
func (b *binding) Close(context.Context) error {
	b.transport.CloseIdleConnections()
	return nil
}

func (b *binding) wantOK(meta map[string]string) (bool, error) {
	text, ok := meta["errorIfNot2XX"]
	if !ok || text == "" {
		return b.options.ErrorIfNot2XX, nil
	}
	want, err := config.ParseBool(text)
	if err != nil {
		return false, fault.New(fault.Invalid, "read metadata errorIfNot2XX: %w", err)
	}
	return want, nil
}

func (b *binding) request(ctx context.Context, r *bindings.Request) (*http.Request, error) {
	method := strings.ToUpper(r.Operation)
	var body io.Reader
	switch method {
	case "CREATE":
		method = http.MethodPost
		fallthrough
	case http.MethodPost, http.MethodPut, http.MethodPatch:
		body = bytes.NewReader(r.Data)
	case http.MethodGet, http.MethodHead, http.MethodDelete, http.MethodOptions, http.MethodTrace:
	default:
		return nil, fault.New(fault.Invalid, "make request: operation %q is not supported; use one of %s", r.Operation, strings.Join(operations(), ", "))
	}
	target, err := join(b.base, r.Metadata["path"])
	if err != nil {
		return nil, fault.New(fault.Invalid, "check path: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, method, target.String(), body)
	if err != nil {
		return nil, fault.New(fault.Invalid, "make request: %w", err)
	}
	return req, b.setHeaders(req, r.Metadata, body != nil)
}

// redirect decides about one redirect. Without followRedirects the redirect
// itself is the answer.
func (b *binding) redirect(req *http.Request, via []*http.Request) error {
	first := via[0]
	switch {
	case !b.options.FollowRedirects:
		return http.ErrUseLastResponse
	case len(via) >= 10:
		return fault.New(fault.Invalid, "more than 10 redirects")
	case req.URL.Scheme != "https" && (req.URL.Scheme != "http" || via[len(via)-1].URL.Scheme == "https"):
		return fault.New(fault.Denied, "redirect from %s to %s is refused", via[len(via)-1].URL.Scheme, req.URL.Scheme)
	case isLocal(req.URL) && !isLocal(first.URL):
		return fault.New(fault.Denied, "redirect from %s to this machine is refused", first.URL.Host)
	case req.URL.Host == first.URL.Host:
		return nil
	case b.options.ClientCert != "":
		return fault.New(fault.Denied, "redirect to %s is refused: the client certificate is for %s", req.URL.Host, first.URL.Host)
	}
	for _, name := range []string{b.options.SecurityTokenHeader, "Authorization", "Cookie"} {
		if name != "" {
			req.Header.Del(name)
		}
	}
	return nil
}

// explain gives a failed request its kind. The URL is left out of the text but
// for the host: it may hold what nobody should read.
func explain(ctx context.Context, req *http.Request, err error) error {
	if ue, ok := errors.AsType[*url.Error](err); ok {
		err = ue.Err
	}
	kind := fault.KindOf(err)
	_, verify := errors.AsType[*tls.CertificateVerificationError](err)
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		kind = fault.Timeout
	case kind == fault.Internal || verify:
		kind = fault.Unavailable // broken connections, certificates that may be renewed
	}
	return fault.Wrap(fault.As(kind, err), "%s %s", req.Method, req.URL.Host)
}

// refusal is the error of an answer outside 2xx.
func (b *binding) refusal(req *http.Request, res *http.Response, body []byte) error {
	const shown = 200
	kind := fault.FromHTTPStatus(res.StatusCode)
	text := fmt.Sprintf("answer %s", res.Status)
	switch {
	case res.StatusCode/100 == 3:
		kind = fault.Denied
		text += "; redirects are refused unless followRedirects is set"
	case len(body) > shown:
		text += fmt.Sprintf(": %q...", excerpt(body, b.options.SecurityToken.Reveal(), shown))
	case len(body) > 0:
		text += fmt.Sprintf(": %q", body)
	}
	err := fault.As(kind, &statusError{res.StatusCode, req.Method + " " + req.URL.Host + ": " + text})
	if after := clienthttp.RetryAfter(res.Header, time.Now()); after > 0 {
		err = fault.WithRetryAfter(err, after)
	}
	return err
}

// statusError is an answer that is not a success.
type statusError struct {
	status int
	text   string
}

func (e *statusError) Error() string { return e.text }

// HTTPStatus returns the status, by which a policy may judge the error.
func (e *statusError) HTTPStatus() int { return e.status }

// excerpt returns about n bytes of the beginning of body. A server may send a
// secret back; it is taken out before the cut, for whoever hides secrets later
// does not know a part of one.
func excerpt(body []byte, secret string, n int) []byte {
	out := make([]byte, 0, n+3)
	for len(body) > 0 && len(out) < n {
		before, after, found := body, []byte(nil), false
		if secret != "" {
			before, after, found = bytes.Cut(body, []byte(secret))
		}
		out = append(out, before[:min(len(before), n-len(out))]...)
		if found {
			out = append(out, "***"...)
		}
		body = after
	}
	return out
}

func answerMetadata(res *http.Response) map[string]string {
	meta := make(map[string]string, len(res.Header)+2)
	for name, values := range res.Header {
		meta[name] = strings.Join(values, ", ")
	}
	meta["statusCode"] = strconv.Itoa(res.StatusCode)
	meta["status"] = res.Status
	return meta
}

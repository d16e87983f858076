// Package graphql is the binding "bindings.graphql": it sends queries and
// mutations to a GraphQL server over HTTP.
//
// The document is in the request's metadata: query, or mutation for that
// operation. Metadata that begins with variable: is a variable of type string,
// that which begins with header: a header; variables is a JSON object of
// variables of any type. The answer's data is what the server has under data.
//
// Promises: an answer with errors is an error of this binding, whatever its
// status, and its kind says whether trying again can help. An answer is read up
// to maxResponseBodySize. Redirects are not followed, and no connection is made
// to a link-local or metadata address unless that is allowed.
package graphql

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/penstock-io/penstock/bindings"
	clienthttp "github.com/penstock-io/penstock/client/http"
	clienttls "github.com/penstock-io/penstock/client/tls"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
)

// Component is listed in package all.
var Component = bindings.Define("graphql", component.About{
	Summary: "Sends queries and mutations to a GraphQL server",
	Ack:     "A call is done when the server has answered without errors. A mutation that failed in part is an error as a whole; trying again repeats all of it",
	Order:   "None between calls; a pipeline with one lane makes one call after the other",
	Limits:  "Answers of maxResponseBodySize; 256 connections",
	Dapr: "Errors of GraphQL have a kind, so that what cannot succeed is not tried again. Metadata variables, a JSON object, takes variables that are no strings; operationName chooses among several operations. " +
		"A mutation may stand in metadata query too. responseTimeout and maxResponseBodySize have defaults; redirects and link-local addresses are refused",
	Example: `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: people
spec:
  type: bindings.graphql
  version: v1
  metadata:
    - name: endpoint
      value: https://people.example.com/graphql
    - name: header:x-access-key
      value: secret
`,
	Capabilities: []string{bindings.OutputCapability},
	Operations:   operations(),
}, open)

func operations() []string { return []string{"query", "mutation"} }

const (
	maxBody        = 1 << 30
	headerPrefix   = "header:"
	variablePrefix = "variable:"
)

type options struct {
	Endpoint            string            `meta:"endpoint,required" doc:"Where the server is; http or https." example:"https://people.example.com/graphql"`
	Headers             map[string]string `meta:"header:*" doc:"A header of every request, as in header:x-access-key. One of the same name in a request's metadata comes first."`
	ResponseTimeout     time.Duration     `meta:"responseTimeout" doc:"How long one request may take, the answer's body included." default:"60s"`
	MaxResponseBodySize component.Size    `meta:"maxResponseBodySize" doc:"Longest body of an answer." default:"16Mi"`
	AllowLinkLocal      bool              `meta:"allowLinkLocal" doc:"Allows connections to link-local addresses and the metadata services of clouds." default:"false"`
	CACert              string            `meta:"caCert" doc:"Certificates to trust, as PEM or the path of a PEM file; those of the system when empty."`
	ClientCert          string            `meta:"clientCert" doc:"Certificate to show, as PEM or the path of a PEM file."`
	ClientKey           component.Secret  `meta:"clientKey" doc:"Key of clientCert, as PEM or the path of a PEM file."`
}

// Check implements component.Checker.
func (o options) Check() error {
	var errs []error
	switch u, err := url.Parse(o.Endpoint); {
	case err != nil:
		if ue, ok := errors.AsType[*url.Error](err); ok {
			err = ue.Err // without the text, which may hold a password
		}
		errs = append(errs, component.OptionErrorf("endpoint", "%w", err))
	case u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		errs = append(errs, component.OptionErrorf("endpoint", "must begin with http:// or https:// and have a host"))
	}
	if o.ResponseTimeout <= 0 {
		errs = append(errs, component.OptionErrorf("responseTimeout", "%s is not a time to wait", o.ResponseTimeout))
	}
	if o.MaxResponseBodySize < 1 || o.MaxResponseBodySize > maxBody {
		errs = append(errs, component.OptionErrorf("maxResponseBodySize", "must be between 1 and 1Gi"))
	}
	if err := o.tls().Check(); err != nil {
		errs = append(errs, component.OptionErrorf("clientCert", "%w", err))
	}
	for name, value := range o.Headers {
		if err := checkHeader(name[len(headerPrefix):], value); err != nil {
			errs = append(errs, component.OptionErrorf(name, "%w", err))
		}
	}
	return errors.Join(errs...)
}

func (o options) tls() clienttls.Options {
	return clienttls.Options{
		CA:   clienttls.Text{Option: "caCert", Value: o.CACert},
		Cert: clienttls.Text{Option: "clientCert", Value: o.ClientCert},
		Key:  clienttls.Text{Option: "clientKey", Value: o.ClientKey.Reveal()},
	}
}

type binding struct {
	o         options
	transport *http.Transport
	client    *http.Client
}

func open(_ context.Context, _ component.Env, o options) (bindings.Driver, error) {
	conf, err := o.tls().Config()
	if err != nil {
		return nil, err
	}
	b := &binding{o: o}
	b.transport = clienthttp.NewTransport(clienthttp.Options{AllowLinkLocal: o.AllowLinkLocal, TLS: conf, UseProxy: true})
	b.client = &http.Client{
		Transport:     b.transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return b, nil
}

// Operations implements bindings.Invoker.
func (b *binding) Operations() []string { return operations() }

// Invoke implements bindings.Invoker.
func (b *binding) Invoke(ctx context.Context, r *bindings.Request) (*bindings.Response, error) {
	body, err := document(r)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, b.o.ResponseTimeout)
	defer cancel()
	req, err := b.request(ctx, r, body)
	if err != nil {
		return nil, err
	}
	start := time.Now()
	res, err := b.client.Do(req)
	if err != nil {
		return nil, explain(ctx, req, err)
	}
	defer res.Body.Close()
	answer, err := clienthttp.ReadBody(res.Body, int64(b.o.MaxResponseBodySize))
	if err != nil {
		if fault.KindOf(err) == fault.Exhausted {
			err = fault.As(fault.Invalid, err) // it will be as long the next time
		}
		return nil, fault.Wrap(err, "%s at %s", r.Operation, req.URL.Host)
	}
	data, err := read(res, answer)
	if err != nil {
		return nil, fault.Wrap(err, "%s at %s", r.Operation, req.URL.Host)
	}
	end := time.Now()
	return &bindings.Response{Data: data, Metadata: map[string]string{
		"operation": r.Operation, "statusCode": strconv.Itoa(res.StatusCode),
		"start-time": start.UTC().Format(time.RFC3339Nano), "end-time": end.UTC().Format(time.RFC3339Nano), "duration": end.Sub(start).String(),
	}}, nil
}

// document makes the body of a request.
func document(r *bindings.Request) ([]byte, error) {
	text := ""
	switch r.Operation {
	case "query":
		text = r.Metadata["query"]
	case "mutation":
		if text = r.Metadata["mutation"]; text == "" {
			text = r.Metadata["query"]
		}
	default:
		return nil, fault.New(fault.Invalid, "operation %.40q is not supported; use query or mutation", r.Operation)
	}
	if strings.TrimSpace(text) == "" {
		return nil, fault.New(fault.Invalid, "%s: metadata %s is missing; it holds the text of GraphQL", r.Operation, r.Operation)
	}
	variables := map[string]any{}
	if given := r.Metadata["variables"]; given != "" {
		d := json.NewDecoder(strings.NewReader(given))
		d.UseNumber()
		if err := d.Decode(&variables); err != nil {
			return nil, fault.New(fault.Invalid, "read metadata variables: want a JSON object: %w", err)
		}
		if _, err := d.Token(); err != io.EOF || variables == nil {
			return nil, fault.New(fault.Invalid, "read metadata variables: want one JSON object")
		}
	}
	for name, value := range r.Metadata {
		if name, ok := strings.CutPrefix(name, variablePrefix); ok {
			variables[name] = value
		}
	}
	body := map[string]any{"query": text}
	if len(variables) > 0 {
		body["variables"] = variables
	}
	if name := r.Metadata["operationName"]; name != "" {
		body["operationName"] = name
	}
	out, err := json.Marshal(body)
	return out, fault.As(fault.Invalid, err)
}

func (b *binding) request(ctx context.Context, r *bindings.Request, body []byte) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, b.o.Endpoint, bytes.NewReader(body))
	if err != nil {
		return nil, fault.New(fault.Invalid, "make request: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/graphql-response+json, application/json;q=0.9")
	for name, value := range b.o.Headers {
		req.Header.Set(name[len(headerPrefix):], value)
	}
	for key, value := range r.Metadata {
		name, ok := strings.CutPrefix(key, headerPrefix)
		switch {
		case ok:
			if err := checkHeader(name, value); err != nil {
				return nil, fault.New(fault.Invalid, "read metadata %.60q: %w", key, err)
			}
		case key == "traceparent" || key == "tracestate" || key == "baggage":
			if name = key; checkHeader(name, value) != nil {
				continue
			}
		default:
			continue
		}
		req.Header.Set(name, value)
	}
	return req, nil
}

// checkHeader refuses what cannot be a header, and those that belong to the
// connection or the body.
func checkHeader(name, value string) error {
	const special = "!#$%&'*+-.^_`|~"
	for _, c := range []byte(name) {
		if (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') && strings.IndexByte(special, c) < 0 {
			return errors.New("is not the name of a header")
		}
	}
	switch http.CanonicalHeaderKey(name) {
	case "":
		return errors.New("has no name of a header")
	case "Connection", "Content-Length", "Content-Type", "Expect", "Host", "Te", "Trailer", "Transfer-Encoding", "Upgrade":
		return errors.New("cannot be set")
	}
	for _, c := range []byte(value) {
		if c < ' ' && c != '\t' || c == 0x7f {
			return errors.New("has characters that a header cannot carry, such as a line break")
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
	return fault.Wrap(fault.As(kind, err), "call %s", req.URL.Host)
}

// Close drops the idle connections.
func (b *binding) Close(context.Context) error {
	b.transport.CloseIdleConnections()
	return nil
}

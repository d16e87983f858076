// Package azure calls Azure Storage: accounts, the signature of requests with an
// account's key, and what the service answers.
//
// A component makes a [Client] with [New] and sends its requests with Do. The
// calls of the blob and table services are few and plain HTTP, so there is no SDK
// behind this.
//
// Promises: no error shows a key or a signature. A request is sent once;
// whoever calls a component tries again by policy.
package azure

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"time"

	clienthttp "github.com/penstock-io/penstock/client/http"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
)

// Service is one of an account's services.
type Service string

// The services known.
const (
	Blob  Service = "blob"
	Table Service = "table"
)

// Account says which account to use and how.
type Account struct {
	Name string
	Key  component.Secret // in base64
	// Endpoint is the address of the account's service, with the account in it
	// where it is part of the path; empty is Azure's own.
	Endpoint string
}

const (
	requestTimeout = 30 * time.Second
	dialTimeout    = 5 * time.Second
	// mostAnswer bounds what is read of an answer, in bytes: a blob that was
	// written in one request is smaller.
	mostAnswer = 256 << 20
)

// Client sends requests to one service of an account.
type Client struct {
	http    *http.Client
	service Service
	name    string
	key     []byte
	base    string // without a slash at its end
}

// New makes a client; nothing is sent. Kind Invalid for a key or an endpoint that
// cannot be one.
func New(service Service, a Account) (*Client, error) {
	key, err := base64.StdEncoding.DecodeString(a.Key.Reveal())
	if err != nil || len(key) == 0 {
		return nil, fault.New(fault.Invalid, "read account key: it is not base64")
	}
	base := strings.TrimRight(a.Endpoint, "/")
	if base == "" {
		base = "https://" + a.Name + "." + string(service) + ".core.windows.net"
	}
	if u, err := url.Parse(base); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fault.New(fault.Invalid, "read endpoint: %q is not an address such as https://name.blob.core.windows.net", base)
	}
	return &Client{
		http: &http.Client{
			Transport:     clienthttp.NewTransport(clienthttp.Options{ConnectTimeout: dialTimeout, HeaderTimeout: requestTimeout, UseProxy: true}),
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		service: service, name: a.Name, key: key, base: base,
	}, nil
}

// Close frees idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Request is one request.
type Request struct {
	Method string
	// Path begins with a slash and is escaped.
	Path string
	// Query may be nil.
	Query url.Values
	// Header may be nil.
	Header http.Header
	Body   []byte
}

// Response is what came back.
type Response struct {
	Header http.Header
	Body   []byte
}

// Error is the service's refusal of a request.
type Error struct {
	Status        int
	Code, Message string
}

// Error shows code and message.
func (e *Error) Error() string {
	text := e.Code
	if text == "" {
		text = http.StatusText(e.Status)
	}
	if e.Message != "" {
		text += ": " + e.Message
	}
	return text
}

// Code returns the service's code of an error; empty when it has none.
func Code(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return ""
}

// Do sends a request. An answer of status 300 or more is an error with an [Error]
// in its chain. Kinds: Conflict when a condition did not hold, those of the
// status, Unavailable and Timeout from the network.
func (c *Client) Do(ctx context.Context, r Request) (*Response, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	address := c.base + r.Path
	if len(r.Query) > 0 {
		address += "?" + r.Query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, r.Method, address, bytes.NewReader(r.Body))
	if err != nil {
		return nil, fault.As(fault.Invalid, err)
	}
	maps.Copy(req.Header, r.Header)
	c.sign(req, len(r.Body), time.Now())
	res, err := c.http.Do(req)
	if err != nil {
		return nil, network(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, mostAnswer))
	if err != nil {
		return nil, network(err)
	}
	if res.StatusCode < http.StatusMultipleChoices {
		return &Response{Header: res.Header, Body: body}, nil
	}
	return nil, refusal(res, body)
}

// network gives an error of the connection its kind. It leaves out the address,
// which is long and says nothing new.
func network(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	if kind := fault.KindOf(err); kind != fault.Internal {
		return fault.As(kind, err)
	}
	return fault.As(fault.Unavailable, err) // a connection that broke in the middle of an answer
}

func refusal(res *http.Response, body []byte) error {
	e := &Error{Status: res.StatusCode, Code: res.Header.Get("x-ms-error-code")}
	code, message := explain(body)
	if e.Code == "" {
		e.Code = code
	}
	e.Message, _, _ = strings.Cut(message, "\n") // the rest is the request's number and the time
	kind := fault.FromHTTPStatus(max(res.StatusCode, http.StatusBadRequest))
	switch res.StatusCode {
	case http.StatusPreconditionFailed, http.StatusConflict:
		kind = fault.Conflict
	case http.StatusRequestEntityTooLarge:
		kind = fault.Invalid
	}
	err := fault.As(kind, e)
	if after := clienthttp.RetryAfter(res.Header, time.Now()); after > 0 {
		err = fault.WithRetryAfter(err, after)
	}
	return err
}

// explain reads the body of a refusal: XML of the blob service, JSON of the table
// service.
func explain(body []byte) (code, message string) {
	var x struct {
		Code    string `xml:"Code"`
		Message string `xml:"Message"`
	}
	if xml.Unmarshal(body, &x) == nil && x.Code != "" {
		return x.Code, x.Message
	}
	var j struct {
		Error struct {
			Code    string `json:"code"`
			Message struct {
				Value string `json:"value"`
			} `json:"message"`
		} `json:"odata.error"`
	}
	_ = json.Unmarshal(body, &j) // what cannot be read is not shown
	return j.Error.Code, j.Error.Message.Value
}

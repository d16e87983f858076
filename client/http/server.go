package http

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/penstock-io/penstock/fault"
)

// Server is somebody's API over HTTP with JSON, at one address. Make one with
// [NewServer]; it may be used by many goroutines.
type Server struct {
	base      string
	host      string
	limit     int64
	timeout   time.Duration
	transport *http.Transport
	client    *http.Client
}

// Bounds of a [Server] that callers do not set.
const (
	answerLimit   = 16 << 20
	answerTimeout = 20 * time.Second
)

// NewServer makes a server of an address such as https://vault:8200 or
// https://proxy/vault; nothing is sent. Answers may have 16 MiB and take 20 s,
// body included. No redirect is followed. Kind Invalid for an address that is
// none.
func NewServer(address string, o Options) (*Server, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, fault.New(fault.Invalid, "read address: want one like https://host:8200, without a user or a query")
	}
	s := &Server{base: strings.TrimRight(u.String(), "/"), host: u.Host, limit: answerLimit, timeout: answerTimeout, transport: NewTransport(o)}
	s.client = &http.Client{Transport: s.transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return s, nil
}

// Host returns the host and port of the address.
func (s *Server) Host() string { return s.host }

// Close drops the idle connections.
func (s *Server) Close() { s.transport.CloseIdleConnections() }

// Call is one request to a [Server].
type Call struct {
	// Method is GET when empty.
	Method string
	// Path is put behind the address; escaped, with a query if there is one.
	Path string
	// Header may be nil.
	Header http.Header
	// Body is sent as JSON; nil means none.
	Body any
}

// Answer is what a server said, whatever its status.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// Do sends a request and reads the whole answer. Its errors say that there was
// none: Unavailable or Timeout for a server that cannot be reached, Denied for an
// address that is refused, Invalid for an answer that is too long. They name the
// host and never the path.
func (s *Server) Do(ctx context.Context, c Call) (*Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	var body []byte
	if c.Body != nil {
		var err error
		if body, err = json.Marshal(c.Body); err != nil {
			return nil, fault.New(fault.Internal, "write request: %w", err)
		}
	}
	method := c.Method
	if method == "" {
		method = http.MethodGet
	}
	req, err := http.NewRequestWithContext(ctx, method, s.base+c.Path, bytes.NewReader(body))
	if err != nil {
		return nil, fault.New(fault.Invalid, "make request: %w", bare(err))
	}
	maps.Copy(req.Header, c.Header)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("Accept", "application/json")
	res, err := s.client.Do(req)
	if err != nil {
		return nil, s.unanswered(err)
	}
	defer res.Body.Close()
	data, err := ReadBody(res.Body, s.limit)
	switch {
	case err != nil && fault.KindOf(err) == fault.Exhausted:
		return nil, fault.New(fault.Invalid, "ask %s: %w", s.host, err) // it will be as long the next time
	case err != nil:
		return nil, fault.Wrap(err, "ask %s", s.host)
	}
	return &Answer{Status: res.StatusCode, Header: res.Header, Body: data}, nil
}

// bare is the cause of an error without the URL in front of it.
func bare(err error) error {
	if ue, ok := errors.AsType[*url.Error](err); ok {
		return ue.Err
	}
	return err
}

func (s *Server) unanswered(err error) error {
	err = bare(err)
	kind := fault.KindOf(err)
	_, verify := errors.AsType[*tls.CertificateVerificationError](err)
	if kind == fault.Internal || verify {
		kind = fault.Unavailable // broken connections, certificates that may be renewed
	}
	return fault.New(kind, "ask %s: %w", s.host, err)
}

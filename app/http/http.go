// Package http talks to an app that is a web server: HTTP/1.1, HTTPS or HTTP/2
// in clear text.
//
// The runtime makes one [Channel] with [New] and puts an app.App in front of
// it. It implements app.Channel and app.Reacher.
//
// It promises one request per call: redirects are not followed, nothing is
// decompressed, no proxy is asked. An answer is read whole or is an error:
// bodies are bounded by [Options.MaxBody], headers by 64 KiB, the time by the
// context. A request is only repeated, on a new connection, when the app had
// closed the old one before it read anything of it, or, where the caller says
// that doing it twice is harmless, before it answered. The token goes to the
// app and nowhere else.
package http

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/penstock-io/penstock/app"
	"github.com/penstock-io/penstock/fault"
	msg "github.com/penstock-io/penstock/invoke/message"
	"github.com/penstock-io/penstock/middleware"
	"github.com/penstock-io/penstock/telemetry"
)

// Options say where the app is and how it wants to be asked.
type Options struct {
	Port     int
	Address  string // default 127.0.0.1
	Protocol string // http (default), https or h2c
	// Token is sent with every request as dapr-api-token; empty: none.
	Token string
	// MaxConcurrency is how many calls are expected at once; that many
	// connections are kept. Zero or less: 256.
	MaxConcurrency int
	// MaxBody bounds the body of an answer, in bytes; default 4 MiB.
	MaxBody int64
	// HealthPath is asked for the app's health; default /healthz.
	HealthPath string
	// ProbeTimeout bounds the question whether the app takes a binding's
	// events; default 3 s.
	ProbeTimeout time.Duration
	// DiscoveryTimeout bounds one try of asking for subscriptions; default
	// 30 s.
	DiscoveryTimeout time.Duration
	// Disable lists questions not to ask: "config", "subscribe".
	Disable []string
	// Pipeline is what calls pass on their way to the app, all but the question
	// for its health; nil is nothing.
	Pipeline *middleware.Pipeline
	// Metrics counts calls and questions for health; nil: nobody does.
	Metrics *telemetry.Metrics
	Logger  *slog.Logger
}

const (
	maxHeader      = 64 << 10
	structuredType = "application/cloudevents+json"
	// maxURLs bounds the paths that are remembered in parsed form.
	maxURLs = 1024
)

// Channel is an app over HTTP. It is safe for concurrent use.
type Channel struct {
	o         Options
	log       *slog.Logger
	address   string // host:port
	transport *http.Transport
	wire      *wire         // for small requests over HTTP/1.1; nil when there is none
	base      *http.Request // what all requests have in common
	// Values of headers, shared by all requests; nobody writes to them.
	token, agent, structured []string

	piped http.Handler // the app, behind the pipeline

	urls     sync.Map // path to *url.URL
	urlCount atomic.Int64
}

var (
	_ app.Channel = (*Channel)(nil)
	_ app.Reacher = (*Channel)(nil)
)

// New makes the channel; it opens no connection. Wrong options are errors of
// kind invalid.
//
// The certificate of an https app is checked, unless its address is a loopback
// one: there it is usually self-signed and the connection cannot be tapped.
func New(o Options) (*Channel, error) {
	o = withDefaults(o)
	if err := check(o); err != nil {
		return nil, err
	}
	c := &Channel{
		o: o, log: o.Logger,
		address:   net.JoinHostPort(o.Address, strconv.Itoa(o.Port)),
		transport: newTransport(o),
		agent:     []string{"penstock"}, structured: []string{structuredType},
	}
	if o.Protocol == "http" {
		c.wire = newWire(c.address, o)
	}
	if o.Token != "" {
		c.token = []string{o.Token}
	}
	scheme := "http"
	if o.Protocol == "https" {
		scheme = "https"
	}
	c.base = &http.Request{
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		URL:  &url.URL{Scheme: scheme, Host: c.address},
		Host: c.address,
	}
	c.piped = o.Pipeline.Wrap(http.HandlerFunc(c.passed))
	return c, nil
}

func withDefaults(o Options) Options {
	o.Address = strings.TrimSuffix(strings.TrimPrefix(o.Address, "["), "]")
	o.Address = cmp.Or(o.Address, "127.0.0.1")
	o.Protocol = cmp.Or(o.Protocol, "http")
	o.HealthPath = cmp.Or(o.HealthPath, "/healthz")
	o.ProbeTimeout = cmp.Or(o.ProbeTimeout, 3*time.Second)
	o.DiscoveryTimeout = cmp.Or(o.DiscoveryTimeout, 30*time.Second)
	o.MaxBody = cmp.Or(o.MaxBody, 4<<20)
	if o.MaxConcurrency <= 0 {
		o.MaxConcurrency = 256
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

func check(o Options) error {
	switch {
	case o.Protocol != "http" && o.Protocol != "https" && o.Protocol != "h2c":
		return fault.New(fault.Invalid, "app protocol %q: want http, https or h2c", o.Protocol)
	case o.MaxBody < 0 || o.ProbeTimeout < 0 || o.DiscoveryTimeout < 0:
		return fault.New(fault.Invalid, "app limits: none may be negative")
	}
	if _, err := url.ParseRequestURI(rooted(o.HealthPath)); err != nil {
		return fault.As(fault.Invalid, err)
	}
	return app.CheckPlace(o.Port, o.Address, o.Token)
}

// dialer opens connections; one that cannot be opened is an app.Unreachable
// error.
func dialer() func(ctx context.Context, network, address string) (net.Conn, error) {
	d := &net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := d.DialContext(ctx, network, address)
		if err != nil {
			return nil, app.Unreachable(err)
		}
		return conn, nil
	}
}

func newTransport(o Options) *http.Transport {
	t := &http.Transport{
		DialContext:            dialer(),
		MaxIdleConnsPerHost:    o.MaxConcurrency,
		IdleConnTimeout:        90 * time.Second,
		TLSHandshakeTimeout:    10 * time.Second,
		MaxResponseHeaderBytes: maxHeader,
		WriteBufferSize:        msg.WriteBuffer,
		DisableCompression:     true,
		Protocols:              new(http.Protocols),
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 15 * time.Second},
	}
	switch o.Protocol {
	case "h2c":
		t.Protocols.SetUnencryptedHTTP2(true)
	case "https":
		t.Protocols.SetHTTP1(true)
		t.Protocols.SetHTTP2(true)
		t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: app.IsLoopback(o.Address)}
	default:
		t.Protocols.SetHTTP1(true)
	}
	return t
}

// Close frees the idle connections.
func (c *Channel) Close() {
	c.transport.CloseIdleConnections()
	if c.wire != nil {
		c.wire.close()
	}
}

// Call sends one request and returns the whole answer, whatever its status. An
// app that does not listen is an app.Unreachable error; an answer that is too
// large is of kind exhausted; one that is cut off or not HTTP of kind
// unavailable; the end of ctx of the kind of its reason. With a pipeline the
// answer may be that of a middleware.
func (c *Channel) Call(ctx context.Context, r *Request) (*Answer, error) {
	if !c.o.Pipeline.Empty() {
		return c.pass(ctx, r)
	}
	return c.call(ctx, r)
}

// call is Call without the pipeline.
func (c *Channel) call(ctx context.Context, r *Request) (*Answer, error) {
	began := time.Now()
	answer, err := c.ask(ctx, r)
	if err == nil {
		c.o.Metrics.AppCalled(cmp.Or(r.Method, http.MethodPost), answer.Status, time.Since(began))
	}
	return answer, err
}

// ask is call without being counted.
func (c *Channel) ask(ctx context.Context, r *Request) (*Answer, error) {
	u, err := c.url(r.Path)
	if err != nil {
		return nil, err
	}
	if c.wire != nil && len(r.Body) <= smallBody {
		return c.callWire(ctx, r, u)
	}
	if r.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, r.Timeout)
		defer cancel()
	}
	return c.callTransport(ctx, r, u)
}

func (c *Channel) callWire(ctx context.Context, r *Request, u *url.URL) (*Answer, error) {
	m := &message{
		method: cmp.Or(r.Method, http.MethodPost), target: u.RequestURI(), host: c.address,
		header: c.header(r), body: r.Body,
	}
	m.again = harmless(m.method, m.header)
	if r.Timeout > 0 {
		m.until = time.Now().Add(r.Timeout)
	}
	answer, err := c.wire.do(ctx, m, c.read)
	if err != nil {
		return nil, callError(ctx, u.Path, err)
	}
	return answer, nil
}

func (c *Channel) callTransport(ctx context.Context, r *Request, u *url.URL) (*Answer, error) {
	// A shallow copy with ctx, which NewRequest would make with more work.
	req := c.base.WithContext(ctx)
	req.Method = cmp.Or(r.Method, http.MethodPost)
	req.URL = u
	req.Header = c.header(r)
	if len(r.Body) > 0 {
		setBody(req, r.Body)
	}
	resp, err := c.transport.RoundTrip(req)
	if err != nil {
		return nil, callError(ctx, u.Path, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return nil, fault.New(fault.Invalid, "call app at %s: it wants to switch protocols", r.Path)
	}
	body, err := c.read(resp)
	if err != nil {
		return nil, callError(ctx, u.Path, err)
	}
	return &Answer{Status: resp.StatusCode, Header: resp.Header, Body: body}, nil
}

// setBody gives req a body of a kind that net/http knows to be in memory, and
// the means to read it again on another connection.
func setBody(req *http.Request, body []byte) {
	req.ContentLength = int64(len(body))
	req.Body = io.NopCloser(bytes.NewReader(body))
	req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
}

func callError(ctx context.Context, path string, err error) error {
	const format = "call app at %s"
	switch {
	case ctx.Err() != nil:
		return fault.Wrap(context.Cause(ctx), format, path)
	case isOtherProtocol(err):
		return fault.New(fault.Unavailable, format+": %w; is --app-protocol right?", path, err)
	case fault.KindOf(err) == fault.Internal:
		return fault.New(fault.Unavailable, format+": %w", path, err)
	default:
		return fault.Wrap(err, format, path)
	}
}

// isOtherProtocol tells whether what listens at the app's port does not speak
// what we do: gRPC or TLS where HTTP is expected, or the other way round. The
// standard library has texts for that, and no types.
func isOtherProtocol(err error) bool {
	text := err.Error()
	return strings.Contains(text, "malformed HTTP") || strings.Contains(text, "server gave HTTP response to HTTPS client")
}

// read returns the body, at most the limit.
func (c *Channel) read(resp *http.Response) ([]byte, error) {
	size := resp.ContentLength
	switch {
	case size == 0:
		return nil, nil
	case size > c.o.MaxBody:
		return nil, c.tooLarge()
	case size < 0:
		size = 511
	}
	// One byte more than announced, so that the end shows without growing.
	body := make([]byte, 0, size+1)
	for {
		n, err := resp.Body.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		switch {
		case int64(len(body)) > c.o.MaxBody:
			return nil, c.tooLarge()
		case errors.Is(err, io.EOF):
			return body, nil
		case err != nil:
			return nil, err
		case len(body) == cap(body):
			body = append(body, 0)[:len(body)]
		}
	}
}

func (c *Channel) tooLarge() error {
	return fault.New(fault.Exhausted, "the answer has more than %d bytes", c.o.MaxBody)
}

// url returns the parsed form of a path, which may hold a query.
func (c *Channel) url(path string) (*url.URL, error) {
	if u, ok := c.urls.Load(path); ok {
		return u.(*url.URL), nil
	}
	u, err := url.ParseRequestURI(rooted(path))
	if err != nil {
		return nil, fault.New(fault.Invalid, "call app at %.200q: not a path", path)
	}
	u.Scheme, u.Host = c.base.URL.Scheme, c.address
	if c.urlCount.Load() < maxURLs {
		if _, old := c.urls.LoadOrStore(path, u); !old {
			c.urlCount.Add(1)
		}
	}
	return u, nil
}

// rooted puts a slash in front of a path that has none.
func rooted(path string) string {
	if strings.HasPrefix(path, "/") {
		return path
	}
	return "/" + path
}

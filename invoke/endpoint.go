package invoke

import (
	"context"
	"crypto/tls"
	"maps"
	"net/http"
	"net/url"
	"strings"

	clienthttp "github.com/penstock-io/penstock/client/http"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/invoke/message"
)

// EndpointOptions describe a web server that has a name.
type EndpointOptions struct {
	// BaseURL is in front of every path: http or https, a host, perhaps a path.
	BaseURL string
	// Header is sent with every request, in place of what an app sends; what belongs
	// to a connection is left out, see [Sendable].
	Header http.Header
	// TLS is nil for the defaults.
	TLS *tls.Config
}

// Endpoint is a web server that calls go to directly. It is safe for concurrent
// use.
type Endpoint struct {
	o         EndpointOptions
	base      *url.URL
	transport http.RoundTripper
	own       *http.Transport // nil: the transport is another's
}

// NewEndpoint makes an endpoint; it opens no connection. A wrong URL or header is
// an error of kind invalid, which shows no value of a header. An endpoint made by this function must be closed.
func NewEndpoint(o EndpointOptions) (*Endpoint, error) {
	base, err := url.Parse(o.BaseURL)
	switch {
	case err != nil:
		return nil, fault.New(fault.Invalid, "read URL: %w", bare(err))
	case base.Scheme != "http" && base.Scheme != "https" || base.Host == "":
		return nil, fault.New(fault.Invalid, "read URL: want http:// or https:// and a host")
	case base.User != nil:
		return nil, fault.New(fault.Invalid, "read URL: a name and a password may not be in it")
	case base.RawQuery != "" || base.Fragment != "":
		return nil, fault.New(fault.Invalid, "read URL: a query or a fragment may not be in it")
	}
	header, err := kept(o.Header)
	if err != nil {
		return nil, err
	}
	o.Header = header
	return &Endpoint{o: o, base: base}, nil
}

// kept returns the headers that can be sent with every request: those that belong
// to a connection cannot. A token is meant for the web server.
func kept(h http.Header) (http.Header, error) {
	out := make(http.Header, len(h))
	for name, values := range h {
		if err := CheckHeader(name, values...); err != nil {
			return nil, err
		}
		if Sendable(name) {
			out[http.CanonicalHeaderKey(name)] = values
		}
	}
	return out, nil
}

// CheckHeader finds what is wrong with a header: an error of kind invalid, which
// shows no value.
func CheckHeader(name string, values ...string) error {
	switch {
	case !message.Good(name, nil):
		return fault.New(fault.Invalid, "read header %.80q: it is no name of a header", name)
	case !message.Good(name, values):
		return fault.New(fault.Invalid, "read header %s: a control character, such as the end of a line, is in its value", name)
	}
	return nil
}

// Sendable tells whether an endpoint can have a header of that name. Those of a
// connection it cannot.
func Sendable(name string) bool {
	switch name = http.CanonicalHeaderKey(name); name {
	case "Dapr-Api-Token", "Dapr-App-Id", "Destination-App-Id":
		return true
	}
	return !message.OneHop(name)
}

// bare returns the cause of an error of package url, whose text repeats the URL,
// which may hold a secret.
func bare(err error) error {
	if u, ok := err.(*url.Error); ok {
		return u.Err
	}
	return err
}

// Open gives the endpoint connections of its own.
func (e *Endpoint) Open() *Endpoint {
	e.own = clienthttp.NewTransport(clienthttp.Options{TLS: e.o.TLS})
	e.transport = e.own
	return e
}

// Close frees idle connections.
func (e *Endpoint) Close() {
	if e.own != nil {
		e.own.CloseIdleConnections()
	}
}

// send sends r, without who calls whom: it leaves the world of sidecars.
func (e *Endpoint) send(ctx context.Context, r *message.Request, _ []string) (*message.Response, error) {
	u := *e.base
	path := strings.TrimSuffix(e.base.EscapedPath(), "/") + "/" + r.Path
	if r.Path == "" {
		path = e.base.EscapedPath()
	}
	u.RawPath, u.Path = path, message.Plain(path)
	u.RawQuery = r.Query
	for _, name := range []string{message.CallerID, message.CallerNamespace, message.CalleeID} {
		delete(r.Header, name)
	}
	maps.Copy(r.Header, e.o.Header)
	answer, err := message.RoundTrip(ctx, e.transport, &u, r)
	return answer, fault.Wrap(err, "call %s", u.Host)
}

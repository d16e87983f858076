// Package message is a call from one app to another while it is on its way: a
// request and its answer, whatever protocol they came in on and leave by.
//
// The servers of the API and of other sidecars make a [Request], with [Path] and
// [Clean]; the channels to the app and to other sidecars send it and return a
// [Response]. Bodies are streams, read once, by one reader.
//
// It promises that the path is read once: [Path] returns the one spelling that is
// checked, logged and dispatched, or an error. What belongs to one connection, and
// every token, is gone from the headers after [Clean].
package message

import (
	"errors"
	"io"
	"net/http"

	"google.golang.org/grpc/status"

	"github.com/penstock-io/penstock/fault"
)

// Request is one call of an app's method.
type Request struct {
	// Verb is the HTTP method; empty when a call over gRPC named none.
	Verb string
	// Path is what [Path] returned: escaped, without a slash in front.
	Path string
	// Query is as it was sent, without the question mark.
	Query string
	// Header has the Content-Type of the body, also of a call over gRPC, whose
	// metadata it else holds.
	Header http.Header
	// TypeURL is the type of a body that is a message of protocol buffers in a
	// google.protobuf.Any; empty otherwise.
	TypeURL string
	// Body is nil when there is none. Whoever sends the request closes it.
	Body io.ReadCloser
	// Length is that of Body in bytes; -1 when it is not known.
	Length int64
	// Trailer is filled when Body was read to its end; nil: there is none.
	Trailer http.Header
	// RPC tells that the call came over gRPC.
	RPC bool
	// Upgrade is what the caller's connection is to become, such as "websocket";
	// empty: it stays as it is.
	Upgrade string
}

// Response is the answer of an app.
type Response struct {
	// Status is the HTTP status; of an app that speaks gRPC the one that its code
	// stands for.
	Status int
	// RPC is the status of an app that speaks gRPC, nil of any other.
	RPC *status.Status
	// Header has the Content-Type of the body.
	Header http.Header
	// Trailer is complete when Body was read to its end.
	Trailer http.Header
	// TypeURL is as in [Request].
	TypeURL string
	// Body is never nil. It must be closed, which ends the call.
	Body io.ReadCloser
	// Length is that of Body in bytes; -1 when it is not known.
	Length int64
	// Upgraded is not nil when the connection has become what the request asked for,
	// with status 101: it leads to the app, and Body comes from there. It ends with
	// Body.
	Upgraded io.Writer
}

// Failed tells whether the answer counts as a failure for a policy: an HTTP
// status other than 200 to 399, a gRPC code other than OK.
func (r *Response) Failed() bool {
	if r.RPC != nil {
		return r.RPC.Code() != 0
	}
	return (r.Status < 200 || r.Status > 399) && r.Upgraded == nil
}

// OnClose makes the Close of the response's body call f after it, once.
func (r *Response) OnClose(f func()) {
	r.Body = &closing{ReadCloser: r.Body, after: f}
}

type closing struct {
	io.ReadCloser
	after func()
}

// Close implements [io.Closer].
func (c *closing) Close() error {
	err := c.ReadCloser.Close()
	if f := c.after; f != nil {
		c.after = nil
		f()
	}
	return err
}

// ErrNoUpgrade is the error of a call whose connection cannot become another one on
// its way.
var ErrNoUpgrade = fault.New(fault.Invalid, "upgrade the connection: a WebSocket passes to apps, HTTPEndpoints and URLs, not to an app that speaks gRPC or whose sidecar is no Penstock")

// errUnsent marks the error of a request of which nothing was sent.
var errUnsent = errors.New("unsent")

// Unsent marks err as that of a request of which nothing was sent: another
// instance may get it without doing it twice. It returns nil when err is nil.
func Unsent(err error) error {
	if err == nil {
		return nil
	}
	return &unsent{err}
}

// IsUnsent tells whether err was marked so.
func IsUnsent(err error) bool { return errors.Is(err, errUnsent) }

type unsent struct{ error }

// Unwrap returns the error itself and its mark.
func (u *unsent) Unwrap() []error { return []error{u.error, errUnsent} }

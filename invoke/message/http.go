package message

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/penstock-io/penstock/fault"
)

// WriteBuffer is how much a connection that bodies are sent on writes at once, in
// bytes: what net/http reads of a body at a time, with what it writes around it. With
// less each piece is three writes, and its last two bytes wake the other side once
// more.
const WriteBuffer = 33 << 10

// RoundTrip sends a request over HTTP to a URL and returns the answer with its
// headers cleaned. Redirects are not followed. It closes r's body; one
// with a method Again() (io.ReadCloser, error) may be sent once more on another
// connection. Errors without a kind of their own are of kind unavailable.
func RoundTrip(ctx context.Context, t http.RoundTripper, u *url.URL, r *Request) (*Response, error) {
	ForHTTP(r.Header)
	if _, set := r.Header["User-Agent"]; !set {
		r.Header["User-Agent"] = []string{""} // lest net/http says that it is Go's
	}
	req := (&http.Request{
		Method: r.Verb, URL: u, Host: u.Host, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: r.Header, ContentLength: r.Length,
	}).WithContext(ctx)
	if r.Upgrade != "" {
		r.Header["Connection"], r.Header["Upgrade"] = []string{"Upgrade"}, []string{r.Upgrade}
	}
	if r.Length < 0 {
		req.Trailer = r.Trailer
	}
	switch {
	case r.Body == nil:
		req.ContentLength = 0
	case r.Length == 0:
		_ = r.Body.Close() // there is nothing in it
		req.Body = http.NoBody
	default:
		req.Body = r.Body
		if h, ok := r.Body.(Held); ok {
			req.Body = io.NopCloser(h.Reader) // which net/http sends together with the head
		}
		if a, ok := r.Body.(again); ok {
			req.GetBody = a.Again
		}
	}
	resp, err := t.RoundTrip(req)
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, fault.Wrap(context.Cause(ctx), "wait for the answer")
	case err != nil && fault.KindOf(err) == fault.Internal:
		return nil, fault.As(fault.Unavailable, err)
	case err != nil:
		return nil, err
	}
	upgraded, _ := resp.Body.(io.Writer)
	if resp.StatusCode != http.StatusSwitchingProtocols {
		upgraded = nil
	} else if r.Upgrade == "" || upgraded == nil || !strings.EqualFold(resp.Header.Get("Upgrade"), r.Upgrade) {
		_ = resp.Body.Close() // what it wants to speak is nothing that was asked for
		return nil, fault.New(fault.Invalid, "it wants to switch protocols")
	}
	Clean(resp.Header)
	answer := &Response{
		Status: resp.StatusCode, Header: resp.Header, Trailer: resp.Trailer, Body: resp.Body, Length: resp.ContentLength, Upgraded: upgraded,
	}
	if upgraded != nil { // net/http looks after it no longer
		stop := context.AfterFunc(ctx, func() { _ = resp.Body.Close() })
		answer.OnClose(func() { stop() })
	}
	return answer, nil
}

// small is how long a body may be that is read before it is sent, in bytes.
const small = 64 << 10

// Hold reads a small body of known length, so that the request can be sent once more
// when the other side had closed the connection before it read anything. It closes
// the body; what is behind the length belongs to nobody.
func Hold(r *Request) error {
	if _, held := r.Body.(Held); held || r.Body == nil || r.Length <= 0 || r.Length > small {
		return nil
	}
	data := make([]byte, r.Length)
	_, err := io.ReadFull(r.Body, data)
	_ = r.Body.Close() // it was read
	r.Body = hold(data)
	return fault.Wrap(err, "read request body")
}

// Held is a body in memory.
type Held struct {
	*bytes.Reader
	data []byte
}

func hold(data []byte) Held { return Held{bytes.NewReader(data), data} }

// Close implements [io.Closer].
func (Held) Close() error { return nil }

// Again returns the body from its beginning; it never fails.
func (h Held) Again() (io.ReadCloser, error) { return hold(h.data), nil }

// again is a body that can be read once more.
type again interface{ Again() (io.ReadCloser, error) }

// ReadAll reads a body to its end, and closes it; nil is an empty one. One of more
// than limit bytes is an error of kind exhausted.
func ReadAll(body io.ReadCloser, limit int64) ([]byte, error) {
	if body == nil {
		return nil, nil
	}
	data, err := io.ReadAll(io.LimitReader(body, limit+1))
	err = errors.Join(err, body.Close())
	switch {
	case int64(len(data)) > limit:
		return nil, fault.New(fault.Exhausted, "read body: it has more than %d bytes, the limit of --max-body-size where a call is one message", limit)
	case err != nil:
		return nil, fault.Wrap(err, "read body")
	}
	return data, nil
}

// Package oauth2 is how Penstock asks an OAuth 2.0 server for tokens: the part
// that the components with OAuth in their name share.
//
// A component makes one [Client] when it opens, hands [Client.Fetch] a function
// that asks with golang.org/x/oauth2, and closes the client when it closes.
// [CheckURL] and [Scopes] read the options that all of them have.
//
// The package promises that no secret, code or token gets into an error or a log,
// whatever the server answers, that an answer is waited for no longer than ten
// seconds, that no redirect is followed, and that what it returns can be sent as
// a header.
package oauth2

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/oauth2"

	client "github.com/penstock-io/penstock/client/http"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/fault"
)

const (
	fetchTimeout = 10 * time.Second
	maxHeader    = 16 << 10
	// refused is the error code that says that a code or a login does not count,
	// which is no fault of the server or of the configuration.
	refused = "invalid_grant"
)

// Client asks the token endpoint of one server. Make one with [NewClient].
type Client struct {
	log       *slog.Logger
	transport *http.Transport
	http      *http.Client
	failing   atomic.Bool
}

// NewClient makes a client; nothing is sent.
func NewClient(log *slog.Logger) *Client {
	t := client.NewTransport(client.Options{HeaderTimeout: fetchTimeout, UseProxy: true})
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &Client{log: log, transport: t, http: &http.Client{Transport: t, CheckRedirect: stay}}
}

// Close drops the idle connections.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// Grant is what a server gave.
type Grant struct {
	// Header is the value of an Authorization header, such as "Bearer abc".
	Header string
	// Ends is when it stops to count; zero: the server did not say.
	Ends time.Time
}

// Fetch calls ask with a context that holds the HTTP client. Its errors name the
// error code of the server and nothing else of the answer: kind Denied when the
// server refuses what was presented to it, Invalid when it refuses the client,
// otherwise Unavailable or Timeout. The first of several failures is logged, and
// the end of them; not those of kind Denied.
func (c *Client) Fetch(ctx context.Context, ask func(context.Context) (*oauth2.Token, error)) (Grant, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	token, err := ask(context.WithValue(ctx, oauth2.HTTPClient, c.http))
	var g Grant
	if err == nil {
		g, err = grant(token)
	} else {
		err = fault.Wrap(plain(err), "ask token endpoint")
	}
	switch {
	case err == nil:
		if c.failing.Swap(false) {
			c.log.Info("The token endpoint gives tokens again")
		}
	case errors.Is(ctx.Err(), context.Canceled) || fault.KindOf(err) == fault.Denied:
		// whoever asked is gone, or was refused
	case !c.failing.Swap(true):
		c.log.Warn("The token endpoint gives no token", "error", err)
	}
	return g, err
}

// grant makes the header of a token.
func grant(t *oauth2.Token) (Grant, error) {
	g := Grant{Header: t.Type() + " " + t.AccessToken, Ends: t.Expiry}
	if len(g.Header) > maxHeader {
		return Grant{}, fault.New(fault.Unavailable, "read token: it has %d bytes, %d is the limit", len(t.AccessToken), maxHeader)
	}
	for i := range len(g.Header) {
		if c := g.Header[i]; c < ' ' || c > '~' {
			return Grant{}, fault.New(fault.Unavailable, "read token: it has a character that no header may have")
		}
	}
	return g, nil
}

// plain returns an error without what the server answered, or the URL, which may
// hold a secret.
func plain(err error) error {
	var answer *oauth2.RetrieveError
	var request *url.Error
	switch {
	case errors.As(err, &answer):
		return answered(answer)
	case errors.As(err, &request):
		if k := fault.KindOf(request.Err); k != fault.Internal {
			return fault.As(k, request.Err)
		}
		return fault.As(fault.Unavailable, request.Err)
	case fault.KindOf(err) != fault.Internal:
		return fault.New(fault.KindOf(err), "the answer was cut off")
	}
	return fault.New(fault.Unavailable, "the answer is no token in JSON")
}

func answered(e *oauth2.RetrieveError) error {
	status, code := e.Response.StatusCode, word(e.ErrorCode)
	kind := fault.Unavailable
	switch {
	case code == refused:
		kind = fault.Denied
	case status >= 400 && status < 500 && status != http.StatusTooManyRequests && status != http.StatusRequestTimeout:
		kind = fault.Invalid
	}
	if code == "" {
		return fault.New(kind, "answered %d without an error code", status)
	}
	return fault.New(kind, "answered %d, %s", status, code)
}

// word returns an error code if it looks like one.
func word(code string) string {
	if len(code) > 64 || strings.Trim(code, "abcdefghijklmnopqrstuvwxyz_") != "" {
		return ""
	}
	return code
}

// CheckURL checks an option that must be the address of a server. The query stays
// out of the error.
func CheckURL(option, text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || u.User != nil || u.Fragment != "" {
		return component.OptionErrorf(option, "is not a URL with http or https, without a user and a fragment")
	}
	return nil
}

// Scopes splits a list of scopes. Spaces and commas separate them, since Dapr's
// documentation has the one and its examples the other.
func Scopes(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ' ' || r == ',' || r == '\t' || r == '\n' })
}
